//! STATE_DIR/speeds.json, replaced as a whole by a thread of its own, so that a disk that hangs, is full or cannot be
//! written delays no keeper. What could not be written is written at the next change.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::speeds::{Judgement, MAX_FILE, SpeedKey, Speeds};
use crate::sys::files::{open_alone, replace};
use crate::sys::text::{counted, io_words};
use crate::sys::threads;

const NAME: &str = "speeds.json";
/// Anyone may read speeds.
const MODE: u32 = 0o666;

/// The speeds of all models, for the threads that measure them. Of two workers with one STATE_DIR the first one writes the
/// file. The other one reads it once, keeps its own speeds in memory, and writes them when the first one has ended.
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
        let mut file = None;
        let mut failing = false;
        let mut done = self.open(path, &mut file);
        loop {
            match done {
                Ok(()) if std::mem::take(&mut failing) => log::info!("{} can be written again", path.display()),
                Err(why) if !std::mem::replace(&mut failing, true) => {
                    let (path, why) = (path.display(), io_words(&why));
                    log::warn!("cannot write {path}: {why}; usual speeds stay in memory until it can be written");
                }
                _ => {}
            }
            self.wait_for_change();
            done = self.write(path, &mut file);
        }
    }

    fn wait_for_change(&self) {
        let waited = self.changed.wait_while(self.lock(), |state| !state.changed);
        waited.unwrap_or_else(PoisonError::into_inner).changed = false;
    }

    /// Writes the newest speeds. `file`: the one that is locked, if any.
    fn write(&self, path: &Path, file: &mut Option<File>) -> io::Result<()> {
        self.open(path, file)?;
        let speeds = self.lock().speeds.clone();
        *file = Some(replace(path, MODE, speeds.to_text().as_bytes())?);
        Ok(())
    }

    /// Opens and locks the file unless it is, and reads it the first time.
    fn open(&self, path: &Path, file: &mut Option<File>) -> io::Result<()> {
        if file.as_ref().is_some_and(|file| file.metadata().is_ok_and(|meta| meta.nlink() > 0)) {
            return Ok(());
        }
        *file = None;
        let opened = match is_own(path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => open_alone(path, MODE),
        };
        if !self.lock().loaded {
            // One that cannot be written, or that another worker uses, may be readable all the same.
            if let Ok(readable) = is_own(path).and_then(|()| File::open(path)) {
                self.load(&readable, path);
            }
        }
        *file = Some(opened?);
        Ok(())
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

/// A link in its place could lead anywhere.
fn is_own(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_file() { Ok(()) } else { Err(io::Error::other("not a regular file")) }
}

#[cfg(test)]
mod tests;
