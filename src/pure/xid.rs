//! XIDs: the numbered errors that NVIDIA's driver reports, from the kernel's log or from NVML's events.
//! Classes follow NVIDIA's XID catalogue and what DCGM calls a failure; other numbers are counted only.

use super::pci::PciId;

/// One kind of error of one GPU.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Xid {
    pub(crate) pci: PciId,
    pub(crate) number: u32,
    /// Times that it was reported since the machine started, as far as anybody listened.
    pub(crate) count: u64,
    /// Unix seconds of the last one.
    pub(crate) last: f64,
}

/// What an XID means for the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The GPU must be reset.
    Fatal,
    /// The same, but only of a GPU whose NVLinks were ever up: unbridged cards report them for nothing.
    NvLink,
    /// Worth a look for a while.
    Warn,
    /// A program's own fault, or noise.
    Info,
}

pub(crate) fn class(number: u32) -> Class {
    match number {
        46 | 48 | 62 | 64 | 79 | 95 | 110 | 119 | 120 | 140 | 143 | 156 | 158 => Class::Fatal,
        74 | 136 | 144..=150 | 155 => Class::NvLink,
        54 | 63 | 94 | 109 | 154 => Class::Warn,
        _ => Class::Info,
    }
}

/// The catalogue's words, shortened; "" for numbers that it does not explain.
pub(crate) fn meaning(number: u32) -> &'static str {
    match number {
        13 => "graphics engine exception, mostly a program's fault",
        31 => "memory page fault, mostly a program's fault",
        32 => "invalid or corrupted push buffer stream",
        38 => "driver firmware error",
        43 => "GPU stopped processing for one program",
        45 => "a program's work was cleaned up",
        46 => "GPU stopped processing",
        48 => "double bit ECC error",
        54 => "auxiliary power is not connected",
        61 => "internal micro-controller breakpoint",
        62 => "internal micro-controller halt",
        63 => "a memory row was remapped or a page retired",
        64 => "a memory row could not be remapped or a page not retired",
        68 => "video decoder exception",
        69 => "graphics engine class error",
        74 => "NVLink error",
        79 => "GPU has fallen off the bus",
        92 => "high rate of single bit ECC errors",
        94 => "contained memory error",
        95 => "uncontained memory error",
        109 => "context switch timeout",
        110 => "security fault",
        119 => "GPU system processor does not answer",
        120 => "GPU system processor error",
        136 => "NVLink training failed",
        140 => "unrecovered ECC error",
        143 => "GPU initialisation error",
        144..=150 => "NVLink error",
        154 => "GPU recovery action changed",
        155 => "NVLink error that software noticed",
        156 => "a resource was retired",
        158 => "fatal timeout of the GPU",
        _ => "",
    }
}

/// "Fallen off the bus", which the kernel also says without a number.
pub(crate) const OFF_THE_BUS: u32 = 79;
/// The kernel says it in up to three lines; they are one error.
const SAME_EVENT_S: f64 = 5.0;
/// More kinds of errors than this are not told apart: the oldest is forgotten.
const MAX_KINDS: usize = 512;

/// All errors since the machine started, as far as they are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct XidLog {
    kinds: Vec<Xid>,
    /// Unix seconds; what is older was settled by a reload of the driver or by the operator.
    settled: f64,
}

impl XidLog {
    /// One report. `at`: Unix seconds.
    pub(crate) fn record(&mut self, pci: PciId, number: u32, at: f64) {
        if let Some(kind) = self.kinds.iter_mut().find(|k| k.pci == pci && k.number == number) {
            if number != OFF_THE_BUS || (at - kind.last).abs() > SAME_EVENT_S {
                kind.count += 1;
            }
            kind.last = kind.last.max(at);
            return;
        }
        if self.kinds.len() >= MAX_KINDS {
            let oldest = (0..self.kinds.len()).min_by(|a, b| self.kinds[*a].last.total_cmp(&self.kinds[*b].last));
            oldest.map(|index| self.kinds.swap_remove(index));
        }
        self.kinds.push(Xid { pci, number, count: 1, last: at });
    }

    /// From now on nothing up to `at` (Unix seconds) is held against a GPU. It stays counted.
    pub(crate) fn settle(&mut self, at: f64) {
        self.settled = self.settled.max(at);
    }

    pub(crate) fn all(&self) -> &[Xid] {
        &self.kinds
    }

    /// Those that nothing has settled.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Xid> {
        self.kinds.iter().filter(|kind| kind.last > self.settled)
    }
}

/// What a line of the kernel's log says about the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KernelEvent {
    Xid { pci: PciId, number: u32 },
    DriverLoaded,
}

/// Reads the kernel's log line by line.
#[derive(Debug, Default)]
pub(crate) struct KernelLog {
    /// The GPU that a line named which the next one says something about.
    named: Option<PciId>,
}

impl KernelLog {
    /// One record of /dev/kmsg, `priority,sequence,microseconds,flags;text`: what it says, and its age in
    /// microseconds since the machine started.
    pub(crate) fn read(&mut self, record: &str) -> Option<(KernelEvent, u64)> {
        let (head, text) = record.split_once(';')?;
        let mut fields = head.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        let micros: u64 = fields.nth(1)?.parse().ok()?;
        // Programs can write to the log too; the kernel's own facility is 0.
        if priority >> 3 != 0 {
            return None;
        }
        Some((self.event(text)?, micros))
    }

    fn event(&mut self, text: &str) -> Option<KernelEvent> {
        let named = self.named.take();
        let (_, said) = text.split_once("NVRM: ")?;
        if said.starts_with("loading NVIDIA") {
            return Some(KernelEvent::DriverLoaded);
        }
        if let Some(rest) = said.strip_prefix("Xid (") {
            let (place, rest) = rest.split_once(')')?;
            let digits = rest.split(": ").nth(1)?;
            let digits = &digits[..digits.bytes().take_while(u8::is_ascii_digit).count()];
            // A slice of a GPU is named behind the GPU.
            let pci = PciId::parse(place.split(' ').next()?)?;
            return Some(KernelEvent::Xid { pci, number: digits.parse().ok()? });
        }
        let place = ["The NVIDIA GPU ", "GPU "].iter().find_map(|start| said.strip_prefix(start));
        let place = place.and_then(|rest| PciId::parse(rest.split([' ', '\\']).next()?.trim_end_matches(':')));
        if said.contains("fallen off the bus") {
            return Some(KernelEvent::Xid { pci: place.or(named)?, number: OFF_THE_BUS });
        }
        // "The NVIDIA GPU …", and on the next line or the one after what is wrong with it.
        self.named = place.or_else(|| named.filter(|_| said.starts_with("(PCI ID")));
        None
    }
}

#[cfg(test)]
fn place(text: &str) -> PciId {
    PciId::parse(text).unwrap()
}

#[test]
fn kernel_lines() {
    #[track_caller]
    fn check(records: &[&str], expect: &[(KernelEvent, u64)]) {
        let mut log = KernelLog::default();
        let got: Vec<_> = records.iter().filter_map(|record| log.read(record)).collect();
        assert_eq!(got, expect, "{records:?}");
    }
    let xid = |at: &str, number, micros| (KernelEvent::Xid { pci: place(at), number }, micros);
    check(
        &["4,1200,5000000,-;NVRM: Xid (PCI:0000:01:00): 79, pid=1234, name=ollama, GPU has fallen off the bus."],
        &[xid("0000:01:00", 79, 5_000_000)],
    );
    check(&["3,1,7,-;NVRM: Xid (0000:41:00): 31, Ch 00000010"], &[xid("0000:41:00", 31, 7)]);
    check(&["3,1,7,-;NVRM: Xid (PCI:0000:41:00 GPU-I:05): 63, a"], &[xid("0000:41:00", 63, 7)]);
    check(
        &["4,1,7,c;[drm] NVRM: Xid (PCI:0000:c1:00): 119, Timeout after 6s of waiting"],
        &[xid("0000:c1:00", 119, 7)],
    );
    check(&["4,1,7,-;NVRM: GPU 0000:01:00.0: GPU has fallen off the bus."], &[xid("1:0", 79, 7)]);
    check(
        &[
            "4,1,7,-;NVRM: The NVIDIA GPU 0000:01:00.0\\x0aNVRM: (PCI ID: 10de:2684) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.",
        ],
        &[xid("1:0", 79, 7)],
    );
    check(
        &[
            "4,1,7,-;NVRM: The NVIDIA GPU 0000:01:00.0",
            "4,2,7,-;NVRM: (PCI ID: 10de:2684) installed in this system has",
            "4,3,8,-;NVRM: fallen off the bus and is not responding to commands.",
        ],
        &[xid("1:0", 79, 8)],
    );
    check(&["6,1,9,-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.14"], &[(KernelEvent::DriverLoaded, 9)]);
    for noise in [
        "",
        ";",
        "12,1,7,-;NVRM: Xid (PCI:0000:01:00): 79, written by a program",
        "4,1,7,-;usb 1-1: new device",
        "4,1,7,-;NVRM: Xid (PCI:0000:01:00): x",
        "4,1,7,-;NVRM: Xid (PCI",
        "4,1,7,-;NVRM: fallen off the bus and nobody was named",
        "x,y,z,-;NVRM: Xid (PCI:0000:01:00): 79, a",
        " SUBSYSTEM=pci",
    ] {
        check(&[noise], &[]);
    }
}

#[test]
fn errors_are_counted_and_settled() {
    let mut log = XidLog::default();
    let gpu = place("1:0");
    log.record(gpu, 79, 100.0);
    log.record(gpu, 79, 101.0);
    log.record(gpu, 31, 101.0);
    log.record(gpu, 31, 101.0);
    let counts = |log: &XidLog| log.all().iter().map(|k| (k.number, k.count)).collect::<Vec<_>>();
    assert_eq!(counts(&log), [(79, 1), (31, 2)]);
    log.settle(101.0);
    assert_eq!((log.open().count(), log.all().len()), (0, 2));
    log.record(gpu, 79, 200.0);
    assert_eq!(log.open().map(|k| k.count).collect::<Vec<_>>(), [2]);
    for number in 0..2000 {
        log.record(gpu, number, 1000.0 + f64::from(number));
    }
    assert_eq!(log.all().len(), MAX_KINDS);
}
