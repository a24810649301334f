//! Parses what the driver amdgpu writes to the kernel's log. A line is known by how its text begins, behind whatever the
//! kernel's versions put in front: names of programs are part of some lines.

use crate::gpu::pci::PciId;

/// What a line says of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// A job took too long.
    Hang,
    /// The scheduler or the power management in the GPU does not respond.
    FirmwareHung,
    /// Only the ring was reset: one job is lost.
    RingRecovered,
    ResetBegun,
    /// The whole GPU was reset.
    Recovered,
    ResetFailed,
    /// A reset cleared its memory.
    VramLost,
    OffTheBus,
    InitFailed,
    /// It did not come back from a sleep of its own or of the machine.
    ResumeFailed,
    /// An uncorrectable memory error.
    Uncorrectable,
    /// Too many memory pages are bad.
    Unrepairable,
    TooHot,
    /// It works again after a reset; the line that counts it came before.
    Works,
    /// It came back from a sleep, or is coming back from a reset.
    Resumed,
    /// The driver has started the GPU.
    Loaded,
}

impl Said {
    /// What is over after this: a fault, or the reset that was to end it.
    pub(super) fn settles(self, earlier: Self) -> bool {
        let is_fault = matches!(
            earlier,
            Self::ResetBegun | Self::ResetFailed | Self::OffTheBus | Self::FirmwareHung | Self::ResumeFailed
        );
        match self {
            Self::ResetFailed => earlier == Self::ResetBegun,
            // A chip that answers is on the bus.
            Self::Resumed => matches!(earlier, Self::OffTheBus | Self::ResumeFailed),
            Self::Recovered | Self::Works => is_fault,
            Self::Loaded => is_fault || matches!(earlier, Self::InitFailed | Self::Uncorrectable),
            _ => false,
        }
    }

    /// It says only what is over.
    pub(super) fn is_all_clear(self) -> bool {
        matches!(self, Self::Works | Self::Resumed | Self::Loaded)
    }
}

/// The GPU, where the line names it, and what it says; None for all other lines.
pub(crate) fn said(line: &str) -> Option<(Option<PciId>, Said)> {
    if !line.contains("amdgpu") {
        return None;
    }
    let (pci, text) = without_prefix(line);
    if let Some(rest) = text.strip_prefix("Initialized amdgpu ") {
        let place = rest.split_once(" for ").and_then(|(_, place)| PciId::parse(place.split(' ').next()?));
        return Some((Some(pci.or(place)?), Said::Loaded));
    }
    Some((pci, of_text(text)?))
}

/// `amdgpu 0000:03:00.0: amdgpu: `, the same without the second word, `[drm:function [amdgpu]] *ERROR* `, `[drm] `: the
/// GPU, and what is behind all that.
fn without_prefix(line: &str) -> (Option<PciId>, &str) {
    let mut pci = None;
    let mut text = line.trim_start();
    loop {
        let rest = if let Some(rest) = text.strip_prefix("amdgpu ") {
            rest.split_once(": ").and_then(|(place, rest)| {
                pci = Some(PciId::parse(place)?);
                Some(rest)
            })
        } else if text.starts_with("[drm:") {
            text.split_once("]] ").map(|(_, rest)| rest)
        } else {
            ["amdgpu: ", "[drm] ", "*ERROR* ", "ERROR: "].iter().find_map(|prefix| text.strip_prefix(prefix))
        };
        // `{12}` counts events.
        let rest = rest.or_else(|| text.strip_prefix('{')?.split_once('}').map(|(_, rest)| rest));
        match rest {
            Some(rest) => text = rest.trim_start(),
            None => return (pci, text),
        }
    }
}

/// How the lines begin.
const BEGINNINGS: [(&str, Said); 25] = [
    ("GPU reset begin!", Said::ResetBegun),
    ("GPU Recovery Failed", Said::ResetFailed),
    ("device wedged, needs recovery", Said::ResetFailed),
    ("device wedged, but recovered", Said::Works),
    ("VRAM is lost due to GPU reset", Said::VramLost),
    ("device lost from bus", Said::OffTheBus),
    ("amdgpu_job_timedout - device unplugged", Said::OffTheBus),
    ("pci_channel_io_perm_failure: state(", Said::OffTheBus),
    ("MES failed to respond", Said::FirmwareHung),
    ("MES failed to response", Said::FirmwareHung),
    ("MES might be in unrecoverable state", Said::FirmwareHung),
    ("Queue preemption failed", Said::FirmwareHung),
    ("Failed to evict process queues", Said::FirmwareHung),
    ("Failed to quiesce KFD", Said::FirmwareHung),
    ("SMU: I'm not done with your previous command", Said::FirmwareHung),
    ("SMU: No response msg_reg:", Said::FirmwareHung),
    ("SMU is resumed successfully!", Said::Resumed),
    ("uncorrectable hardware error", Said::Uncorrectable),
    ("This GPU is in BAD status", Said::Unrepairable),
    ("GPU will not be initialized. Replace this GPU", Said::Unrepairable),
    ("GPU over temperature range", Said::TooHot),
    ("System is going to shutdown due to GPU", Said::TooHot),
    ("Fatal error during GPU init", Said::InitFailed),
    ("amdgpu_device_ip_init failed", Said::InitFailed),
    ("amdgpu_device_ip_resume failed", Said::ResumeFailed),
];

fn of_text(text: &str) -> Option<Said> {
    if let Some((_, said)) = BEGINNINGS.iter().find(|(beginning, _)| text.starts_with(beginning)) {
        return Some(*said);
    }
    // With a name or a number in between.
    if let Some(rest) = text.strip_prefix("GPU reset(") {
        return ended(rest.split_once(") ")?.1, Said::Recovered, Said::ResetFailed);
    }
    if let Some(ret) = text.strip_prefix("GPU reset end with ret = ") {
        return Some(if ret.trim() == "0" { Said::Works } else { Said::ResetFailed });
    }
    if let Some((_, rest)) = text.strip_prefix("ring ").or(text.strip_prefix("Ring ")).and_then(|r| r.split_once(' ')) {
        return match rest {
            _ if rest.starts_with("timeout, but soft recovered") => Some(Said::RingRecovered),
            _ if rest.starts_with("timeout") => Some(Said::Hang),
            _ => ended(rest.strip_prefix("reset ")?, Said::RingRecovered, Said::Hang),
        };
    }
    let begins_and_has = |beginning, word: &str| text.starts_with(beginning) && text.contains(word);
    if begins_and_has("MES(", " failed to respond") {
        return Some(Said::FirmwareHung);
    }
    if begins_and_has("RAS records:", " exceed") || begins_and_has("Saved bad pages ", " reaches threshold") {
        return Some(Said::Unrepairable);
    }
    // The kernel's PCI code, with the driver's name in front.
    if begins_and_has("Unable to change power state from ", "device inaccessible")
        || begins_and_has("can't change power state from ", "config space inaccessible")
        || begins_and_has("not ready ", "; giving up")
    {
        return Some(Said::OffTheBus);
    }
    // `socket: 0, die: 0, 3 new uncorrectable hardware errors detected in umc block`
    let (count, _) = text.split_once(" new uncorrectable hardware errors detected")?;
    let count = count.rsplit(' ').next()?.parse::<u64>().ok()?;
    (count > 0).then_some(Said::Uncorrectable)
}

/// How a reset ended, by its last word.
fn ended(rest: &str, well: Said, badly: Said) -> Option<Said> {
    if rest.starts_with("succeeded") { Some(well) } else { rest.starts_with("failed").then_some(badly) }
}
