//! Formats of Go programs.

use std::time::Duration;

/// Go counts nanoseconds in 63 bits.
const LONGEST: Duration = Duration::from_nanos(i64::MAX as u64);

/// Go's way to write a duration: `5s`, `1m30s`, `1.5s`, `100µs`, `1h0m0s`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [
            ("ns", 1e-9),
            ("µs", 1e-6),
            ("μs", 1e-6),
            ("us", 1e-6),
            ("ms", 1e-3),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
    }
    Some(total).filter(|total| !text.is_empty() && *total <= LONGEST)
}

#[test]
fn durations_as_go_writes_them() {
    for (text, expect) in
        [("5s", 5.0), ("1m30s", 90.0), ("1.5s", 1.5), ("100µs", 1e-4), ("1h0m0s", 3600.0), ("250ms", 0.25), ("0s", 0.0)]
    {
        assert_eq!(duration(text), Some(Duration::from_secs_f64(expect)), "{text}");
    }
    for junk in ["", "5", "s", "5x", "-5s", "1e9999h", "999999999999999999999h", "1.2.3s", "2562048h"] {
        assert_eq!(duration(junk), None, "{junk}");
    }
}
