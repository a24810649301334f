//! Minutes in rows: what is up, what is a gap, what a clock does to them.

use super::Seen::*;
use super::*;

/// A day after the epoch's 20,000th, at a full minute.
const START: f64 = 1_728_000_000.0;

/// A run of the worker that looks once a second.
struct Run {
    uptime: Uptime,
    boot: f64,
    wall: f64,
}

impl Run {
    fn new(uptime: Uptime, wall: f64) -> Self {
        let mut run = Self { uptime, boot: 1000.0, wall };
        run.step(Nothing, 0.0);
        run
    }

    fn step(&mut self, seen: Seen, seconds: f64) {
        self.boot += seconds;
        self.wall += seconds;
        self.uptime.observe(seen, Duration::from_secs_f64(self.boot), self.wall);
    }

    fn see(&mut self, seen: Seen, seconds: u32) {
        for _ in 0..seconds {
            self.step(seen, 1.0);
        }
    }

    /// Percent, availability and coverage of the window of 1 h.
    fn hour(&self) -> (f64, f64, f64) {
        let [hour, ..] = self.uptime.windows(self.wall);
        let known = |value: Option<f64>| value.unwrap_or(-1.0);
        (known(hour.percent()), known(hour.availability()), known(hour.coverage()))
    }

    /// The file after this run, as the next one finds it.
    fn file(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(MINUTES as usize * RECORD, 0);
        for (place, record) in self.uptime.take_changes() {
            bytes[place as usize * RECORD..][..RECORD].copy_from_slice(&record);
        }
        bytes
    }
}

fn loaded(bytes: &[u8]) -> (Uptime, usize) {
    let mut uptime = Uptime::new();
    let damaged = uptime.load(bytes);
    (uptime, damaged)
}

#[test]
fn nothing_seen_is_neither_up_nor_down() {
    let mut run = Run::new(Uptime::new(), START + 50.0);
    assert_eq!(run.hour(), (-1.0, -1.0, -1.0));
    run.see(Nothing, 100);
    assert_eq!(run.hour(), (-1.0, -1.0, -1.0));
    run.see(Up, 10);
    assert_eq!(run.hour(), (100.0, 100.0, 100.0));
    run.see(Nothing, 30);
    let (percent, availability, coverage) = run.hour();
    assert!(percent < 100.0 && availability == 100.0 && coverage == percent, "{:?}", run.hour());
}

#[test]
fn a_fresh_start_within_a_minute_leaves_no_gap() {
    for offset in 0..60 {
        let mut run = Run::new(Uptime::new(), START + f64::from(offset));
        for _ in 0..200 {
            run.see(Up, 1);
            assert_eq!(run.hour(), (100.0, 100.0, 100.0), "started at {offset}");
        }
    }
}

#[test]
fn down_counts_and_leaves_the_window_after_its_hour() {
    let mut run = Run::new(Uptime::new(), START);
    run.see(Up, 1800);
    run.see(Down, 600);
    run.see(Up, 1200);
    let (percent, availability, coverage) = run.hour();
    assert!((83.0..=83.5).contains(&percent), "{percent}");
    assert!((83.0..=83.5).contains(&availability) && coverage == 100.0);
    run.see(Up, 2400);
    assert_eq!(run.hour(), (100.0, 100.0, 100.0));
    let day = run.uptime.windows(run.wall)[1];
    assert_eq!((day.down, day.up + day.down), (600, 6000));
}

#[test]
fn time_when_nothing_ran_is_not_up() {
    let mut first = Run::new(Uptime::new(), START);
    first.see(Up, 600);
    let bytes = first.file(Vec::new());
    let mut second = Run::new(loaded(&bytes).0, START + 1800.0);
    second.see(Up, 600);
    let (percent, availability, coverage) = second.hour();
    assert!((49.0..=51.0).contains(&percent) && (49.0..=51.0).contains(&coverage), "{:?}", second.hour());
    assert_eq!(availability, 100.0);
    let history = second.uptime.history(second.wall, 60);
    assert_eq!(history.iter().map(|m| u32::from(m.up)).sum::<u32>(), 1200);
    assert!(history.is_sorted_by_key(|m| m.at));
}

#[test]
fn a_restart_within_a_minute_goes_on_with_it() {
    let mut first = Run::new(Uptime::new(), START);
    first.see(Up, 20);
    let bytes = first.file(Vec::new());
    let mut second = Run::new(loaded(&bytes).0, START + 25.0);
    second.see(Up, 30);
    let minute = second.uptime.history(second.wall, 60)[0];
    assert_eq!((minute.up, minute.down), (50, 0));
}

#[test]
fn records_that_come_late_replace_none_of_this_run() {
    let mut before = Run::new(Uptime::new(), START);
    before.see(Down, 30);
    let bytes = before.file(Vec::new());
    let mut run = Run::new(Uptime::new(), START);
    run.see(Up, 50);
    assert_eq!(run.uptime.load(&bytes), 0);
    let minute = run.uptime.history(run.wall, 1)[0];
    assert_eq!((minute.up, minute.down), (50, 0));
}

#[test]
fn a_minute_has_no_more_than_its_seconds_whatever_the_clocks_say() {
    let mut run = Run::new(Uptime::new(), START);
    // The wall clock is corrected meanwhile.
    for seen in [Up, Down] {
        for _ in 0..40 {
            run.wall -= 0.3;
            run.step(seen, 1.0);
        }
    }
    let minute = run.uptime.history(run.wall, 1)[0];
    assert_eq!((minute.up, minute.down), (20, 40));
    assert_eq!(loaded(&run.file(Vec::new())).1, 0, "the next run can read it");
}

#[test]
fn a_machine_that_slept_was_not_up() {
    let mut run = Run::new(Uptime::new(), START);
    run.see(Up, 600);
    // It wakes within a minute, which is not whole.
    run.step(Up, 1230.0);
    run.see(Up, 570);
    let (percent, availability, _) = run.hour();
    assert!((48.5..=49.0).contains(&percent), "{percent}");
    assert_eq!(availability, 100.0);
}

#[test]
fn a_step_of_the_clock_takes_this_runs_minutes_along() {
    for step in [86_400.0, -86_400.0, 3600.0, -3600.0, 120.0, -120.0, 1_000_000_000.0, -1_000_000_000.0] {
        let mut run = Run::new(Uptime::new(), START);
        run.see(Up, 1200);
        run.wall += step;
        run.see(Up, 1200);
        let (percent, availability, coverage) = run.hour();
        // The minutes of the step itself may be cut.
        assert!(percent >= 94.0 && availability == 100.0 && coverage >= 94.0, "{step}: {:?}", run.hour());
        run.wall -= step;
        run.see(Up, 1200);
        assert!(run.hour().0 >= 90.0, "{step} and back: {:?}", run.hour());
    }
}

#[test]
fn history_of_earlier_runs_outlives_a_clock_that_starts_wrong() {
    let mut first = Run::new(Uptime::new(), START);
    first.see(Up, 3600);
    let bytes = first.file(Vec::new());
    // No battery: the next start believes to be in 1970, until the time comes over the network.
    let mut second = Run::new(loaded(&bytes).0, 100.0);
    second.see(Up, 60);
    second.wall = START + 3720.0;
    second.see(Up, 60);
    let day = second.uptime.windows(second.wall)[1];
    assert!(day.up >= 3600 + 60, "{day:?}");
}

#[test]
fn minutes_ahead_of_a_clock_that_is_right_are_forgotten() {
    let mut first = Run::new(Uptime::new(), START + 864_000.0);
    first.see(Up, 600);
    let bytes = first.file(Vec::new());
    let mut second = Run::new(loaded(&bytes).0, START);
    second.see(Up, 1200);
    assert_eq!(second.hour(), (100.0, 100.0, 100.0));
    let (third, _) = loaded(&second.file(bytes));
    assert_eq!(third.history(START + 864_600.0, 60), []);
}

#[test]
fn a_damaged_record_is_left_out_and_the_others_are_kept() {
    let mut run = Run::new(Uptime::new(), START);
    run.see(Up, 600);
    let bytes = run.file(Vec::new());
    assert_eq!(loaded(&bytes).1, 0);
    let written = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect::<Vec<_>>();
    for at in written {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        let (uptime, damaged) = loaded(&broken);
        assert_eq!(damaged, 1, "byte {at}");
        let left: u32 = uptime.history(START + 600.0, 60).iter().map(|m| u32::from(m.up)).sum();
        assert!((540..=600).contains(&left), "{left}");
    }
    // Any length, any content.
    for junk in [vec![], vec![1; 7], vec![0xff; 100_000], vec![0x5a; MINUTES as usize * RECORD + 5]] {
        assert_eq!(loaded(&junk).0.history(START, MINUTES), []);
    }
    // A record in the place of another minute.
    let mut moved = vec![0; RECORD];
    moved.extend_from_slice(&bytes);
    assert_eq!(loaded(&moved).0.history(START + 600.0, 60), []);
}

#[test]
fn thirty_days_fill_the_ring_and_no_more() {
    let mut uptime = Uptime::new();
    let mut boot = 0.0;
    for minute in 0..MINUTES + 100 {
        for _ in 0..12 {
            boot += 5.0;
            uptime.observe(Up, Duration::from_secs_f64(boot), START + boot);
        }
        if minute % 1000 == 0 {
            uptime.take_changes();
        }
    }
    let [hour, day, month] = uptime.windows(START + boot);
    assert_eq!([hour.percent(), day.percent(), month.percent()], [Some(100.0); 3]);
    assert_eq!(month.up, month.span);
    assert_eq!(uptime.history(START + boot, MINUTES).len(), MINUTES as usize);
}

#[test]
fn a_window_is_judged_from_ten_minutes_on() {
    let low = |span: u32, up: u32| Window { span, up, down: span - up }.is_low(99.0);
    assert_eq!([low(599, 0), low(600, 0), low(600, 593), low(600, 594)], [false, true, true, false]);
}
