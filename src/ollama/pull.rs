//! Progress of a pull from the lines of `POST /api/pull`. It never goes backwards, although Ollama's does.

mod explain;

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;

pub(crate) use explain::{PullCause, PullError, explain};

/// Layers of one model; further ones are not counted.
const MAX_LAYERS: usize = 1000;
/// Bytes; `sha256:` and 64 digits are 71.
const MAX_DIGEST: usize = 200;
/// The weights come first: before a layer of this size is known, the total is not.
const SUBSTANTIAL: u64 = 1 << 20;
/// The rate is measured over this time.
const WINDOW: Duration = Duration::from_secs(15);
const WINDOW_STEP: Duration = Duration::from_millis(250);
const MIN_WINDOW: Duration = Duration::from_secs(1);
/// The longest estimate that is shown.
const LONGEST_ETA: f64 = 30.0 * 86_400.0;
/// Characters of a status that are shown.
const MAX_TEXT: usize = 300;

/// One line. Every field is optional; `error` decides whatever else there is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    status: String,
    digest: String,
    total: u64,
    completed: u64,
    error: Option<String>,
}

#[derive(Debug)]
struct Layer {
    digest: String,
    total: u64,
    completed: u64,
}

/// A pull under way.
#[derive(Debug, Default)]
pub(crate) struct Pull {
    layers: Vec<Layer>,
    status: String,
    error: Option<PullError>,
    success: bool,
    /// Shown last; never lowered.
    percent: u8,
    completed: u64,
    /// Bytes received during this pull, less those that Ollama discarded.
    fetched: i64,
    /// `fetched` over time, a few times a second.
    window: VecDeque<(Duration, i64)>,
    now: Duration,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Progress {
    /// 100 only once it has succeeded.
    pub(crate) percent: u8,
    /// Bytes of all layers known so far.
    pub(crate) completed: u64,
    pub(crate) total: u64,
    /// None: too early.
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) eta_seconds: Option<u64>,
    /// The layer being fetched, from 1, and its percentage.
    pub(crate) layer: Option<(usize, u8)>,
    /// Ollama's own status; empty while a layer is fetched.
    pub(crate) status: String,
}

impl Pull {
    /// Takes one line; `now` is from any monotonic clock.
    pub(crate) fn line(&mut self, line: &[u8], now: Duration) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let line: Line = match serde_json::from_slice(line) {
            Ok(line) => line,
            Err(why) => {
                self.error.get_or_insert(PullError::other(format!("the answer is not a line of a pull: {why}")));
                return;
            }
        };
        if let Some(error) = line.error {
            // 0.5.13 reports "success" after an error.
            self.error.get_or_insert_with(|| explain(&error));
            return;
        }
        self.success |= line.status == "success";
        self.status = if line.digest.is_empty() { shortened(&line.status) } else { String::new() };
        if !line.digest.is_empty() {
            self.layer(line);
        }
        self.now = now;
        if self.window.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= WINDOW_STEP) {
            self.window.push_back((now, self.fetched));
        }
        while self.window.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW) {
            self.window.pop_front();
        }
        self.completed = self.completed.max(self.sum(|layer| layer.completed));
        self.percent = self.percent.max(self.whole_percent());
    }

    fn layer(&mut self, line: Line) {
        let completed = line.completed.min(line.total);
        let room = self.layers.len() < MAX_LAYERS && line.digest.len() <= MAX_DIGEST;
        match self.layers.iter_mut().find(|layer| layer.digest == line.digest) {
            Some(layer) => {
                let change = i64::try_from(completed).unwrap_or(i64::MAX).saturating_sub_unsigned(layer.completed);
                self.fetched = self.fetched.saturating_add(change);
                (layer.total, layer.completed) = (line.total, completed);
            }
            // What it has at first was fetched before.
            None if room => self.layers.push(Layer { digest: line.digest, total: line.total, completed }),
            None => {}
        }
        // The layer that progress reports comes last.
        if let Some(at) = self.layers.iter().position(|layer| layer.completed < layer.total) {
            let layer = self.layers.remove(at);
            self.layers.push(layer);
        }
    }

    fn sum(&self, of: impl Fn(&Layer) -> u64) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(of(layer)))
    }

    fn whole_percent(&self) -> u8 {
        if self.success {
            return 100;
        }
        let total = self.sum(|layer| layer.total);
        if total < SUBSTANTIAL { 0 } else { percent(self.sum(|layer| layer.completed), total).min(99) }
    }

    pub(crate) fn progress(&self) -> Progress {
        let total = self.sum(|layer| layer.total);
        let completed = self.completed.min(total);
        let rate = self.rate().filter(|_| !self.success);
        let left = (total - completed) as f64;
        let eta =
            rate.filter(|rate| *rate >= 1.0 && left > 0.0).map(|rate| left / rate).filter(|eta| *eta <= LONGEST_ETA);
        let under_way = self.layers.last().filter(|layer| layer.completed < layer.total);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, and a cast saturates
        let whole = |number: f64| number.ceil() as u64;
        Progress {
            percent: self.percent,
            completed,
            total,
            bytes_per_second: rate.map(whole),
            eta_seconds: eta.map(whole),
            layer: under_way.map(|layer| (self.layers.len(), percent(layer.completed, layer.total))),
            status: self.status.clone(),
        }
    }

    /// Bytes per second.
    fn rate(&self) -> Option<f64> {
        let (from, before) = self.window.front()?;
        let time = self.now.saturating_sub(*from);
        (time >= MIN_WINDOW).then(|| self.fetched.saturating_sub(*before).max(0) as f64 / time.as_secs_f64())
    }

    pub(crate) fn has_error(&self) -> bool {
        self.error.is_some()
    }

    /// The result, once the last line has come.
    ///
    /// # Errors
    /// Ollama's error and what to do, or that the pull ended early.
    pub(crate) fn finish(&self) -> Result<(), PullError> {
        match &self.error {
            Some(error) => Err(error.clone()),
            None if self.success => Ok(()),
            None => Err(PullError::other("Ollama ended the pull early. What was downloaded is kept")),
        }
    }
}

fn percent(part: u64, whole: u64) -> u8 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u8::try_from(percent.min(100)).unwrap_or(100)
}

/// A status or an error as one line of bounded length.
pub(crate) fn shortened(text: &str) -> String {
    crate::sys::text::start(text, MAX_TEXT)
}

/// `42 %, 5.9 GB of 14.2 GB, 84.0 MB/s, 1 min 38 s left`.
pub(crate) fn in_words(progress: &Progress) -> String {
    let rate = progress.bytes_per_second.map_or_else(String::new, |rate| format!(", {}/s", bytes(rate)));
    let eta = progress.eta_seconds.map_or_else(String::new, |eta| format!(", {} left", time(eta)));
    let (done, total) = (bytes(progress.completed), bytes(progress.total));
    format!("{} %, {done} of {total}{rate}{eta}", progress.percent)
}

/// `1536000000` as `1.5 GB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let (unit, size) = match bytes {
        0..1_000_000 => ("kB", 1e3),
        1_000_000..1_000_000_000 => ("MB", 1e6),
        _ => ("GB", 1e9),
    };
    format!("{:.1} {unit}", bytes as f64 / size)
}

/// `3725` as `1 h 2 min`.
pub(crate) fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests;
