//! Every reading of the table in src/reference.md, from the library through the report, its lines and the metrics: values
//! that are plausible and that are not, readings that a GPU does not have and readings that fail.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::gpus::{has, is_ok, start};
use crate::harness::Worker;
use crate::nvml::FakeNvml;

/// A row of the table.
struct Reading {
    name: String,
    /// In the driver's unit.
    range: Option<(i128, i128)>,
    metrics: Vec<String>,
}

fn table() -> Vec<Reading> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reference.md")).unwrap();
    let table = text.split("<!-- table: readings -->").nth(1).unwrap().split("<!-- /table -->").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, _, _, _, range, metrics, _] = cells[..] else { panic!("{line}") };
        let range = range.split_once(" to ").map(|(least, rest)| {
            let greatest = rest.split(' ').next().unwrap();
            (least.parse().unwrap(), greatest.parse().unwrap())
        });
        let metrics = metrics.split(' ').filter(|name| !name.is_empty()).map(|name| name.trim_matches('`').to_owned());
        Reading { name: name.trim_matches('`').to_owned(), range, metrics: metrics.collect() }
    });
    rows.collect()
}

/// Where each reading comes from in the fake library, `{}` for its value, and a value.
const FAKED: &[(&str, &str, &str)] = &[
    ("vram_total_mb", "memory={}/0/0", "8193"),
    ("vram_used_mb", "memory=8192/{}/0", "77"),
    ("vram_free_mb", "memory=8192/0/0/{}", "88"),
    ("vram_reserved_mb", "memory=8192/0/{}", "99"),
    ("temperature_c", "temperature={}", "42"),
    ("temperature_slowdown_c", "slowdown={}", "93"),
    ("temperature_shutdown_c", "shutdown={}", "99"),
    ("temperature_max_c", "max={}", "89"),
    ("temperature_margin_c", "margin={}", "31"),
    ("temperature_margin_at_max_c", "tlimit_max={}", "2"),
    ("temperature_margin_at_shutdown_c", "tlimit_shutdown={}", "-8"),
    ("memory_temperature_c", "memory_temperature={}", "55"),
    ("memory_temperature_max_c", "memory_max={}", "101"),
    ("power_w", "power={}", "61000"),
    ("memory_power_w", "memory_power={}", "35000"),
    ("power_limit_w", "limit={}", "340000"),
    ("power_limit_default_w", "default_limit={}", "330000"),
    ("energy_j", "energy={}", "7000"),
    ("utilization_percent", "utilization={}/1", "17"),
    ("memory_utilization_percent", "utilization=1/{}", "18"),
    ("sm_activity_percent", "gpm={}/0/0/0/0", "61"),
    ("tensor_activity_percent", "gpm=0/{}/0/0/0", "62"),
    ("dram_activity_percent", "gpm=0/0/{}/0/0", "63"),
    ("pcie_sent_mib_per_second", "gpm=0/0/0/{}/0", "6400"),
    ("pcie_received_mib_per_second", "gpm=0/0/0/0/{}", "6500"),
    ("graphics_clock_mhz", "clocks={}/405", "1100"),
    ("graphics_clock_max_mhz", "clocks_max={}/9001", "2200"),
    ("memory_clock_mhz", "clocks=210/{}", "3300"),
    ("memory_clock_max_mhz", "clocks_max=2520/{}", "4400"),
    ("performance_state", "pstate={}", "5"),
    ("throttle_reasons", "throttle={}", "4"),
    ("throttle_seconds", "throttle_ns={}/{}/{}/{}", "2000000000"),
    ("recovery_action", "recovery={}", "3"),
    ("fan_percent", "fan={}", "66"),
    ("pcie_generation", "pcie_gen={}", "3"),
    ("pcie_generation_max", "pcie_gen_max={}", "5"),
    ("pcie_width", "pcie_width={}", "8"),
    ("pcie_width_max", "pcie_width_max={}", "12"),
    ("pcie_replays", "replays={}", "13"),
    ("nvlinks_active", "nvlinks={}/1/0", "1"),
    ("fabric_state", "fabric={}/0/0/0", "2"),
    ("fabric_status", "fabric=3/{}/0/0", "9"),
    ("fabric_health", "fabric=3/0/0/{}", "3"),
    ("ecc_enabled", "ecc={}", "1"),
    ("ecc_uncorrected_volatile", "ecc_errors={}/0", "14"),
    ("ecc_uncorrected_aggregate", "ecc_errors=0/{}", "15"),
    ("remapped_rows", "rows={}/0/0/0", "16"),
    ("spare_rows", "spares={}/0/0/0/0", "2560"),
    ("retired_pages", "retired_pending=0\nretired={}/0", "19"),
    ("sram_threshold_exceeded", "sram={}", "1"),
    ("channel_repair_pending", "repair={}/0", "1"),
    ("tpc_repair_pending", "repair=0/{}", "1"),
    ("unrepairable_memory", "unrepairable={}", "1"),
    ("inforom_corrupt", "inforom={}", ""),
    ("vbios_version", "vbios={}", "1.2.3"),
    ("addressing_mode", "addressing={}", "1"),
    ("compute_capability", "compute={}/0", "7"),
    ("persistence_mode", "persistence={}", "1"),
    ("mig_mode", "mig={}", "0"),
    ("mig", "mig=1\nmig_max={}\nmig0=1/0/16/1/1/9984/9", "4"),
    ("processes", "processes={}", "1"),
];

/// What no NVML GPU has.
const NEVER: &[&str] = &[
    "power_alarm",
    "gtt_total_mb",
    "gtt_used_mb",
    "hotspot_temperature_c",
    "hotspot_temperature_slowdown_c",
    "fan_rpm",
];

/// The lines of one GPU whose reading has this value, or this error.
fn lines(gpu: usize, name: &str, value: &str) -> String {
    let (_, template, _) = FAKED.iter().find(|row| row.0 == name).unwrap_or_else(|| panic!("{name} is not faked"));
    let all = template.lines().map(|line| {
        let (key, place) = line.split_once('=').unwrap();
        let value = match (name, value.parse::<usize>()) {
            _ if value.starts_with("err:") => value.to_owned(),
            ("processes", Ok(count)) => vec!["1:2"; count].join(","),
            _ => place.replace("{}", value),
        };
        format!("gpu{gpu}.{key}={value}\n")
    });
    all.collect()
}

/// A GPU for each of these readings, with its value.
fn worker(values: &[(&str, String)]) -> (Worker, FakeNvml, FakeOllama) {
    let lines: String = values.iter().enumerate().map(|(gpu, (name, value))| lines(gpu, name, value)).collect();
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(&format!("gpus={}\n{lines}", values.len())));
    let worker = start(&ollama, &nvml, &[]);
    (worker, nvml, ollama)
}

/// Its GPUs, all of them read, with a value or a reason for each reading. Some take two samples.
fn gpus(worker: &Worker, count: usize) -> Vec<Value> {
    let settled = |gpu: &Value| FAKED.iter().all(|(name, ..)| !gpu[name].is_null() || is_explained(gpu, name));
    let report = worker.report_when("all GPUs", |report| {
        let gpus = report["gpus"].as_array().unwrap();
        gpus.len() == count && gpus.iter().all(|gpu| gpu["error"].is_null() && settled(gpu))
    });
    report["gpus"].as_array().unwrap().clone()
}

/// Why a reading is null: it is in a list, or there is no result yet.
fn is_explained(gpu: &Value, name: &str) -> bool {
    let registering = ["not_started", "in_progress"].map(Value::from).contains(&gpu["fabric_state"]);
    is_named(gpu, "unsupported", name) || is_named(gpu, "failed", name) || name == "fabric_status" && registering
}

fn is_named(gpu: &Value, list: &str, name: &str) -> bool {
    match &gpu[list] {
        Value::Array(all) => all.contains(&json!(name)),
        object => object[name].is_string(),
    }
}

/// Checks what becomes of each value: `null` in one list alone, or known and in neither.
#[track_caller]
fn become_of(values: &[(&str, String)], expect: impl Fn(&str) -> Option<&'static str>) {
    let (worker, ..) = worker(values);
    for ((name, value), gpu) in values.iter().zip(gpus(&worker, values.len())) {
        let listed = ["unsupported", "failed"].map(|list| is_named(&gpu, list, name));
        let expect = expect(name);
        assert_eq!(listed, ["unsupported", "failed"].map(|list| expect == Some(list)), "{name}={value}: {gpu:#}");
        assert_eq!(gpu[name].is_null(), expect.is_some(), "{name}={value}: {gpu:#}");
    }
}

/// The table's ranges, with what the library is given for a number; memory is given in MiB.
fn at_the_ends(of: impl Fn(i128, i128) -> Option<i128>) -> Vec<(&'static str, String)> {
    let table = table();
    let rows = FAKED.iter().filter_map(|(name, ..)| {
        let (least, greatest) = table.iter().find(|reading| reading.name == *name)?.range?;
        let value = of(least, greatest)?;
        let value = if name.starts_with("vram_") { (value + (1 << 20) - 1) >> 20 } else { value };
        Some((*name, value.to_string()))
    });
    let all: Vec<_> = rows.collect();
    assert!(all.len() >= 18, "{all:?}");
    all
}

#[test]
fn every_reading_of_the_table_reaches_the_report_its_lines_and_the_metrics() {
    let table = table();
    let values: Vec<(&str, String)> = FAKED.iter().map(|(name, _, value)| (*name, (*value).to_owned())).collect();
    let (worker, ..) = worker(&values);
    let gpus = gpus(&worker, values.len());
    let (text, metrics) = (worker.get("/gpu?format=text"), worker.get("/metrics"));
    for reading in table {
        let name = reading.name.as_str();
        assert!(
            gpus.iter().filter(|gpu| gpu[name].is_null()).all(|gpu| is_explained(gpu, name)),
            "{name} is null for no reason"
        );
        if NEVER.contains(&name) {
            assert!(gpus.iter().all(|gpu| gpu[name].is_null() && is_named(gpu, "unsupported", name)), "{name}");
            continue;
        }
        let at = values.iter().position(|(faked, _)| *faked == name).unwrap_or_else(|| panic!("{name} is not faked"));
        let shown = &gpus[at][name];
        assert!(!shown.is_null(), "{name}: {:#}", gpus[at]);
        // The value is this GPU's own, so that no two readings can be mixed up.
        let same = gpus.iter().filter(|gpu| gpu[name] == *shown).count();
        assert!(same == 1 || ["0", "1", ""].contains(&values[at].1.as_str()), "{name}: {same} GPUs have {shown}");
        let line = format!("gpu{at}_{name}");
        let simple = shown.is_number() || shown.is_boolean();
        let is_there = |l: &str| if simple { l == format!("{line}={shown}") } else { l.starts_with(&line) };
        assert!(text.text().lines().any(is_there), "{line} is not in the text form");
        for metric in reading.metrics {
            let series = format!("{metric}{{uuid=\"GPU-00000000-0000-0000-0000-{at:012}\"");
            assert!(metrics.text().contains(&series), "{series} is not exposed");
        }
    }
}

#[test]
fn every_reading_takes_the_values_of_its_range_and_no_others() {
    become_of(&at_the_ends(|least, _| Some(least)), |_| None);
    become_of(&at_the_ends(|_, greatest| Some(greatest)), |_| None);
    become_of(&at_the_ends(|_, greatest| Some(greatest + 1)), |_| Some("failed"));
    // Without a number below 0 where the driver's type has none. A threshold of 0 is how a GPU says that it has none.
    let below = at_the_ends(|least, _| Some(least - 1).filter(|_| least != 0));
    let is_threshold = |name: &str| ["slowdown_c", "shutdown_c", "max_c"].iter().any(|end| name.ends_with(end));
    let is_margin = |name: &str| name.contains("margin");
    let is_absent = |name: &str| is_threshold(name) && !is_margin(name) || name == "spare_rows";
    become_of(&below, |name| Some(if is_absent(name) { "unsupported" } else { "failed" }));
}

#[test]
fn every_reading_that_a_gpu_does_not_have_is_unsupported_and_every_one_that_fails_has_failed() {
    let all = |error: &str| FAKED.iter().map(|(name, ..)| (*name, error.to_owned())).collect::<Vec<_>>();
    become_of(&all("err:3"), |_| Some("unsupported"));
    // What is reserved is known with the rest of the memory or not at all.
    become_of(&all("err:999"), |name| Some(if name == "vram_reserved_mb" { "unsupported" } else { "failed" }));
}

/// What health is judged by, of an NVIDIA GPU.
const LASTING: &[&str] = &[
    "vram_total_mb",
    "temperature_c",
    "memory_temperature_c",
    "power_w",
    "utilization_percent",
    "throttle_reasons",
    "recovery_action",
    "ecc_enabled",
    "remapped_rows",
    "retired_pages",
    "sram_threshold_exceeded",
    "channel_repair_pending",
    "unrepairable_memory",
];

/// Whatever the driver's error is: not supported, no permission, no such function. A value that is unknown is not a good one.
#[test]
fn a_reading_that_health_is_judged_by_must_not_end() {
    let with = |value: &dyn Fn(&str) -> String| -> String {
        let gpus: String = LASTING.iter().enumerate().map(|(gpu, name)| lines(gpu, name, &value(name))).collect();
        // Not judged by.
        format!("gpus={}\n{gpus}gpu0.pstate={}", LASTING.len(), value("performance_state"))
    };
    let healthy = |name: &str| match name {
        "recovery_action" | "throttle_reasons" | "unrepairable_memory" | "sram_threshold_exceeded" => "0".to_owned(),
        "channel_repair_pending" => "0".to_owned(),
        name => FAKED.iter().find(|row| row.0 == name).map_or("5", |row| row.2).to_owned(),
    };
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(&with(&healthy)));
    let worker = start(&ollama, &nvml, &[("SLOW_SAMPLE_INTERVAL", "100ms")]);
    let own = |report: &Value, is: &dyn Fn(&Value, &str) -> bool| {
        LASTING.iter().enumerate().all(|(gpu, name)| is(&report["gpus"][gpu], name))
    };
    let known = |report: &Value| own(report, &|gpu, name| !gpu[name].is_null()) && is_ok(report);
    for code in [3, 4, 13] {
        worker.report_when("all readings", known);
        nvml.set(&with(&|_| format!("err:{code}")));
        let failed = |gpu: &Value, name: &str| is_named(gpu, "failed", name) && gpu["verdict"] == "degraded";
        let report = worker.report_when(&format!("failures with {code}"), |report| own(report, &failed));
        let both = |gpu: &Value, name: &str| is_named(gpu, "unsupported", name);
        assert!(!LASTING.iter().enumerate().any(|(gpu, name)| both(&report["gpus"][gpu], name)), "{report:#}");
        assert!(is_named(&report["gpus"][0], "unsupported", "performance_state"), "{report:#}");
        nvml.set(&with(&healthy));
    }
    worker.report_when("all readings again", known);
}

#[test]
fn what_has_worked_is_remembered_when_the_helper_is_another_one() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("a temperature", |r| is_ok(r) && r["gpus"][0]["temperature_c"] == 41);
    let old = worker.helpers()[0];
    // It makes no more calls: the next one is the first to see the error.
    rustix::process::kill_process(old, rustix::process::Signal::STOP).unwrap();
    nvml.set("gpu0.temperature=err:4\ngpu0.utilization=44/1");
    rustix::process::kill_process(old, rustix::process::Signal::KILL).unwrap();
    let report = worker.report_when("a sample of the next", |r| r["gpus"][0]["utilization_percent"] == 44);
    assert!(is_named(&report["gpus"][0], "failed", "temperature_c"), "{report:#}");
    worker.report_when("its fault", has("FIELD_READ_ERROR"));
    nvml.set("");
    worker.report_when("verdict ok", is_ok);
}
