//! Notifications from the GPU to the receiver's log: what is sent, and what is not sent twice.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::fake_receiver::{Behavior, FakeReceiver};
use crate::gpus;
use crate::harness::{Worker, agent_net, folder, run, wait_for};
use crate::jobs::job;
use crate::nvml::FakeNvml;

const GOOD: &str = "gpus=2";
const LOST: &str = "gpus=2\ngpu1.handle=15";

/// A worker with two GPUs, and everything around it.
struct Scene {
    ollama: FakeOllama,
    nvml: FakeNvml,
    receiver: FakeReceiver,
    settings: Vec<(&'static str, String)>,
}

impl Scene {
    /// `more` goes before the usual settings.
    fn new(after: &str, more: &[(&'static str, &str)]) -> Self {
        let receiver = FakeReceiver::new();
        let mut settings = vec![("NOTIFY_URL", receiver.url("/hook/secret99")), ("NOTIFY_AFTER", after.to_owned())];
        settings.extend([("SAMPLE_INTERVAL", "100ms".to_owned()), ("CAPABILITY_NAME", "gpu-cellar".to_owned())]);
        // A GPU that is lost on purpose lowers the uptime.
        let uptime =
            ["GPU_SHORT_TERM_UPTIME_THRESHOLD", "GPU_MEDIUM_TERM_UPTIME_THRESHOLD", "GPU_LONG_TERM_UPTIME_THRESHOLD"];
        settings.extend(uptime.map(|name| (name, "0".to_owned())));
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Self { ollama: FakeOllama::new(), nvml: FakeNvml::new(GOOD), receiver, settings }
    }

    fn start(&self) -> Worker {
        let settings: Vec<(&str, &str)> = self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        gpus::start(&self.ollama, &self.nvml, &settings)
    }
}

#[test]
fn a_lost_gpu_reaches_the_receiver_with_and_without_a_hold() {
    for after in ["0s", "1s"] {
        let scene = Scene::new(after, &[]);
        let _worker = scene.start();
        scene.receiver.wait_for(&["started ok"]);
        let start = Instant::now();
        scene.nvml.set(LOST);
        scene.receiver.wait_for(&["started ok", "verdict unhealthy"]);
        println!("NOTIFY_AFTER={after}: {:?} from the lost GPU to the receiver's log", start.elapsed());
        scene.nvml.set(GOOD);
        scene.receiver.wait_for(&["started ok", "verdict unhealthy", "verdict ok"]);
        let messages = scene.receiver.messages();
        let (lost, back) = (messages[1].json(), messages[2].json());
        assert_eq!(
            (&lost["worker"], &lost["previous"], &lost["version"]),
            (&json!("gpu-cellar"), &json!("ok"), &json!(1))
        );
        assert_eq!((&lost["reasons"][0]["code"], &lost["gpus"]), (&json!("GPU_LOST"), &json!(1)));
        assert_eq!(lost["reasons"][0]["help"], "/codes#GPU_LOST");
        let text = lost["text"].as_str().unwrap();
        assert!(text.starts_with("gpu-cellar is unhealthy: GPU 1: ") && text.contains("(GPU_LOST"), "{text}");
        assert_eq!(back["previous"], "unhealthy");
        let text = back["text"].as_str().unwrap();
        assert!(text.starts_with("gpu-cellar is ok again after ") && text.ends_with("2 GPUs usable"), "{text}");
        let ids: Vec<&Value> = [&lost, &back].map(|body| &body["id"]).into();
        assert_ne!(ids[0], ids[1]);
        assert_eq!(messages[1].headers["idempotency-key"], ids[0].as_str().unwrap());
        assert_eq!((messages[1].method.as_str(), messages[1].path.as_str()), ("POST", "/hook/secret99"));
    }
}

/// A minute is a second here. In two of its seconds nothing settles.
#[test]
fn a_gpu_that_flaps_is_a_few_messages() {
    let scene = Scene::new("60s", &[("AGENT_NET_FAULT", "hurry:60")]);
    let _worker = scene.start();
    scene.receiver.wait_for(&["started ok"]);
    let end = Instant::now() + Duration::from_secs(6);
    let mut changes = 0;
    while Instant::now() < end {
        scene.nvml.set(if changes % 2 == 0 { LOST } else { GOOD });
        changes += 1;
        thread::sleep(Duration::from_millis(150));
    }
    scene.nvml.set(GOOD);
    let words = wait_for("the settled state", || {
        let words = scene.receiver.words();
        words.last().is_some_and(|last| last == "verdict ok").then_some(words)
    });
    println!("{changes} changes: {words:?}");
    assert!(words.contains(&"verdict unhealthy flapping".to_owned()) && words.len() <= 6, "{words:?}");
    let flapping = scene.receiver.messages().into_iter().find(|message| message.words().contains("flapping")).unwrap();
    let body = flapping.json();
    assert!(body["changes"].as_u64().unwrap() >= 2, "{body}");
    assert!(body["text"].as_str().unwrap().contains(" changes in "), "{body}");
}

#[test]
fn what_came_and_went_while_the_receiver_was_away_is_not_sent() {
    let scene = Scene::new("0s", &[("AGENT_NET_FAULT", "hurry:60")]);
    let worker = scene.start();
    scene.receiver.wait_for(&["started ok"]);
    let pending = |wanted: bool| {
        wait_for("the row", || (worker.get("/gpu").json()["notifications"][0]["pending"] == wanted).then_some(()));
    };
    scene.receiver.set(Behavior::say(503));
    scene.nvml.set(LOST);
    pending(true);
    scene.nvml.set(GOOD);
    pending(false);
    scene.nvml.set(LOST);
    pending(true);
    let tries = scene.receiver.messages().len();
    wait_for("a retry", || (scene.receiver.messages().len() > tries).then_some(()));
    scene.receiver.set(Behavior::say(200));
    scene.receiver.wait_for(&["started ok", "verdict unhealthy"]);
}

#[test]
fn a_restart_repeats_nothing_and_a_stop_is_sent() {
    let dir = folder("notify-restart");
    let scene = Scene::new("0s", &[("STATE_DIR", dir.to_str().unwrap())]);
    let known = |verdict: &str| {
        let text = fs::read_to_string(dir.join("notified.json")).unwrap_or_default();
        text.contains(&format!("\"verdict\":\"{verdict}\"")).then_some(text)
    };
    let worker = scene.start();
    scene.receiver.wait_for(&["started ok"]);
    wait_for("the file", || known("ok"));
    // As after a crash.
    worker.signal(Signal::KILL);
    drop(worker);
    let worker = scene.start();
    worker.report_when("all GPUs", gpus::is_ok);
    scene.nvml.set(LOST);
    scene.receiver.wait_for(&["started ok", "verdict unhealthy"]);
    let text = wait_for("the file", || known("unhealthy"));
    assert!(!text.contains("secret99") && !text.contains("127.0.0.1"), "{text}");
    // What it was before the crash is known.
    assert_eq!(scene.receiver.messages()[1].json()["previous"], "ok");
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    scene.receiver.wait_for(&["started ok", "verdict unhealthy", "stopping unhealthy"]);
    let text = scene.receiver.messages()[2].json()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("gpu-cellar is stopping. It was unhealthy: GPU 1"), "{text}");
    let worker = scene.start();
    scene.receiver.wait_for(&["started ok", "verdict unhealthy", "stopping unhealthy", "started unhealthy"]);
    assert!(!worker.log().contains("secret99"));
}

/// Each of them ends before it has been up for the time of a hold.
#[test]
fn a_worker_that_crashes_all_the_time_sends_nothing() {
    let dir = folder("notify-crashes");
    let scene = Scene::new("60s", &[("STATE_DIR", dir.to_str().unwrap())]);
    for _ in 0..3 {
        let worker = scene.start();
        worker.report_when("all GPUs", gpus::is_ok);
        worker.signal(Signal::KILL);
    }
    let worker = scene.start();
    worker.report_when("all GPUs", gpus::is_ok);
    let (status, _) = worker.stop();
    assert_eq!(status.code(), Some(0));
    assert_eq!(scene.receiver.messages().len(), 0, "{:?}", scene.receiver.words());
}

#[test]
fn a_state_folder_that_cannot_be_used_is_logged_once_and_costs_no_message() {
    let dir = folder("notify-damaged");
    fs::write(dir.join("notified.json"), "{\"version\":1,\"targets\":{").unwrap();
    // What cannot be removed is in the place of the new file.
    fs::create_dir_all(dir.join("notified.json.new/full")).unwrap();
    let scene = Scene::new("0s", &[("STATE_DIR", dir.to_str().unwrap())]);
    let worker = scene.start();
    scene.receiver.wait_for(&["started ok"]);
    scene.nvml.set(LOST);
    scene.receiver.wait_for(&["started ok", "verdict unhealthy"]);
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(log.matches("notified.json: it is damaged; notifications may be repeated").count(), 1, "{log}");
    assert_eq!(log.matches("cannot write ").count(), 1, "{log}");
}

#[test]
fn five_formats_at_once() {
    let receiver = FakeReceiver::new();
    let paths = ["/json", "/text", "/slack", "/discord", "/base/my-gpus"];
    let urls = paths.map(|path| receiver.url(path)).join(",");
    let scene = Scene::new("0s", &[("NOTIFY_URL", &urls), ("NOTIFY_FORMAT", "json,text,slack,discord,ntfy")]);
    let worker = scene.start();
    wait_for("all of them", || (receiver.messages().len() == 5).then_some(()));
    let text = "gpu-cellar has started and is ok with 2 GPUs usable";
    for message in receiver.messages() {
        let expect = match message.path.as_str() {
            "/json" => json!(message.json()),
            "/text" => {
                assert_eq!(
                    (message.body.as_str(), message.headers["content-type"].as_str()),
                    (text, "text/plain; charset=utf-8")
                );
                continue;
            }
            "/slack" => json!({"text": text}),
            "/discord" => json!({"content": text, "allowed_mentions": {"parse": []}}),
            "/base/" => {
                json!({"topic": "my-gpus", "title": "gpu-cellar: ok", "message": text, "priority": 3, "tags": ["white_check_mark"]})
            }
            other => panic!("{other}"),
        };
        assert_eq!((message.json(), message.headers["content-type"].as_str()), (expect, "application/json"));
    }
    let rows = wait_for("all rows", || {
        let rows = worker.get("/gpu").json()["notifications"].clone();
        rows.as_array().unwrap().iter().all(|row| row["state"] == "ok").then_some(rows)
    });
    let formats: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["format"].as_str().unwrap()).collect();
    assert_eq!(formats, ["json", "text", "slack", "discord", "ntfy"]);
    assert_eq!(rows[0]["target"], format!("http://{}/…", receiver.addr));
    assert!(rows[0]["last_sent"].is_f64() && rows[0]["last_error"].is_null() && rows[0]["pending"] == false, "{rows}");
    assert!(worker.report()["notifications"].is_null(), "it is not for whoever sends jobs");
    let metrics = worker.get("/metrics");
    assert!(metrics.text().contains("agent_net_notifications_total{target=\"5\",result=\"sent\"} 1\n"));
    assert!(metrics.text().contains("agent_net_notification_pending{target=\"1\"} 0\n"));
}

/// Answers that show a URL to whoever may ask, the log, and what is on the disk.
#[test]
fn the_secret_part_of_a_url_is_shown_nowhere() {
    let dir = folder("notify-secret");
    let receiver = FakeReceiver::of(Behavior::Say(404, String::new(), "Cannot POST /services/secret99?key=secret77"));
    let url = format!("http://:secret55@{}/services/secret99?key=secret77", receiver.addr);
    let scene = Scene::new("0s", &[("STATE_DIR", dir.to_str().unwrap()), ("NOTIFY_URL", &url), ("LOG_LEVEL", "trace")]);
    let worker = scene.start();
    wait_for("the refusal", || worker.log().contains("refused a notification").then_some(()));
    receiver.set(Behavior::HangUp);
    scene.nvml.set(LOST);
    wait_for("the failure", || worker.log().contains("cannot notify").then_some(()));
    receiver.set(Behavior::say(200));
    let answers = ["/gpu", "/gpu?format=text", "/metrics", "/"].map(|path| worker.get(path).text().to_owned());
    let message = receiver.messages().remove(0);
    assert_eq!(
        (message.path.as_str(), message.headers["authorization"].as_str()),
        ("/services/secret99?key=secret77", "Bearer secret55")
    );
    let mut config = agent_net();
    config.args(["config", "--json"]).env("NOTIFY_URL", &url);
    let (_, shown, errors) = run(&mut config);
    let mut doctor = agent_net();
    doctor.args(["doctor"]).env("NOTIFY_URL", &url).env("AGENT_NET_FAULT", "hurry:100");
    let (_, found, complaints) = run(&mut doctor);
    let (_, log) = worker.stop();
    let files: Vec<String> =
        fs::read_dir(&dir).unwrap().flatten().filter_map(|file| fs::read_to_string(file.path()).ok()).collect();
    let all = [&answers[..], &files, &[shown, errors, found, complaints, log]].concat();
    for text in &all {
        for secret in ["secret99", "secret77", "secret55"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    assert!(all.iter().any(|text| text.contains(&format!("http://{}/…", receiver.addr))));
}

/// Jobs, memory and the end of a worker whose receiver takes messages and never answers.
#[test]
fn a_receiver_that_hangs_delays_nothing_else() {
    let scene = Scene::new("0s", &[("AGENT_NET_FAULT", "hurry:60")]);
    scene.receiver.set(Behavior::Hang);
    let worker = scene.start();
    let status =
        |worker: &Worker| fs::read_to_string(format!("/proc/{}/status", worker.pid().as_raw_nonzero())).unwrap();
    let number = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    };
    wait_for("the first try", || (!scene.receiver.messages().is_empty()).then_some(()));
    let before = number(&status(&worker), "VmRSS:");
    for change in 0..100 {
        scene.nvml.set(if change % 2 == 0 { LOST } else { GOOD });
        for _ in 0..20 {
            assert_eq!(worker.post("/gpu-check", &job("a")).status, 200);
        }
        thread::sleep(Duration::from_millis(20));
    }
    wait_for("a retry", || (scene.receiver.messages().len() >= 2).then_some(()));
    let text = status(&worker);
    println!(
        "resident: {before} KiB before, {} KiB after; {} threads",
        number(&text, "VmRSS:"),
        number(&text, "Threads:")
    );
    assert!(number(&text, "VmRSS:") < before + 4096, "{before}: {text}");
    let row = worker.get("/gpu").json()["notifications"][0].clone();
    assert_eq!((&row["state"], &row["pending"]), (&json!("waiting"), &json!(true)), "{row}");
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(log.matches("cannot notify").count(), 1, "{log}");
}

#[test]
fn without_a_receiver_there_is_no_thread_and_no_file() {
    let dir = folder("notify-none");
    let worker = Worker::start(&[("STATE_DIR", dir.to_str().unwrap()), ("EXPECTED_GPUS", "0")]);
    worker.report();
    let tasks = fs::read_dir(format!("/proc/{}/task", worker.pid().as_raw_nonzero())).unwrap();
    let names: Vec<String> =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect();
    assert!(!names.iter().any(|name| name.starts_with("notif")), "{names:?}");
    assert!(worker.get("/gpu").json()["notifications"].is_null());
    assert!(!Path::new(&dir).join("notified.json").exists());
    assert!(!worker.get("/metrics").text().contains("agent_net_notification"));
}
