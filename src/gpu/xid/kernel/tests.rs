use super::*;

fn xid(place: &str, number: u32, class: Class) -> KernelEvent {
    KernelEvent::Xid { pci: PciId::parse(place).unwrap(), number, class }
}

#[track_caller]
fn check(records: &[&str], expect: &[(KernelEvent, u64)]) {
    let mut log = KernelLog::default();
    let got: Vec<_> = records.iter().flat_map(|record| log.read(record)).collect();
    assert_eq!(got, expect, "{records:?}");
}

/// Lines about the GPU at 0000:41:00.
const NUMBERED: &[(&str, u32, Class)] = &[
    ("NVRM: Xid (PCI:0000:41:00): 79, pid=1234, name=ollama, GPU has fallen off the bus.", 79, Class::Fatal),
    ("NVRM: Xid (PCI:0000:41:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", 79, Class::Fatal),
    ("NVRM: Xid (PCI:0000:41:00): 79, GPU has fallen off the bus", 79, Class::Fatal),
    ("NVRM: Xid (PCI:0000:41:00): 62", 62, Class::Fatal),
    ("NVRM: Xid (0000:41:00): 14, Channel 00000001", 14, Class::Info),
    ("NVRM: Xid (0041:00): 13, 0001 00000000 0000502d 00000348 00000000 00000100", 13, Class::Info),
    (
        "NVRM: Xid (PCI:00000000:41:00): 119, Timeout after 6s of waiting for RPC response from GPU0 GSP!",
        119,
        Class::Fatal,
    ),
    ("NVRM: Xid (PCI:0000:41:00.0): 46, pid=7, name=x, Ch 00000010", 46, Class::Fatal),
    (
        "NVRM: Xid (PCI:0000:41:00 GPU-I:05): 63, pid='<unknown>', name=<unknown>, Row Remapper: New row",
        63,
        Class::Warn,
    ),
    ("NVRM: Xid (PCI:0000:41:00, GPU-I:05): 94, pid=7, name=a: b): 31, Contained: SM", 94, Class::Warn),
    (
        "NVRM: Xid (PCI:0000:41:00): 31, pid=7, name=VLLM::Worker, Ch 0000000b, intr 00000000. MMU Fault",
        31,
        Class::Info,
    ),
    (
        "NVRM: Xid (PCI:0000:41:00): 74, pid='<unknown>', NVLink: fatal error detected on link 14(0x0, 0x0)",
        74,
        Class::NvLink,
    ),
    ("NVRM: Xid (PCI:0000:41:00): 999, pid=1, name=new", 999, Class::Info),
    ("NVRM: Xid (PCI:0000:41:00): 154 (", 154, Class::Warn),
    ("NVRM: Xid (PCI:0000:41:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x0)", 149, Class::Fatal),
    (
        "NVRM: Xid (PCI:0000:41:00): 145, pid=7, name=a::B, RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0409a0c2)",
        145,
        Class::Warn,
    ),
    (
        "NVRM: Xid (PCI:0000:41:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (OS Reboot)",
        154,
        Class::Fatal,
    ),
    (
        "NVRM: Xid (PCI:0000:41:00): 154, GPU recovery action changed from 0x4 (Drain and Reset) to 0x0 (None)",
        154,
        Class::AllClear,
    ),
    ("[drm] NVRM: Xid (PCI:0000:41:00): 167, PCIe", 167, Class::Warn),
    ("[ 1843.308145] NVRM: Xid (PCI:0000:41:00): 169, SEC2", 169, Class::Warn),
];

/// Lines that say the same of it without a number.
const OFF_THE_BUS_LINES: &[&str] = &[
    "NVRM: GPU 0000:41:00.0: GPU has fallen off the bus.",
    "NVRM: GPU 0000:41:00.0: GPU has fallen off the bus and is not responding to commands",
    "NVRM: GPU 41:00.0: GPU has fallen off the bus.",
    "NVRM: GPU at 0000:41:00.0 has fallen off the bus.",
    "NVRM: GPU at 0000:41:00.0 has fallen off the bus",
    "NVRM: GPU at PCI:0000:41:00: has fallen off the bus.",
    "NVRM: GPU at 0000:41:00.0, has fallen off the bus and is not responding to commands.",
    "[drm] NVRM: GPU at 00000000:41:00.0 has fallen off the bus.",
    "NVRM: The NVIDIA GPU 0000:41:00.0 has fallen off the bus and is not responding to commands.",
    "NVRM: The NVIDIA GPU 0000:41:00.0\\x0aNVRM: (PCI ID: 10de:2684) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.",
    "NVRM: The NVIDIA GPU 0000:41:00.0\\x0a             NVRM: installed in this system has\\x0a             NVRM: fallen off the bus and is not responding to commands.\\x0a",
];

#[test]
fn every_shape_of_an_error() {
    let off = OFF_THE_BUS_LINES.iter().map(|text| (*text, 79, Class::Fatal));
    for (text, number, class) in NUMBERED.iter().copied().chain(off) {
        let expect = [(xid("0000:41:00", number, class), 5_000_007)];
        for head in ["4,1200,5000007,-", "3,0,5000007,c", "6,18446744073709551615,5000007,-,caller=T1234"] {
            check(&[&format!("{head};{text}")], &expect);
            check(&[&format!("{head};{text}\r")], &expect);
        }
    }
    // Places in capitals, in large domains, with other devices.
    check(&["4,1,7,-;NVRM: Xid (PCI:0000:C1:00): 62"], &[(xid("c1:0", 62, Class::Fatal), 7)]);
    check(&["4,1,7,-;NVRM: Xid (PCI:10000000:01:1E): 62"], &[(xid("10000000:01:1e", 62, Class::Fatal), 7)]);
    check(&["4,1,7,-;NVRM: GPU at 0008:0a:1f.0 has fallen off the bus."], &[(xid("8:a:1f", 79, Class::Fatal), 7)]);
}

#[test]
fn a_record_has_several_lines_and_a_line_several_records() {
    let off = |micros| (xid("0000:41:00", 79, Class::Fatal), micros);
    check(
        &[
            "4,1,6,-;NVRM: The NVIDIA GPU 0000:41:00.0",
            // Other parts of the kernel come between.
            "4,2,6,-;pcieport 0000:40:01.0: link is down",
            " SUBSYSTEM=pci",
            " DEVICE=+pci:0000:40:01.0",
            "4,3,7,-;NVRM: (PCI ID: 10de:2684) installed in this system has",
            "4,4,8,-;NVRM: fallen off the bus and is not responding to commands.",
        ],
        &[off(8)],
    );
    check(
        &[
            "4,1,6,-;NVRM: The NVIDIA GPU 0000:41:00.0 (PCI ID: 10de:2684)",
            "4,2,6,-;NVRM: installed in this system has",
            "4,3,6,-;NVRM: fallen off the bus and is not responding to commands.",
        ],
        &[off(6)],
    );
    check(
        &[
            "4,1,6,-;NVRM: GPU at PCI:0000:41:00: GPU-1\\x0aNVRM: GPU Board Serial Number: 1\\x0aNVRM: Xid (PCI:0000:41:00): 79, pid=1\\x0aNVRM: GPU 0000:41:00.0: GPU has fallen off the bus.",
        ],
        &[off(6), off(6)],
    );
    // What was named belongs to what follows, not to anything later.
    check(
        &[
            "4,1,6,-;NVRM: The NVIDIA GPU 0000:41:00.0",
            "4,2,6,-;NVRM: (PCI ID: 10de:1db1) installed in this system is not supported by open",
            "4,3,6,-;NVRM: nvidia.ko because it does not include the required GPU",
            "4,4,6,-;NVRM: fallen off the bus and is not responding to commands.",
        ],
        &[],
    );
    let mut log = KernelLog::default();
    assert_eq!(log.read("4,1,6,-;NVRM: The NVIDIA GPU 0000:41:00.0"), []);
    log.interrupted();
    assert_eq!(log.read("4,9,6,-;NVRM: fallen off the bus and is not responding to commands."), []);
}

#[test]
fn lines_that_are_not_errors() {
    for noise in [
        "",
        ";",
        "4,1,7,-;",
        // Written by programs: facilities 1 and 3.
        "12,1,7,-;NVRM: Xid (PCI:0000:41:00): 79, written by a program",
        "28,1,7,-;NVRM: Xid (PCI:0000:41:00): 79, written by a daemon",
        "14,1,7,-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.14",
        "4,1,7,-;usb 1-1: new device",
        "4,1,7,-;NVRM: Xid (PCI:0000:41:00): x",
        "4,1,7,-;NVRM: Xid (PCI:0000:41:00): , 79",
        "4,1,7,-;NVRM: Xid (PCI:0000:41:00): 99999999999, too large",
        "4,1,7,-;NVRM: Xid (PCI:nowhere): 79, a",
        "4,1,7,-;NVRM: Xid (PCI",
        "4,1,7,-;NVRM: Xid : 79, nowhere",
        "4,1,7,-;NVRM: Xid error: xyz, invalid data",
        "4,1,7,-;NVRM: fallen off the bus, and no GPU was named",
        "4,1,7,-;NVRM: GPU at PCI:0000:41:00: GPU-8a6c2f0e-4a0e-1f0a-9d55-3c1b7e5f2a10",
        "4,1,7,-;NVRM: GPU at 0000:41:00.0 has software scheduler DISABLED with policy BEST_EFFORT.",
        "4,1,7,-;NVRM: GPU 0000:41:00.0: RmInitAdapter failed! (0x26:0x65:0x1)",
        "4,1,7,-;NVRM: The NVIDIA GPU nowhere.0\\x0aNVRM: fallen off the bus and is not responding to commands.",
        "4,1,7,-;NVRM: The NVIDIA probe routine failed for 1 device(s).",
        "4,1,7,-;nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28002, Non-fatal, Link 46 MC TS crumbstore MCTO",
        "x,y,z,-;NVRM: Xid (PCI:0000:41:00): 79, a",
        "4,1;NVRM: Xid (PCI:0000:41:00): 79, a",
        " SUBSYSTEM=pci",
        " 4,1,7,-;NVRM: Xid (PCI:0000:41:00): 79, a",
    ] {
        check(&[noise], &[]);
    }
}

#[test]
fn a_banner_has_the_time_at_which_its_load_began() {
    let banner = "6,9,100000000,-;NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.158.01  Release Build";
    let began = |micros| [(KernelEvent::DriverLoaded, micros)];
    let core = |micros: u64, what: &str| format!("6,1,{micros},-;nvidia-nvlink: {what}, major device number 236");
    let starts = core(40_000_000, "Nvlink Core is being initialized");
    check(&[banner], &began(90_000_000));
    check(&[&starts, banner], &began(40_000_000));
    check(&[&core(39_000_000, "Unregistered Nvlink Core"), banner], &began(39_000_000));
    check(&[&core(39_000_000, "Unregistered the Nvlink Core"), &starts, banner], &began(40_000_000));
    check(&["6,1,5000000,-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  340.108"], &began(0));
    // Each banner ends its own load.
    let later = banner.replace("100000000", "300000000");
    check(&[&starts, banner, &later], &[began(40_000_000), began(290_000_000)].concat());
}
