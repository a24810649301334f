//! The rules in rows: each code raised, and what does not raise it.

use std::time::Duration;

use super::Code::*;
use super::Verdict::*;
use super::*;
use crate::config::limits::Limits;
use crate::gpu::host_facts::HostFacts;
use crate::gpu::pci::PciId;
use crate::gpu::sample::Gpu;
use crate::gpu::sample::{FaultKind, GpuError, GpuErrorKind, GpuFault, GpuSample};
use crate::gpu::sleep::sleeping;
use crate::gpu::state::GpuState;
use crate::gpu::vendor::Vendor;
use crate::gpu::xid::XidLog;
use crate::health::codes;
use crate::health::history::History;
use crate::health::uptime::Window;
use crate::health::uptime::Windows;
use crate::ollama::keeper::row::KeeperRow;
use crate::ollama::models::{Loaded, Model};
use crate::ollama::state::OllamaState;
use crate::ollama::state::Reach;

mod amd;
mod machine;
mod memory;
mod mig;
mod probes;
mod xids;

/// The moment at which everything is judged: in Unix seconds, and by the monotonic clock.
const NOW: f64 = 1_700_000_000.0;
const UP: f64 = 100_000.0;

/// A machine with one healthy GPU and a healthy Ollama, and what a row changes of it.
struct Case {
    gpu: GpuState,
    ollama: OllamaState,
    history: History,
    xids: XidLog,
    uptime: Windows,
    host: HostFacts,
    limits: Limits,
    wanted: Vec<String>,
    keepers: Vec<KeeperRow>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            gpu: sample(vec![gpu()]),
            ollama: up(),
            history: History::default(),
            xids: XidLog::default(),
            uptime: Windows::default(),
            host: HostFacts { pci_gpus: Some(1), pci_gpus_for_nvidia: Some(1), ..HostFacts::default() },
            limits: Limits { uptime_percent: [99.0; 3], ..Limits::default() },
            wanted: Vec::new(),
            keepers: Vec::new(),
        }
    }
}

impl Case {
    /// The same sample, seen `times` times.
    fn seen(mut self, times: u32) -> Self {
        let GpuState::Sample(sample) = &self.gpu else { panic!("only samples are seen") };
        let sample = GpuSample { slow_fresh: true, ..sample.clone() };
        for i in 0..times {
            self.history.see(&sample, &self.ollama, self.limits.max_temp_c, Duration::from_secs(u64::from(i) * 30));
        }
        self
    }

    fn reasons(&self, before: &[Reason], now: f64) -> Vec<Reason> {
        self.reasons_with(&self.host, before, now)
    }

    fn reasons_with(&self, host: &HostFacts, before: &[Reason], now: f64) -> Vec<Reason> {
        let Self { gpu, ollama, history, xids, uptime, limits, wanted, keepers, .. } = self;
        let facts = Facts { gpu, ollama, history, xids, monotonic: UP, uptime, host, limits, wanted, keepers };
        super::reasons(&facts, before, now)
    }

    #[track_caller]
    fn check(&self, expect: &[(Code, Verdict)]) {
        let reasons = self.reasons(&[], NOW);
        assert_eq!(reasons.iter().map(|r| (r.code, r.severity)).collect::<Vec<_>>(), expect, "{reasons:#?}");
        for place in [Place::Host, Place::Container, Place::Kubernetes] {
            let mut facts = self.host.clone();
            facts.place = place;
            self.reasons_with(&facts, &[], NOW).iter().for_each(|reason| check_style(reason, place));
        }
    }
}

/// A message is a state that begins with the thing, an action an imperative sentence that fits where the worker runs, and
/// the table has the severity.
#[track_caller]
fn check_style(reason: &Reason, place: Place) {
    let Reason { code, severity, gpu, message, action, .. } = reason;
    let table = codes::TABLE.iter().find(|entry| entry.name == code.name()).expect("a row");
    assert!(table.severities().contains(severity.name()), "{reason:?}");
    assert!(!message.is_empty() && !message.ends_with('.'), "{reason:?}");
    assert!(gpu.is_none() || (message.starts_with("GPU ") && message.contains(": ")), "{reason:?}");
    assert!(action.starts_with(char::is_uppercase) && action.ends_with('.') && action.len() < 330, "{reason:?}");
    assert!(!action.contains("nvidia-smi -r") && !action.contains("-i N"), "{reason:?}");
    let words = |all: &[&str]| all.iter().any(|word| action.to_lowercase().contains(word));
    match place {
        Place::Host => assert!(!words(&["container", "compose", "--gpus", "pod"]), "{reason:?}"),
        Place::Container => assert!(!words(&["pod"]), "{reason:?}"),
        Place::Kubernetes => assert!(!words(&["compose", "--gpus"]), "{reason:?}"),
    }
    if place != Place::Host && words(&["nvidia-smi", "modprobe", "dmesg"]) && code.of_gpus() {
        assert!(action.contains("host"), "{reason:?}");
    }
}

fn up() -> OllamaState {
    OllamaState { reach: Reach::Up { version: "1".into() }, lists_known: true, ..OllamaState::PENDING }
}

fn holding(vram_bytes: u64) -> OllamaState {
    let loaded = Some(Loaded { size_bytes: Some(9), vram_bytes, ..Loaded::default() });
    OllamaState {
        models: vec![Model {
            name: "m".into(),
            size_bytes: None,
            pulled: true,
            loaded,
            digest: None,
            remote_host: None,
        }],
        ..up()
    }
}

fn gpu() -> Gpu {
    Gpu {
        uuid: Some("GPU-1".into()),
        pci_bus_id: Some("00000000:01:00.0".into()),
        temperature_c: Some(40),
        ..Gpu::default()
    }
}

fn lost(kind: GpuErrorKind) -> Gpu {
    Gpu { error: Some(GpuError { kind, message: "gone".into() }), ..gpu() }
}

fn sample(gpus: Vec<Gpu>) -> GpuState {
    GpuState::Sample(GpuSample { gpus, ..GpuSample::default() })
}

fn fault(kind: FaultKind, lasting_s: f64) -> GpuState {
    GpuState::Fault {
        vendor: Vendor::Nvidia,
        fault: GpuFault { kind, detail: "why".into() },
        lasting_s,
        gpus: Vec::new(),
    }
}

/// One GPU that says this, seen often enough for every streak.
fn of(json: &str) -> Case {
    let mut change: serde_json::Value = serde_json::to_value(gpu()).unwrap();
    merge(&mut change, serde_json::from_str(json).unwrap());
    Case { gpu: sample(vec![serde_json::from_value(change).unwrap()]), ..Case::default() }.seen(3)
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(serde_json::Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

#[test]
fn gpus_as_a_whole() {
    let row = |gpus, expect: &[_]| Case { gpu: sample(gpus), ..Case::default() }.check(expect);
    row(vec![gpu()], &[]);
    row(vec![], &[(NoGpu, Unhealthy)]);
    row(vec![lost(GpuErrorKind::Lost)], &[(GpuLost, Unhealthy)]);
    row(vec![lost(GpuErrorKind::ResetRequired)], &[(ResetRequired, Unhealthy)]);
    row(vec![lost(GpuErrorKind::Other)], &[(GpuHandleError, Unhealthy)]);
    row(vec![lost(GpuErrorKind::Stale)], &[(GpuHandleError, Unhealthy)]);
    let silent = |seconds: u64| Gpu { read_us: Some(seconds * 1_000_000), ..lost(GpuErrorKind::Slow) };
    row(vec![silent(3)], &[(GpuSlow, Unknown)]);
    row(vec![silent(29)], &[(GpuSlow, Unknown)]);
    row(vec![silent(30)], &[(DriverStuck, Unhealthy)]);
    // It is slow, not missing.
    let limits = Limits { expected_gpus: Some(1), ..Case::default().limits };
    Case { gpu: sample(vec![silent(3)]), limits, ..Case::default() }.check(&[(GpuSlow, Unknown)]);
    let starting = GpuState::Starting { vendor: Vendor::Nvidia, lasting_s: 7.9, gpus: vec![gpu().silent("starting")] };
    Case { gpu: starting, ..Case::default() }.check(&[(DriverStarting, Unknown)]);
    row(vec![Gpu { temperature_c: None, ..gpu() }], &[(GpuNoReadings, Unknown)]);
    Case { gpu: GpuState::Pending, ..Case::default() }.check(&[(NoSample, Unknown)]);
}

#[test]
fn readings_of_a_gpu() {
    let row = |json: &str, expect: &[_]| of(json).check(expect);
    row(r#"{"gaps":{"failed":{"power_w":{"words":"no"}}}}"#, &[(FieldReadError, Degraded)]);
    row(r#"{"gaps":{"unsupported":["power_w"]}}"#, &[]);
    // It has never worked, and not every GPU has it.
    row(r#"{"slow_gaps":{"failed":{"fan_percent":{"words":"no"}}}}"#, &[]);
    row(r#"{"slow_gaps":{"failed":{"fan_percent":{"words":"no","of_device":true}}}}"#, &[(FieldReadError, Degraded)]);
    row(r#"{"read_us":1900000}"#, &[]);
    row(r#"{"read_us":6100000}"#, &[(GpuSlow, Degraded)]);
    let dead = r#"{"temperature_c":{"words":"unknown error","of_device":true},"power_w":{"words":"unknown error","of_device":true}}"#;
    row(&format!(r#"{{"gaps":{{"failed":{dead}}}}}"#), &[(GpuReadFailed, Unhealthy), (FieldReadError, Degraded)]);
    let mut of_dead = of(&format!(r#"{{"gaps":{{"failed":{dead}}}}}"#));
    of_dead.limits.expected_gpus = Some(1);
    of_dead.check(&[(GpuCountLow, Unhealthy), (GpuReadFailed, Unhealthy), (FieldReadError, Degraded)]);
    row(r#"{"recovery_action":0}"#, &[]);
    let (reboot, unknown) = ("a reboot", "an unknown action");
    for (action, wanted) in [
        (1, "a GPU reset"),
        (2, reboot),
        (4, "then a reset"),
        (6, "a bus reset"),
        (7, reboot),
        (8, unknown),
        (99, unknown),
    ] {
        let json = format!(r#"{{"recovery_action":{action}}}"#);
        row(&json, &[(ResetRequired, Unhealthy)]);
        let message = &of(&json).reasons(&[], NOW)[0].message;
        assert!(message.contains(&format!("{wanted} (recovery action {action})")), "{message}");
    }
    row(r#"{"recovery_action":3}"#, &[(DrainP2p, Degraded)]);
    row(r#"{"recovery_action":5}"#, &[(ResetRequired, Degraded)]);
    row(r#"{"ecc_uncorrected_volatile":0,"ecc_uncorrected_aggregate":7}"#, &[]);
    row(r#"{"ecc_uncorrected_volatile":1}"#, &[(EccUncorrected, Unhealthy)]);
    let rows = |remaps: u32, pending: bool, failed: bool| {
        format!(
            r#"{{"remapped_rows":{{"correctable":9,"uncorrectable":{remaps},"pending":{pending},"failed":{failed}}}}}"#
        )
    };
    row(&rows(511, false, false), &[]);
    row(&rows(512, false, false), &[(RowRemapMany, Degraded)]);
    row(&rows(1, true, false), &[(RowRemapPending, Degraded)]);
    row(&rows(1, true, true), &[(RowRemapFailed, Unhealthy), (RowRemapPending, Degraded)]);
    let pages = |single: u32, double: u32, pending: bool| {
        format!(r#"{{"retired_pages":{{"single_bit":{single},"double_bit":{double},"pending":{pending}}}}}"#)
    };
    row(&pages(31, 31, false), &[]);
    row(&pages(32, 31, false), &[(RetiredLimit, Unhealthy)]);
    row(&pages(1, 0, true), &[(RetiredPending, Degraded)]);
    row(r#"{"inforom_corrupt":true}"#, &[(InforomCorrupt, Degraded)]);
    row(r#"{"inforom_corrupt":false}"#, &[]);
    row(r#"{"power_alarm":true}"#, &[(PowerAlarm, Degraded)]);
    row(r#"{"power_alarm":false}"#, &[]);
}

#[test]
fn more_than_fifteen_double_bit_pages_count_once_they_rise() {
    let with = |double: u32| format!(r#"{{"retired_pages":{{"single_bit":0,"double_bit":{double},"pending":false}}}}"#);
    of(&with(20)).check(&[]);
    let mut case = of(&with(15));
    let GpuState::Sample(risen) = of(&with(16)).gpu else { unreachable!() };
    let risen = GpuSample { slow_fresh: true, ..risen };
    case.history.see(&risen, &up(), None, Duration::from_secs(500));
    case.gpu = GpuState::Sample(risen);
    case.check(&[(RetiredLimit, Unhealthy)]);
}

#[test]
fn heat_in_all_its_forms() {
    let row = |json: &str, expect: &[_]| of(json).check(expect);
    row(r#"{"temperature_c":89}"#, &[]);
    row(r#"{"temperature_c":90}"#, &[(TempHigh, Degraded)]);
    row(r#"{"temperature_c":84,"temperature_max_c":83}"#, &[(TempHigh, Degraded)]);
    let limits = r#""temperature_slowdown_c":91,"temperature_shutdown_c":94"#;
    row(&format!(r#"{{"temperature_c":87,{limits}}}"#), &[]);
    row(&format!(r#"{{"temperature_c":91,{limits}}}"#), &[(TempHigh, Degraded)]);
    row(&format!(r#"{{"temperature_c":92,{limits}}}"#), &[(TempCritical, Unhealthy), (TempHigh, Degraded)]);
    // Newer parts have margins instead: 0 at the maximum, −8 where they switch themselves off.
    let margins = r#""margin_at_max_c":0,"margin_at_shutdown_c":-8"#;
    row(&format!(r#"{{"temperature_c":87,"temperature_margin_c":0,{margins}}}"#), &[]);
    row(&format!(r#"{{"temperature_c":88,"temperature_margin_c":-1,{margins}}}"#), &[(TempHigh, Degraded)]);
    row(
        &format!(r#"{{"temperature_c":93,"temperature_margin_c":-6,{margins}}}"#),
        &[(TempCritical, Unhealthy), (TempHigh, Degraded)],
    );
    // Some H100 report no margin while they are cold.
    row(&format!(r#"{{"temperature_c":35,"temperature_margin_c":-10,"throttle_bits":1,{margins}}}"#), &[]);
    row(&format!(r#"{{"temperature_c":35,"temperature_margin_c":-10,"throttle_bits":0,{margins}}}"#), &[]);
    row(
        &format!(r#"{{"temperature_c":35,"temperature_margin_c":-10,"throttle_bits":64,{margins}}}"#),
        &[(TempCritical, Unhealthy), (TempHigh, Degraded)],
    );
    // A margin alone lies on older parts; with the hardware's own word it does not.
    row(r#"{"temperature_margin_c":0}"#, &[]);
    row(r#"{"temperature_margin_c":0,"throttle_bits":4}"#, &[]);
    row(r#"{"temperature_margin_c":-3,"throttle_bits":64}"#, &[(TempCritical, Unhealthy)]);
    row(r#"{"temperature_margin_c":0,"throttle_bits":64}"#, &[(TempCritical, Unhealthy)]);
    row(r#"{"temperature_margin_c":1,"throttle_bits":64}"#, &[]);
    let memory = |c: u32| format!(r#"{{"memory_temperature_c":{c},"memory_temperature_max_c":95}}"#);
    row(&memory(95), &[]);
    row(&memory(96), &[(MemTempHigh, Degraded)]);
    row(r#"{"memory_temperature_c":120}"#, &[]);
}

#[test]
fn slowdowns_and_links() {
    let long = |json: &str| {
        let case = of(json);
        case.seen(20)
    };
    long(r#"{"throttle_bits":64}"#).check(&[(HwThermalSlowdown, Degraded)]);
    long(r#"{"throttle_bits":128}"#).check(&[(HwPowerBrake, Degraded)]);
    long(r#"{"throttle_bits":8,"utilization_percent":97}"#).check(&[(HwSlowdown, Degraded)]);
    long(r#"{"throttle_bits":8,"utilization_percent":0}"#).check(&[]);
    // Power caps, software slowdown and idling are how GPUs work.
    long(r#"{"throttle_bits":37}"#).check(&[]);
    let width =
        |width: u32, state: u32| format!(r#"{{"performance_state":{state},"pcie_width":{width},"pcie_width_max":16}}"#);
    of(&width(8, 0)).check(&[(PcieWidthLow, Degraded)]);
    of(&width(8, 8)).check(&[]);
    of(&width(16, 0)).check(&[]);
    // A card in a bad slot falls asleep, and wakes.
    let mut case = of(&width(8, 0));
    let GpuState::Sample(awake) = case.gpu.clone() else { unreachable!() };
    case.gpu = GpuState::Sample(GpuSample { gpus: awake.gpus.iter().map(sleeping).collect(), ..awake });
    case.seen(20).check(&[(PcieWidthLow, Degraded)]);
}

#[test]
fn repeated_transfers_are_judged_by_lanes_and_generation() {
    #[track_caller]
    fn check(generation: u32, width: u32, replays: u32, expect: &[(Code, Verdict)]) {
        let with = |replays: u32| {
            let slow = format!(r#""pcie_generation":{generation},"pcie_width":{width},"pcie_replays":{replays}"#);
            of(&format!(r#"{{{slow},"pcie_width_max":{width}}}"#))
        };
        let mut case = with(1000);
        let GpuState::Sample(after) = with(1000 + replays).gpu else { unreachable!() };
        let after = GpuSample { slow_fresh: true, ..after };
        case.history.see(&after, &up(), None, Duration::from_secs(120));
        case.gpu = GpuState::Sample(after);
        case.check(expect);
    }
    let bad: &[_] = &[(PcieReplay, Degraded)];
    check(1, 16, 2, &[]);
    check(1, 16, 3, bad);
    check(4, 16, 15, &[]);
    check(4, 16, 16, bad);
    check(5, 8, 16, bad);
    check(5, 16, 30, &[]);
    check(9, 16, 61, &[]);
    check(0, 1, 1, bad);
}

#[test]
fn the_operators_own_limits() {
    let limits = Limits { min_vram_bytes: Some(24_000_000_000), max_temp_c: Some(70), ..Case::default().limits };
    let row = |json: &str, expect: &[_]| Case { limits, ..of(json) }.seen(3).check(expect);
    row(r#"{"vram_total_bytes":25757220864}"#, &[]);
    row(r#"{"vram_total_bytes":16106127360}"#, &[(VramBelowMin, Unhealthy)]);
    row(r#"{"temperature_c":70}"#, &[]);
    row(r#"{"temperature_c":71}"#, &[(TempAboveMax, Degraded)]);
    // What is not known is not too small.
    row("{}", &[]);
}
