//! STATE_DIR/speeds.json, replaced as a whole by a thread of its own, so that a disk that hangs, is full or cannot be
//! written delays no keeper. What could not be written is written at the next change.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::speeds::{Judgement, MAX_FILE, SpeedKey, Speeds};
use crate::sys::own_file::OwnFile;
use crate::sys::text::{counted, io_words};
use crate::sys::threads;

const NAME: &str = "speeds.json";
/// Anyone may read speeds.
const MODE: u32 = 0o666;
const NOT_WRITTEN: &str = "usual speeds stay in memory until it can be written";

/// The speeds of all models, for the threads that measure them. Of two workers with one STATE_DIR the second one reads the
/// file once, keeps its own speeds in memory, and writes them when the first one has ended.
#[derive(Debug)]
pub(crate) struct SpeedBook(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    speeds: Speeds,
    /// They are newer than those that were last taken to be written.
    changed: bool,
    /// What an earlier worker knew is in them.
    loaded: bool,
}

impl SpeedBook {
    /// Reads the file below `dir` and writes it, in a thread of its own. None: the speeds are in memory only.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn start(dir: Option<&str>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        if let Some(dir) = dir {
            let (path, work) = (Path::new(dir).join(NAME), Arc::clone(&shared));
            threads::service("speeds", move || work.write_forever(&path))?;
        }
        Ok(Self(shared))
    }

    /// Adds a speed in tokens per second, measured at `now` in Unix seconds, unless it cannot be one. What its model's
    /// speeds say now; returns at once.
    pub(crate) fn add(&self, key: &SpeedKey, speed: f64, now: f64) -> Judgement {
        let mut state = self.0.lock();
        if state.speeds.add(key, speed, now) {
            state.changed = true;
            self.0.changed.notify_all();
        }
        state.speeds.judgement(key)
    }

    /// What a model's speeds say; returns at once.
    pub(crate) fn judgement(&self, key: &SpeedKey) -> Judgement {
        self.0.lock().speeds.judgement(key)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_forever(&self, path: &Path) {
        let mut file = OwnFile::new(path, MODE);
        let mut done = self.open(&mut file);
        loop {
            file.log(done, NOT_WRITTEN);
            self.wait_for_change();
            done = self.write(&mut file);
        }
    }

    fn wait_for_change(&self) {
        let waited = self.changed.wait_while(self.lock(), |state| !state.changed);
        waited.unwrap_or_else(PoisonError::into_inner).changed = false;
    }

    /// Writes the newest speeds.
    fn write(&self, file: &mut OwnFile) -> io::Result<()> {
        self.open(file)?;
        let speeds = self.lock().speeds.clone();
        file.write(speeds.to_text().as_bytes())
    }

    /// Opens and locks the file unless it is, and reads it the first time.
    fn open(&self, file: &mut OwnFile) -> io::Result<()> {
        let opened = file.open();
        if !self.lock().loaded
            && let Ok(readable) = file.readable()
        {
            self.load(&readable, file.path());
        }
        opened
    }

    fn load(&self, file: &File, path: &Path) {
        let mut text = Vec::new();
        let read = file.take(MAX_FILE).read_to_end(&mut text);
        let (earlier, damaged) = Speeds::from_text(&text);
        {
            let mut state = self.lock();
            state.speeds.continue_from(earlier);
            state.loaded = true;
        }
        if let Err(why) = read {
            log::warn!("cannot read all of {}: {}", path.display(), io_words(&why));
        }
        if damaged > 0 {
            log::warn!("{}: skipped {}", path.display(), counted(damaged, "damaged line"));
        }
    }
}

#[cfg(test)]
mod tests;
