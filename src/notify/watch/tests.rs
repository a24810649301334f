use super::*;
use crate::notify::event::samples::{hot, lost, ok, standing};

/// A watch, its clock in milliseconds, and what was sent.
struct Scene {
    watch: Watch,
    now: u64,
    sent: Vec<(u64, Event)>,
}

impl Scene {
    fn new(after_s: u64) -> Self {
        let watch = Watch::new(&Arc::from("w"), Duration::from_secs(after_s));
        Self { watch, now: 0, sent: Vec::new() }
    }

    /// One whose first message was that all is ok.
    fn started(after_s: u64) -> Self {
        let mut scene = Self::new(after_s);
        scene.stay(&ok(), after_s);
        assert_eq!(scene.words(), [format!("{after_s} started ok")]);
        scene.sent.clear();
        scene
    }

    fn see(&mut self, state: &Standing) {
        let event = self.watch.see(Duration::from_millis(self.now), 1e9 + self.now as f64 / 1000.0, state.clone());
        self.sent.extend(event.map(|event| (self.now, event)));
    }

    /// This state for `seconds`, looked at each second.
    fn stay(&mut self, state: &Standing, seconds: u64) {
        self.look(state, seconds, 1);
    }

    fn look(&mut self, state: &Standing, seconds: u64, step: u64) {
        self.see(state);
        for _ in 0..seconds / step {
            self.now += step * 1000;
            self.see(state);
        }
    }

    /// Each of these states for `each` seconds, again and again, for `seconds` in all.
    fn alternate(&mut self, states: &[Standing], each: u64, seconds: u64) {
        let end = self.now + seconds * 1000;
        for state in states.iter().cycle() {
            if self.now >= end {
                break;
            }
            self.look(state, each, if each.is_multiple_of(5) { 5 } else { each });
        }
    }

    /// Second, event, verdict, and the changes of flapping.
    fn words(&self) -> Vec<String> {
        let word = |(at, event): &(u64, Event)| {
            let flapping = event.flapping.map_or_else(String::new, |f| format!(" flapping {}", f.changes));
            let reminder = if event.reminder { " again" } else { "" };
            let lasted = event.lasted.map_or_else(String::new, |time| format!(" after {}", time.as_secs()));
            let verdict = event.verdict().unwrap();
            format!("{} {} {verdict}{flapping}{reminder}{lasted}", at / 1000, event.kind.name())
        };
        self.sent.iter().map(word).collect()
    }
}

#[test]
fn a_change_that_lasts_is_sent_once_and_so_is_the_recovery() {
    let mut scene = Scene::started(60);
    scene.stay(&lost(), 3600);
    scene.stay(&ok(), 3600);
    assert_eq!(scene.words(), ["120 verdict unhealthy", "3720 verdict ok after 3600"]);
    // Since it is so, and not since it was sent.
    assert!((scene.sent[0].1.since - (1e9 + 60.0)).abs() < 1.0, "{:?}", scene.sent[0]);
}

#[test]
fn a_change_that_does_not_last_is_not_sent() {
    let mut scene = Scene::started(60);
    scene.stay(&lost(), 59);
    scene.stay(&ok(), 3600);
    assert_eq!(scene.words(), Vec::<String>::new());
    // It does not count for the next one.
    scene.stay(&lost(), 59);
    scene.stay(&ok(), 60);
    scene.stay(&lost(), 59);
    scene.stay(&ok(), 60);
    assert_eq!(scene.words(), Vec::<String>::new());
}

#[test]
fn without_a_hold_it_is_sent_immediately() {
    let mut scene = Scene::started(0);
    scene.stay(&lost(), 10);
    scene.stay(&ok(), 10);
    assert_eq!(scene.words(), ["0 verdict unhealthy", "10 verdict ok after 10"]);
}

#[test]
fn other_reasons_are_a_change_and_other_numbers_are_not() {
    let mut scene = Scene::started(60);
    scene.stay(&hot(), 61);
    let mut hotter = hot();
    hotter.reasons[0].message = "GPU 0: 99 °C".into();
    scene.stay(&hotter, 600);
    let also = standing(&[(Code::TempHigh, Verdict::Degraded), (Code::XidWarn, Verdict::Degraded)]);
    scene.stay(&also, 61);
    assert_eq!(scene.words(), ["120 verdict degraded", "781 verdict degraded"]);
    // What is sent has the numbers of that moment.
    let mut scene = Scene::started(60);
    scene.stay(&hot(), 30);
    scene.stay(&hotter, 60);
    assert_eq!(scene.sent[0].1.standing, Some(hotter));
}

#[test]
fn a_state_that_alternates_is_sent_within_two_minutes_with_its_worst() {
    let mut scene = Scene::started(60);
    scene.alternate(&[lost(), ok()], 10, 3600 * 24);
    let words = scene.words();
    assert_eq!(words[0], "180 verdict unhealthy flapping 12");
    assert_eq!(words[1], "780 verdict unhealthy flapping 72 again");
    // 10, 20, 40, 80, 160 and 320 minutes, then each six hours.
    assert_eq!(words.len(), 9, "{words:#?}");
    scene.sent.clear();
    scene.stay(&ok(), 3600);
    let words = scene.words();
    assert_eq!(words.len(), 1, "{words:#?}");
    assert!(words[0].contains("verdict ok after 863"), "{words:?}");
    scene.stay(&lost(), 61);
    assert_eq!(scene.words().len(), 2, "it is an ordinary worker again");
}

#[test]
fn what_flaps_does_not_hide_what_lasts() {
    let flaps = [(Code::OllamaDown, Verdict::Unhealthy)];
    let both = [(Code::GpuLost, Verdict::Unhealthy), flaps[0]];
    // GPU_LOST comes two hours after the start of the flapping.
    let mut scene = Scene::started(60);
    scene.alternate(&[standing(&flaps), ok()], 10, 7200);
    scene.sent.clear();
    scene.alternate(&[standing(&both), lost()], 10, 1800);
    let lost_in = |event: &Event| {
        event.standing.iter().flat_map(|standing| &standing.reasons).any(|reason| reason.code == Code::GpuLost)
    };
    assert_eq!(scene.sent.len(), 1, "{:?}", scene.words());
    assert!(scene.sent[0].0 <= 7_380_000 && lost_in(&scene.sent[0].1), "{:?}", scene.words());
    // It comes while it is not yet clear that the state flaps.
    let mut scene = Scene::started(60);
    scene.alternate(&[standing(&flaps), ok()], 10, 60);
    scene.alternate(&[standing(&both), lost()], 10, 120);
    assert!(lost_in(&scene.sent[0].1), "{:?}", scene.words());
}

#[test]
fn a_state_that_only_grows_does_not_flap() {
    let mut scene = Scene::started(60);
    let grown = [Code::XidFatal, Code::GpuLost, Code::GpuCountLow, Code::ModelOnCpu, Code::ModelNotLoaded];
    for most in 1..=grown.len() {
        let codes: Vec<_> = grown[..most].iter().map(|code| (*code, Verdict::Unhealthy)).collect();
        scene.stay(&standing(&codes), 50);
    }
    assert_eq!(scene.words(), ["180 verdict unhealthy"]);
    scene.stay(scene.watch.current.clone().map(|seen| seen.standing).as_ref().unwrap(), 60);
    assert_eq!(scene.words(), ["180 verdict unhealthy", "320 verdict unhealthy"]);
}

/// As fast as snapshots can come: 10,000 changes in a minute, and the hour that follows.
#[test]
fn ten_thousand_changes_in_a_minute_are_a_few_messages() {
    // With the usual hold a minute is nothing yet.
    for (after, expect) in [(60, 0), (10, 2), (0, 8)] {
        let mut scene = Scene::started(after);
        for change in 0..10_000 {
            scene.now += 6;
            scene.see(&if change % 2 == 0 { lost() } else { ok() });
        }
        scene.stay(&ok(), 3600);
        let words = scene.words();
        assert_eq!(words.len(), expect, "NOTIFY_AFTER={after}s: {words:#?}");
        if let [.., flapping, last] = &words[..] {
            assert!(flapping.contains("unhealthy flapping") && last.contains("verdict ok"), "{words:#?}");
        }
    }
}

/// Each state lasts longer than the hold, and no operator reads a message each minute.
#[test]
fn slow_flapping_is_bounded_too() {
    for each in [61, 120, 660, 1700] {
        let mut scene = Scene::started(60);
        scene.alternate(&[hot(), ok()], each, 3600 * 8);
        assert!((5..20).contains(&scene.sent.len()), "each {each} s: {:#?}", scene.words());
    }
}

#[test]
fn changes_of_hours_ago_do_not_count_as_flapping_and_each_trouble_has_its_own_time() {
    let mut scene = Scene::started(60);
    for hours in [1, 2, 3, 4, 5, 6] {
        scene.look(&lost(), hours * 3600, 60);
        scene.look(&ok(), 7200, 60);
    }
    let words: Vec<String> = scene.words().iter().map(|word| word[word.find(' ').unwrap()..].to_owned()).collect();
    let expect = (1..=6).flat_map(|hours| [" verdict unhealthy".into(), format!(" verdict ok after {}", hours * 3600)]);
    assert_eq!(words, expect.collect::<Vec<String>>());
}

#[test]
fn changes_that_were_sent_one_by_one_are_part_of_the_flapping() {
    let mut scene = Scene::started(60);
    scene.alternate(&[hot(), ok()], 120, 3000);
    let (at, first) = scene.sent.iter().find_map(|(at, event)| Some((*at, event.flapping?))).unwrap();
    assert_eq!(first.during.as_secs(), (at - scene.sent[0].0) / 1000, "{:?}", scene.words());
}

#[test]
fn what_is_worse_than_the_flapping_is_sent_without_a_reminder() {
    let mut scene = Scene::started(60);
    scene.alternate(&[hot(), ok()], 10, 300);
    assert_eq!(scene.words(), ["180 verdict degraded flapping 12"]);
    scene.alternate(&[lost(), ok()], 10, 40);
    assert_eq!(scene.words().len(), 1, "not before NOTIFY_AFTER: {:?}", scene.words());
    scene.alternate(&[lost(), ok()], 10, 60);
    assert_eq!(scene.words().len(), 2);
    assert!(scene.words()[1].contains("verdict unhealthy flapping"), "{:?}", scene.words());
    // Only once.
    scene.alternate(&[lost(), hot()], 10, 300);
    assert_eq!(scene.words().len(), 2, "{:?}", scene.words());
}

#[test]
fn the_first_message_waits_for_a_state_that_says_something() {
    let none = standing(&[(Code::NoSample, Verdict::Unknown)]);
    for after in [0, 60] {
        let mut scene = Scene::new(after);
        scene.stay(&none, 30);
        scene.stay(&lost(), 61);
        assert_eq!(scene.words(), [format!("{} started unhealthy", 30 + after)]);
        // A driver that never answers is reported.
        let mut scene = Scene::new(after);
        scene.stay(&none, 3600);
        assert_eq!(scene.words(), ["60 started unknown"]);
    }
    let mut scene = Scene::new(60);
    scene.alternate(&[lost(), ok()], 10, 200);
    assert_eq!(scene.words(), ["120 started unhealthy flapping 12"]);
}

/// The thread sleeps until then.
#[test]
fn it_says_when_something_is_due() {
    let mut scene = Scene::started(60);
    let wait = |scene: &Scene| scene.watch.wait(Duration::from_millis(scene.now)).map(|wait| wait.as_secs());
    assert_eq!(wait(&scene), None);
    scene.stay(&lost(), 10);
    assert_eq!(wait(&scene), Some(50));
    scene.alternate(&[ok(), lost()], 10, 100);
    assert_eq!(wait(&scene), Some(10), "two minutes since it began");
    scene.stay(&ok(), 10);
    assert_eq!(scene.words().len(), 1);
    assert_eq!(wait(&scene), Some(50), "it may be calm then");
}

/// Clocks are set while a worker runs.
#[test]
fn a_clock_that_steps_changes_no_hold() {
    let mut scene = Scene::started(60);
    scene.stay(&lost(), 30);
    let event = scene.watch.see(Duration::from_millis(scene.now + 1000), 0.0, lost());
    assert_eq!(event, None);
    scene.now += 2000;
    scene.stay(&lost(), 40);
    assert_eq!(scene.words(), ["120 verdict unhealthy"]);
}
