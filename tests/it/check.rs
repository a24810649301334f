//! `check`: what a monitoring system gets to see.

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
        ("gpus=2", "ok", 0, "2 of 2 GPUs usable, 1 model, codellama:34b-instruct-q4_k_m loaded [nvml+ollama]"),
        (
            "gpus=2\ngpu1.temperature=95",
            "degraded",
            1,
            "\ndegraded TEMP_HIGH (GPU 1): 95 °C (limit 91 °C)\n  -> Check fans",
        ),
        ("gpus=2\ngpu1.handle=15", "unhealthy", 2, "\nunhealthy GPU_LOST (GPU 1): not responding"),
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
    // A wait of more than 2 s is explained.
    assert!(rc == 0 && err.lines().all(|line| line.starts_with("waiting for ")), "{out}{err}");
    assert!(out.starts_with("agent-net ok: 1 of 1 GPUs usable"), "{out}");
    // Even what must be seen several times.
    nvml.set("gpu0.temperature=95");
    let (rc, out, _) = check(&["--json"], &settings);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((rc, codes(&report)), (1, vec!["TEMP_HIGH"]), "{report:#}");
    assert_eq!((&report["gpus"][0]["temperature_c"], &report["source"]), (&json!(95), &json!("nvml+ollama")));
    nvml.set("at_sample=crash");
    let (rc, out, _) = check(&["--text"], &settings);
    assert_eq!((rc, first_line(&out)), (2, "verdict=unhealthy"), "{out}");
    let (rc, out, _) = check(&[], &[]);
    assert_ne!(rc, 0, "no GPU, no Ollama: {out}");
}

#[test]
fn what_cannot_be_determined_is_unknown() {
    let unknown = |args: &[&str], settings: &[(&str, &str)], part: &str| {
        let (rc, out, _) = check(args, settings);
        assert_eq!(rc, 3, "{out}");
        assert!(out.starts_with("agent-net unknown: ") && out.contains(part) && out.lines().count() == 1, "{out}");
    };
    unknown(&["--url", "http://127.0.0.1:9"], &[], "does not respond");
    let worker = Worker::start(&[("WORKER_TOKEN", "s3cret")]);
    let at = format!("http://{}", worker.addr);
    wait_for("a first sample", || (check(&["--url", &at], &[("WORKER_TOKEN", "s3cret")]).0 == 2).then_some(()));
    unknown(&["--url", &at], &[], "WORKER_TOKEN");
    unknown(&["--url", &at], &[("WORKER_TOKEN", "wrong")], "WORKER_TOKEN");
    // An Ollama is not a worker.
    let ollama = FakeOllama::new();
    unknown(&["--url", &ollama.url()], &[], "responded with 404");
}

/// Takes connections and says nothing.
fn silent() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    (listener, at)
}

#[test]
fn a_worker_that_does_not_answer_in_time_is_unreachable() {
    let (_listener, at) = silent();
    for time in ["1", "1s", "100ms"] {
        let (rc, out, err) = check(&["--url", &at, "--timeout", time], &[]);
        assert_eq!((rc, err.as_str()), (3, ""), "{out}");
        assert!(out.starts_with("agent-net unknown: ") && out.contains("does not respond"), "{out}");
    }
    // Each form says so in its own way.
    let (rc, out, _) = check(&["--url", &at, "--timeout", "100ms", "--json"], &[]);
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((rc, &said["status"], &said["code"]), (3, &json!("error"), &json!("unreachable")));
    let (rc, out, _) = check(&["--url", &at, "--timeout", "100ms", "--text"], &[]);
    assert!(rc == 3 && out.starts_with("verdict=unknown\nerror='http://"), "{out}");
    // A long wait is reported once.
    let (rc, _, err) = check(&["--url", &at, "--timeout", "3"], &[]);
    assert_eq!((rc, err), (3, format!("waiting for {at} (up to 3 s) ...\n")));
}

#[test]
fn a_driver_that_does_not_answer_in_time_is_unhealthy() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let url = ollama.url();
    let settings = [&[("OLLAMA_URL", url.as_str())], &nvml.settings()[..]].concat();
    for (how, time, words) in
        [("at_init=hang", "3", "3 s"), ("at_sample=hang", "500ms", "500 ms"), ("at_init=hang", "1s", "1 s")]
    {
        nvml.set(how);
        let (rc, out, err) = check(&["--timeout", time], &settings);
        assert_eq!(rc, 2, "{out}");
        // A slow machine has not heard Ollama by then either.
        let (codes, rest) = first_line(&out).split_once("): ").expect("codes");
        assert!(codes.starts_with("agent-net unhealthy (DRIVER_STUCK") && rest.starts_with("no GPU could be"), "{out}");
        assert!(out.contains(&format!("the driver did not answer within {words}\n  -> Check `dmesg`")), "{out}");
        assert_eq!(err, if time == "3" { "waiting for the GPUs' driver (up to 3 s) ...\n" } else { "" });
    }
    // It is Ollama that is slow: the driver has nothing to do with it.
    nvml.set("");
    let (_listener, at) = silent();
    let slow = [&settings[..], &[("OLLAMA_URL", at.as_str())]].concat();
    // A machine on which the helper is not there within the 2 s before the word gets another try.
    let tries = std::iter::repeat_with(|| check(&["--timeout", "5s"], &slow)).take(5);
    let (rc, out, err) = tries.into_iter().find(|(_, _, err)| !err.contains("driver")).expect("a helper in time");
    assert_eq!((rc, err), (3, format!("waiting for Ollama at {at} (up to 5 s) ...\n")), "{out}");
    assert!(out.starts_with("agent-net unknown (OLLAMA_NO_ANSWER): 1 of 1 GPUs usable"), "{out}");
    // One that takes its time is waited for.
    nvml.set("at_init=sleep:700\nat_sample=sleep:700");
    assert_eq!(check(&[], &settings).0, 0);
}

#[test]
fn a_driver_that_crashes_gets_a_second_chance() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let url = ollama.url();
    let settings = [&[("OLLAMA_URL", url.as_str())], &nvml.settings()[..]].concat();
    for how in ["at_init=crash", "at_sample=crash", "at_init=exit"] {
        nvml.set(how);
        // With time for a second chance, and without; a helper that has not started yet has not failed.
        let starts = |out: &str| out.starts_with("agent-net unhealthy (DRIVER_STUCK");
        for times in [&["30s"][..], &["500ms", "1s", "2s", "4s"]] {
            let mut tries = times.iter().map(|time| check(&["--timeout", time], &settings));
            let (rc, out, _) = tries.find(|(_, out, _)| !starts(out)).expect("a helper that has started");
            assert_eq!(rc, 2, "{how}: {out}");
            assert!(out.starts_with("agent-net unhealthy (NVML_HELPER_FAILED): no GPU could be read"), "{out}");
        }
    }
    // Each helper crashes at its third sample; the next one has two good ones.
    nvml.set("at_third_sample=crash");
    let (rc, out, _) = check(&[], &settings);
    assert_eq!(rc, 0, "{out}");
    // What is final is not waited for.
    nvml.set("init=18");
    let (rc, out, err) = check(&["--timeout", "1h"], &settings);
    assert!(rc == 2 && err.is_empty() && out.contains("DRIVER_LIB_MISMATCH"), "{out}");
}

#[test]
fn each_gpu_is_a_line_and_each_code_too() {
    let faults = "gpus=4\ngpu0.name=NVIDIA L40S\ngpu0.temperature=92\ngpu1.temperature=92\ngpu2.handle=15\n\
        gpu3.name=A\u{1b}[2Jx\ngpu3.temperature=err:3\ngpu3.power=err:3\ngpu3.memory=err:3\ngpu3.limit=err:3";
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(faults));
    let url = ollama.url();
    let settings = [&[("OLLAMA_URL", url.as_str())], &nvml.settings()[..]].concat();
    let worker = Worker::start(&settings);
    worker.report_when("all reasons", |r| codes(r).iter().filter(|code| **code == "TEMP_HIGH").count() == 2);
    let at = format!("http://{}", worker.addr);
    // Of a worker and of its own it is the same.
    for args in [&["--url", &at][..], &[]] {
        let (rc, out, _) = check(args, &settings);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(rc, 2, "{out}");
        assert!(
            lines[0].starts_with("agent-net unhealthy (GPU_LOST, TEMP_HIGH): 3 of 4 GPUs usable, 1 model"),
            "{out}"
        );
        assert_eq!(lines[1], "GPU 0 NVIDIA L40S: 92 °C, 63 W of 350 W, 7012 of 24576 MiB, 3 %");
        assert_eq!(lines[2], "GPU 1 Fake RTX 1: 92 °C, 63 W of 350 W, 7012 of 24576 MiB, 3 %");
        assert!(lines[3].starts_with("GPU 2: no readings: fell off the bus"), "{out}");
        assert_eq!(lines[4], "GPU 3 A [2Jx: 3 %");
        assert!(lines[5].starts_with("unhealthy GPU_LOST (GPU 2): not responding: "), "{out}");
        assert!(lines[6].starts_with("  -> Reboot"), "{out}");
        assert_eq!(lines[7], "degraded TEMP_HIGH (GPU 0, GPU 1): 92 °C (limit 91 °C)");
        assert!(lines[8].starts_with("  -> Check fans"), "{out}");
        assert_eq!(lines.len(), 9, "{out}");
    }
}

#[test]
fn wrong_arguments_are_64() {
    for args in [&["--url", "x"][..], &["--url"], &["--json", "--text"], &["--jsn"], &["extra"]] {
        let (rc, out, err) = check(args, &[]);
        assert_eq!((rc, out.as_str()), (64, ""), "{args:?}: {err}");
    }
    for option in ["--timeout", "--interval"] {
        for time in ["x", "", "0", "-1", "99ms", "2h", "1.5", "1 s", "1d", "30sec", "18446744073709551615m"] {
            let (rc, out, err) = check(&["--watch", option, time], &[]);
            assert_eq!((rc, out.as_str()), (64, ""), "{option} {time}: {err}");
            assert!(err.contains(option) && err.contains("such as 30, 30s, 500ms or 1m"), "{err}");
        }
    }
    let (rc, _, err) = check(&["--interval", "5s"], &[]);
    assert!(rc == 64 && err.contains("--watch"), "{err}");
}
