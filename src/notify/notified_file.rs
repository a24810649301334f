//! Reads and writes STATE_DIR/notified.json in a thread of its own: a disk that hangs, is full or cannot be written delays
//! no message. What could not be written is written with the next change.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::notified::{Known, MAX_FILE, Notified};
use crate::sys::files::{is_regular, replace};
use crate::sys::limits::unix_now;
use crate::sys::text::io_words;
use crate::sys::threads;

const NAME: &str = "notified.json";
const MODE: u32 = 0o600;
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
        if !self.lock().loaded {
            self.load(path, keys);
        }
        let mut failing = false;
        loop {
            let waited = self.changed.wait_while(self.lock(), |state| !state.changed);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            (state.changed, state.writing) = (false, true);
            let text = state.notified.to_text();
            drop(state);
            let written = replace(path, MODE, text.as_bytes()).map(drop);
            self.lock().writing = false;
            self.changed.notify_all();
            match written {
                Ok(()) if std::mem::take(&mut failing) => log::info!("{} can be written again", path.display()),
                Err(why) if !std::mem::replace(&mut failing, true) => {
                    let (path, why) = (path.display(), io_words(&why));
                    log::warn!("cannot write {path}: {why}; after a restart notifications may be repeated");
                }
                _ => {}
            }
        }
    }

    fn load(&self, path: &Path, keys: &[String]) {
        let earlier = read(path).unwrap_or_else(|why| {
            log::warn!("cannot use {}: {why}; notifications may be repeated", path.display());
            Notified::default()
        });
        let mut state = self.lock();
        state.notified = earlier;
        state.notified.keep(keys);
        state.restarts_often = state.notified.start(unix_now());
        (state.loaded, state.changed) = (true, true);
        self.changed.notify_all();
    }
}

/// Nothing where there is no file yet.
fn read(path: &Path) -> Result<Notified, String> {
    let open = is_regular(path).and_then(|()| File::open(path));
    let file = match open {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Notified::default()),
        opened => opened.map_err(|why| io_words(&why))?,
    };
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).map_err(|why| io_words(&why))?;
    Notified::from_text(&text).ok_or_else(|| "it is damaged".into())
}

#[test]
fn without_a_folder_there_is_nothing_to_wait_for() {
    use super::event::{Event, EventKind, samples};
    let book = NotifiedBook::start(None, Vec::new()).unwrap();
    let event = Event::new(EventKind::Stopping, &Arc::from("w"), Some(samples::ok()), 1.0);
    book.put("key", Known::new(&event, 1.0));
    let end = Instant::now() + Duration::from_secs(60);
    book.flush(end);
    assert!(Instant::now() < end);
    assert!(book.known("key").is_some());
}
