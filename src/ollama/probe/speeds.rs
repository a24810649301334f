//! The usual speed of a model: its last five speeds and the best median of five, and whether it is slow now. The text of
//! STATE_DIR/speeds.json: a JSON list with one entry a line, so that a damaged line costs its entry only.

use serde::{Deserialize, Serialize};

use crate::sys::order;
use crate::sys::text::start;

/// Speeds of one median. One probe is never a verdict.
const FIVE: usize = 5;
/// The keys that have not been used for longest are dropped.
const MAX_KEYS: usize = 64;
/// A digest has 64 characters, sixteen GPUs with their driver some 700.
const MAX_DIGEST: usize = 128;
const MAX_IDENTITY: usize = 1024;
/// Tokens per second that no GPU reaches: a clock or a server that is wrong.
const MAX_SPEED: f64 = 1e6;
/// Slow below this part of the best median, until it is back at the other.
const SLOW: f64 = 0.5;
const RECOVERED: f64 = 0.6;
/// Bytes of the file: all keys at their largest, with characters of four bytes.
pub(crate) const MAX_FILE: u64 = 512 * 1024;

/// What a usual speed belongs to: another model, context, GPU, driver or version of Ollama has another speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SpeedKey {
    digest: String,
    /// In tokens; None: unknown.
    context_length: Option<u64>,
    /// `GpuWatch::identity`.
    identity: String,
}

impl SpeedKey {
    pub(crate) fn new(digest: &str, context_length: Option<u64>, identity: &str) -> Self {
        Self { digest: start(digest, MAX_DIGEST), context_length, identity: start(identity, MAX_IDENTITY) }
    }

    /// Without a digest it could be any model, and without an identity it could run on any machine.
    fn is_known(&self) -> bool {
        !self.digest.is_empty() && !self.identity.is_empty()
    }
}

/// What the speeds of a model say, in tokens per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Judgement {
    /// The best median of five; None before five speeds.
    pub(crate) usual: Option<f64>,
    /// The median of the last five and the best one: set from the moment the first is below half of the second, until it
    /// is at 60 % of it.
    pub(crate) slow: Option<(f64, f64)>,
}

/// All known speeds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Speeds {
    /// The last used one is the last.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    key: SpeedKey,
    /// Oldest first, at most five.
    last: Vec<f64>,
    /// The best median of five.
    best: Option<f64>,
    #[serde(default)]
    slow: bool,
    /// Unix seconds of the last speed, for operators.
    #[serde(default)]
    at: f64,
}

impl Entry {
    fn add(&mut self, speed: f64) {
        if self.last.len() >= FIVE {
            self.last.remove(0);
        }
        self.last.push(speed);
        self.judge();
    }

    /// None before five speeds.
    fn median(&self) -> Option<f64> {
        let mut sorted = self.last.clone();
        order::sort_by(&mut sorted, f64::total_cmp);
        (sorted.len() == FIVE).then(|| sorted[FIVE / 2])
    }

    fn judge(&mut self) {
        let Some(median) = self.median() else {
            self.slow = false;
            return;
        };
        let best = self.best.map_or(median, |best| best.max(median));
        self.best = Some(best);
        self.slow = median < best * if self.slow { RECOVERED } else { SLOW };
    }

    fn is_sound(&self) -> bool {
        let SpeedKey { digest, identity, .. } = &self.key;
        self.key.is_known()
            && digest.chars().count() <= MAX_DIGEST
            && identity.chars().count() <= MAX_IDENTITY
            && self.last.len() <= FIVE
            && self.last.iter().chain(&self.best).all(|speed| is_speed(*speed))
    }
}

/// Whether a model can have it, in tokens per second.
fn is_speed(speed: f64) -> bool {
    speed > 0.0 && speed < MAX_SPEED
}

impl Speeds {
    /// Adds a speed in tokens per second, measured at `now` in Unix seconds. False: it cannot be one, or its key is
    /// unknown.
    pub(crate) fn add(&mut self, key: &SpeedKey, speed: f64, now: f64) -> bool {
        let counts = is_speed(speed) && key.is_known();
        if counts {
            let entry = self.take(key);
            let new = || Entry { key: key.clone(), last: Vec::new(), best: None, slow: false, at: now };
            let mut entry = entry.unwrap_or_else(new);
            entry.add(speed);
            entry.at = now;
            self.put(entry);
        }
        counts
    }

    /// What the speeds of this key say.
    pub(crate) fn judgement(&self, key: &SpeedKey) -> Judgement {
        let Some(entry) = self.entries.iter().find(|entry| entry.key == *key) else { return Judgement::default() };
        Judgement { usual: entry.best, slow: entry.median().zip(entry.best).filter(|_| entry.slow) }
    }

    fn take(&mut self, key: &SpeedKey) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.key == *key)?;
        Some(self.entries.remove(index))
    }

    /// As the last used one.
    fn put(&mut self, entry: Entry) {
        if self.entries.len() >= MAX_KEYS {
            self.entries.remove(0);
        }
        self.entries.push(entry);
    }

    /// Puts what an earlier worker knew before what this one has measured.
    pub(crate) fn continue_from(&mut self, mut earlier: Self) {
        for entry in std::mem::take(&mut self.entries) {
            match earlier.take(&entry.key) {
                Some(mut one) => {
                    one.best = one.best.into_iter().chain(entry.best).reduce(f64::max);
                    entry.last.iter().for_each(|speed| one.add(*speed));
                    one.at = entry.at;
                    earlier.put(one);
                }
                None => earlier.put(entry),
            }
        }
        *self = earlier;
    }

    /// The text of the file.
    pub(crate) fn to_text(&self) -> String {
        let lines: Vec<String> = self.entries.iter().filter_map(|entry| serde_json::to_string(entry).ok()).collect();
        format!("[\n{}\n]\n", lines.join(",\n"))
    }

    /// What can be read of the text, and the number of lines that cannot. Of two entries of one key the later one counts.
    pub(crate) fn from_text(text: &[u8]) -> (Self, usize) {
        let mut speeds = Self::default();
        let mut damaged = 0;
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            let line = line.strip_suffix(b",").unwrap_or(line);
            if matches!(line, b"" | b"[" | b"]" | b"[]") {
                continue;
            }
            match serde_json::from_slice::<Entry>(line).ok().filter(Entry::is_sound) {
                Some(mut entry) => {
                    entry.judge();
                    speeds.take(&entry.key);
                    speeds.put(entry);
                }
                None => damaged += 1,
            }
        }
        (speeds, damaged)
    }
}

#[cfg(test)]
mod tests;
