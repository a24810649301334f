//! Reads and writes STATE_DIR/notified.json in a thread of its own: a disk that hangs, is full or cannot be written delays
//! no message. What could not be written is written with the next change.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::notified::{Known, MAX_FILE, Notified};
use crate::sys::limits::unix_now;
use crate::sys::own_file::OwnFile;
use crate::sys::text::io_words;
use crate::sys::threads;

const NAME: &str = "notified.json";
const MODE: u32 = 0o600;
const NOT_WRITTEN: &str = "after a restart notifications may be repeated";
/// How long a message waits for the file at a start.
const LOADING: Duration = Duration::from_secs(5);

/// What the receivers know, for their threads.
#[derive(Debug)]
pub(super) struct NotifiedBook {
    shared: Arc<Shared>,
    /// There is a STATE_DIR.
    has_file: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    notified: Notified,
    loaded: bool,
    restarts_often: bool,
    /// It is newer than what was last taken to be written.
    changed: bool,
    writing: bool,
}

impl NotifiedBook {
    /// `dir`: STATE_DIR; None: memory only. `keys`: of the receivers.
    ///
    /// # Errors
    /// The kernel's, when it gives no thread.
    pub(super) fn start(dir: Option<&str>, keys: Vec<String>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        match dir {
            None => shared.lock().loaded = true,
            Some(dir) => {
                let (path, work) = (Path::new(dir).join(NAME), Arc::clone(&shared));
                threads::service("notified", move || work.write_forever(&path, &keys))?;
            }
        }
        Ok(Self { shared, has_file: dir.is_some() })
    }

    /// True: the worker has restarted often in the last minutes. Waits for the file, not for long.
    pub(super) fn restarts_often(&self) -> bool {
        self.loaded().restarts_often
    }

    /// What a receiver knows. Waits for the file, not for long.
    pub(super) fn known(&self, key: &str) -> Option<Known> {
        self.loaded().notified.of(key).cloned()
    }

    pub(super) fn put(&self, key: &str, known: Known) {
        let mut state = self.shared.lock();
        state.notified.put(key, known);
        state.changed = self.has_file;
        self.shared.changed.notify_all();
    }

    /// A receiver has another URL, and so another key.
    pub(super) fn rename(&self, old: &str, new: &str) {
        let mut state = self.shared.lock();
        if state.notified.rename(old, new) {
            state.changed = self.has_file;
            self.shared.changed.notify_all();
        }
    }

    /// Waits until all of it is written, at most until `end`.
    pub(super) fn flush(&self, end: Instant) {
        let left = end.saturating_duration_since(Instant::now());
        let busy = |state: &mut State| state.loaded && (state.changed || state.writing);
        drop(self.shared.changed.wait_timeout_while(self.shared.lock(), left, busy));
    }

    fn loaded(&self) -> MutexGuard<'_, State> {
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), LOADING, |state| !state.loaded);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_forever(&self, path: &Path, keys: &[String]) {
        let mut file = OwnFile::new(path, MODE);
        // Locked first, so that no other worker writes it after it was read.
        let opened = file.open();
        if !self.lock().loaded {
            self.load(&file, keys);
        }
        file.log(opened, NOT_WRITTEN);
        loop {
            let waited = self.changed.wait_while(self.lock(), |state| !state.changed);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            (state.changed, state.writing) = (false, true);
            let text = state.notified.to_text();
            drop(state);
            let written = file.write(text.as_bytes());
            self.lock().writing = false;
            self.changed.notify_all();
            file.log(written, NOT_WRITTEN);
        }
    }

    fn load(&self, file: &OwnFile, keys: &[String]) {
        let earlier = read(file).unwrap_or_else(|why| {
            log::warn!("cannot use {}: {why}; notifications may be repeated", file.path().display());
            Notified::default()
        });
        let mut state = self.lock();
        let newer = std::mem::replace(&mut state.notified, earlier);
        state.notified.keep(keys);
        state.notified.update(newer);
        state.restarts_often = state.notified.start(unix_now());
        (state.loaded, state.changed) = (true, true);
        self.changed.notify_all();
    }
}

/// Nothing where there is no file yet.
fn read(file: &OwnFile) -> Result<Notified, String> {
    let file = match file.readable() {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Notified::default()),
        opened => opened.map_err(|why| io_words(&why))?,
    };
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).map_err(|why| io_words(&why))?;
    if text.is_empty() {
        // It was just created.
        return Ok(Notified::default());
    }
    Notified::from_text(&text).ok_or_else(|| "it is damaged".into())
}

#[cfg(test)]
mod tests;
