//! `check --npd`, run as node-problem-detector runs it by `compose/node-problem-detector/agent-net.json`. The rules of the
//! configuration and of the runner are those of its source (pkg/custompluginmonitor, August 2026).

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake_ollama::{Answer, FakeOllama};
use crate::gpus::start;
use crate::harness::{agent_net, run, verdict};
use crate::nvml::FakeNvml;

/// Bytes of stdout that are read.
const MOST_READ: u64 = 4096;

fn config() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/node-problem-detector/agent-net.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("it is there")).expect("JSON")
}

fn seconds(value: &Value) -> Duration {
    let text = value.as_str().expect("a duration");
    Duration::from_secs(text.strip_suffix('s').expect("seconds").parse().expect("a number"))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Status {
    Ok,
    NonOk,
    Unknown,
}

/// One rule with these settings: its status and message, as the plugin runner has them.
fn invoke(rule: &Value, config: &Value, settings: &[(&str, &str)]) -> (Status, String) {
    let timeout = rule.get("timeout").map_or_else(|| seconds(&config["pluginConfig"]["timeout"]), seconds);
    let args = rule["args"].as_array().expect("a list").iter().map(|arg| arg.as_str().expect("text"));
    let mut command = agent_net();
    command.envs(settings.iter().copied()).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if begin.elapsed() > timeout {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
            return (Status::Unknown, format!("Timeout when running plugin {}", rule["path"]));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut out = Vec::new();
    child.stdout.take().expect("piped").take(MOST_READ).read_to_end(&mut out).expect("it can be read");
    let mut err = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("UTF-8");
    assert_eq!(err, "", "each line of stderr fills the detector's log");
    let text = out.trim_ascii();
    let most = usize::try_from(config["pluginConfig"]["max_output_length"].as_u64().expect("a number")).unwrap();
    let cut = &text[..text.len().min(most)];
    assert_eq!(cut, text, "nothing is lost");
    assert!(cut.is_ascii() && !cut.is_empty() && !cut.contains(&b'\n'), "{cut:?}");
    let message = String::from_utf8(cut.to_vec()).expect("ASCII");
    match status.code() {
        Some(0) => (Status::Ok, message),
        Some(1) => (Status::NonOk, message),
        _ => (Status::Unknown, message),
    }
}

/// The detector refuses to start with a configuration that breaks one of these.
#[test]
fn node_problem_detector_accepts_the_configuration() {
    let config = config();
    let known = ["conditions", "metricsReporting", "plugin", "pluginConfig", "rules", "source"];
    assert_eq!((keys(&config), config["plugin"].as_str()), (known.to_vec(), Some("custom")));
    let plugin = &config["pluginConfig"];
    let fields = [
        "invoke_interval",
        "timeout",
        "max_output_length",
        "concurrency",
        "enable_message_change_based_condition_update",
        "skip_initial_status",
    ];
    assert!(keys(plugin).iter().all(|key| fields.contains(key)), "{plugin}");
    let global = seconds(&plugin["timeout"]);
    assert!(global < seconds(&plugin["invoke_interval"]), "{plugin}");
    // Another GPU or another code is another message of the same condition.
    assert_eq!(plugin["enable_message_change_based_condition_update"], true);
    assert_eq!(plugin["max_output_length"], 80);
    let listed: Vec<&str> =
        config["conditions"].as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap()).collect();
    for condition in config["conditions"].as_array().unwrap() {
        assert_eq!(keys(condition), ["message", "reason", "type"]);
        assert!(condition.as_object().unwrap().values().all(|value| !value.as_str().unwrap().is_empty()));
        // The detector also shows this reason while the status is Unknown, and both before the first check.
        let claim = format!("{} {}", condition["reason"], condition["message"]);
        assert!(claim.starts_with("\"No") && claim.contains("\"agent-net reports no "), "{claim}");
    }
    let rules = config["rules"].as_array().unwrap();
    assert!(plugin["concurrency"].as_u64().unwrap() >= rules.len() as u64);
    for rule in rules {
        assert_eq!(keys(rule), ["args", "condition", "path", "reason", "timeout", "type"]);
        assert!(rule["type"] == "permanent" && listed.contains(&rule["condition"].as_str().unwrap()), "{rule}");
        assert!(seconds(&rule["timeout"]) <= global, "{rule}");
        let path = Path::new(rule["path"].as_str().unwrap());
        assert!(path.is_absolute() && path.file_name().is_some_and(|name| name == "agent-net"), "{rule}");
        // Reasons are words of the API server's CamelCase.
        let reason = rule["reason"].as_str().unwrap();
        assert!(reason.chars().all(|c| c.is_ascii_alphanumeric()) && reason.starts_with(char::is_uppercase), "{rule}");
    }
    let args: Vec<&Value> = rules.iter().map(|rule| &rule["args"]).collect();
    assert_eq!(args, [&serde_json::json!(["check", "--npd"]), &serde_json::json!(["check", "--npd", "--degraded"])]);
}

/// The two conditions of a worker with these settings: GPUUnhealthy and GPUDegraded.
fn conditions(settings: &[(&str, &str)]) -> [(Status, String); 2] {
    let config = config();
    [0, 1].map(|at| invoke(&config["rules"][at], &config, settings))
}

#[test]
fn each_verdict_is_a_status_and_a_short_message() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = start(&ollama, &nvml, &[("WORKER_TOKEN", "s3cret")]);
    let port = worker.addr.port().to_string();
    let settings = [("SERVER_HOST", "127.0.0.1"), ("SERVER_PORT", port.as_str()), ("WORKER_TOKEN", "s3cret")];
    let until = |word: &str| {
        crate::harness::wait_for(word, || {
            let reply = crate::http::request(worker.addr, "GET", "/gpu", &["Authorization: Bearer s3cret"], b"");
            (reply.status == 200 && verdict(&reply.json()) == word).then_some(())
        });
    };
    let ok = |text: &str| (Status::Ok, text.to_owned());
    let problem = |text: &str| (Status::NonOk, text.to_owned());
    until("ok");
    assert_eq!(conditions(&settings), [ok("ok: 2 of 2 GPUs usable"), ok("ok: 2 of 2 GPUs usable")]);
    nvml.set("gpus=2\ngpu1.temperature=95");
    until("degraded");
    let hot = "degraded: TEMP_HIGH (GPU 1): Check fans, dust and airflow, and the intake...";
    assert_eq!(conditions(&settings), [ok(hot), problem(hot)]);
    nvml.set("gpus=2\ngpu0.temperature=95\ngpu1.handle=15");
    until("unhealthy");
    crate::harness::wait_for("both reasons", || {
        let [(status, text), _] = conditions(&settings);
        (status == Status::NonOk && text == "GPU_LOST (GPU 1), 1 more: Reboot the host.").then_some(())
    });
    assert_eq!(conditions(&settings)[1], problem("GPU_LOST (GPU 1), 1 more: Reboot the host."));
    // Without the token nothing is known.
    let [(status, text), _] = conditions(&settings[..2]);
    assert!(status == Status::Unknown && text.starts_with("unknown: http://127.0.0.1:"), "{text}");
    // An unknown verdict is not a problem.
    nvml.set("gpus=2");
    // One that answers nothing would be down after a while.
    ollama.set("/api/tags", Answer::Json("{".into()));
    until("unknown");
    let [(status, text), _] = conditions(&settings);
    assert!(status == Status::Unknown && text.starts_with("unknown: OLLAMA_"), "{text}");
}

#[test]
fn without_an_answer_it_is_unknown_and_never_reads_the_gpus() {
    let nvml = FakeNvml::new("at_init=hang");
    let [library, file] = nvml.settings();
    let unknown = |port: &str, part: &str| {
        for (status, text) in conditions(&[("SERVER_HOST", "127.0.0.1"), ("SERVER_PORT", port), library, file]) {
            assert!(status == Status::Unknown && text.starts_with("unknown: ") && text.contains(part), "{text}");
        }
    };
    unknown("9", "connection refused");
    // It ends by itself before the detector's timeout, even if the worker hangs.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    unknown(&listener.local_addr().unwrap().port().to_string(), "timed out");
    // A setting that is not valid is not a problem of a GPU.
    let (status, ..) = run(agent_net().args(["check", "--npd"]).env("SERVER_PORT", "x"));
    assert_eq!(status.code(), Some(78));
}

#[test]
fn other_forms_exclude_it() {
    let url = ["--url", "http://127.0.0.1:9", "--url", "http://127.0.0.1:9"];
    for (args, part) in [
        (&["--npd", "--json"][..], "--json cannot be combined with --npd"),
        (&["--npd", "--text"], "--text cannot be combined with --npd"),
        (&["--npd", "--watch"], "--npd cannot be combined with --watch"),
        (&["--degraded"], "--degraded requires --npd"),
        (&["--npd", url[0], url[1], url[2], url[3]], "--npd takes one --url"),
    ] {
        let (status, out, err) = run(agent_net().arg("check").args(args));
        assert_eq!((status.code(), out.as_str()), (Some(64), ""), "{err}");
        assert!(err.contains(part), "{err}");
    }
    // Of another worker, as of this one.
    let (status, out, _) = run(agent_net().args(["check", "--npd", url[0], url[1]]));
    assert_eq!(
        (status.code(), out.as_str()),
        (Some(2), "unknown: http://127.0.0.1:9/gpu does not respond: connection refused\n")
    );
}
