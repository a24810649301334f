//! GET /metrics: a strict reader of both formats, and its agreement with the report and the text form.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama};
use crate::gpus::{is_ok, start};
use crate::harness::{Worker, codes, folder, skip, wait_for};
use crate::http;
use crate::nvml::FakeNvml;

/// Labels in their order, and a value, by the name of the series.
type Series = BTreeMap<(String, Vec<(String, String)>), f64>;

/// Reads an exposition as strictly as its grammar is.
#[track_caller]
fn parse(text: &str, open: bool) -> Series {
    assert!(text.ends_with(if open { "# EOF\n" } else { "\n" }), "{text}");
    let body = text.strip_suffix("# EOF\n").unwrap_or(text);
    let mut series = Series::new();
    let mut family = (String::new(), String::new());
    let mut done = BTreeSet::new();
    let mut helped = String::new();
    for line in body.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(!help.is_empty() && done.insert(name.to_owned()), "{line}: a family that is begun twice");
                name.clone_into(&mut helped);
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(name, helped, "{line}");
                let kinds = ["gauge", "counter", "histogram"];
                assert!(kinds.contains(&kind) || (open && kind == "info"), "{line}");
                assert!(open || kind != "counter" || name.ends_with("_total"), "{line}");
                assert!(!open || kind != "counter" || !name.ends_with("_total"), "{line}");
                family = (name.to_owned(), kind.to_owned());
            }
            ["#", "UNIT", name, unit] => {
                assert!(open && name == helped && name.ends_with(&format!("_{unit}")), "{line}");
            }
            _ => {
                let (name, labels, value) = sample(line);
                let suffixes: &[&str] = match family.1.as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "counter" if open => &["_total"],
                    "info" => &["_info"],
                    _ => &[""],
                };
                let fits = suffixes.iter().any(|suffix| name == format!("{}{suffix}", family.0));
                assert!(fits, "{line}: not of the family {family:?}");
                assert!(series.insert((name, labels), value).is_none(), "{line}: twice");
            }
        }
    }
    series
}

fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = line.find(|c| !is_name(c)).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    while let Some(more) = rest.strip_prefix(if labels.is_empty() { '{' } else { ',' }) {
        let (label, text) = more.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(!label.is_empty() && label.chars().all(is_name), "{line}");
        let mut value = String::new();
        let mut chars = text.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("{line}: no closing quote")) {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, c @ ('\\' | '"'))) => c,
                    other => panic!("{line}: {other:?} needs no escape"),
                }),
                (_, c) => value.push(c),
            }
        };
        rest = &text[end + 1..];
        labels.push((label.to_owned(), value));
    }
    let rest = if labels.is_empty() { rest } else { rest.strip_prefix('}').unwrap_or_else(|| panic!("{line}")) };
    let value = rest.strip_prefix(' ').and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    (name.to_owned(), labels, value)
}

fn metrics(worker: &Worker) -> Series {
    let answer = worker.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    parse(answer.text(), false)
}

fn open_metrics(worker: &Worker) -> Series {
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let answer = http::request(worker.addr, "GET", "/metrics", &[accept], b"");
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    parse(answer.text(), true)
}

/// The one value of this series; None when there is none.
fn value(series: &Series, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels: Vec<_> = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    series.get(&(name.to_owned(), labels)).copied()
}

/// Field of the report, metric, and how many of the one are one of the other.
const PAIRS: &[(&str, &str, f64)] = &[
    ("vram_total_mb", "agent_net_gpu_memory_total_bytes", 1_048_576.0),
    ("vram_used_mb", "agent_net_gpu_memory_used_bytes", 1_048_576.0),
    ("vram_free_mb", "agent_net_gpu_memory_free_bytes", 1_048_576.0),
    ("vram_reserved_mb", "agent_net_gpu_memory_reserved_bytes", 1_048_576.0),
    ("utilization_percent", "agent_net_gpu_utilization_ratio", 0.01),
    ("memory_utilization_percent", "agent_net_gpu_memory_utilization_ratio", 0.01),
    ("temperature_c", "agent_net_gpu_temperature_celsius", 1.0),
    ("temperature_margin_c", "agent_net_gpu_temperature_margin_celsius", 1.0),
    ("memory_temperature_c", "agent_net_gpu_memory_temperature_celsius", 1.0),
    ("power_w", "agent_net_gpu_power_watts", 1.0),
    ("power_limit_w", "agent_net_gpu_power_limit_watts", 1.0),
    ("energy_j", "agent_net_gpu_energy_joules_total", 1.0),
    ("performance_state", "agent_net_gpu_performance_state", 1.0),
    ("recovery_action", "agent_net_gpu_recovery_action", 1.0),
    ("pcie_replays", "agent_net_gpu_pcie_replays_total", 1.0),
    ("nvlinks_active", "agent_net_gpu_nvlinks_active", 1.0),
];

#[test]
fn report_text_and_metrics_agree() {
    const GPUS: &str = "gpus=8\ngpu*.power=63000\ngpu*.energy=5000";
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(GPUS));
    let worker = start(&ollama, &nvml, &[("SLOW_SAMPLE_INTERVAL", "100ms")]);
    worker.report_when("8 GPUs", |r| r["gpu_count"] == 8 && is_ok(r));
    nvml.set(&format!(
        "{GPUS}\ngpu3.handle=15\ngpu5.temperature=95\ngpu6.power=err:3\ngpu6.utilization=err:3\ngpu6.fans=err:3\n\
         gpu7.margin=-2\ngpu7.memory_temperature=70\ngpu7.nvlinks=1/1/0"
    ));
    // All that changed is read, and the first second is counted: a ratio of nothing has no series.
    let wanted = ["GPU_LOST", "TEMP_HIGH"];
    worker.report_when("one lost, one hot, all read again, uptime", |r| {
        let slow = [("temperature_margin_c", -2), ("memory_temperature_c", 70), ("nvlinks_active", 2)];
        wanted.iter().all(|code| codes(r).contains(code))
            && slow.iter().all(|(field, value)| r["gpus"][7][field] == *value)
            && ["power_w", "utilization_percent"].iter().all(|field| r["gpus"][6][field].is_null())
            && r["uptime"]["1h"].is_number()
    });
    let report = worker.get("/gpu").json();
    let text = worker.get("/gpu?format=text");
    let text: BTreeMap<&str, &str> = text.text().lines().map(|line| line.split_once('=').unwrap()).collect();
    let (plain, open) = (metrics(&worker), open_metrics(&worker));
    let compared: usize = (0..8).map(|i| agree_on_gpu(i, &report, &text, &plain, &open)).sum();
    assert!(compared > 80, "{compared} values were compared");
    assert_eq!(report["gpus"][3]["temperature_c"], Value::Null);
    assert_eq!(value(&plain, "agent_net_gpus", &[]), Some(7.0));
    assert_eq!((text["gpu_count"], &report["gpu_count"]), ("7", &json!(7)));
    assert_eq!(text["verdict"], "unhealthy");
    assert_eq!(value(&plain, "agent_net_node_health", &[("verdict", "unhealthy")]), Some(1.0));
    let reasons = plain.keys().filter(|(name, _)| name == "agent_net_gpu_health_reason").count();
    assert_eq!(reasons, report["health"]["reasons"].as_array().unwrap().len());
    let model = [("model", "codellama:34b-instruct-q4_k_m")];
    assert_eq!(value(&plain, "agent_net_ollama_model_vram_bytes", &model), Some(6_628_048_896.0));
    // The same series in both formats, once no sample came between them: each one times other calls.
    let names = |series: &Series| series.keys().cloned().collect::<BTreeSet<_>>();
    wait_for("the same series in both formats", || {
        (names(&metrics(&worker)) == names(&open_metrics(&worker))).then_some(())
    });
}

/// How many readings of a GPU are the same in the report, its lines and both formats of metrics.
#[track_caller]
fn agree_on_gpu(i: usize, report: &Value, text: &BTreeMap<&str, &str>, plain: &Series, open: &Series) -> usize {
    let mut compared = 0;
    let gpu = &report["gpus"][i];
    // One that is lost is still known by its name.
    let uuid = format!("GPU-00000000-0000-0000-0000-{i:012}");
    assert_eq!(gpu["uuid"], uuid, "{gpu:#}");
    for (field, metric, unit) in PAIRS {
        let shown = gpu[*field].as_f64();
        let line = text.get(format!("gpu{i}_{field}").as_str()).map(|v| v.parse::<f64>().unwrap());
        let exposed = value(plain, metric, &[("uuid", &uuid)]).map(|v| v / unit);
        let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 0.06,
            (a, b) => a == b,
        };
        assert!(near(shown, line) && near(shown, exposed), "gpu{i} {field}: {shown:?} {line:?} {exposed:?}");
        assert_eq!(value(open, metric, &[("uuid", &uuid)]), value(plain, metric, &[("uuid", &uuid)]));
        compared += usize::from(shown.is_some());
    }
    let verdict = gpu["verdict"].as_str().unwrap();
    assert_eq!(text[format!("gpu{i}_verdict").as_str()], verdict);
    for one in ["ok", "degraded", "unhealthy", "unknown"] {
        let set = value(plain, "agent_net_gpu_health", &[("uuid", &uuid), ("verdict", one)]);
        assert_eq!(set, Some(f64::from(u8::from(one == verdict))), "gpu{i} {one}");
    }
    let own = |r: &&Value| r["gpu"] == uuid;
    for reason in report["health"]["reasons"].as_array().unwrap().iter().filter(own) {
        let code = reason["code"].as_str().unwrap();
        let labels = [("uuid", uuid.as_str()), ("code", code)];
        assert_eq!(value(plain, "agent_net_gpu_health_reason", &labels), Some(1.0), "{reason}");
    }
    compared
}

#[test]
fn names_that_try_to_break_out_stay_in_their_labels() {
    const EVIL: &str = "a\"} 1\nevil{x=\"\\";
    let (ollama, nvml) = (
        FakeOllama::new(),
        FakeNvml::new("gpus=3\ngpu*.uuid=GPU-\"},\\evil\ngpu0.name=b\\\"c\ngpu2.uuid=gpu-GPU-\"},\\EVIL"),
    );
    let models = json!({"models": [{"name": EVIL, "size": 5}, {"name": "b", "size": 6}]});
    ollama.set("/api/tags", Answer::Json(models.to_string()));
    ollama.set("/api/version", Answer::Json(json!({"version": EVIL}).to_string()));
    let worker = start(&ollama, &nvml, &[("METRICS_COMPAT", "nvidia_smi")]);
    worker.report_when("GPUs", |r| r["gpu_count"] == 3 && r["ollama"]["reachable"] == true);
    for series in [metrics(&worker), open_metrics(&worker)] {
        assert_eq!(value(&series, "agent_net_ollama_model_size_bytes", &[("model", EVIL)]), Some(5.0));
        assert_eq!(value(&series, "agent_net_ollama_info", &[("version", EVIL)]), Some(1.0));
        // Two GPUs of one UUID would be one series twice: the second has the name of its place.
        let gpus = series.keys().filter(|(name, _)| name == "agent_net_gpu_temperature_celsius").count();
        let second = value(&series, "agent_net_gpu_temperature_celsius", &[("uuid", "PCI-00000000:02:00.0")]);
        assert!(gpus == 3 && second.is_some(), "{gpus} {second:?}");
    }
}

#[test]
fn jobs_are_counted_and_no_client_gets_into_a_label() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("verdict ok", is_ok);
    let count = |route: &str, code: &str| {
        value(&metrics(&worker), "agent_net_jobs_total", &[("route", route), ("code", code)]).unwrap_or_default()
    };
    let before = count("/gpu-check", "200");
    for _ in 0..5 {
        worker.post("/gpu-check", r#"{"agent_id":"very-special-agent"}"#);
        worker.post("/agent-net", r#"{"agent_id":"very-special-agent"}"#);
    }
    worker.post("/agent-net", "{");
    worker.get("/gpu-check");
    assert_eq!(count("/gpu-check", "200"), before + 5.0);
    assert_eq!((count("/agent-net", "200"), count("/agent-net", "400"), count("/gpu-check", "405")), (5.0, 1.0, 1.0));
    let series = metrics(&worker);
    let buckets: Vec<f64> = series
        .iter()
        .filter(|((name, _), _)| name == "agent_net_job_duration_seconds_bucket")
        .map(|(_, n)| *n)
        .collect();
    let all = value(&series, "agent_net_job_duration_seconds_count", &[]).unwrap();
    assert_eq!(value(&series, "agent_net_job_duration_seconds_bucket", &[("le", "+Inf")]), Some(all));
    assert!(buckets.len() == 13 && buckets.iter().all(|n| *n <= all) && all >= before + 12.0, "{buckets:?} {all}");
    assert!(value(&series, "agent_net_job_duration_seconds_sum", &[]).unwrap() > 0.0);
    assert!(!worker.get("/metrics").text().contains("very-special"));
}

#[test]
fn before_the_first_sample_there_is_an_answer_already() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("at_init=hang"));
    ollama.set_all(&Answer::Hang);
    let worker = start(&ollama, &nvml, &[]);
    for series in [metrics(&worker), open_metrics(&worker)] {
        assert_eq!(value(&series, "agent_net_up", &[]), Some(0.0));
        assert!(series.keys().any(|(name, _)| name == "agent_net_build_info"));
        assert!(!series.keys().any(|(name, _)| name.starts_with("agent_net_gpu_")), "{series:?}");
    }
    // Nor are there readings while they cannot be read.
    let nvml = FakeNvml::new("");
    let worker = start(&FakeOllama::new(), &nvml, &[]);
    wait_for("readings", || (value(&metrics(&worker), "agent_net_up", &[]) == Some(1.0)).then_some(()));
    nvml.set("at_sample=crash");
    let series = wait_for("none", || Some(metrics(&worker)).filter(|s| value(s, "agent_net_up", &[]) == Some(0.0)));
    assert!(!series.keys().any(|(name, _)| name == "agent_net_gpu_temperature_celsius"), "{series:?}");
    let failures = |s: &Series| value(s, "agent_net_collect_failures_total", &[("code", "NVML_HELPER_FAILED")]);
    wait_for("a counted failure", || failures(&metrics(&worker)).filter(|n| *n >= 1.0));
    nvml.set("");
    wait_for("a restart", || value(&metrics(&worker), "agent_net_nvml_reinits_total", &[]).filter(|n| *n >= 1.0));
}

#[test]
fn a_sample_that_grows_old_is_no_longer_ok_here_either() {
    let nvml = FakeNvml::new("");
    let ollama = FakeOllama::new();
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("verdict ok", is_ok);
    nvml.set("at_sample=hang");
    wait_for("STALE", || {
        let series = metrics(&worker);
        let is = |name: &str, labels: &[(&str, &str)]| value(&series, name, labels) == Some(1.0);
        let stale = is("agent_net_node_health_reason", &[("code", "STALE")]);
        assert!(!stale || is("agent_net_node_health", &[("verdict", "degraded")]));
        stale.then_some(())
    });
}

#[test]
fn dashboards_of_nvidia_gpu_exporter_find_their_names() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let worker = start(&ollama, &nvml, &[("METRICS_COMPAT", "nvidia_smi")]);
    worker.report_when("verdict ok", is_ok);
    let series = metrics(&worker);
    let uuid = [("uuid", "00000000-0000-0000-0000-000000000000")];
    for (name, expect) in [
        ("utilization_gpu_ratio", 0.03),
        ("utilization_memory_ratio", 0.01),
        ("memory_used_bytes", 7012.0 * 1_048_576.0),
        ("memory_total_bytes", 24576.0 * 1_048_576.0),
        ("temperature_gpu", 41.0),
        ("power_draw_watts", 63.2),
        ("enforced_power_limit_watts", 350.0),
        ("fan_speed_ratio", 0.3),
        ("pstate", 8.0),
        ("clocks_current_graphics_clock_hz", 210e6),
        ("clocks_event_reasons_hw_thermal_slowdown", 0.0),
        ("gpu_recovery_action", 0.0),
        ("energy_joules_total", 123_456.789),
    ] {
        assert_eq!(value(&series, &format!("nvidia_smi_{name}"), &uuid), Some(expect), "{name}");
    }
    let (_, info) = series.keys().find(|(name, _)| name == "nvidia_smi_gpu_info").unwrap();
    let labels: Vec<&str> = info.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(labels, ["uuid", "name", "driver_version", "pci_bus_id", "index"]);
    let without = start(&ollama, &nvml, &[]);
    without.report_when("verdict ok", is_ok);
    assert!(!without.get("/metrics").text().contains("nvidia_smi_"));
}

#[test]
fn every_metric_is_in_the_reference_with_its_type_labels_and_help() {
    let reference = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/reference.md")).unwrap();
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpu0.rows=1/1/1/0\ngpu0.memory_temperature=50"));
    let dir = folder("metrics-reference");
    let more = [
        ("STATE_DIR", dir.to_str().unwrap()),
        ("EXPECTED_GPUS", "1"),
        ("MODEL", "codellama:34b-instruct-q4_k_m"),
        ("ORCH_URL", "http://127.0.0.1:1"),
        ("ORCH_SECRET", "secret"),
        ("CAPABILITY_NAME", "gpu-health"),
        ("TICKET_SUBMIT_URL", "http://127.0.0.1:1/tickets"),
    ];
    let worker = start(&ollama, &nvml, &more);
    worker.report_when("a GPU", |r| r["gpu_count"] == 1 && r["ollama"]["reachable"] == true);
    let text = worker.get("/metrics");
    let (mut help, mut families) = ("", BTreeSet::new());
    for line in text.text().lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap().1;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let kind = if name.ends_with("_info") { "info" } else { kind };
            let row = format!("\n| `{name}` | {kind} |");
            let row = reference.split(&row).nth(1).unwrap_or_else(|| panic!("no row {row}")).lines().next().unwrap();
            let labels = text.text().lines().find(|l| l.starts_with(name)).unwrap();
            let (_, labels, _) = sample(labels);
            let labels: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).filter(|l| *l != "le").collect();
            let wanted =
                if labels.is_empty() { format!(" | {help} |") } else { format!(" {} | {help} |", labels.join(", ")) };
            assert_eq!(row, wanted, "{name}");
            families.insert(name.to_owned());
        }
    }
    assert!(families.len() >= 60, "{} families: {families:?}", families.len());
}

#[test]
fn promtool_has_nothing_to_say() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=8\ngpu3.handle=15\ngpu5.temperature=95"));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("GPUs", |r| r["gpu_count"] == 7);
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = promtool.spawn() else {
        skip("promtool is missing");
        return;
    };
    promtool.stdin.take().unwrap().write_all(&worker.get("/metrics").body).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.is_empty(), "{}: {text}", said.status);
}
