//! The metrics of a snapshot, under one prefix, in base units, identity in `_info` and values keyed by `uuid`.
//! What is not known is absent, never 0.

pub(crate) mod keepers;
pub(crate) mod nvidia_smi;
pub(crate) mod process;
pub(crate) mod registrations;

use std::collections::BTreeSet;

use crate::config::limits::Limits;
use crate::gpu::sample::{Gpu, THROTTLES};
use crate::gpu::xid::Xid;
use crate::health::snapshot::Snapshot;
use crate::health::uptime::WINDOWS;
use crate::health::verdict::{self, Reason, Verdict};
use crate::ollama::state::Reach;
use crate::sys::exposition::{Exposition, Kind, Labels};

/// What is exposed before the first sample.
pub(crate) fn nothing_yet(open: bool) -> String {
    let mut out = Exposition::new(open);
    out.family("agent_net_build_info", Kind::Info, "Version of the worker and where its readings come from.");
    out.sample(&[("version", env!("CARGO_PKG_VERSION")), ("source", "none")], Some(1.0));
    out.single("agent_net_up", Kind::Gauge, "1 while the GPUs can be read.", Some(0.0));
    out.into_text()
}

/// A family with one value a GPU.
type PerGpu = (&'static str, &'static str, fn(&Gpu) -> Option<f64>);

fn number<T: Into<f64>>(value: Option<T>) -> Option<f64> {
    value.map(Into::into)
}

fn count(value: Option<u64>) -> Option<f64> {
    value.map(|n| n as f64)
}

fn share(percent: Option<u32>) -> Option<f64> {
    percent.map(|p| f64::from(p) / 100.0)
}

fn flag(value: bool) -> Option<f64> {
    Some(f64::from(u8::from(value)))
}

const GAUGES: &[PerGpu] = &[
    ("agent_net_gpu_memory_total_bytes", "Memory of the GPU.", |g| count(g.vram_total_bytes)),
    ("agent_net_gpu_memory_used_bytes", "Memory in use.", |g| count(g.vram_used_bytes)),
    ("agent_net_gpu_memory_free_bytes", "Memory that can be had.", |g| count(g.vram_free_bytes)),
    ("agent_net_gpu_memory_reserved_bytes", "Memory that driver and firmware hold back.", |g| {
        count(g.vram_reserved_bytes)
    }),
    ("agent_net_gpu_utilization_ratio", "Share of the time in which a kernel ran.", |g| share(g.utilization_percent)),
    ("agent_net_gpu_memory_utilization_ratio", "Share of the time in which memory was read or written.", |g| {
        share(g.memory_utilization_percent)
    }),
    ("agent_net_gpu_temperature_celsius", "Temperature of the GPU.", |g| number(g.temperature_c)),
    ("agent_net_gpu_temperature_margin_celsius", "Degrees left to the limit at which the GPU slows down.", |g| {
        number(g.temperature_margin_c)
    }),
    ("agent_net_gpu_memory_temperature_celsius", "Temperature of the memory.", |g| number(g.memory_temperature_c)),
    ("agent_net_gpu_power_watts", "Power draw.", |g| g.power_mw.map(|mw| f64::from(mw) / 1000.0)),
    ("agent_net_gpu_power_limit_watts", "Power limit in force.", |g| g.power_limit_mw.map(|mw| f64::from(mw) / 1000.0)),
    ("agent_net_gpu_performance_state", "0 is the fastest state, 15 the slowest.", |g| number(g.performance_state)),
    ("agent_net_gpu_recovery_action", "What the driver asks for (NVML field 230); 0 is nothing.", |g| {
        number(g.recovery_action)
    }),
    ("agent_net_gpu_row_remap_pending", "A broken memory row waits for a reset to be replaced.", |g| {
        g.remapped_rows.and_then(|rows| flag(rows.pending))
    }),
    ("agent_net_gpu_row_remap_failed", "No spare row was left for a broken one.", |g| {
        g.remapped_rows.and_then(|rows| flag(rows.failed))
    }),
    ("agent_net_gpu_nvlinks_active", "NVLinks that are up.", |g| number(g.slow.nvlinks_active)),
];

const COUNTERS: &[PerGpu] = &[
    ("agent_net_gpu_energy_joules_total", "Energy used since the driver was loaded.", |g| {
        g.energy_mj.map(|mj| mj as f64 / 1000.0)
    }),
    ("agent_net_gpu_pcie_replays_total", "PCIe transfers that had to be repeated.", |g| number(g.slow.pcie_replays)),
];

/// The values of one label, and what is read for each.
type Values = fn(&Gpu) -> Vec<(String, Option<f64>)>;

/// One row for each GPU and each value of one label.
const LABELLED: &[(&str, Kind, &str, &str, Values)] = &[
    ("agent_net_gpu_temperature_threshold_celsius", Kind::Gauge, "Limits of the GPU's temperature.", "kind", |g| {
        vec![
            ("max".into(), number(g.fixed.temperature_max_c)),
            ("slowdown".into(), number(g.fixed.temperature_slowdown_c)),
            ("shutdown".into(), number(g.fixed.temperature_shutdown_c)),
            ("memory_max".into(), number(g.fixed.memory_temperature_max_c)),
        ]
    }),
    ("agent_net_gpu_fan_speed_ratio", Kind::Gauge, "Speed of each fan beside its full speed.", "fan", |g| {
        let fans = g.slow.fan_percent.iter().flatten().enumerate();
        fans.map(|(fan, percent)| (fan.to_string(), share(Some(*percent)))).collect()
    }),
    ("agent_net_gpu_clock_hertz", Kind::Gauge, "Clocks.", "type", |g| {
        let hertz = |mhz: Option<u32>| mhz.map(|mhz| f64::from(mhz) * 1e6);
        vec![("graphics".into(), hertz(g.graphics_clock_mhz)), ("memory".into(), hertz(g.memory_clock_mhz))]
    }),
    ("agent_net_gpu_throttle_active", Kind::Gauge, "Why clocks are held down now.", "reason", |g| {
        let bits = g.throttle_bits;
        THROTTLES.iter().map(|(bit, name)| ((*name).into(), bits.and_then(|b| flag(b & bit != 0)))).collect()
    }),
    (
        "agent_net_gpu_throttle_seconds_total",
        Kind::Counter,
        "Time in which clocks were held down since the driver was loaded.",
        "reason",
        |g| g.throttle_ns.iter().map(|(name, ns)| (name.clone(), Some(*ns as f64 / 1e9))).collect(),
    ),
    ("agent_net_gpu_remapped_rows", Kind::Gauge, "Memory rows that were replaced.", "type", |g| {
        let rows = g.remapped_rows;
        vec![
            ("correctable".into(), number(rows.map(|r| r.correctable))),
            ("uncorrectable".into(), number(rows.map(|r| r.uncorrectable))),
        ]
    }),
    ("agent_net_gpu_retired_pages", Kind::Gauge, "Memory pages that are no longer used.", "type", |g| {
        let pages = g.slow.retired_pages;
        vec![
            ("single_bit".into(), number(pages.map(|p| p.single_bit))),
            ("double_bit".into(), number(pages.map(|p| p.double_bit))),
        ]
    }),
    ("agent_net_gpu_pcie_link_generation", Kind::Gauge, "PCIe generation.", "state", |g| {
        vec![("current".into(), number(g.slow.pcie_generation)), ("max".into(), number(g.fixed.pcie_generation_max))]
    }),
    ("agent_net_gpu_pcie_link_width", Kind::Gauge, "PCIe lanes.", "state", |g| {
        vec![("current".into(), number(g.slow.pcie_width)), ("max".into(), number(g.fixed.pcie_width_max))]
    }),
];

/// Writes everything that a snapshot knows.
pub(crate) fn write(out: &mut Exposition, snapshot: &Snapshot, limits: &Limits) {
    machine(out, snapshot, limits);
    let gpus = distinct(snapshot);
    identity(out, snapshot, &gpus);
    for (families, kind) in [(GAUGES, Kind::Gauge), (COUNTERS, Kind::Counter)] {
        for (name, help, read) in families {
            let samples = gpus.iter().map(|(gpu, uuid)| (vec![("uuid", uuid.as_str())], read(gpu)));
            family(out, name, kind, help, samples);
        }
    }
    labelled(out, &gpus);
    errors(out, snapshot, &gpus);
    ollama(out, snapshot);
    uptime(out, snapshot);
}

/// The GPUs by their names. A lying driver may give one name to two: a series must not stand twice.
fn distinct(snapshot: &Snapshot) -> Vec<(&Gpu, String)> {
    let mut seen = BTreeSet::new();
    let all = snapshot.gpu.gpus().iter().map(|gpu| (gpu, gpu.id()));
    all.filter(|(_, id)| seen.insert(id.clone())).collect()
}

/// A family of samples, left out when none is known.
fn family<'a>(
    out: &mut Exposition,
    name: &str,
    kind: Kind,
    help: &str,
    samples: impl Iterator<Item = (Vec<(&'a str, &'a str)>, Option<f64>)>,
) {
    let mut begun = false;
    for (labels, value) in samples.filter(|(_, value)| value.is_some()) {
        if !begun {
            out.family(name, kind, help);
            begun = true;
        }
        out.sample(&labels, value);
    }
}

fn machine(out: &mut Exposition, snapshot: &Snapshot, limits: &Limits) {
    let sample = snapshot.gpu.sample();
    let info: Labels<'_> = &[("version", env!("CARGO_PKG_VERSION")), ("source", snapshot.source())];
    out.family("agent_net_build_info", Kind::Info, "Version of the worker and where its readings come from.");
    out.sample(info, Some(1.0));
    out.single("agent_net_up", Kind::Gauge, "1 while the GPUs can be read.", flag(sample.is_some()));
    out.single("agent_net_gpus", Kind::Gauge, "GPUs that can be used.", Some(snapshot.gpu_count() as f64));
    let expected = number(limits.expected_gpus);
    out.single("agent_net_gpus_expected", Kind::Gauge, "GPUs that the operator expects.", expected);
    let seconds = sample.map(|s| s.read_us as f64 / 1e6);
    out.single("agent_net_collect_duration_seconds", Kind::Gauge, "Time that the last sample took.", seconds);
    let calls = sample.map(|s| &s.call_us).into_iter().flatten();
    let rows = calls.map(|(call, us)| (vec![("call", call.as_str())], Some(*us as f64 / 1e6)));
    let help = "Time that each call of the last sample took, summed over the GPUs.";
    family(out, "agent_net_collect_call_seconds", Kind::Gauge, help, rows);
    let counts = &snapshot.counts;
    let help = "Unix time of the last sample that succeeded.";
    out.single("agent_net_collect_last_success_timestamp_seconds", Kind::Gauge, help, counts.last_success);
    let rows = counts.failures.iter().map(|(code, n)| (vec![("code", *code)], Some(*n as f64)));
    family(out, "agent_net_collect_failures_total", Kind::Counter, "Samples that failed, by reason.", rows);
    let help = "Times that NVML was started anew.";
    out.single("agent_net_nvml_reinits_total", Kind::Counter, help, count(Some(counts.reinits)));
}

/// The machine's verdict. `stale`: the reason of a snapshot that is too old by now.
pub(crate) fn health(out: &mut Exposition, snapshot: &Snapshot, stale: Option<&Reason>) {
    let reasons: Vec<&Reason> = stale.into_iter().chain(&snapshot.reasons).collect();
    out.family("agent_net_node_health", Kind::Gauge, "1 for the verdict that holds.");
    let now = verdict::worst(reasons.iter().copied());
    for verdict in Verdict::ALL {
        out.sample(&[("verdict", verdict.name())], flag(now == verdict));
    }
    let codes: BTreeSet<&str> = reasons.iter().filter(|r| r.gpu.is_none()).map(|r| r.code.name()).collect();
    let rows = codes.iter().map(|code| (vec![("code", *code)], Some(1.0)));
    family(out, "agent_net_node_health_reason", Kind::Gauge, "Present while a reason about the machine holds.", rows);
}

fn identity(out: &mut Exposition, snapshot: &Snapshot, gpus: &[(&Gpu, String)]) {
    let sample = snapshot.gpu.sample();
    let driver = sample.and_then(|s| s.driver_version.as_deref()).unwrap_or_default();
    let cuda = sample.and_then(|s| s.cuda_version.as_deref()).unwrap_or_default();
    let indices: Vec<String> = gpus.iter().map(|(gpu, _)| gpu.index.to_string()).collect();
    let rows = gpus.iter().zip(&indices).map(|((gpu, uuid), index)| {
        let labels = vec![
            ("uuid", uuid.as_str()),
            ("index", index.as_str()),
            ("name", gpu.name.as_deref().unwrap_or_default()),
            ("pci_bus_id", gpu.pci_bus_id.as_deref().unwrap_or_default()),
            ("driver_version", driver),
            ("cuda_version", cuda),
            ("unified_memory", if gpu.unified_memory { "true" } else { "false" }),
        ];
        (labels, Some(1.0))
    });
    family(out, "agent_net_gpu_info", Kind::Info, "Identity of each GPU.", rows);
    let verdicts: Vec<Verdict> = gpus.iter().map(|(gpu, _)| verdict::of_gpu(gpu, &snapshot.reasons)).collect();
    let rows = gpus.iter().zip(&verdicts).flat_map(|((_, uuid), now)| {
        Verdict::ALL.map(|verdict| (vec![("uuid", uuid.as_str()), ("verdict", verdict.name())], flag(*now == verdict)))
    });
    family(out, "agent_net_gpu_health", Kind::Gauge, "1 for the verdict that holds for this GPU.", rows);
    let reasons = snapshot.reasons.iter().filter_map(|r| Some((r.gpu.as_deref()?, r.code.name())));
    let mut reasons: Vec<(&str, &str)> = reasons.collect();
    reasons.sort();
    reasons.dedup();
    let rows = reasons.iter().map(|(uuid, code)| (vec![("uuid", *uuid), ("code", *code)], Some(1.0)));
    family(out, "agent_net_gpu_health_reason", Kind::Gauge, "Present while a reason about this GPU holds.", rows);
}

fn labelled(out: &mut Exposition, gpus: &[(&Gpu, String)]) {
    for (name, kind, help, label, read) in LABELLED {
        let rows: Vec<(&str, String, Option<f64>)> = gpus
            .iter()
            .flat_map(|(gpu, uuid)| read(gpu).into_iter().map(move |(value, number)| (uuid.as_str(), value, number)))
            .collect();
        let samples = rows.iter().map(|(uuid, text, n)| (vec![("uuid", *uuid), (*label, text.as_str())], *n));
        family(out, name, *kind, help, samples);
    }
    let ecc = gpus.iter().flat_map(|(gpu, uuid)| {
        let row = |scope, n| (vec![("uuid", uuid.as_str()), ("type", "uncorrected"), ("scope", scope)], count(n));
        [row("volatile", gpu.slow.ecc_uncorrected_volatile), row("aggregate", gpu.slow.ecc_uncorrected_aggregate)]
    });
    // Volatile ones begin anew at each load of the driver: no counter.
    family(out, "agent_net_gpu_ecc_errors", Kind::Gauge, "Memory errors that ECC could not correct.", ecc);
}

fn errors(out: &mut Exposition, snapshot: &Snapshot, gpus: &[(&Gpu, String)]) {
    let uuid = |xid: &Xid| {
        let known = gpus.iter().find(|(gpu, _)| gpu.pci() == Some(xid.pci));
        known.map_or_else(|| format!("pci-{}", xid.pci), |(_, uuid)| uuid.clone())
    };
    let rows: Vec<(String, String, &Xid)> =
        snapshot.xids.iter().map(|xid| (uuid(xid), xid.number.to_string(), xid)).collect();
    type Value = fn(&Xid) -> f64;
    let families: [(&str, Kind, &str, Value); 2] = [
        ("agent_net_gpu_xid_errors_total", Kind::Counter, "Errors that the driver reported, by number.", |x| {
            x.count as f64
        }),
        // A timestamp, because the first event of a new series is invisible to increase().
        ("agent_net_gpu_xid_last_timestamp_seconds", Kind::Gauge, "Unix time of the last one.", |x| x.last),
    ];
    for (name, kind, help, read) in families {
        let samples = rows
            .iter()
            .map(|(uuid, number, xid)| (vec![("uuid", uuid.as_str()), ("xid", number.as_str())], Some(read(xid))));
        family(out, name, kind, help, samples);
    }
}

fn ollama(out: &mut Exposition, snapshot: &Snapshot) {
    let state = &snapshot.ollama;
    let up = match &state.reach {
        Reach::Pending => None,
        Reach::Up { .. } => flag(true),
        Reach::Down(_) => flag(false),
    };
    out.single("agent_net_ollama_up", Kind::Gauge, "1 while Ollama answers.", up);
    if let Reach::Up { version } = &state.reach {
        out.family("agent_net_ollama_info", Kind::Info, "Version of Ollama.");
        out.sample(&[("version", version)], Some(1.0));
    }
    if !state.lists_known {
        return;
    }
    let pulled = state.models.iter().filter(|m| m.pulled).count();
    out.single("agent_net_ollama_models", Kind::Gauge, "Models pulled into Ollama.", Some(pulled as f64));
    type Value = fn(&crate::ollama::models::Model) -> Option<f64>;
    let families: [(&str, &str, Value); 3] = [
        ("agent_net_ollama_model_size_bytes", "Size of the model on disk.", |m| count(m.size_bytes)),
        ("agent_net_ollama_model_loaded", "1 while the model is loaded.", |m| flag(m.loaded.is_some())),
        ("agent_net_ollama_model_vram_bytes", "VRAM that the loaded model holds.", |m| {
            count(m.loaded.map(|l| l.vram_bytes))
        }),
    ];
    for (name, help, read) in families {
        let mut seen = BTreeSet::new();
        let models = state.models.iter().filter(|m| seen.insert(m.name.as_str()));
        family(out, name, Kind::Gauge, help, models.map(|m| (vec![("model", m.name.as_str())], read(m))));
    }
}

fn uptime(out: &mut Exposition, snapshot: &Snapshot) {
    let rows = || WINDOWS.iter().zip(&snapshot.uptime);
    let ratio = |percent: Option<f64>| percent.map(|p| p / 100.0);
    let help = "Share of the time since the first minute on record in which the GPUs were up.";
    let samples = rows().map(|((name, _), w)| (vec![("window", *name)], ratio(w.percent())));
    family(out, "agent_net_gpu_uptime_ratio", Kind::Gauge, help, samples);
    let help = "Share of that time in which the worker ran and could tell.";
    let samples = rows().map(|((name, _), w)| (vec![("window", *name)], ratio(w.coverage())));
    family(out, "agent_net_gpu_uptime_coverage_ratio", Kind::Gauge, help, samples);
}
