//! What each XID means: classes follow NVIDIA's XID catalogue and what DCGM calls a failure; other numbers are counted
//! only. Where the driver's own words say more than the number, the words decide.

/// What a report means for the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The GPU must be reset.
    Fatal,
    /// The same, but only of a GPU whose NVLinks were ever up: unbridged cards report them for nothing.
    NvLink,
    /// Worth a look for a while.
    Warn,
    /// XID 154: the driver asks for less than a reset. A warning, and any reset that it asked for before is done.
    Lesser,
    /// XID 154: the driver asks for nothing any more.
    AllClear,
    /// A program's own fault, or noise.
    Info,
}

/// "Fallen off the bus", which the kernel also says without a number.
pub(crate) const OFF_THE_BUS: u32 = 79;
/// A change of what the driver asks for, which its text names.
pub(crate) const RECOVERY_ACTION: u32 = 154;

/// `words`: what the driver says behind the number; NVML's events have none.
pub(crate) fn class(number: u32, words: &str) -> Class {
    match number {
        46 | 48 | 62 | 64 | OFF_THE_BUS | 95 | 110 | 119 | 120 | 140 | 143 | 156 | 158 => Class::Fatal,
        74 | 136 | 155 => Class::NvLink,
        // Half of those that the field shows are harmless, and the driver says which. Its word counts without an NVLink
        // that was seen up as well: only GPUs with NVLink 5 report them, and after a fatal one no link may be up.
        144..=150 => says_fatal(words).map_or(Class::NvLink, |fatal| if fatal { Class::Fatal } else { Class::Warn }),
        RECOVERY_ACTION => match recovery_action(words) {
            Some(0) => Class::AllClear,
            // As the rules judge the same numbers of NVML: a reset, a reboot, a drain and a reset, a reset of the bus.
            Some(1 | 2 | 4 | 6 | 7) => Class::Fatal,
            // An end of peer-to-peer traffic, a restart of IMEX.
            Some(3 | 5) => Class::Lesser,
            _ => Class::Warn,
        },
        54 | 63 | 94 | 109 | 167 | 169 => Class::Warn,
        _ => Class::Info,
    }
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
/// number decides, as drivers call the same one by other words; where there is none that is known, the words do.
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
        // All is well only where nothing contradicts it.
        None if number.is_empty() && name == "none" => Some(0),
        _ => None,
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
        OFF_THE_BUS => "GPU has fallen off the bus",
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
        RECOVERY_ACTION => "GPU recovery action changed",
        155 => "NVLink error that software noticed",
        156 => "a resource was retired",
        158 => "fatal timeout of the GPU",
        167 => "fatal timeout on the PCIe bus",
        169 => "the GPU's security processor (SEC2) halted",
        _ => "",
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
    // A program may call itself what it likes; the driver speaks last.
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
