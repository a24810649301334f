//! `check` and `ack`: what a monitoring system gets to see.

use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::harness::{Worker, agent_net, codes, run, verdict, wait_for};
use crate::nvml::FakeNvml;

/// `agent-net check` with these arguments and settings: exit code, stdout, stderr.
fn check(args: &[&str], settings: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = agent_net();
    command.env("OLLAMA_URL", "http://127.0.0.1:9").env("SERVER_PORT", "9").envs(settings.iter().copied());
    let (status, out, err) = run(command.arg("check").args(args));
    (status.code().expect("it exits"), out, err)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[test]
fn the_exit_code_is_the_verdict_of_the_worker_that_is_asked() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let url = ollama.url();
    let worker = Worker::start(&[&[("OLLAMA_URL", url.as_str())], &nvml.settings()[..]].concat());
    let at = format!("http://{}", worker.addr);
    for (settings, word, code, part) in [
        ("gpus=2", "ok", 0, "2 of 2 GPUs usable, 1 models, codellama:34b-instruct-q4_k_m loaded [nvml+ollama]"),
        ("gpus=2\ngpu1.temperature=95", "degraded", 1, "degraded TEMP_HIGH GPU-"),
        ("gpus=2\ngpu1.handle=15", "unhealthy", 2, "unhealthy GPU_LOST GPU-"),
    ] {
        nvml.set(settings);
        worker.report_when(word, |r| verdict(r) == word);
        let (rc, out, err) = check(&["--url", &at], &[]);
        assert_eq!((rc, err.as_str()), (code, ""), "{out}");
        assert!(first_line(&out).starts_with(&format!("agent-net {word}")) && out.contains(part), "{out}");

        let (rc, out, _) = check(&["--url", &at, "--json"], &[]);
        let report: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((rc, verdict(&report), report.get("agent_id")), (code, word, None));
        let (rc, out, _) = check(&["--url", &at, "--text"], &[]);
        assert_eq!((rc, first_line(&out)), (code, format!("verdict={word}").as_str()));
        // Without a URL it is the worker of this machine.
        let port = worker.addr.port().to_string();
        assert_eq!(check(&[], &[("SERVER_PORT", &port)]).0, code);
    }
}

#[test]
fn without_a_worker_it_samples_by_itself() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let url = ollama.url();
    let settings = [&[("OLLAMA_URL", url.as_str())], &nvml.settings()[..]].concat();
    let (rc, out, err) = check(&[], &settings);
    assert_eq!((rc, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("agent-net ok: 1 of 1 GPUs usable"), "{out}");
    // Even what must be seen several times.
    nvml.set("gpu0.temperature=95");
    let (rc, out, _) = check(&["--json"], &settings);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((rc, codes(&report)), (1, vec!["TEMP_HIGH"]), "{report:#}");
    assert_eq!((&report["gpus"][0]["temperature_c"], &report["source"]), (&json!(95), &json!("nvml+ollama")));
    nvml.set("at_sample=crash");
    let (rc, out, _) = check(&["--text"], &settings);
    assert_eq!((rc, first_line(&out)), (1, "verdict=degraded"), "{out}");
    let (rc, out, _) = check(&[], &[]);
    assert_ne!(rc, 0, "no GPU, no Ollama: {out}");
}

#[test]
fn what_cannot_be_told_is_unknown() {
    let unknown = |args: &[&str], settings: &[(&str, &str)], part: &str| {
        let (rc, out, _) = check(args, settings);
        assert_eq!(rc, 3, "{out}");
        assert!(out.starts_with("agent-net unknown: ") && out.contains(part) && out.lines().count() == 1, "{out}");
    };
    unknown(&["--url", "http://127.0.0.1:9"], &[], "does not answer");
    let worker = Worker::start(&[("WORKER_TOKEN", "s3cret")]);
    let at = format!("http://{}", worker.addr);
    wait_for("a first sample", || (check(&["--url", &at], &[("WORKER_TOKEN", "s3cret")]).0 == 2).then_some(()));
    unknown(&["--url", &at], &[], "WORKER_TOKEN");
    unknown(&["--url", &at], &[("WORKER_TOKEN", "wrong")], "WORKER_TOKEN");
    // An Ollama is no worker.
    let ollama = FakeOllama::new();
    unknown(&["--url", &ollama.url()], &[], "answered 404");
}

#[test]
fn wrong_arguments_are_64() {
    for args in [&["--url", "x"][..], &["--url"], &["--json", "--text"], &["--jsn"], &["extra"]] {
        let (rc, out, err) = check(args, &[]);
        assert_eq!((rc, out.as_str()), (64, ""), "{args:?}: {err}");
    }
}

#[test]
fn errors_are_acknowledged_on_the_machine_itself() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let url = ollama.url();
    let settings = [&[("OLLAMA_URL", url.as_str()), ("WORKER_TOKEN", "s3cret")], &nvml.settings()[..]].concat();
    let worker = Worker::start(&settings);
    let port = worker.addr.port().to_string();
    let token = [("SERVER_PORT", port.as_str()), ("WORKER_TOKEN", "s3cret")];
    let until = |rc: i32| wait_for("a verdict", || (check(&[], &token).0 == rc).then_some(()));
    until(0);
    nvml.set("gpus=1");
    until(2);
    let ack = |args: &[&str], settings: &[(&str, &str)]| {
        run(agent_net().envs(settings.iter().copied()).arg("ack").args(args))
    };
    let (status, out, err) = ack(&[], &token[..1]);
    assert_eq!((status.code(), out.as_str()), (Some(3), ""), "{err}");
    assert!(err.contains("WORKER_TOKEN"), "{err}");
    let (status, out, err) = ack(&[], &token);
    assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(out, "acknowledged; the verdict is ok\n");
    let (_, out, _) = ack(&["--json"], &token);
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(said["verdict"], "ok", "{said}");
    until(0);
}
