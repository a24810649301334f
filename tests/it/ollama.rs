//! An Ollama that is away, slow, lying or half-answering: jobs are answered all the same, and never with more
//! confidence than there is.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;

use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama, MODEL, PS, TAGS, VERSION};
use crate::harness::{Worker, codes, folder, verdict, wait_for};

/// A stand-in for agent-net-nvml that answers every ask with these GPUs.
pub fn helper(name: &str, gpus: &Value) -> PathBuf {
    let path = folder(name).join("agent-net-nvml");
    let answer =
        json!({"Ok": {"driver_version": "570.86.15", "library": "/fake.so", "gpus": gpus, "read_us": 900}}).to_string();
    std::fs::write(path.with_extension("json"), answer).expect("the answer can be written");
    let script = format!(
        r#"#!/bin/sh
echo '{{"protocol":6,"version":"{}"}}'
answer=$(cat "$0.json")
while read -r line; do
  id=${{line#*'"id":'}}
  printf '{{"id":%s,"answer":%s}}\n' "${{id%%,*}}" "$answer"
done
"#,
        env!("CARGO_PKG_VERSION")
    );
    std::fs::write(&path, script).expect("the script can be written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it can be made executable");
    path
}

/// One usable GPU.
fn one_gpu(name: &str) -> PathBuf {
    helper(name, &json!([{"index": 0, "uuid": "GPU-1", "name": "NVIDIA L4", "temperature_c": 41}]))
}

/// A worker beside it that expects no GPU and reads it often.
fn beside(fake: &FakeOllama) -> Worker {
    Worker::start(&[("OLLAMA_URL", &fake.url()), ("EXPECTED_GPUS", "0"), ("SAMPLE_INTERVAL", "100ms")])
}

fn is_ok(report: &Value) -> bool {
    verdict(report) == "ok"
}

/// A worker that never saw a good answer of this path is never ok, reports `code` in the end, and recovers.
#[track_caller]
fn check(path: &str, answer: &Answer, code: &str) {
    let fake = FakeOllama::new();
    fake.set(path, answer.clone());
    let worker = beside(&fake);
    let what = format!("{code} of {path} with {:.60}", format!("{answer:?}"));
    let report = worker.report_when(&what, |report| {
        assert!(!is_ok(report), "{what}: ok without knowing: {report:#}");
        codes(report).contains(&code)
    });
    let reasons = report["health"]["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|r| r["code"] == code).unwrap();
    for key in ["message", "action"] {
        assert!(reason[key].as_str().is_some_and(|text| !text.is_empty() && text.len() < 1000), "{what}: {reason}");
    }
    assert_eq!(report["ollama"]["reachable"], code != "OLLAMA_DOWN", "{what}: {report:#}");
    assert!(report["ollama"]["error"].is_string(), "{what}: {report:#}");
    for (path, good) in [("/api/version", VERSION), ("/api/tags", TAGS), ("/api/ps", PS)] {
        fake.set(path, Answer::Json(good.into()));
    }
    let report = worker.report_when(&format!("ok after {what}"), is_ok);
    assert_eq!((&report["model_name"], &report["total_models"]), (&json!(MODEL), &json!(1)), "{what}");
}

/// All ways to answer badly, each against a worker of its own, side by side: some cost a deadline of seconds.
fn check_all(path: &str, good: &str, more: &[&str], code: &str) {
    let mut bad = vec![
        Answer::Hang,
        Answer::HangAfterHead,
        Answer::SlowBytes,
        Answer::HangUp,
        Answer::WrongLength,
        Answer::Huge(9 << 20),
        Answer::Status(500, r#"{"error":"out of memory"}"#.into()),
        Answer::Status(204, String::new()),
        // A good body does not make a status good.
        Answer::Status(500, good.into()),
        Answer::Status(301, good.into()),
        Answer::Status(403, good.into()),
        Answer::Raw { bytes: b"\x16\x03\x01\x02garbage\r\n\r\n".to_vec(), close: true },
        Answer::Raw {
            bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}".to_vec(),
            close: true,
        },
        Answer::Raw { bytes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}".to_vec(), close: true },
        Answer::Raw {
            bytes: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"mod".to_vec(),
            close: true,
        },
        Answer::Raw { bytes: [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 1 << 20]].concat(), close: true },
    ];
    let lies = ["", "<html>", "{", "[]", "7", "null", "\"text\"", "{}", "{\"models\":7}", "{\"version\":7}", "\u{0}"];
    bad.extend(lies.iter().chain(more).map(|body| Answer::Json((*body).to_owned())));
    // Not all at once: each is a process with its threads.
    for some in bad.chunks(9) {
        thread::scope(|scope| {
            for answer in some {
                scope.spawn(move || check(path, answer, code));
            }
        });
    }
}

#[test]
fn a_bad_version_means_that_ollama_is_down() {
    check_all("/api/version", VERSION, &[r#"{"version":null}"#, r#"{"models":[]}"#], "OLLAMA_DOWN");
}

#[test]
fn a_bad_list_of_pulled_models_is_not_an_outage() {
    check_all(
        "/api/tags",
        TAGS,
        &[r#"{"models":{"name":"a"}}"#, r#"{"version":"0.32.4"}"#, r#"{"models":[{"name":"a""#],
        "OLLAMA_LIST_FAILED",
    );
}

#[test]
fn a_bad_list_of_loaded_models_is_not_an_outage() {
    check_all(
        "/api/ps",
        PS,
        &[r#"{"models":"a"}"#, r#"{"error":"x"}"#, r#"{"models":[{"name":"a"}]"#],
        "OLLAMA_LIST_FAILED",
    );
}

/// Ollama holds /api/ps back for 19.6 s while it pings a runner that hangs.
#[test]
fn a_list_that_takes_twenty_seconds_is_waited_for() {
    let fake = FakeOllama::new();
    fake.set("/api/ps", Answer::Late(20_000, Box::new(Answer::Json(PS.into()))));
    let worker = beside(&fake);
    let report = worker.report_when("ok", |report| {
        assert!(!codes(report).contains(&"OLLAMA_LIST_FAILED"), "{report:#}");
        is_ok(report)
    });
    assert_eq!(report["model_name"], MODEL, "{report:#}");
}

#[test]
fn an_ollama_that_goes_away_is_noticed_and_so_is_its_return() {
    let mut fake = FakeOllama::new();
    let worker = beside(&fake);
    let before = worker.report_when("ok", is_ok);
    assert_eq!((&before["gpu_count"], &before["vram_usage_mb"]), (&json!(1), &json!(6321)));
    for _ in 0..2 {
        fake.stop();
        let report = worker.report_when("OLLAMA_DOWN", |r| codes(r).contains(&"OLLAMA_DOWN"));
        assert_eq!(verdict(&report), "unhealthy");
        assert_eq!(
            (&report["model_name"], &report["total_models"]),
            (&json!(""), &json!(0)),
            "its models went with it"
        );
        assert_eq!((&report["gpu_count"], &report["vram_usage_mb"]), (&json!(0), &json!(0)));
        assert_eq!((&report["ollama"]["reachable"], &report["source"]), (&json!(false), &json!("none")));
        fake.start();
        let report = worker.report_when("ok again", is_ok);
        assert_eq!((&report["model_name"], &report["total_models"]), (&json!(MODEL), &json!(1)));
    }
}

#[test]
fn models_of_the_last_good_lists_are_shown_but_not_trusted() {
    let fake = FakeOllama::new();
    let worker = beside(&fake);
    worker.report_when("ok", is_ok);
    fake.set("/api/ps", Answer::Status(500, "{}".into()));
    let report = worker.report_when("OLLAMA_LIST_FAILED", |r| codes(r).contains(&"OLLAMA_LIST_FAILED"));
    assert_eq!((verdict(&report), &report["model_name"]), ("unknown", &json!(MODEL)), "{report:#}");
    assert_eq!((&report["vram_usage_mb"], &report["ollama"]["reachable"]), (&json!(6321), &json!(true)), "{report:#}");
    fake.set("/api/ps", Answer::Json(PS.into()));
    worker.report_when("ok again", is_ok);
}

#[test]
fn one_lost_answer_is_not_an_outage() {
    let fake = FakeOllama::new();
    let worker = beside(&fake);
    worker.report_when("ok", is_ok);
    for answer in [Answer::HangUp, Answer::Status(500, VERSION.into()), Answer::WrongLength] {
        let before = fake.requests("/api/version");
        fake.set_once("/api/version", answer);
        wait_for("polls after the lost one", || (fake.requests("/api/version") >= before + 3).then_some(()));
        worker.report_when("ok again", is_ok);
    }
    assert!(!worker.log().contains("unhealthy: "), "it was called an outage");
}

#[test]
fn an_outage_is_one_reason_with_one_beginning() {
    let worker = Worker::start(&[("EXPECTED_GPUS", "0")]);
    let first = worker.report_when("OLLAMA_DOWN", |report| {
        let down = codes(report).contains(&"OLLAMA_DOWN");
        assert_eq!(verdict(report), if down { "unhealthy" } else { "unknown" }, "{report:#}");
        down
    });
    let seconds = |report: &Value| report["uptime"]["process_seconds"].as_u64().unwrap();
    let later = worker.report_when("a report seconds later", |r| seconds(r) > seconds(&first) + 1);
    assert_eq!(first["health"]["reasons"][0]["since"], later["health"]["reasons"][0]["since"]);
    assert_eq!(later["health"]["reasons"].as_array().map(Vec::len), Some(1), "{later:#}");
}

#[test]
fn wrong_types_cost_a_field_and_never_a_job() {
    let fake = FakeOllama::new();
    let tags = json!({"models": [
        7, null, [], "x", {}, {"name": 3}, {"name": ""}, {"name": null, "model": "by-model"},
        {"name": "negative", "size": -5}, {"name": "text", "size": "5 GB"}, {"name": "float", "size": 1e99, "digest": 4},
        {"name": "details", "size": 1 << 20, "details": [], "modified_at": false, "unheard": {"of": []}}
    ]});
    let ps = json!({"models": [{"name": "negative", "size": -1, "size_vram": -1}, {"name": "max", "size": u64::MAX, "size_vram": u64::MAX},
        {"name": "more", "size": 5, "size_vram": 5 << 20}, {"name": "none", "size_vram": null}, 5]});
    fake.set("/api/tags", Answer::Json(tags.to_string()));
    fake.set("/api/ps", Answer::Json(ps.to_string()));
    fake.set("/api/version", Answer::Json(json!({"version": "x".repeat(10_000)}).to_string()));
    let worker = beside(&fake);
    let report = worker.report_when("the models", |r| r["total_models"] == 5);
    let models = report["models"].as_array().unwrap();
    let names: Vec<&str> = models.iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["by-model", "negative", "text", "float", "details", "max", "more", "none"]);
    let sizes: Vec<&Value> = models.iter().map(|m| &m["size_mb"]).collect();
    assert_eq!(sizes[..5], [&Value::Null, &Value::Null, &Value::Null, &Value::Null, &json!(1)]);
    assert!(models.iter().all(|m| m["on_gpu_percent"].as_u64().is_none_or(|p| p <= 100)), "{report:#}");
    assert_eq!(report["vram_usage_mb"], u64::MAX >> 20, "a sum that does not fit does not wrap");
    assert!(report["ollama"]["version"].as_str().unwrap().len() <= 64, "{report:#}");
}

#[test]
fn loaded_models_share_the_vram_and_aliases_are_found_by_digest() {
    let fake = FakeOllama::new();
    let pulled = |name: &str, digest: &str| json!({"name": name, "digest": digest, "size": 100_u64 << 20});
    let loaded = |name: &str, digest: &str, size: u64, vram: u64| json!({"name": name, "model": name, "digest": digest, "size": size << 20, "size_vram": vram << 20});
    let tags = [pulled("big:1", "b"), pulled("Copy:latest", "c"), pulled("small:latest", "s"), pulled("idle:1", "i")];
    let ps = [loaded("small", "s", 100, 50), loaded("big:1", "b", 3000, 3000), loaded("first-name:latest", "c", 7, 0)];
    fake.set("/api/tags", Answer::Json(json!({"models": tags}).to_string()));
    fake.set("/api/ps", Answer::Json(json!({"models": ps}).to_string()));
    let worker = beside(&fake);
    let report = worker.report_when("the models", |r| r["total_models"] == 4);
    assert_eq!((&report["model_name"], &report["vram_usage_mb"]), (&json!("big:1"), &json!(3050)));
    let rows = report["models"].as_array().unwrap().iter();
    let rows: Vec<_> = rows.map(|m| json!([m["name"], m["loaded"], m["vram_mb"], m["on_gpu_percent"]])).collect();
    let expected = [
        json!(["big:1", true, 3000, 100]),
        json!(["Copy:latest", true, 0, 0]),
        json!(["small:latest", true, 50, 50]),
        json!(["idle:1", false, 0, null]),
    ];
    assert_eq!(rows, expected);
    // The largest is unloaded; the lists of loaded models are read at every sample.
    fake.set("/api/ps", Answer::Json(json!({"models": [loaded("small:latest", "s", 100, 50)]}).to_string()));
    worker.report_when("the smaller one", |r| r["model_name"] == "small:latest" && r["vram_usage_mb"] == 50);
    fake.set("/api/ps", Answer::Json(json!({"models": []}).to_string()));
    worker.report_when("no loaded model", |r| r["model_name"] == "" && r["vram_usage_mb"] == 0 && r["gpu_count"] == 0);
}

#[test]
fn a_model_in_main_memory_beside_a_gpu_is_degraded() {
    let fake = FakeOllama::new();
    let on_cpu = json!({"models": [{"name": MODEL, "size": 6_628_048_896_u64, "size_vram": 0}]});
    fake.set("/api/ps", Answer::Json(on_cpu.to_string()));
    let helper = one_gpu("on-cpu");
    let settings = [("OLLAMA_URL", fake.url()), ("NVML_HELPER", helper.to_string_lossy().into_owned())];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let worker = Worker::start(&settings);
    let report = worker.report_when("MODEL_ON_CPU", |r| codes(r).contains(&"MODEL_ON_CPU"));
    assert_eq!((verdict(&report), codes(&report)), ("degraded", vec!["MODEL_ON_CPU"]), "{report:#}");
    assert_eq!((&report["model_name"], &report["vram_usage_mb"]), (&json!(MODEL), &json!(0)));
    let reason = &report["health"]["reasons"][0];
    assert!(reason["message"].as_str().unwrap().contains(MODEL));
    // ollama/ollama#10053: no restart of Ollama alone brings CUDA back after a suspend.
    assert!(reason["action"].as_str().unwrap().contains("reload the module nvidia_uvm"), "{reason:#}");
    fake.set("/api/ps", Answer::Json(PS.into()));
    worker.report_when("ok", is_ok);

    // Without a GPU it is where it belongs.
    fake.set("/api/ps", Answer::Json(on_cpu.to_string()));
    let report = beside(&fake).report_when("ok without a GPU", is_ok);
    assert_eq!((&report["gpu_count"], &report["models"][0]["on_gpu_percent"]), (&json!(0), &json!(0)));
}

#[test]
fn a_hanging_ollama_does_not_make_gpu_readings_old() {
    let fake = FakeOllama::new();
    fake.set_all(&Answer::Hang);
    let helper = one_gpu("hanging");
    let worker = Worker::start(&[("OLLAMA_URL", &fake.url()), ("NVML_HELPER", helper.to_str().unwrap())]);
    let mut temperatures = 0;
    wait_for("twenty readings beside a hanging Ollama", || {
        let report = worker.report();
        assert!(!is_ok(&report), "{report:#}");
        assert!(!codes(&report).contains(&"STALE"), "{report:#}");
        temperatures += usize::from(report["gpus"][0]["temperature_c"] == 41);
        (temperatures >= 20).then_some(())
    });
}
