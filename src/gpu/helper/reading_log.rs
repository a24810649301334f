//! One call at a time: its value or its error, and how long it took.

use std::collections::BTreeMap;
use std::mem;
use std::time::Instant;

use nvml_wrapper::error::NvmlError;

use super::words::{self, words};
use crate::gpu::plausible;
use crate::gpu::reading::Kind;
use crate::gpu::readings::{READINGS, is_core};
use crate::gpu::sample::{Failure, Gaps, Gpu, GpuError, GpuErrorKind};

/// Microseconds of each call, summed.
pub(super) type Times = BTreeMap<String, u64>;

/// Microseconds since `start`.
pub(super) fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Readings that are made of another one, or read where that one says so: where it fails, they fail with it.
const MADE_OF: [(&str, &str); 7] = [
    ("vram_total_mb", "gtt_total_mb"),
    ("vram_used_mb", "gtt_used_mb"),
    ("vram_free_mb", "vram_used_mb"),
    ("ecc_uncorrected_volatile", "ecc_enabled"),
    ("ecc_uncorrected_aggregate", "ecc_enabled"),
    ("spare_rows", "remapped_rows"),
    ("mig", "mig_mode"),
];

/// Notes of one GPU what a reading lacks, and how long each call took.
pub(super) struct ReadingLog<'a> {
    pub(super) times: &'a mut Times,
    gaps: Gaps,
    /// Readings that are not known yet: nothing is wrong with them.
    pending: Vec<String>,
    /// The whole GPU does not answer.
    pub(super) error: Option<GpuError>,
}

impl<'a> ReadingLog<'a> {
    pub(super) fn new(times: &'a mut Times) -> Self {
        Self { times, gaps: Gaps::default(), pending: Vec::new(), error: None }
    }

    /// The value of `call` for the one reading `name`, if it is plausible.
    pub(super) fn number<T: Copy + Into<i128>>(
        &mut self,
        call: &str,
        name: &str,
        read: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        let value = self.at(call, &[name], read)?;
        self.plausible(name, value)
    }

    /// The value, if it is plausible.
    pub(super) fn plausible<T: Copy + Into<i128>>(&mut self, name: &str, value: T) -> Option<T> {
        match plausible::check(name, value) {
            Ok(()) => Some(value),
            Err(why) => {
                self.fail(name, &why);
                None
            }
        }
    }

    /// The value of `call` for the readings `names`.
    pub(super) fn at<T>(
        &mut self,
        call: &str,
        names: &[&str],
        read: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        let start = Instant::now();
        let reading = read();
        *self.times.entry(call.to_owned()).or_default() += micros(start);
        self.take(names, reading)
    }

    /// The same for a value that another call returned.
    pub(super) fn take<T>(&mut self, names: &[&str], reading: Result<T, NvmlError>) -> Option<T> {
        let why = match reading {
            Ok(value) => return Some(value),
            Err(why) => why,
        };
        // The handle of a lost GPU stays valid; its readings fail.
        let kind = loss(&why).filter(|_| !matches!(why, NvmlError::Unknown));
        if let Some(kind) = kind.filter(|_| self.error.is_none()) {
            self.error = Some(GpuError { kind, message: words(&why) });
        }
        self.gaps.inforom_corrupt |= matches!(why, NvmlError::CorruptedInfoROM);
        let of_device = matches!(why, NvmlError::Unknown | NvmlError::GpuLost);
        for name in names {
            if unsupported(&why, name) {
                self.unsupported(name);
            } else {
                self.fail_as(name, words(&why), of_device);
            }
        }
        None
    }

    /// Why readings of this kind have no value. Those that no call was made for are unsupported.
    pub(super) fn gaps_of(&mut self, kind: Kind, gpu: &Gpu) -> Gaps {
        let mut gaps = mem::take(&mut self.gaps);
        let pending = mem::take(&mut self.pending);
        for reading in READINGS.iter().filter(|reading| reading.kind == kind && (reading.shown)(gpu).is_none()) {
            let is_in = |list: &[String]| list.iter().any(|name| name == reading.name);
            if !gaps.failed.contains_key(reading.name) && !is_in(&gaps.unsupported) && !is_in(&pending) {
                gaps.unsupported.push(reading.name.to_owned());
            }
        }
        for (name, of) in MADE_OF {
            // The fast readings were read before the others.
            let fast = (kind != Kind::Fast).then_some(&gpu.gaps.failed);
            let why = gaps.failed.get(of).or_else(|| fast?.get(of)).map(|why| why.words.clone());
            if let Some((at, words)) = gaps.unsupported.iter().position(|other| other == name).zip(why) {
                gaps.unsupported.remove(at);
                gaps.failed.insert(name.to_owned(), Failure { words, of_device: false });
            }
        }
        gaps
    }

    pub(super) fn has_failed(&self, name: &str) -> bool {
        self.gaps.failed.contains_key(name)
    }

    /// A reading whose value cannot be used.
    pub(super) fn fail(&mut self, name: &str, why: &str) {
        self.fail_as(name, why.to_owned(), false);
    }

    /// `of_device`: the device is at fault, whatever the reading.
    pub(super) fn fail_as(&mut self, name: &str, words: String, of_device: bool) {
        self.gaps.failed.insert(name.to_owned(), Failure { words, of_device });
    }

    /// NVML's flag: 0 or 1.
    pub(super) fn flag(&mut self, name: &str, value: u32) -> Option<bool> {
        if value > 1 {
            self.fail(name, &plausible::impossible(value, ""));
            return None;
        }
        Some(value == 1)
    }

    /// A reading that has no value yet.
    pub(super) fn pending(&mut self, name: &str) {
        self.pending.push(name.to_owned());
    }

    pub(super) fn unsupported(&mut self, name: &str) {
        self.gaps.unsupported.push(name.to_owned());
    }
}

/// The device, its driver or this user does not have the reading: the GPU is not at fault.
fn unsupported(why: &NvmlError, name: &str) -> bool {
    match why {
        NvmlError::NotSupported
        | NvmlError::NoPermission
        | NvmlError::FunctionNotFound
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::NoData => true,
        // A driver that does not know a field, a threshold or a struct's version returns one of these.
        NvmlError::InvalidArg | NvmlError::UnexpectedVariant(23..=26) => !is_core(name),
        _ => false,
    }
}

/// The errors of a GPU that does not answer at all.
fn loss(why: &NvmlError) -> Option<GpuErrorKind> {
    match why {
        NvmlError::GpuLost | NvmlError::Unknown => Some(GpuErrorKind::Lost),
        NvmlError::ResetRequired => Some(GpuErrorKind::ResetRequired),
        NvmlError::Uninitialized
        | NvmlError::DriverNotLoaded
        | NvmlError::LibRmVersionMismatch
        | NvmlError::UnexpectedVariant(words::GPU_NOT_FOUND) => Some(GpuErrorKind::Stale),
        _ => None,
    }
}

/// Why the driver returns no handle for a GPU. A missing permission means here that the GPU belongs to others; for a
/// reading it only means that this user may not have it.
pub(super) fn refusal(why: &NvmlError) -> GpuErrorKind {
    match why {
        NvmlError::NoPermission | NvmlError::OperatingSystem => GpuErrorKind::NotGiven,
        NvmlError::InsufficientPower => GpuErrorKind::NoPower,
        NvmlError::UnexpectedVariant(words::NOT_READY) => GpuErrorKind::NotReady,
        why => loss(why).unwrap_or(GpuErrorKind::Other),
    }
}

#[test]
fn what_is_made_of_a_failed_reading_has_failed() {
    let mut times = Times::new();
    let mut log = ReadingLog::new(&mut times);
    log.fail_as("vram_used_mb", "input/output error".into(), true);
    log.fail_as("remapped_rows", "timed out".into(), true);
    let mut gpu = Gpu::default();
    gpu.gaps = log.gaps_of(Kind::Fast, &gpu);
    let failed = |gaps: &Gaps, name: &str| {
        assert!(!gaps.unsupported.iter().any(|other| other == name) || !gaps.failed.contains_key(name));
        gaps.failed.get(name).map(|why| (why.words.clone(), why.of_device))
    };
    // It does not count as a second failed reading: two of them are a dead GPU.
    assert_eq!(failed(&gpu.gaps, "vram_free_mb"), Some(("input/output error".into(), false)));
    assert_eq!(failed(&gpu.gaps, "vram_total_mb"), None);
    assert_eq!(gpu.dead_readings(), 1);
    log.fail("ecc_enabled", "no");
    let slow = log.gaps_of(Kind::Slow, &gpu);
    assert_eq!(failed(&slow, "ecc_uncorrected_volatile"), Some(("no".into(), false)));
    assert_eq!(failed(&slow, "spare_rows"), Some(("timed out".into(), false)));
    assert_eq!(failed(&slow, "mig"), None);
    gpu.ecc_uncorrected_volatile = Some(3);
    log.fail("ecc_enabled", "no");
    assert_eq!(failed(&log.gaps_of(Kind::Slow, &gpu), "ecc_uncorrected_volatile"), None);
}
