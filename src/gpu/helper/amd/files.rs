//! One small file of the kernel: its text, that the card does not have it, or why it cannot be read.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;

use super::super::reading_log::ReadingLog;
use crate::sys::text::start;

/// The longest is the list of bad pages.
const MAX_BYTES: u64 = 64 * 1024;
/// Characters of a name or a version; NVML's are as long at most.
const MAX_WORDS: usize = 96;

/// Why a file has no value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The card or its driver does not have it.
    Unsupported,
    Failed {
        words: String,
        /// The device is at fault, whatever the file.
        of_device: bool,
        /// The driver refuses it for now: the card falls asleep, or is being reset.
        for_now: bool,
    },
}

impl Missing {
    /// A value that means nothing.
    pub(super) fn value(path: &Path, text: &str) -> Self {
        let start: String = text.chars().take(40).collect();
        Self::Failed { words: format!("{}: {start:?}", name(path)), of_device: false, for_now: false }
    }
}

/// The text without the white space around it.
///
/// # Errors
/// There is none: also where the file is empty, as the driver leaves it for what a card lacks.
pub(super) fn text(path: &Path) -> Result<String, Missing> {
    let text = read(path).map_err(|why| missing(path, &why))?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    if text.is_empty() { Err(Missing::Unsupported) } else { Ok(text.to_owned()) }
}

/// A name or a version: the start of the text, in one line.
///
/// # Errors
/// As [`text`].
pub(super) fn words(path: &Path) -> Result<String, Missing> {
    text(path).map(|text| start(&text, MAX_WORDS))
}

fn read(path: &Path) -> io::Result<String> {
    // A pipe in the place of a file must not be waited for.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn missing(path: &Path, why: &io::Error) -> Missing {
    let failed = |of_device, for_now| Missing::Failed { words: format!("{}: {why}", name(path)), of_device, for_now };
    match Errno::from_io_error(why) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::OPNOTSUPP | Errno::INVAL | Errno::NODATA | Errno::NOSYS) => {
            Missing::Unsupported
        }
        Some(Errno::PERM | Errno::BUSY | Errno::AGAIN) => failed(false, true),
        Some(Errno::IO | Errno::NODEV | Errno::NXIO | Errno::TIME | Errno::TIMEDOUT) => failed(true, false),
        _ => failed(false, false),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The whole number in the file.
///
/// # Errors
/// As [`text`]; any other text is a failure.
pub(super) fn number(path: &Path) -> Result<i64, Missing> {
    let text = text(path)?;
    text.parse().map_err(|_| Missing::value(path, &text))
}

/// The readings of one card, and what they lack.
pub(super) struct Files<'a, 'b> {
    pub(super) log: &'a mut ReadingLog<'b>,
    /// The driver refused a file for now.
    pub(super) refused: bool,
}

impl Files<'_, '_> {
    /// The value for the reading `name`; what it lacks is recorded.
    pub(super) fn take<T>(&mut self, name: &str, value: Result<T, Missing>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(Missing::Unsupported) => None,
            Err(Missing::Failed { words, of_device, for_now }) => {
                self.refused |= for_now;
                let words = if for_now { format!("{words} (the driver resets or starts the GPU)") } else { words };
                self.log.fail_as(name, words, of_device);
                None
            }
        }
    }

    /// The number of the file, divided by `scale`, for the reading `name`, if it is plausible.
    pub(super) fn number<T: TryFrom<i64>>(&mut self, name: &str, path: &Path, scale: i64) -> Option<T> {
        let value = self.take(name, number(path))?;
        // Rounded down: a small number below 0 is not 0.
        self.plausible(name, value.div_euclid(scale))
    }

    pub(super) fn plausible<T: TryFrom<i64>>(&mut self, name: &str, value: i64) -> Option<T> {
        self.log.plausible(name, value).and_then(|value| T::try_from(value).ok())
    }
}

#[test]
fn what_a_card_lacks_is_not_a_failure() {
    let check = |errno: Errno, expect: Option<(bool, bool)>| {
        let got = match missing(Path::new("/x/gpu_busy_percent"), &io::Error::from_raw_os_error(errno.raw_os_error())) {
            Missing::Unsupported => None,
            Missing::Failed { words, of_device, for_now } => {
                assert!(words.starts_with("gpu_busy_percent: "), "{words}");
                Some((of_device, for_now))
            }
        };
        assert_eq!(got, expect, "{errno:?}");
    };
    for errno in [Errno::NOENT, Errno::OPNOTSUPP, Errno::INVAL, Errno::NODATA] {
        check(errno, None);
    }
    check(Errno::BUSY, Some((false, true)));
    check(Errno::PERM, Some((false, true)));
    check(Errno::IO, Some((true, false)));
    check(Errno::NODEV, Some((true, false)));
    check(Errno::TIME, Some((true, false)));
    check(Errno::ACCESS, Some((false, false)));
}
