//! What each XID means. Classes follow NVIDIA's XID catalogue and DCGM's failures; other numbers are only counted. Where
//! the driver's text says more than the number, the text decides.

/// What an XID means for the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The GPU must be reset.
    Fatal,
    /// The same, but only of a GPU whose NVLinks were ever up: unbridged cards report them without a fault.
    NvLink,
    /// A warning for a while.
    Warn,
    /// XID 154: the driver requests less than a reset. A warning, and any reset that it requested before is done.
    Lesser,
    /// XID 154: the driver requests nothing any more.
    AllClear,
    /// An application's error, or noise.
    Info,
}

/// "Fallen off the bus", which the kernel also reports without a number.
pub(crate) const OFF_THE_BUS: u32 = 79;
/// A change of what the driver requests, which its text names.
pub(crate) const RECOVERY_ACTION: u32 = 154;

/// The known XIDs: first and last number, class, and NVIDIA's meaning, shortened. Sorted.
const XIDS: &[(u32, u32, Class, &str)] = &[
    (13, 13, Class::Info, "graphics engine exception, usually an application error"),
    (31, 31, Class::Info, "memory page fault, usually an application error"),
    (32, 32, Class::Info, "invalid or corrupted push buffer stream"),
    (38, 38, Class::Info, "driver firmware error"),
    (43, 43, Class::Info, "GPU stopped processing for one application"),
    (45, 45, Class::Info, "preemptive cleanup of an application's work"),
    (46, 46, Class::Fatal, "GPU stopped processing"),
    (48, 48, Class::Fatal, "double-bit ECC error"),
    (54, 54, Class::Warn, "auxiliary power is not connected"),
    (61, 61, Class::Info, "internal microcontroller breakpoint"),
    (62, 62, Class::Fatal, "internal microcontroller halt"),
    (63, 63, Class::Warn, "memory row remapped or page retired"),
    (64, 64, Class::Fatal, "row remapping or page retirement failed"),
    (68, 68, Class::Info, "video decoder exception"),
    (69, 69, Class::Info, "graphics engine class error"),
    (74, 74, Class::NvLink, "NVLink error"),
    (OFF_THE_BUS, OFF_THE_BUS, Class::Fatal, "GPU has fallen off the bus"),
    (92, 92, Class::Info, "high rate of single-bit ECC errors"),
    (94, 94, Class::Warn, "contained ECC error"),
    (95, 95, Class::Fatal, "uncontained ECC error"),
    (109, 109, Class::Warn, "context switch timeout"),
    (110, 110, Class::Fatal, "security fault"),
    (119, 119, Class::Fatal, "GSP (GPU system processor) not responding"),
    (120, 120, Class::Fatal, "GSP (GPU system processor) error"),
    (136, 136, Class::NvLink, "NVLink training failed"),
    (140, 140, Class::Fatal, "unrecovered ECC error"),
    (143, 143, Class::Fatal, "GPU initialization error"),
    (144, 150, Class::NvLink, "NVLink error"),
    (RECOVERY_ACTION, RECOVERY_ACTION, Class::Warn, "GPU recovery action changed"),
    (155, 155, Class::NvLink, "NVLink error detected by software"),
    (156, 156, Class::Fatal, "resource retired"),
    (158, 158, Class::Fatal, "fatal timeout of the GPU"),
    (167, 167, Class::Warn, "fatal timeout on the PCIe bus"),
    (169, 169, Class::Warn, "GPU security processor (SEC2) halted"),
];

fn known(number: u32) -> Option<&'static (u32, u32, Class, &'static str)> {
    XIDS.iter().find(|(first, last, ..)| (*first..=*last).contains(&number))
}

/// `words`: the driver's text after the number; NVML's events have none.
pub(crate) fn class(number: u32, words: &str) -> Class {
    match number {
        // Half of those seen in the field are harmless, and the driver says which. Its word counts without an NVLink
        // that was seen up: only GPUs with NVLink 5 report them, and after a fatal one no link may be up.
        144..=150 => says_fatal(words).map_or(Class::NvLink, |fatal| if fatal { Class::Fatal } else { Class::Warn }),
        RECOVERY_ACTION => match recovery_action(words) {
            Some(0) => Class::AllClear,
            // As the rules treat NVML's numbers: a reset, a reboot, a drain and a reset, a bus reset.
            Some(1 | 2 | 4 | 6 | 7) => Class::Fatal,
            // A peer-to-peer drain, a restart of IMEX.
            Some(3 | 5) => Class::Lesser,
            _ => Class::Warn,
        },
        _ => known(number).map_or(Class::Info, |(_, _, class, _)| *class),
    }
}

/// "" for an unknown number.
pub(crate) fn meaning(number: u32) -> &'static str {
    known(number).map_or("", |(.., meaning)| meaning)
}

/// `RLW_REMAP Nonfatal XC0 i0 Link 10 (…)`. A program's name may come first, so the last such word counts.
fn says_fatal(words: &str) -> Option<bool> {
    let mut words = words.rsplit(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
    words.find_map(|word| match word.to_ascii_lowercase().as_str() {
        "fatal" => Some(true),
        "nonfatal" | "non-fatal" => Some(false),
        _ => None,
    })
}

/// `GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)`: the new action, by NVML's numbers. The
/// number decides, because drivers name the same one differently; without a known number the name does.
fn recovery_action(words: &str) -> Option<u32> {
    let (before, to) = words.rsplit_once(" to ")?;
    if !before.contains("recovery action") {
        return None;
    }
    let (number, name) = to.split_once('(').unwrap_or((to, ""));
    let number = number.trim();
    let name = name.split(')').next().unwrap_or_default().trim().to_ascii_lowercase();
    match number.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok()) {
        Some(0) if name.is_empty() || name == "none" => Some(0),
        Some(known @ 1..=7) => Some(known),
        _ if name.contains("reboot") => Some(2),
        _ if name.contains("reset") => Some(1),
        _ if name.contains("drain") => Some(3),
        // Healthy only where nothing contradicts it.
        None if number.is_empty() && name == "none" => Some(0),
        _ => None,
    }
}

#[test]
fn the_drivers_words_decide_where_they_say_more_than_the_number() {
    #[track_caller]
    fn check(number: u32, words: &str, expect: Class) {
        assert_eq!(class(number, words), expect, "{number}{words}");
    }
    let change = |from: &str, to: &str| format!(", GPU recovery action changed from {from} to {to}");
    for (to, expect) in [
        ("0x0 (None)", Class::AllClear),
        ("0x1 (GPU Reset Required)", Class::Fatal),
        ("0x1 (PF FLR)", Class::Fatal),
        ("0x2 (Node Reboot Required)", Class::Fatal),
        ("0x2 (OS Reboot)", Class::Fatal),
        ("0x3 (Drain P2P)", Class::Lesser),
        ("0x4 (Drain and Reset)", Class::Fatal),
        ("0x5 (Restart IMEX)", Class::Lesser),
        ("0x6 (Bus Reset)", Class::Fatal),
        ("0x7 (Power Cycle)", Class::Fatal),
        ("0x9 (Something Else)", Class::Warn),
        ("0x9 (Another Reset)", Class::Fatal),
        ("0x9 (None)", Class::Warn),
        ("0x0 (GPU Reset Required)", Class::Fatal),
        ("(None)", Class::AllClear),
        ("(Node Reboot Required)", Class::Fatal),
        ("(Drain P2P)", Class::Lesser),
        ("0x0", Class::AllClear),
        ("0x1", Class::Fatal),
        ("0xzz (None)", Class::Warn),
        ("0x", Class::Warn),
        ("", Class::Warn),
    ] {
        check(154, &change("0x1 (GPU Reset Required)", to), expect);
        check(154, &change("0x0 (None)", to), expect);
    }
    check(154, "", Class::Warn);
    check(154, " (", Class::Warn);
    check(154, ", GPU recovery action changed from 0x1 (GPU Reset Req", Class::Warn);
    // A process name may be anything; the driver's text comes last.
    let named =
        ", pid=7, name=a to 0x0 (None), GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)";
    check(154, named, Class::Fatal);
    check(154, ", pid=7, name=a to 0x0 (None)", Class::Warn);
    for number in 144..=150 {
        check(number, ", RLW_REMAP Nonfatal XC0 i0 Link 10 (0x00000004 0x00000040)", Class::Warn);
        check(number, ", pid=7, name=my::Worker, RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0 0x8)", Class::Warn);
        check(number, ", NETIR_LINK_EVT  Fatal   XC0 i0 Link -1 (0x1 0x0)", Class::Fatal);
        check(number, ", pid=7, name=Fatal, TREX Nonfatal XC0 i0 Link 00", Class::Warn);
        check(number, ", pid=7, name=Nonfatal, TREX Fatal XC0 i0 Link 00", Class::Fatal);
        check(number, ", TREX_FATAL XC0 i0 Link 00", Class::NvLink);
        check(number, "", Class::NvLink);
    }
    for number in [167, 169] {
        check(number, "", Class::Warn);
        assert!(!meaning(number).is_empty());
    }
    // Of other numbers such words change nothing.
    check(79, ", Nonfatal", Class::Fatal);
    check(31, ", Fatal", Class::Info);
}

/// `src/reference.md`.
#[test]
fn the_reference_has_the_xids() {
    use crate::tables::{markdown, table};

    let named = |class: Class| match class {
        Class::Fatal => "fatal: `XID_FATAL`",
        Class::NvLink => "NVLink: `XID_FATAL` once an NVLink of the GPU was up",
        Class::Warn => "warning: `XID_WARN`",
        Class::Info => "only counted",
        Class::Lesser | Class::AllClear => unreachable!("they need the driver's text"),
    };
    assert!(XIDS.is_sorted_by_key(|(first, ..)| *first));
    let rows = XIDS.iter().map(|(first, last, class, meaning)| {
        let (numbers, class) = match *first {
            144 => (
                format!("{first} to {last}"),
                "by the driver's text: Fatal is fatal, Nonfatal a warning; without either: NVLink",
            ),
            RECOVERY_ACTION => (
                first.to_string(),
                "by the driver's text: a reset or a reboot is fatal, None clears it, others are warnings",
            ),
            _ => (first.to_string(), named(*class)),
        };
        vec![numbers, (*meaning).to_owned(), class.to_owned()]
    });
    let text = format!("{}\n\nOther numbers are only counted.\n", markdown(&["XID", "meaning", "class"], rows));
    table("src/reference.md", "xids", &text);
}
