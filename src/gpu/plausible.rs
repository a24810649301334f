//! Which values a driver can mean. Some answer with success and a number that no board can have (2^32-1, megawatts):
//! such a number is a failed reading, and nothing is concluded from it.

/// Milliwatts. The largest boards take less than half of it.
const MAX_POWER_MW: i128 = 3_000_000;
/// Megahertz; the fastest memory runs at half of it.
const MAX_CLOCK_MHZ: i128 = 30_000;
/// Of a counter of 32 bits: the largest number stands for "unknown".
const MAX_COUNT: i128 = u32::MAX as i128 - 1;
/// Nanoseconds of a century.
const CENTURY_NS: i128 = 100 * 366 * 86_400 * 1_000_000_000;
/// 16 TiB.
const MAX_MEMORY: i128 = 16 << 40;

/// Name in the report, least and greatest value as the driver counts them, unit.
const RANGES: &[(&str, i128, i128, &str)] = &[
    ("vram_total_mb", 1, MAX_MEMORY, "bytes"),
    ("temperature_c", 1, 150, "°C"),
    ("temperature_slowdown_c", 1, 150, "°C"),
    ("temperature_shutdown_c", 1, 150, "°C"),
    ("temperature_max_c", 1, 150, "°C"),
    ("temperature_margin_c", -100, 150, "°C"),
    ("temperature_margin_at_max_c", -100, 150, "°C"),
    ("temperature_margin_at_shutdown_c", -100, 150, "°C"),
    ("memory_temperature_c", 1, 150, "°C"),
    ("memory_temperature_max_c", 1, 150, "°C"),
    ("power_w", 0, MAX_POWER_MW, "mW"),
    ("power_limit_w", 1, MAX_POWER_MW, "mW"),
    ("power_limit_default_w", 1, MAX_POWER_MW, "mW"),
    // The largest board at work for thirty years.
    ("energy_j", 0, MAX_POWER_MW * 86_400 * 366 * 30, "mJ"),
    ("utilization_percent", 0, 100, "%"),
    ("memory_utilization_percent", 0, 100, "%"),
    ("graphics_clock_mhz", 0, MAX_CLOCK_MHZ, "MHz"),
    ("graphics_clock_max_mhz", 1, MAX_CLOCK_MHZ, "MHz"),
    ("memory_clock_mhz", 0, MAX_CLOCK_MHZ, "MHz"),
    ("memory_clock_max_mhz", 1, MAX_CLOCK_MHZ, "MHz"),
    ("throttle_seconds", 0, CENTURY_NS, "ns"),
    ("recovery_action", 0, 255, ""),
    ("remapped_rows", 0, 1 << 24, "rows"),
    // NVML says of a fan that it may exceed 100 %.
    ("fan_percent", 0, 200, "%"),
    ("mig_mode", 0, 1, ""),
    ("pcie_generation", 1, 16, ""),
    ("pcie_generation_max", 1, 16, ""),
    ("pcie_width", 1, 32, "lanes"),
    ("pcie_width_max", 1, 32, "lanes"),
    ("pcie_replays", 0, MAX_COUNT, ""),
    ("ecc_uncorrected_volatile", 0, MAX_COUNT, "errors"),
    ("ecc_uncorrected_aggregate", 0, MAX_COUNT, "errors"),
    ("retired_pages", 0, 1 << 20, "pages"),
    ("processes", 0, 1 << 16, "processes"),
    ("compute_capability", 0, 1000, ""),
];

/// Whether the reading `name` can have this value, in the driver's unit.
///
/// # Errors
/// The value and that it is impossible, for the report's `failed`.
pub(crate) fn check(name: &str, value: impl Into<i128>) -> Result<(), String> {
    let value = value.into();
    match RANGES.iter().find(|(known, ..)| *known == name) {
        Some((_, least, greatest, unit)) if !(least..=greatest).contains(&&value) => Err(impossible(value, unit)),
        _ => Ok(()),
    }
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

/// What a value is said to be that nothing can have.
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
fn every_range_is_of_a_known_reading() {
    use super::sample::Gpu;
    let gpu = Gpu::default();
    let row = serde_json::to_value(crate::api::gpu_row::GpuRow::new(&gpu, &[], &[])).unwrap();
    for (name, ..) in RANGES {
        assert!(row.get(name).is_some(), "{name}");
    }
}
