//! Which values a driver can mean. Some drivers report success and a number that no board can have (2^32-1, megawatts).
//! Such a number is a failed reading.

use super::readings;

/// Whether the reading `name` can have this value, in the driver's unit.
///
/// # Errors
/// The value and that it is impossible, for the report's `failed`.
pub(crate) fn check(name: &str, value: impl Into<i128>) -> Result<(), String> {
    let value = value.into();
    let reading = readings::find(name);
    debug_assert!(reading.is_some(), "the table of readings has no {name}");
    match reading.and_then(|reading| Some((reading.range?, reading.unit.word()))) {
        Some(((least, greatest), unit)) if value < least.into() || value > greatest.into() => {
            Err(impossible(value, unit))
        }
        _ => Ok(()),
    }
}

/// The value of a share or a rate, if the reading `name` can have it. Rounding may take it over the greatest one by less
/// than half.
///
/// # Errors
/// As [`check`].
#[cfg(any(feature = "nvml", test))]
pub(crate) fn check_decimal(name: &str, value: f64) -> Result<f64, String> {
    let reading = readings::find(name);
    let (least, greatest) = reading.and_then(|reading| reading.range).unwrap_or((i64::MIN, i64::MAX));
    let (least, greatest) = (least as f64, greatest as f64);
    // NaN is in no range.
    if (least..greatest + 0.5).contains(&value) {
        return Ok(value.min(greatest));
    }
    Err(impossible(value, reading.map_or("", |reading| reading.unit.word())))
}

/// Most fans of one card.
#[cfg(any(feature = "nvml", test))]
pub(crate) const MAX_FANS: u32 = 16;

/// Used, free and reserved bytes of `total`.
///
/// # Errors
/// As [`check`].
#[cfg(any(feature = "nvml", test))]
pub(crate) fn check_memory(total: u64, parts: [u64; 3]) -> Result<(), String> {
    match parts.into_iter().max().filter(|part| *part > total) {
        Some(part) => Err(format!("{part} bytes of {total} is impossible")),
        None => Ok(()),
    }
}

/// How a value that no board can have is described.
pub(crate) fn impossible(value: impl std::fmt::Display, unit: &str) -> String {
    let space = if unit.is_empty() { "" } else { " " };
    format!("{value}{space}{unit} is impossible")
}

#[test]
fn absurd_values_are_refused() {
    #[track_caller]
    fn row(name: &str, good: &[i128], bad: &[i128]) {
        for value in good {
            assert_eq!(check(name, *value), Ok(()), "{name}");
        }
        for value in bad.iter().chain(&[u64::MAX.into()]) {
            assert!(check(name, *value).unwrap_err().starts_with(&value.to_string()), "{name}");
        }
    }
    let pattern = i128::from(u32::MAX);
    row("utilization_percent", &[0, 100], &[101, 250, pattern]);
    row("temperature_c", &[1, 104, 150], &[0, 151, -1]);
    row("temperature_margin_c", &[-20, 0, 90], &[-101, 151]);
    row("power_w", &[0, 63_200, 1_400_000], &[3_700_000_000, pattern]);
    row("power_limit_w", &[350_000], &[0, pattern]);
    row("energy_j", &[0, 123_456_789, 10_i128.pow(15)], &[]);
    row("graphics_clock_mhz", &[0, 210, 3_105], &[40_000, pattern]);
    row("memory_clock_mhz", &[405, 14_001], &[pattern]);
    row("pcie_replays", &[0, 5_000_000], &[pattern]);
    row("ecc_uncorrected_volatile", &[0, 7], &[pattern]);
    row("fan_percent", &[0, 30, 104], &[250, pattern]);
    row("pcie_width", &[1, 16], &[0, 33, pattern]);
    row("pcie_generation", &[1, 6], &[0, 17, pattern]);
    row("retired_pages", &[0, 64], &[pattern]);
    row("remapped_rows", &[0, 600], &[pattern]);
    row("recovery_action", &[0, 7, 99], &[pattern]);
    assert_eq!(check("power_w", 3_700_000_000_u32), Err("3700000000 mW is impossible".into()));
    assert_eq!(check("pcie_replays", 5_000_000_u32), Ok(()));
    assert_eq!(check_memory(8192, [7000, 1192, 0]), Ok(()));
    assert_eq!(check_memory(8192, [20000, 0, 0]), Err("20000 bytes of 8192 is impossible".into()));
    assert_eq!(check_memory(8192, [0, 0, u64::MAX]), Err(format!("{} bytes of 8192 is impossible", u64::MAX)));
}

#[test]
fn both_ends_of_every_range_are_plausible_and_nothing_beyond() {
    let ranges: Vec<_> = readings::READINGS.iter().filter_map(|r| Some((r.name, r.range?))).collect();
    assert!(ranges.len() >= 35, "{ranges:?}");
    for (name, (least, greatest)) in ranges {
        assert!(least < greatest, "{name}");
        for (value, good) in [(least - 1, false), (least, true), (greatest, true), (greatest + 1, false)] {
            assert_eq!(check(name, value).is_ok(), good, "{name}: {value}");
        }
    }
}

#[test]
fn a_share_is_a_number_from_0_to_100() {
    let name = "sm_activity_percent";
    for (value, expect) in [(0.0, 0.0), (37.25, 37.25), (100.0, 100.0), (100.4, 100.0)] {
        assert_eq!(check_decimal(name, value), Ok(value.min(expect)), "{value}");
    }
    for value in [100.5, -0.1, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(check_decimal(name, value), Err(format!("{value} % is impossible")));
    }
    assert_eq!(check_decimal("pcie_sent_mib_per_second", 54_321.5), Ok(54_321.5));
}
