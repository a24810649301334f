//! Main memory, from the text of /proc/meminfo.

/// Bytes in total and available.
pub(crate) fn parse(text: &str) -> Option<(u64, u64)> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some((bytes("MemTotal")?, bytes("MemAvailable")?))
}

#[test]
fn both_lines_or_nothing() {
    let text = "MemTotal:       16 kB\nMemFree:  1 kB\nMemAvailable:   8 kB\nSwapTotal: x\n";
    assert_eq!(parse(text), Some((16384, 8192)));
    assert_eq!(parse("MemTotal: 16 kB\n"), None);
    assert_eq!(parse("MemTotal: 16 kB\nMemAvailable: 18446744073709551615 kB\n"), None);
}
