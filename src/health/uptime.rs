//! How long the GPUs were up: the minutes of the last 30 days, and three windows over them.
//! Time is an argument: the wall clock names the minutes, the boot clock measures durations.

use std::time::Duration;

use crate::sys::order;
use crc::{CRC_16_IBM_3740, Crc};

/// Minutes that are kept; a minute's number gives its place in the ring.
pub(crate) const MINUTES: u32 = 30 * 24 * 60;
/// Bytes of one minute on disk.
pub(crate) const RECORD: usize = 8;

/// Its start value is not 0, so that an empty place is not a valid record.
const CHECK: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_3740);

/// The windows: public name and minutes.
pub(crate) const WINDOWS: [(&str, u32); 3] = [("1h", 60), ("24h", 24 * 60), ("30d", MINUTES)];

/// A longer gap between two observations was not observed: the process was stopped, or the machine slept.
const LONGEST_GAP: Duration = Duration::from_secs(5);
/// A larger difference between the clocks is a step of the wall clock, not drift.
const STEP_S: f64 = 30.0;
/// After this long without a step, minutes in the future come from a clock that was wrong.
const CLOCK_TRUSTED: Duration = Duration::from_secs(15 * 60);

/// The state of the GPUs at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Up,
    Down,
    /// Unknown: neither up nor down.
    Nothing,
}

/// One minute of the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Minute {
    /// Minutes since 1970; 0: no record.
    pub(crate) at: u32,
    /// Seconds.
    pub(crate) up: u8,
    pub(crate) down: u8,
    /// This run has written it.
    own: bool,
}

impl Minute {
    fn observed(self) -> u32 {
        u32::from(self.up) + u32::from(self.down)
    }
}

/// The sums of one window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Window {
    /// Seconds since the first minute on record, at most the window's length.
    pub(crate) span: u32,
    pub(crate) up: u32,
    pub(crate) down: u32,
}

impl Window {
    /// Percent of the span in which the GPUs were up; time without a running worker is not up. Rounded down.
    pub(crate) fn percent(self) -> Option<f64> {
        percent(self.up, self.span)
    }

    /// Less than `threshold` percent, with enough time recorded.
    pub(crate) fn is_low(self, threshold: f64) -> bool {
        self.span >= COMPARED_FROM && self.percent().is_some_and(|percent| percent < threshold)
    }

    /// Percent of the observed time in which the GPUs were up.
    pub(crate) fn availability(self) -> Option<f64> {
        percent(self.up, self.up + self.down)
    }

    /// Percent of the span that was observed.
    pub(crate) fn coverage(self) -> Option<f64> {
        percent(self.up + self.down, self.span)
    }
}

/// A window with fewer seconds is not compared with its threshold.
const COMPARED_FROM: u32 = 600;

/// With two decimals, rounded down: only the whole is 100.
fn percent(part: u32, whole: u32) -> Option<f64> {
    (whole > 0).then(|| (f64::from(part) / f64::from(whole) * 10_000.0).floor() / 100.0)
}

/// The three windows, in the order of [`WINDOWS`].
pub(crate) type Windows = [Window; 3];

/// The last 30 days.
#[derive(Debug)]
pub(crate) struct Uptime {
    ring: Vec<Minute>,
    /// Places that are not on disk yet.
    dirty: Vec<u32>,
    /// The current minute, and its seconds before they are rounded.
    running: Minute,
    up: f64,
    down: f64,
    clocks: Option<Clocks>,
}

#[derive(Debug, Clone, Copy)]
struct Clocks {
    boot: Duration,
    /// Wall clock minus boot clock, in seconds.
    offset: f64,
    /// Boot clock of the start or of the last step.
    steady_since: Duration,
    /// Minutes in the future were dropped since then.
    tidied: bool,
}

impl Uptime {
    pub(crate) fn new() -> Self {
        Self {
            ring: vec![Minute::default(); MINUTES as usize],
            dirty: Vec::new(),
            running: Minute::default(),
            up: 0.0,
            down: 0.0,
            clocks: None,
        }
    }

    /// Loads the records of an earlier run; those of this run stay. Returns the number of damaged records, which are skipped.
    pub(crate) fn load(&mut self, bytes: &[u8]) -> usize {
        let mut damaged = 0;
        for (place, record) in self.ring.iter_mut().zip(bytes.chunks_exact(RECORD)).enumerate() {
            let (minute, record) = record;
            match decode(record) {
                _ if minute.own => {}
                Some(read) if read.at as usize % MINUTES as usize == place => *minute = read,
                _ if record.iter().all(|b| *b == 0) => {}
                _ => damaged += 1,
            }
        }
        damaged
    }

    /// Records the state since the last call. `boot`: the clock that also runs while the machine sleeps. `wall`: Unix
    /// seconds. True when a minute is over.
    pub(crate) fn observe(&mut self, seen: Seen, boot: Duration, wall: f64) -> bool {
        let offset = wall - boot.as_secs_f64();
        let Some(clocks) = &mut self.clocks else {
            self.clocks = Some(Clocks { boot, offset, steady_since: boot, tidied: false });
            return false;
        };
        let passed = boot.saturating_sub(clocks.boot);
        let step = offset - clocks.offset;
        clocks.boot = boot;
        if step.abs() > STEP_S {
            *clocks = Clocks { boot, offset, steady_since: boot, tidied: false };
            self.shift(step);
        }
        let minute = minute_of(wall);
        let over = minute != self.running.at;
        if over {
            self.close(minute);
        }
        if passed <= LONGEST_GAP {
            match seen {
                Seen::Up => self.up += passed.as_secs_f64(),
                Seen::Down => self.down += passed.as_secs_f64(),
                Seen::Nothing => {}
            }
        }
        self.keep();
        over
    }

    /// Starts another minute; its existing record continues.
    fn close(&mut self, minute: u32) {
        self.keep();
        let known = self.ring[place(minute)];
        let known = if known.at == minute { known } else { Minute::default() };
        self.running = Minute { at: minute, own: true, ..Minute::default() };
        (self.up, self.down) = (f64::from(known.up), f64::from(known.down));
        let trusted = |c: &&mut Clocks| c.boot.saturating_sub(c.steady_since) >= CLOCK_TRUSTED;
        if self.clocks.as_mut().filter(trusted).is_some_and(|clocks| !std::mem::replace(&mut clocks.tidied, true)) {
            for index in (0..MINUTES).filter(|index| self.ring[*index as usize].at > minute).collect::<Vec<_>>() {
                self.put(index, Minute::default());
            }
        }
    }

    /// Puts the current minute into the ring, rounded, at most 60 seconds.
    fn keep(&mut self) {
        if self.running.at == 0 {
            return;
        }
        let down = seconds(self.down.min(60.0));
        let up = seconds(self.up.min(60.0)).min(60 - down);
        let minute = Minute { up, down, ..self.running };
        if minute.observed() > 0 {
            self.put(self.running.at % MINUTES, minute);
        }
    }

    fn put(&mut self, index: u32, minute: Minute) {
        if self.ring[index as usize] != minute {
            self.ring[index as usize] = minute;
            if self.dirty.last() != Some(&index) {
                self.dirty.push(index);
            }
        }
    }

    /// The wall clock stepped: this run's records move to the new time.
    fn shift(&mut self, step: f64) {
        self.keep();
        let own: Vec<Minute> = self.ring.iter().copied().filter(|m| m.own).collect();
        for minute in &own {
            self.put(minute.at % MINUTES, Minute::default());
        }
        for minute in own {
            let at = f64::from(minute.at) + (step / 60.0).round();
            if let Some(at) = whole(at).filter(|at| *at > 0) {
                self.put(at % MINUTES, Minute { at, ..minute });
            }
        }
        self.running = Minute::default();
        (self.up, self.down) = (0.0, 0.0);
    }

    /// Marks all records as changed.
    pub(crate) fn change_all(&mut self) {
        self.dirty = (0..MINUTES).filter(|index| self.ring[*index as usize].at > 0).collect();
    }

    /// The records that changed since the last call: place in the ring and bytes.
    pub(crate) fn take_changes(&mut self) -> Vec<(u32, [u8; RECORD])> {
        let mut places = std::mem::take(&mut self.dirty);
        order::sort(&mut places);
        places.dedup();
        places.into_iter().map(|index| (index, encode(self.ring[index as usize]))).collect()
    }

    /// The windows that end at `wall` (Unix seconds).
    pub(crate) fn windows(&self, wall: f64) -> Windows {
        let now = minute_of(wall);
        let Some(first) = self.minutes(now, MINUTES).map(|m| m.at).min() else { return Windows::default() };
        let mut windows = Windows::default();
        for minute in self.minutes(now, MINUTES) {
            for (window, (_, length)) in windows.iter_mut().zip(WINDOWS) {
                if now - minute.at < length {
                    window.up += u32::from(minute.up);
                    window.down += u32::from(minute.down);
                    if minute.at == first {
                        // Time before the first recorded second does not count.
                        window.span = minute.observed();
                    }
                }
            }
        }
        let running = seconds(wall.rem_euclid(60.0));
        for (window, (_, length)) in windows.iter_mut().zip(WINDOWS) {
            let start = (first + 1).max((now + 1).saturating_sub(length));
            if start <= now {
                window.span += (now - start) * 60 + u32::from(running);
            }
            // Rounding of seconds never makes more time than there was.
            window.span = window.span.max(window.up + window.down);
        }
        windows
    }

    /// The recorded minutes of the `length` minutes that end with `now`, in order of time.
    pub(crate) fn history(&self, now: f64, length: u32) -> Vec<Minute> {
        let mut all: Vec<Minute> = self.minutes(minute_of(now), length).copied().collect();
        all.sort_by_key(|m| m.at);
        all
    }

    fn minutes(&self, now: u32, length: u32) -> impl Iterator<Item = &Minute> {
        self.ring.iter().filter(move |m| m.at > 0 && m.at <= now && now - m.at < length)
    }
}

fn place(minute: u32) -> usize {
    (minute % MINUTES) as usize
}

/// The minute of a moment; 0 before 1970.
fn minute_of(wall: f64) -> u32 {
    whole((wall / 60.0).floor()).unwrap_or(0)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the range is checked
fn whole(value: f64) -> Option<u32> {
    (0.0..f64::from(u32::MAX)).contains(&value).then_some(value as u32)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 60
fn seconds(value: f64) -> u8 {
    value.round().clamp(0.0, 60.0) as u8
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    CHECK.checksum(bytes).to_le_bytes()
}

/// Minute (4 bytes, little endian), seconds up, seconds down, checksum (2 bytes); zeros for no record.
fn encode(minute: Minute) -> [u8; RECORD] {
    if minute.at == 0 {
        return [0; RECORD];
    }
    let [a, b, c, d] = minute.at.to_le_bytes();
    let head = [a, b, c, d, minute.up, minute.down];
    let [e, f] = checksum(&head);
    [a, b, c, d, minute.up, minute.down, e, f]
}

fn decode(record: &[u8]) -> Option<Minute> {
    let [a, b, c, d, up, down, e, f] = *record else { return None };
    let at = u32::from_le_bytes([a, b, c, d]);
    let valid = checksum(&record[..6]) == [e, f] && at > 0 && u32::from(up) + u32::from(down) <= 60;
    valid.then_some(Minute { at, up, down, own: false })
}

#[cfg(test)]
mod tests;
