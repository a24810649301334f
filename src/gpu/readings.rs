//! The table of readings. A row has the field of the GPU, its name in the report, how often it is read, its unit, what it
//! means, which values are plausible, and its metric. The helper's protocol, the report, its text form, the metrics, the
//! OpenAPI schema and the table in src/reference.md are made of it.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::activity::Activity;
use super::failure::{Gaps, GpuError};
use super::mig_instance::MigInstance;
use super::reading::{Metric, Row, fast, fixed, slow};
use super::value::{self, Process, RemappedRows, Reported, RetiredPages, SpareRows, Unit};
use super::vendor::Vendor;
use crate::sys::explanation::{Explanation, Names};
use crate::sys::exposition::{Family, counter, gauge};

pub(crate) type Reading = Row<Gpu>;

/// The largest boards take less than half of it.
const MAX_POWER_MW: i64 = 3_000_000;
/// The fastest memory runs at half of it.
const MAX_CLOCK_MHZ: i64 = 30_000;
/// Of a counter of 32 bits: the largest number stands for "unknown".
const MAX_COUNT: i64 = u32::MAX as i64 - 1;
const CENTURY_NS: i64 = 100 * 366 * 86_400 * 1_000_000_000;
/// The largest board at work for thirty years.
const MAX_ENERGY_MJ: i64 = MAX_POWER_MW * 86_400 * 366 * 30;
/// Eight times what 16 lanes of PCIe 6 carry in a second.
const MAX_PCIE_MIB: i64 = 1_000_000;
/// 16 TiB.
const MAX_MEMORY: i64 = 16 << 40;

/// Families that several readings share, or that have more labels than `uuid`.
const THRESHOLD: Family = gauge(
    "agent_net_gpu_temperature_threshold_celsius",
    &["uuid", "kind"],
    "Temperature limits: max, slowdown, shutdown, hotspot_slowdown, memory_max.",
);
const FAN_SPEED: Family =
    gauge("agent_net_gpu_fan_speed_ratio", &["uuid", "fan"], "Speed of each fan as a share of its full speed.");
const CLOCK: Family = gauge("agent_net_gpu_clock_hertz", &["uuid", "type"], "Current clocks of graphics and memory.");
const THROTTLE_ACTIVE: Family =
    gauge("agent_net_gpu_throttle_active", &["uuid", "reason"], "1 while the GPU is throttled for this reason.");
const THROTTLE_TIME: Family =
    counter("agent_net_gpu_throttle_seconds_total", &["uuid", "reason"], "Throttled time since the driver was loaded.");
const REMAPPED_ROWS: Family =
    gauge("agent_net_gpu_remapped_rows", &["uuid", "type"], "Remapped memory rows, correctable and uncorrectable.");
const REMAP_STATE: &[Metric] = &[
    Metric::one(
        gauge("agent_net_gpu_row_remap_pending", &["uuid"], "1 while a row remap is pending."),
        value::remap_pending,
    ),
    Metric::one(
        gauge("agent_net_gpu_row_remap_failed", &["uuid"], "1 if no spare row was left for a broken one."),
        value::remap_failed,
    ),
];
const RETIRED_PAGES: Family =
    gauge("agent_net_gpu_retired_pages", &["uuid", "type"], "Retired memory pages, by kind of error.");
const SPARE_ROWS: Family = gauge(
    "agent_net_gpu_spare_row_banks",
    &["uuid", "left"],
    "Memory banks by the spare rows that they have left: max, high, partial, low, none.",
);
const PCIE_RATE: Family = gauge(
    "agent_net_gpu_pcie_bytes_per_second",
    &["uuid", "direction"],
    "PCIe traffic: sent by the GPU, received by it.",
);
const LINK_GENERATION: Family =
    gauge("agent_net_gpu_pcie_link_generation", &["uuid", "state"], "PCIe generation, current and max.");
const LINK_WIDTH: Family =
    gauge("agent_net_gpu_pcie_link_width", &["uuid", "state"], "Number of PCIe lanes, current and max.");
/// Not a counter: the volatile ones start again at 0 whenever the driver is loaded.
const ECC_ERRORS: Family = gauge(
    "agent_net_gpu_ecc_errors",
    &["uuid", "type", "scope"],
    "Uncorrectable ECC errors since the driver was loaded (volatile) and in the life of the board (aggregate).",
);

/// Declares the GPU with a field for each reading, and the table of them in the order of the report.
macro_rules! readings {
    ($($field:ident: $type:ty = $row:expr;)+) => {
        /// One GPU at one moment. A reading is in the driver's unit; None is "unknown", and why is in the gaps.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub(crate) struct Gpu {
            pub(crate) vendor: Vendor,
            /// NVML's index; it can change when the driver is reloaded, the UUID does not. AMD GPUs follow NVIDIA's.
            pub(crate) index: u32,
            /// AMD: `GPU-` and the driver's `unique_id`; of a card without one `PCI-` and its place on the bus, as of a GPU
            /// whose UUID another one has as well.
            pub(crate) uuid: Option<String>,
            pub(crate) name: Option<String>,
            /// `00000000:01:00.0`, as NVML writes it.
            pub(crate) pci_bus_id: Option<String>,
            /// It has no memory of its own: `vram_` is the machine's main memory.
            pub(crate) unified_memory: bool,
            /// It sleeps, and is not woken: it has no readings but those that are known without it.
            pub(crate) asleep: bool,
            $(pub(crate) $field: $type,)+
            /// Which fast readings have no value, and why.
            pub(crate) gaps: Gaps,
            pub(crate) slow_gaps: Gaps,
            pub(crate) fixed_gaps: Gaps,
            /// Microseconds that reading it took; of a GPU that does not respond, for how long it has not.
            pub(crate) read_us: Option<u64>,
            /// The GPU as a whole does not respond.
            pub(crate) error: Option<GpuError>,
            /// Where a probe asked for it.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub(crate) activity: Option<Activity>,
        }

        pub(crate) static READINGS: &[Reading] = &[$({
            const ROW: Reading = $row;
            Row {
                shown: |gpu| gpu.$field.shown(ROW.unit),
                number: |gpu| gpu.$field.number(),
                #[cfg(any(feature = "nvml", test))]
                clear: |gpu| gpu.$field = <$type>::default(),
                #[cfg(test)]
                schema: |generator| ROW.unit.schema::<$type>(generator),
                ..ROW
            }
        }),+];
    };
}

readings! {
    vram_total_bytes: Option<u64> = fast("vram_total_mb", Unit::Bytes, "Memory of the GPU.").core().range(1, MAX_MEMORY)
        .gauge("agent_net_gpu_memory_total_bytes");
    vram_used_bytes: Option<u64> = fast("vram_used_mb", Unit::Bytes, "Memory in use.").core()
        .gauge("agent_net_gpu_memory_used_bytes");
    vram_free_bytes: Option<u64> = fast("vram_free_mb", Unit::Bytes, "Free memory.").core()
        .gauge("agent_net_gpu_memory_free_bytes");
    vram_reserved_bytes: Option<u64> =
        fast("vram_reserved_mb", Unit::Bytes, "Memory reserved by driver and firmware; neither used nor free.")
            .gauge("agent_net_gpu_memory_reserved_bytes");
    gtt_total_bytes: Option<u64> = fast(
        "gtt_total_mb", Unit::Bytes, "Main memory that an AMD GPU may map. For a GPU in the processor, `vram_total_mb` includes it.",
    ).range(0, MAX_MEMORY).gauge("agent_net_gpu_gtt_total_bytes");
    gtt_used_bytes: Option<u64> =
        fast("gtt_used_mb", Unit::Bytes, "Main memory that an AMD GPU has mapped.").range(0, MAX_MEMORY)
            .gauge("agent_net_gpu_gtt_used_bytes");
    temperature_c: Option<u32> = fast("temperature_c", Unit::Celsius, "Temperature of the GPU.").core().range(1, 150)
        .gauge("agent_net_gpu_temperature_celsius");
    temperature_slowdown_c: Option<u32> =
        fixed("temperature_slowdown_c", Unit::Celsius, "Temperature at which the hardware throttles.").range(1, 150)
            .series(THRESHOLD, &["slowdown"]);
    temperature_shutdown_c: Option<u32> =
        fixed("temperature_shutdown_c", Unit::Celsius, "Temperature at which the hardware shuts down.").range(1, 150)
            .series(THRESHOLD, &["shutdown"]);
    temperature_max_c: Option<u32> =
        fixed("temperature_max_c", Unit::Celsius, "Specified maximum temperature.").range(1, 150)
            .series(THRESHOLD, &["max"]);
    temperature_margin_c: Option<i32> =
        fast("temperature_margin_c", Unit::Celsius, "Degrees left to the thermal limit; negative: the GPU throttles.")
            .range(-100, 150)
            .gauge("agent_net_gpu_temperature_margin_celsius");
    margin_at_max_c: Option<i32> = fixed(
        "temperature_margin_at_max_c", Unit::Celsius,
        "The margin at the specified maximum; newer GPUs have it instead of `temperature_max_c`.",
    ).range(-100, 150);
    margin_at_shutdown_c: Option<i32> = fixed(
        "temperature_margin_at_shutdown_c", Unit::Celsius,
        "The margin at which the hardware shuts down; newer GPUs have it instead of `temperature_shutdown_c`.",
    ).range(-100, 150);
    hotspot_temperature_c: Option<u32> =
        fast("hotspot_temperature_c", Unit::Celsius, "Temperature of the chip's hot spot (AMD).").lasting().range(1, 150)
            .gauge("agent_net_gpu_hotspot_temperature_celsius");
    hotspot_temperature_slowdown_c: Option<u32> = fixed(
        "hotspot_temperature_slowdown_c", Unit::Celsius, "Temperature of the hot spot at which the GPU throttles.",
    ).range(1, 150).series(THRESHOLD, &["hotspot_slowdown"]);
    memory_temperature_c: Option<u32> =
        fast("memory_temperature_c", Unit::Celsius, "Temperature of the memory.").lasting().range(1, 150)
            .gauge("agent_net_gpu_memory_temperature_celsius");
    memory_temperature_max_c: Option<u32> =
        fixed("memory_temperature_max_c", Unit::Celsius, "Specified maximum temperature of the memory.").range(1, 150)
            .series(THRESHOLD, &["memory_max"]);
    power_mw: Option<u32> = fast("power_w", Unit::Milliwatts, "Power draw.").core().range(0, MAX_POWER_MW)
        .gauge("agent_net_gpu_power_watts");
    memory_power_mw: Option<u32> =
        slow("memory_power_w", Unit::Milliwatts, "Power draw of the memory, a mean of about a second. From driver 545 on.")
            .range(0, MAX_POWER_MW).gauge("agent_net_gpu_memory_power_watts");
    power_limit_mw: Option<u32> =
        fast("power_limit_w", Unit::Milliwatts, "Power limit in force.").range(1, MAX_POWER_MW)
            .gauge("agent_net_gpu_power_limit_watts");
    power_limit_default_mw: Option<u32> =
        fixed("power_limit_default_w", Unit::Milliwatts, "Default power limit.").range(1, MAX_POWER_MW);
    power_alarm: Option<bool> =
        fast("power_alarm", Unit::Of(""), "True while a power rail exceeds its limit (Jetson boards only).");
    energy_mj: Option<u64> =
        fast("energy_j", Unit::Millijoules, "Energy used since the driver was loaded.").range(0, MAX_ENERGY_MJ)
            .counter("agent_net_gpu_energy_joules_total");
    utilization_percent: Option<u32> =
        fast("utilization_percent", Unit::Percent, "Share of the time in which a kernel ran.").core().range(0, 100)
            .gauge("agent_net_gpu_utilization_ratio");
    memory_utilization_percent: Option<u32> = fast(
        "memory_utilization_percent", Unit::Percent, "Share of the time in which memory was read or written.",
    ).range(0, 100).gauge("agent_net_gpu_memory_utilization_ratio");
    sm_activity_percent: Option<f64> = fast(
        "sm_activity_percent", Unit::Percent,
        "Share of the compute units (SMs) at work since the last sample (GPM, Hopper and later).",
    ).range(0, 100).gauge("agent_net_gpu_sm_activity_ratio");
    tensor_activity_percent: Option<f64> = fast(
        "tensor_activity_percent", Unit::Percent, "Share of the tensor cores at work since the last sample (GPM).",
    ).range(0, 100).gauge("agent_net_gpu_tensor_activity_ratio");
    dram_activity_percent: Option<f64> = fast(
        "dram_activity_percent", Unit::Percent, "Share of the memory bandwidth in use since the last sample (GPM).",
    ).range(0, 100).gauge("agent_net_gpu_dram_activity_ratio");
    pcie_sent_mib_per_second: Option<f64> = fast(
        "pcie_sent_mib_per_second", Unit::Throughput, "PCIe traffic from the GPU since the last sample (GPM).",
    ).range(0, MAX_PCIE_MIB).series(PCIE_RATE, &["sent"]);
    pcie_received_mib_per_second: Option<f64> = fast(
        "pcie_received_mib_per_second", Unit::Throughput, "PCIe traffic to the GPU since the last sample (GPM).",
    ).range(0, MAX_PCIE_MIB).series(PCIE_RATE, &["received"]);
    graphics_clock_mhz: Option<u32> =
        fast("graphics_clock_mhz", Unit::Megahertz, "Graphics clock.").range(0, MAX_CLOCK_MHZ)
            .series(CLOCK, &["graphics"]);
    graphics_clock_max_mhz: Option<u32> =
        fixed("graphics_clock_max_mhz", Unit::Megahertz, "Highest graphics clock.").range(1, MAX_CLOCK_MHZ);
    memory_clock_mhz: Option<u32> =
        fast("memory_clock_mhz", Unit::Megahertz, "Memory clock.").range(0, MAX_CLOCK_MHZ).series(CLOCK, &["memory"]);
    memory_clock_max_mhz: Option<u32> =
        fixed("memory_clock_max_mhz", Unit::Megahertz, "Highest memory clock.").range(1, MAX_CLOCK_MHZ);
    performance_state: Option<u32> =
        fast("performance_state", Unit::Of(""), "P-state: 0 is the fastest, 15 the slowest.")
            .gauge("agent_net_gpu_performance_state");
    throttle_bits: Option<u64> = fast(
        "throttle_reasons", Unit::ThrottleBits,
        "Why the GPU is throttled now: idle, sw_power, hw, hw_thermal, hw_power_brake, sw_thermal.",
    ).lasting().each(THROTTLE_ACTIVE, value::active);
    throttle_ns: BTreeMap<String, u64> =
        fast("throttle_seconds", Unit::Nanoseconds, "Throttled time since the driver was loaded, by reason.")
            .range(0, CENTURY_NS).each(THROTTLE_TIME, value::seconds);
    recovery_action: Option<u32> = fast(
        "recovery_action", Unit::Of(""),
        "What the driver requests (NVML field 230): 0 nothing, 1 a GPU reset, 2 or 7 a reboot, 3 to end peer-to-peer \
         traffic, 4 the same and a GPU reset, 5 a restart of IMEX, 6 a reset of the bus.",
    ).lasting().range(0, 255).gauge("agent_net_gpu_recovery_action");
    fan_percent: Option<Vec<u32>> =
        // NVML says of a fan that it may exceed 100 %.
        slow("fan_percent", Unit::Percent, "Target speed of each fan, as a share of its full speed.").range(0, 200)
            .each(FAN_SPEED, value::fans);
    fan_rpm: Option<u32> = slow("fan_rpm", Unit::Of("RPM"), "Speed of the fan; 0 when idle is normal (AMD).").range(0, 30_000)
        .gauge("agent_net_gpu_fan_rpm");
    pcie_generation: Option<u32> =
        slow("pcie_generation", Unit::Of(""), "PCIe generation now; low when idle.").range(1, 16)
            .series(LINK_GENERATION, &["current"]);
    pcie_generation_max: Option<u32> =
        fixed("pcie_generation_max", Unit::Of(""), "Highest PCIe generation of card and slot.").range(1, 16)
            .series(LINK_GENERATION, &["max"]);
    pcie_width: Option<u32> =
        slow("pcie_width", Unit::Of("lanes"), "PCIe lanes now.").range(1, 32).series(LINK_WIDTH, &["current"]);
    pcie_width_max: Option<u32> =
        fixed("pcie_width_max", Unit::Of("lanes"), "Highest number of PCIe lanes of card and slot.").range(1, 32)
            .series(LINK_WIDTH, &["max"]);
    pcie_replays: Option<u32> =
        slow("pcie_replays", Unit::Of(""), "PCIe replays since the driver was loaded.").range(0, MAX_COUNT)
            .counter("agent_net_gpu_pcie_replays_total");
    nvlinks_active: Option<u32> = slow("nvlinks_active", Unit::Of(""), "NVLinks that are up.")
        .gauge("agent_net_gpu_nvlinks_active");
    fabric_state: Option<String> = slow(
        "fabric_state", Unit::Of(""),
        "Registration with the NVLink fabric of a machine with NVSwitches: not_started, in_progress, completed.",
    );
    fabric_status: Option<String> = slow(
        "fabric_status", Unit::Of(""), "Result of that registration once it is completed: success, or NVML's error.",
    );
    fabric_health: Option<String> = slow(
        "fabric_health", Unit::Of(""),
        "Health of its fabric: healthy, unhealthy or limited capacity, then what is wrong (newer drivers).",
    );
    ecc_enabled: Option<bool> = slow("ecc_enabled", Unit::Of(""), "True while ECC is on.").lasting();
    ecc_uncorrected_volatile: Option<u64> = slow(
        "ecc_uncorrected_volatile", Unit::Of("errors"),
        "Uncorrectable ECC errors since the driver was loaded.",
    ).range(0, MAX_COUNT).series(ECC_ERRORS, &["uncorrected", "volatile"]);
    ecc_uncorrected_aggregate: Option<u64> = slow(
        "ecc_uncorrected_aggregate", Unit::Of("errors"), "Uncorrectable ECC errors in the life of the board.",
    ).range(0, MAX_COUNT).series(ECC_ERRORS, &["uncorrected", "aggregate"]);
    remapped_rows: Option<RemappedRows> = fast(
        "remapped_rows", Unit::Of("rows"),
        "Remapped memory rows, and whether a remap is pending or has failed (Ampere and later).",
    ).lasting().range(0, 1 << 24).each(REMAPPED_ROWS, value::kinds).more(REMAP_STATE);
    spare_rows: Option<SpareRows> = slow(
        "spare_rows", Unit::Of("banks"),
        "Memory banks by the spare rows that they have left for row remaps (Ampere and later).",
    ).range(1, 1 << 24).each(SPARE_ROWS, value::banks);
    retired_pages: Option<RetiredPages> = slow(
        "retired_pages", Unit::Of("pages"), "Retired memory pages, and whether one is pending (before Ampere).",
    ).lasting().range(0, 1 << 20).each(RETIRED_PAGES, value::kinds);
    sram_threshold_exceeded: Option<bool> = slow(
        "sram_threshold_exceeded", Unit::Of(""),
        "Whether the on-chip memory (SRAM) has had more uncorrectable errors than NVIDIA tolerates. Some drivers report it \
         to root alone.",
    ).lasting().flag("agent_net_gpu_sram_threshold_exceeded");
    channel_repair_pending: Option<bool> =
        slow("channel_repair_pending", Unit::Of(""), "Whether the repair of a memory channel waits for a reset.").lasting()
            .flag("agent_net_gpu_channel_repair_pending");
    tpc_repair_pending: Option<bool> =
        slow("tpc_repair_pending", Unit::Of(""), "Whether the repair of a compute unit (TPC) waits for a reset.").lasting()
            .flag("agent_net_gpu_tpc_repair_pending");
    unrepairable_memory: Option<bool> =
        slow("unrepairable_memory", Unit::Of(""), "Whether the memory has errors beyond repair (Hopper and later).").lasting()
            .flag("agent_net_gpu_unrepairable_memory");
    inforom_corrupt: Option<bool> =
        fixed("inforom_corrupt", Unit::Of(""), "True if the infoROM, the board's own data, is corrupted.");
    vbios_version: Option<String> = fixed("vbios_version", Unit::Of(""), "Version of the video BIOS.");
    addressing_mode: Option<String> = fixed(
        "addressing_mode", Unit::Of(""),
        "How the GPU sees the CPU's memory: none, hmm (pages move between two memories) or ats (one page table). From \
         driver 580 on.",
    );
    compute_capability: Option<(i32, i32)> =
        fixed("compute_capability", Unit::Of(""), "CUDA compute capability, such as 8.9.").range(0, 1000);
    persistence_mode: Option<bool> = slow("persistence_mode", Unit::Of(""), "True while persistence mode is on.");
    mig_mode: Option<bool> =
        slow("mig_mode", Unit::Of(""), "True while MIG is on; many readings of the whole GPU are unsupported then.")
            .range(0, 1);
    mig: Option<Vec<MigInstance>> = slow(
        "mig", Unit::Of("instances"),
        "The MIG instances of the GPU, or those that the container was given; empty without one, null outside MIG mode. \
         Their memory in use and their activity are read at each sample.",
    ).range(0, 64);
    processes: Option<Vec<Process>> = slow(
        "processes", Unit::Of("processes"), "Compute processes, at most 32. Their names need the host's /proc.",
    ).range(0, 1 << 16);
}

/// The readings of a GPU as the report shows them: all names of the table, null for what is unknown.
#[derive(Debug)]
pub(crate) struct Shown<'a>(pub(crate) &'a Gpu);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(READINGS.len()))?;
        for reading in READINGS {
            map.serialize_entry(reading.name, &(reading.shown)(self.0))?;
        }
        map.end()
    }
}

pub(crate) fn find(name: &str) -> Option<&'static Reading> {
    READINGS.iter().find(|reading| reading.name == name)
}

/// For `agent-net explain`.
pub(crate) const NAMES: Names =
    Names { kind: "reading", all: || READINGS.iter().map(|reading| reading.name).collect(), find: explain };

fn explain(name: &str) -> Option<Explanation> {
    let reading = READINGS.iter().find(|reading| reading.name.eq_ignore_ascii_case(name))?;
    let metrics: Vec<&str> = reading.metric.iter().chain(reading.more).map(|metric| metric.family.name).collect();
    let range = reading.range.map(|(least, greatest)| format!("{least} to {greatest} {}", reading.unit.word()));
    let fields = [
        ("meaning", reading.doc.to_owned()),
        ("unit", reading.unit.shown_in().to_owned()),
        ("plausible", range.unwrap_or_default()),
        ("metrics", metrics.join(", ")),
    ];
    Some(Explanation::new(&NAMES, reading.name, fields))
}

/// Whether every GPU has this reading.
pub(crate) fn is_core(name: &str) -> bool {
    find(name).is_some_and(|reading| reading.core)
}

/// Whether health is judged by this reading.
#[cfg(feature = "nvml")]
pub(crate) fn is_lasting(name: &str) -> bool {
    find(name).is_some_and(|reading| reading.lasting)
}

/// The metrics of all readings, each with the readings that it is made of.
pub(crate) fn families() -> Vec<(Family, Vec<(&'static Reading, Metric)>)> {
    let mut all: Vec<(Family, Vec<_>)> = Vec::new();
    for (reading, metric) in READINGS.iter().flat_map(|r| r.metrics().map(move |metric| (r, *metric))) {
        match all.iter_mut().find(|(family, _)| *family == metric.family) {
            Some((_, series)) => series.push((reading, metric)),
            None => all.push((metric.family, vec![(reading, metric)])),
        }
    }
    all
}

#[cfg(test)]
mod tests;
