//! Real boards, idle and under load: each reading of the report against the figure of their `nvidia-smi -q`.
//!
//! The files in `boards/` were written from captures that utkuozdemir/nvidia_gpu_exporter (MIT) publishes. Above the
//! line stands what NVML said, in its own units, as settings of the fake library; below it what the report must show.
//! `a | b` is idle and under load. N/A is what nvidia-smi does not have either: null, and named in `unsupported`.
//! Serial numbers, UUIDs and the identity of processes are left out. A capture does not show three things: how many fans
//! there are (it shows one), which error is behind an N/A (here "not supported"), and the bytes behind a MiB:
//! nvidia-smi rounds used, reserved and free memory up and the report rounds down, so that they may differ by 1.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama};
use crate::gpus::start;
use crate::harness::{TIMEOUT, folder, stood_still};
use crate::nvml::FakeNvml;
use crate::process_names::{own_proc, process};

const BOARDS: [(&str, &str); 7] = [
    ("RTX 2080 SUPER, driver 595", include_str!("boards/rtx-2080-super-595.txt")),
    ("RTX 2080 SUPER, driver 610", include_str!("boards/rtx-2080-super-610.txt")),
    ("RTX 2080 SUPER, Windows", include_str!("boards/rtx-2080-super-windows.txt")),
    ("L40S", include_str!("boards/l40s.txt")),
    ("H100", include_str!("boards/h100.txt")),
    ("H100 with MIG", include_str!("boards/h100-mig.txt")),
    ("H200", include_str!("boards/h200.txt")),
];

/// Of the machine, not of one GPU.
const MACHINE: [&str; 2] = ["driver_version", "cuda_version"];

/// What the report has of a GPU and `nvidia-smi -q` does not show.
const NOT_SHOWN: [&str; 16] = [
    "vendor",
    "index",
    "uuid",
    "unified_memory",
    "asleep",
    "energy_j",
    "gtt_total_mb",
    "gtt_used_mb",
    "hotspot_temperature_c",
    "hotspot_temperature_slowdown_c",
    "fan_rpm",
    "compute_capability",
    "inforom_corrupt",
    "xids",
    "unsupported",
    "read_ms",
];

/// What the kernel calls the programs that the captures show as `/root/tools/memhog`, `ffmpeg` and `/usr/bin/Xwayland`.
const NAMES: [&str; 3] = ["memhog", "ffmpeg", "Xwayland"];

/// Conditions that need several samples have them.
const SAMPLES: usize = 6;

/// One board at one moment.
struct Moment {
    settings: String,
    /// Name and value of each reading.
    readings: Vec<(&'static str, Value)>,
}

/// The board while it is idle (0) or under load (1).
fn moment(file: &'static str, which: usize) -> Moment {
    let (settings, readings) = file.split_once("---\n").expect("two parts");
    let value = |both: &'static str| both.split(" | ").nth(which).unwrap_or(both);
    let settings = settings.lines().filter_map(|line| line.split_once('='));
    let settings = settings.map(|(key, both)| format!("{key}={}\n", value(both))).collect();
    let parse = |line: &'static str| {
        let (name, both) = line.split_once(": ").expect("name and value");
        let value = match value(both) {
            "N/A" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|why| panic!("{name}: {text}: {why}")),
        };
        let value = match name {
            "processes" => processes(&value),
            "mig" if value.is_array() => instances(&value),
            _ => value,
        };
        (name, value)
    };
    Moment { settings, readings: readings.lines().map(parse).collect() }
}

/// The MiB of each process, which the fake numbers from 101 on, or MiB and the number of its MIG instance.
/// `nvidia-smi -q` does not show how much each uses of the GPU.
fn processes(sizes: &Value) -> Value {
    let sizes = sizes.as_array().expect("a list").iter().zip(101..);
    let process = |(size, pid): (&Value, usize)| {
        let (mib, on) = size.as_array().map_or((size, &Value::Null), |both| (&both[0], &both[1]));
        json!({"pid": pid, "name": NAMES[pid % NAMES.len()], "vram_mb": mib, "mig_uuid": on.as_u64().map(mig_uuid),
            "utilization_percent": null})
    };
    sizes.map(process).collect()
}

/// Ids of GPU and compute instance, SMs, profile, MiB and MiB in use of each MIG instance.
fn instances(all: &Value) -> Value {
    let all = all.as_array().expect("a list").iter().zip(0..);
    let instance = |(one, number): (&Value, u64)| {
        json!({"uuid": mig_uuid(number), "profile": one[3], "gpu_instance": one[0], "compute_instance": one[1],
            "sm_count": one[2], "vram_total_mb": one[4], "vram_used_mb": one[5], "sm_activity_percent": null,
            "tensor_activity_percent": null, "dram_activity_percent": null})
    };
    all.map(instance).collect()
}

/// As the fake names the instances of its first GPU.
fn mig_uuid(number: u64) -> String {
    format!("MIG-00000000-0000-0000-{number:04}-000000000000")
}

/// The lines of a reading in the text form: none for what is null.
fn lines(key: &str, value: &Value) -> Vec<String> {
    let parts = |parts: Vec<(String, &Value)>| parts.iter().flat_map(|(key, value)| lines(key, value)).collect();
    match value {
        Value::Null => Vec::new(),
        Value::Object(fields) => parts(fields.iter().map(|(name, part)| (format!("{key}_{name}"), part)).collect()),
        Value::Array(all) if all.iter().any(Value::is_object) => {
            parts(all.iter().enumerate().map(|(i, part)| (format!("{key}{i}"), part)).collect())
        }
        Value::Array(all) => {
            let words: Vec<String> =
                all.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect();
            vec![format!("{key}='{}'", words.join(" "))]
        }
        Value::String(text) if key.ends_with("verdict") => vec![format!("{key}={text}")],
        Value::String(text) => vec![format!("{key}='{text}'")],
        plain => vec![format!("{key}={plain}")],
    }
}

/// Where the report, as JSON or as text, differs from the board.
fn differences(report: &Value, text: &str, moment: &Moment) -> Vec<String> {
    let gpu = &report["gpus"][0];
    let mut found = Vec::new();
    let unsupported: BTreeSet<&str> =
        gpu["unsupported"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let shown: BTreeSet<&str> = text.lines().collect();
    for (name, wanted) in &moment.readings {
        let of_machine = MACHINE.contains(name);
        let have = if of_machine { report.get(*name) } else { gpu.get(*name) };
        if have != Some(wanted) {
            found.push(format!("{name} is {}, not {wanted}", have.map_or("missing".into(), Value::to_string)));
        }
        if wanted.is_null() != unsupported.contains(name) {
            found.push(format!("{name} is {wanted}, and unsupported are {unsupported:?}"));
        }
        let key = if of_machine { (*name).to_owned() } else { format!("gpu0_{name}") };
        let wanted = lines(&key, wanted);
        found.extend(wanted.iter().filter(|line| !shown.contains(line.as_str())).map(|line| format!("no line {line}")));
        if wanted.is_empty() {
            let begins = [format!("{key}="), format!("{key}_")];
            let is_others =
                |line: &&&str| moment.readings.iter().any(|(name, _)| line.starts_with(&format!("gpu0_{name}=")));
            let more =
                shown.iter().filter(|line| !is_others(line) && begins.iter().any(|begin| line.starts_with(begin)));
            found.extend(more.map(|line| format!("{name} is N/A, and there is the line {line}")));
        }
    }
    let compared = |name: &str| moment.readings.iter().any(|(reading, _)| *reading == name);
    let others = gpu.as_object().into_iter().flatten();
    let others =
        others.filter(|(name, value)| !value.is_null() && !compared(name) && !NOT_SHOWN.contains(&name.as_str()));
    found.extend(others.filter(|(_, value)| **value != json!({})).map(|(name, value)| format!("{name} is {value}")));
    found
}

/// Plays a board through the real programs. Returns how many readings were compared.
fn play(board: &str, file: &'static str) -> usize {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(&moment(file, 0).settings));
    // With a model loaded, more memory would have to be in use than is on an idle board.
    ollama.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    let root = folder(&format!("board-{}", board.replace(' ', "-")));
    own_proc(&root, "7");
    (101..=112).for_each(|pid| process(&root, pid, NAMES[pid as usize % NAMES.len()].as_bytes()));
    let settings = [("SLOW_SAMPLE_INTERVAL", "100ms"), ("HOST_ROOT", root.to_str().unwrap())];
    let worker = start(&ollama, &nvml, &settings);
    let mut compared = 0;
    for (which, state) in [(0, "idle"), (1, "under load")] {
        let moment = moment(file, which);
        nvml.set(&moment.settings);
        let (mut seen, end) = (BTreeSet::new(), Instant::now() + TIMEOUT);
        while seen.len() < SAMPLES {
            thread::sleep(Duration::from_millis(50));
            let (report, text) = (worker.get("/gpu").json(), worker.get("/gpu?format=text"));
            let mut differ = differences(&report, text.text(), &moment);
            if report["health"] != json!({"verdict": "ok", "reasons": []}) {
                differ.push(format!("its health is {}", report["health"]));
            }
            if differ.is_empty() {
                seen.insert(report["read_us"].as_u64());
                continue;
            }
            // Until the first sample of this moment.
            let waits = seen.is_empty() || stood_still(&report);
            assert!(waits && Instant::now() < end, "{board} {state}:\n{}", differ.join("\n"));
        }
        compared += moment.readings.len();
    }
    compared
}

#[test]
fn real_boards_are_reported_as_nvidia_smi_shows_them_and_are_healthy() {
    let played = thread::scope(|scope| {
        let all = BOARDS.map(|(board, file)| scope.spawn(move || play(board, file)));
        all.map(|one| one.join().unwrap())
    });
    println!("{} boards, idle and under load: {} readings", played.len(), played.iter().sum::<usize>());
}
