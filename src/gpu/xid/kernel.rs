//! Parses what NVIDIA's driver writes to the kernel's log, and has the lines of amdgpu parsed.

use super::catalogue::{self, Class, OFF_THE_BUS};
use crate::gpu::amd_log::{self, Said};
use crate::gpu::legacy::{Legacy, LegacyLog};
use crate::gpu::pci::PciId;

/// The event of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KernelEvent {
    Xid {
        pci: PciId,
        number: u32,
        class: Class,
    },
    /// The driver amdgpu; None: the line names no GPU.
    Amd {
        pci: Option<PciId>,
        said: Said,
    },
    /// NVIDIA's driver was loaded. Its time is the start of the load: earlier errors are settled.
    DriverLoaded,
    /// Not in the log: the operator has acknowledged all records before.
    Acknowledged,
}

/// The module probes its GPUs at most this long before the banner: one after the other, each within tens of
/// milliseconds, or hundreds if it does not answer.
const PROBES_US: u64 = 10_000_000;

/// Reads the kernel's log line by line.
#[derive(Debug, Default)]
pub(crate) struct KernelLog {
    /// The GPU that a line named and that one of the next lines is about.
    named: Option<PciId>,
    /// The module's last message about its start or end since the last banner.
    load_began: Option<u64>,
    legacy: LegacyLog,
}

impl KernelLog {
    /// Cards that the driver ignores.
    pub(crate) fn legacy(&self) -> &Legacy {
        self.legacy.found()
    }

    /// One record of /dev/kmsg, `priority,sequence,microseconds,flags;text`: what its lines say, each with its time
    /// in microseconds of the monotonic clock.
    pub(crate) fn read(&mut self, record: &str) -> Vec<(KernelEvent, u64)> {
        let Some((micros, text)) = kernels_own(record) else { return Vec::new() };
        self.legacy.read(text, micros);
        // The kernel writes a line break inside a record like this.
        text.split("\\x0a").filter_map(|line| self.line(line, micros)).collect()
    }

    /// Records were lost: the last line's GPU is forgotten.
    pub(crate) fn interrupted(&mut self) {
        self.named = None;
    }

    fn line(&mut self, line: &str, micros: u64) -> Option<(KernelEvent, u64)> {
        if line.contains("nvidia-nvlink: ") && line.contains("Nvlink Core") {
            self.load_began = Some(micros);
        }
        let Some((_, said)) = line.split_once("NVRM: ") else {
            return amd_log::said(line).map(|(pci, said)| (KernelEvent::Amd { pci, said }, micros));
        };
        if said.starts_with("loading NVIDIA") {
            return Some((KernelEvent::DriverLoaded, self.load_began(micros)));
        }
        let (pci, number, words) = self.error(said.trim_end())?;
        Some((KernelEvent::Xid { pci, number, class: catalogue::class(number, words) }, micros))
    }

    /// When the load began whose banner has this time.
    ///
    /// The module prints its banner last: `nvidia_init_module` of nv.c first initializes its part for NVLink
    /// ("nvidia-nvlink: Nvlink Core is being initialized"), then registers its PCI driver, whose probes run at once,
    /// and prints the banner after them. So an error of a probe comes before the banner of the same load, which must
    /// not settle it. What separates the errors of the old driver from those of the new one is the line of the NVLink
    /// part, or the line that the old one printed when it was unloaded ("Unregistered Nvlink Core"). Where the log has
    /// neither (older drivers), errors within the time of the probes count as the new driver's. If they were the old
    /// one's, they stay open longer than necessary, which is the safer mistake.
    fn load_began(&mut self, banner: u64) -> u64 {
        self.load_began.take().unwrap_or(banner.saturating_sub(PROBES_US))
    }

    /// The GPU, the number and the words behind it.
    fn error<'a>(&mut self, said: &'a str) -> Option<(PciId, u32, &'a str)> {
        let named = self.named.take();
        if let Some(rest) = said.strip_prefix("Xid (") {
            let (place, rest) = rest.split_once(')')?;
            let (_, rest) = rest.split_once(": ")?;
            let (digits, words) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
            // A slice of a GPU is named behind the GPU.
            let pci = PciId::parse(place.split([' ', ',']).next()?)?;
            return Some((pci, digits.parse().ok()?, words));
        }
        let place = ["The NVIDIA GPU ", "GPU at ", "GPU "].iter().find_map(|start| said.strip_prefix(start));
        let place = place.and_then(|rest| PciId::parse(rest.split(' ').next()?.trim_end_matches([':', ','])));
        if said.contains("fallen off the bus") {
            return Some((place.or(named)?, OFF_THE_BUS, ""));
        }
        // "The NVIDIA GPU …", and on the next line or the one after what is wrong with it.
        let goes_on = said.contains("installed in this system");
        self.named = place.filter(|_| said.starts_with("The NVIDIA GPU ")).or(named.filter(|_| goes_on));
        None
    }
}

/// Time and text of a record that the kernel wrote. Programs can write to the log too: the kernel's own facility is 0.
/// Lines that begin with a space name the device of the record before.
fn kernels_own(record: &str) -> Option<(u64, &str)> {
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let micros: u64 = fields.nth(1)?.parse().ok()?;
    (priority >> 3 == 0).then_some((micros, text))
}

#[cfg(test)]
mod tests;
