//! STATE_DIR/acknowledged.json: the last record of the kernel's log that the operator's acknowledgment covers, so that the
//! log's old records raise nothing after a restart of the worker. It holds for one boot, since each one numbers its records
//! from 0. A thread of its own reads and writes it: a disk that hangs delays no reading.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::json::{json, object};
use crate::sys::own_file::OwnFile;
use crate::sys::text::io_words;
use crate::sys::threads;

const NAME: &str = "acknowledged.json";
const MODE: u32 = 0o600;
/// A larger one is damaged.
const MAX_FILE: u64 = 1024;
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
/// How long an acknowledgment waits for the disk. Signals wait behind it.
const WRITING: Duration = Duration::from_secs(3);
/// How long the first look at the kernel's log waits for the disk.
pub(super) const LOADING: Duration = Duration::from_secs(5);
const NOT_KEPT: &str = "errors that were acknowledged return after a restart";

#[derive(Debug, Serialize, Deserialize)]
struct Acknowledged {
    boot: String,
    record: u64,
}

/// A record, and where the outcome goes.
type Ask = (u64, Sender<Result<(), String>>);

/// Keeps acknowledgments over a restart.
#[derive(Debug)]
pub(super) struct Acknowledgments(Sender<Ask>);

impl Acknowledgments {
    /// In the file below `dir`; `root`: HOST_ROOT. What an earlier worker kept comes once, if it is of this boot.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(super) fn start(dir: &str, root: &Path) -> io::Result<(Self, Receiver<u64>)> {
        let boot = fs::read_to_string(root.join(BOOT_ID)).or_else(|_| fs::read_to_string(Path::new("/").join(BOOT_ID)));
        // Without it, as below a /proc that hides /proc/sys, records of two boots look the same.
        let boot = boot.map(|id| id.trim().to_owned()).map_err(|why| format!("no id of this boot: {}", io_words(&why)));
        let mut file = OwnFile::new(&Path::new(dir).join(NAME), MODE);
        let (sender, asks) = mpsc::channel::<Ask>();
        let (loaded, earlier) = mpsc::channel();
        let mut loaded = Some(loaded);
        threads::service("acknowledged", move || {
            if let Some(loaded) = loaded.take() {
                match read(&file) {
                    Ok(Some(kept)) if boot.as_ref() == Ok(&kept.boot) => drop(loaded.send(kept.record)),
                    Ok(_) => {}
                    Err(why) => log::warn!("cannot use {}: {why}; {NOT_KEPT}", file.path().display()),
                }
            }
            for (record, outcome) in &asks {
                let said = boot.clone().and_then(|boot| {
                    let written = file.write(json(&Acknowledged { boot, record }).as_bytes());
                    let said = written.as_ref().copied().map_err(io_words);
                    file.log(written, NOT_KEPT);
                    said
                });
                // It may have stopped waiting.
                let _ = outcome.send(said);
            }
        })?;
        Ok((Self(sender), earlier))
    }

    /// Keeps that all records up to this one are acknowledged.
    ///
    /// # Errors
    /// Why that may be lost at a restart.
    pub(super) fn keep(&self, record: u64) -> Result<(), String> {
        let (outcome, written) = mpsc::channel();
        // The thread never ends.
        let _ = self.0.send((record, outcome));
        written.recv_timeout(WRITING).unwrap_or_else(|_| Err("the disk does not respond".into()))
    }
}

/// None where there is no file yet.
fn read(file: &OwnFile) -> Result<Option<Acknowledged>, String> {
    let file = match file.readable() {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|why| io_words(&why))?,
    };
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).map_err(|why| io_words(&why))?;
    if text.is_empty() {
        // It was created, and the disk was full.
        return Ok(None);
    }
    object(&text).map(Some).map_err(|_| "it is damaged".into())
}
