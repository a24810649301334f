//! STATE_DIR/notified.json: what each receiver was last sent, so that a restart does not repeat it, and when the worker
//! started, so that one that restarts all the time does not send each start.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::{Event, EventKind};
use crate::config::SecretUrl;
use crate::health::verdict::Verdict;
use crate::sys::hash::hash64;
use crate::sys::json::{json, millis};

/// A larger file is not one of ours.
pub(super) const MAX_FILE: u64 = 64 * 1024;
const VERSION: u32 = 1;
/// This many starts within this time, in seconds, and the next one is one too many.
const OFTEN: (usize, f64) = (3, 600.0);

/// What a receiver knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// `Event::state`, in hexadecimal digits.
    state: String,
    pub(super) verdict: Verdict,
    /// Unix seconds of the message.
    pub(super) at: f64,
    /// The message was that the worker stops.
    #[serde(default)]
    pub(super) stopped: bool,
}

impl Known {
    pub(super) fn new(event: &Event, unix: f64) -> Self {
        Self {
            state: digits(event),
            verdict: event.verdict().unwrap_or(Verdict::Unknown),
            at: millis(unix),
            stopped: event.kind == EventKind::Stopping,
        }
    }

    pub(super) fn is_of(&self, event: &Event) -> bool {
        self.state == digits(event)
    }
}

fn digits(event: &Event) -> String {
    format!("{:016x}", event.state())
}

/// The name of a receiver in the file: enough to distinguish eight, too little to find a URL with.
pub(super) fn key(url: &SecretUrl) -> String {
    format!("{:08x}", hash64(&[url.expose()]) >> 32)
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Notified {
    version: u32,
    /// Unix seconds of the last starts.
    #[serde(default)]
    starts: Vec<f64>,
    /// By [`key`].
    #[serde(default)]
    targets: BTreeMap<String, Known>,
}

impl Notified {
    /// None: it is damaged, or of another version.
    pub(super) fn from_text(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().filter(|read: &Self| read.version == VERSION)
    }

    pub(super) fn to_text(&self) -> String {
        json(&Self { version: VERSION, ..self.clone() }) + "\n"
    }

    /// Adds a start at `unix`. True: the worker restarts often.
    pub(super) fn start(&mut self, unix: f64) -> bool {
        self.starts.retain(|start| (0.0..OFTEN.1).contains(&(unix - start)));
        let often = self.starts.len() >= OFTEN.0;
        self.starts.push(millis(unix));
        let more = self.starts.len().saturating_sub(OFTEN.0);
        self.starts.drain(..more);
        often
    }

    pub(super) fn of(&self, key: &str) -> Option<&Known> {
        self.targets.get(key)
    }

    /// Receivers that are not in `keys` are dropped.
    pub(super) fn keep(&mut self, keys: &[String]) {
        self.targets.retain(|key, _| keys.contains(key));
    }

    pub(super) fn put(&mut self, key: &str, known: Known) {
        self.targets.insert(key.to_owned(), known);
    }

    /// Takes over what `newer` has.
    pub(super) fn update(&mut self, newer: Self) {
        for (key, known) in newer.targets {
            self.targets.insert(key, known);
        }
    }

    /// False: it has no `old` key.
    pub(super) fn rename(&mut self, old: &str, new: &str) -> bool {
        let known = self.targets.remove(old);
        let renamed = known.is_some();
        self.targets.extend(known.map(|known| (new.to_owned(), known)));
        renamed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::notify::event::{Flapping, samples};

    #[test]
    fn it_is_read_as_it_was_written_and_damage_is_noticed() {
        let event = Event::new(EventKind::Stopping, &Arc::from("w"), Some(samples::lost()), 1.0);
        let url = SecretUrl::parse("https://hooks/services/secret").unwrap();
        let mut notified = Notified::default();
        notified.start(1000.1);
        notified.put(&key(&url), Known::new(&event, 1000.25));
        let text = notified.to_text();
        assert!(!text.contains("secret") && !text.contains("hooks"), "{text}");
        let read = Notified::from_text(text.as_bytes()).unwrap();
        let known = read.of(&key(&url)).unwrap();
        assert_eq!((known.verdict, known.at, known.stopped), (Verdict::Unhealthy, 1000.25, true));
        assert!(known.is_of(&event));
        let flapping = Some(Flapping { changes: 3, during: std::time::Duration::ZERO });
        assert!(!known.is_of(&Event { flapping, ..event }));
        for damaged in [&text[..text.len() / 2], "", "[]", "{}", &text.replace("\"version\":1", "\"version\":2")] {
            assert_eq!(Notified::from_text(damaged.as_bytes()), None, "{damaged}");
        }
    }

    #[test]
    fn the_fourth_start_within_ten_minutes_is_one_too_many() {
        let mut notified = Notified::default();
        let often: Vec<bool> = [0.0, 10.0, 20.0, 30.0, 615.0, 616.0, 1e9, 1.0].map(|at| notified.start(at)).into();
        assert_eq!(often, [false, false, false, true, false, true, false, false]);
    }

    #[test]
    fn only_receivers_of_this_run_stay() {
        let event = Event::new(EventKind::Verdict, &Arc::from("w"), Some(samples::ok()), 1.0);
        let mut notified = Notified::default();
        ["a", "b"].iter().for_each(|key| notified.put(key, Known::new(&event, 1.0)));
        notified.keep(&["b".into()]);
        assert!(notified.of("a").is_none() && notified.of("b").is_some());
    }
}
