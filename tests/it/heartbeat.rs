//! The heartbeat of HEARTBEAT_URL against a push monitor.

use rustix::process::Signal;
use serde_json::Value;

use crate::fake_monitor::{FakeMonitor, Mood};
use crate::fake_ollama::FakeOllama;
use crate::gpus::{has, is_ok, start};
use crate::harness::{Worker, agent_net, folder, run, wait_for};
use crate::nvml::FakeNvml;

/// An interval of a minute takes 0.6 s.
const HURRY: (&str, &str) = ("AGENT_NET_FAULT", "hurry:100");

/// A healthy worker with a heartbeat.
struct Scene {
    monitor: FakeMonitor,
    nvml: FakeNvml,
    worker: Worker,
    _ollama: FakeOllama,
}

impl Scene {
    fn new(url: impl Fn(&FakeMonitor) -> String) -> Self {
        Self::with(FakeMonitor::new(), url, &[])
    }

    fn with(monitor: FakeMonitor, url: impl Fn(&FakeMonitor) -> String, more: &[(&str, &str)]) -> Self {
        let (ollama, nvml, url) = (FakeOllama::new(), FakeNvml::new("gpus=2"), url(&monitor));
        let worker = start(&ollama, &nvml, &[&[HURRY, ("HEARTBEAT_URL", &url)], more].concat());
        Self { monitor, nvml, worker, _ollama: ollama }
    }

    /// Waits for this many calls after those of now.
    fn more_calls(&self, count: usize) -> Vec<String> {
        let before = self.monitor.calls().len();
        wait_for("calls", || {
            let calls = self.monitor.calls();
            (calls.len() >= before + count).then(|| calls[before..].to_vec())
        })
    }

    fn count(&self, result: &str) -> u64 {
        let metrics = self.worker.get("/metrics");
        let start = format!("agent_net_heartbeats_total{{result=\"{result}\"}} ");
        let line = metrics.text().lines().find_map(|line| line.strip_prefix(&start));
        line.expect("the metric").parse().expect("a number")
    }

    /// Waits for this many intervals with this result.
    fn wait_more(&self, result: &str, count: u64) {
        let before = self.count(result);
        wait_for(result, || (self.count(result) >= before + count).then_some(()));
    }

    fn row(&self) -> Value {
        self.worker.get("/gpu").json()["heartbeat"].clone()
    }

    fn wait_row(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.row()).filter(&wanted))
    }

    fn wait_error(&self, part: &str) {
        self.wait_row(part, |row| row["error"].as_str().is_some_and(|error| error.contains(part)));
    }

    /// The end, and that nothing shows the URL.
    fn finish(self) -> String {
        let shown = self.worker.get("/gpu");
        assert_eq!(shown.json()["heartbeat"]["target"], format!("{}/…", self.monitor.origin()));
        self.monitor.is_not_in(shown.text());
        self.monitor.is_not_in(self.worker.get("/metrics").text());
        assert_eq!(self.worker.report().get("heartbeat"), None, "a client of a job does not see it");
        let (status, log) = self.worker.stop();
        assert_eq!(status.code(), Some(0), "{log}");
        self.monitor.is_not_in(&log);
        log
    }
}

#[test]
fn a_healthy_worker_calls_and_an_unhealthy_one_is_silent() {
    let scene = Scene::new(FakeMonitor::check);
    let calls = scene.more_calls(3);
    let (_, path) =
        scene.monitor.check().split_once("/ping").map(|(a, b)| (a.to_owned(), format!("/ping{b}"))).unwrap();
    assert_eq!(calls, [path.as_str(); 3]);
    let row = scene.wait_row("a success", |row| row["last_success"].is_f64());
    assert_eq!(row["error"], Value::Null);
    assert!(scene.worker.get("/metrics").text().contains("agent_net_heartbeat_last_success_timestamp_seconds 1"));

    scene.nvml.set("gpus=2\ngpu0.temperature=95");
    scene.worker.report_when("TEMP_HIGH", has("TEMP_HIGH"));
    scene.more_calls(2);

    scene.nvml.set("gpus=2\ngpu1.handle=15");
    scene.worker.report_when("GPU_LOST", has("GPU_LOST"));
    scene.wait_more("skipped", 1);
    let silent = scene.monitor.calls().len();
    scene.wait_more("skipped", 3);
    assert_eq!(scene.monitor.calls().len(), silent);

    scene.nvml.set("gpus=2");
    scene.worker.report_when("verdict ok", is_ok);
    scene.more_calls(2);
    let log = scene.finish();
    assert!(!log.contains("heartbeat"), "it says nothing while all is well: {log}");
}

#[test]
fn the_login_of_the_url_is_sent_and_not_shown() {
    let scene = Scene::new(|monitor| monitor.check().replace("http://", "http://ana:pa55@"));
    scene.more_calls(1);
    assert_eq!(scene.monitor.login().as_deref(), Some("Basic YW5hOnBhNTU="));
    let log = scene.finish();
    assert!(!log.contains("pa55"), "{log}");
}

#[test]
fn what_makes_the_url_readable_is_in_the_log() {
    let settings = [("HEARTBEAT_URL", "http://192.0.2.1:9/ping/secret"), ("NOTIFY_TLS", "insecure")];
    let log = Worker::start(&settings).stop().1;
    assert!(log.contains("HEARTBEAT_URL: http://192.0.2.1:9/… is used without TLS"), "{log}");
    assert!(!log.contains("NOTIFY_URL") && !log.contains("/secret"), "{log}");
    let settings = [("HEARTBEAT_URL", "https://192.0.2.1:9/ping/secret"), ("NOTIFY_TLS", "insecure")];
    let log = Worker::start(&settings).stop().1;
    assert!(log.contains("NOTIFY_TLS=insecure: not verifying certificates") && !log.contains("without TLS"), "{log}");
}

#[test]
fn with_a_status_the_monitor_learns_more() {
    let scene = Scene::new(FakeMonitor::kuma);
    let wait_call = |part: &str| {
        let found = || scene.monitor.calls().into_iter().find(|call| call.contains(part));
        wait_for(part, found)
    };
    let healthy = wait_call("status=up&msg=ok&ping=");
    assert!(healthy.starts_with("/api/push/"));
    scene.nvml.set("gpus=2\ngpu0.temperature=95");
    wait_call("status=up&msg=degraded%3A%20TEMP_HIGH%20GPU%200&ping=");
    scene.nvml.set("gpus=2\ngpu1.handle=15");
    let lost = wait_call("status=down&msg=unhealthy%3A%20");
    assert!(lost.contains("GPU_LOST%20GPU%201"), "{lost}");
    scene.nvml.set("gpus=2");
    scene.worker.report_when("verdict ok", is_ok);
    let before = scene.monitor.calls().len();
    wait_for("up again", || {
        scene.monitor.calls()[before..].iter().any(|call| call.contains("status=up&msg=ok")).then_some(())
    });
    // A planned stop is not an alarm: the next start or the monitor's own timeout follows.
    let down = scene.monitor.calls().iter().filter(|call| call.contains("status=down")).count();
    scene.worker.signal(Signal::TERM);
    let Scene { worker, monitor, .. } = scene;
    worker.wait();
    assert_eq!(monitor.calls().iter().filter(|call| call.contains("status=down")).count(), down);
}

/// Each failure is an error that says what to do, one line of the log, and it ends with the next call that succeeds.
fn check_failure(mood: Mood, error: &str, tries: bool) {
    let scene = Scene::new(FakeMonitor::kuma);
    scene.wait_row("a success", |row| row["last_success"].is_f64());
    scene.monitor.set(mood);
    scene.wait_error(error);
    scene.wait_more("failed", 2);
    let (before, failed) = (scene.monitor.calls().len(), scene.count("failed"));
    scene.wait_more("failed", 3);
    let (calls, failed) = (scene.monitor.calls().len() - before, scene.count("failed") - failed);
    // The looks at both counts are not the same moment.
    let most = if tries { 3 } else { 1 } * (usize::try_from(failed).unwrap() + 2);
    assert!(calls <= most, "{mood:?}: {calls} calls in {failed} intervals");
    assert!(!tries || calls > 3 + 2, "{mood:?}: {calls} calls in {failed} intervals");
    assert!(!scene.monitor.calls().iter().any(|call| call.contains("elsewhere")), "a redirect is not followed");
    scene.monitor.set(Mood::Ordinary);
    scene.wait_row("a success", |row| row["error"].is_null());
    let log = scene.finish();
    assert_eq!(log.matches(error).count(), 1, "{mood:?}: {log}");
    assert!(log.contains("accepted again"), "{log}");
}

#[test]
fn what_another_try_would_not_change_is_tried_once_in_an_interval() {
    check_failure(Mood::Status(404), "the monitor does not know this URL: check HEARTBEAT_URL", false);
    check_failure(Mood::Paused(404), "resume the monitor if it is paused (status 404)", false);
    check_failure(Mood::Paused(200), "the monitor does not accept the call (\"ok\": false)", false);
    check_failure(Mood::Page, "a web page answers in place of the monitor: check the path", false);
    check_failure(Mood::Status(429), "the monitor limits calls: raise HEARTBEAT_INTERVAL", false);
    check_failure(Mood::Redirects, "the monitor redirects, which is not followed", false);
}

#[test]
fn what_may_pass_is_tried_three_times_in_an_interval() {
    check_failure(Mood::Status(500), "the monitor has a problem of its own (status 500)", true);
    check_failure(Mood::Hangs, "timed out", false);
}

#[test]
fn an_endless_answer_is_read_in_part() {
    let scene = Scene::new(FakeMonitor::check);
    scene.monitor.set(Mood::Floods);
    scene.wait_more("ok", 3);
    scene.finish();
}

#[test]
fn an_unknown_token_is_reported() {
    let scene = Scene::new(|monitor| format!("{}/ping/another", monitor.origin()));
    scene.wait_error("(status 404)");
    assert_eq!(scene.row()["last_success"], Value::Null);
    let log = scene.finish();
    assert_eq!(log.matches("heartbeat to").count(), 1, "{log}");
}

#[test]
fn the_file_is_read_again_at_sighup() {
    let (dir, first, second) = (folder("heartbeat-file"), FakeMonitor::new(), FakeMonitor::new());
    let ollama = FakeOllama::new();
    let file = dir.join("url");
    std::fs::write(&file, format!("{}\n", first.check())).unwrap();
    let worker = Worker::start(&[
        HURRY,
        ("HEARTBEAT_URL_FILE", file.to_str().unwrap()),
        ("OLLAMA_URL", &ollama.url()),
        ("EXPECTED_GPUS", "0"),
    ]);
    wait_for("a call", || first.calls().pop());
    std::fs::write(&file, second.check()).unwrap();
    worker.signal(Signal::HUP);
    wait_for("a call of the other", || second.calls().pop());
    std::fs::write(&file, "no URL").unwrap();
    worker.signal(Signal::HUP);
    wait_for("a word about it", || worker.log().contains("keeping the previous URL").then_some(()));
    let calls = second.calls().len();
    wait_for("further calls", || (second.calls().len() > calls + 1).then_some(()));
}

#[test]
fn a_worker_without_a_heartbeat_shows_none() {
    let worker = Worker::start(&[]);
    worker.report_when("a report", |report| report["status"] == "success");
    assert_eq!(worker.get("/gpu").json().get("heartbeat"), None);
    assert!(!worker.get("/metrics").text().contains("heartbeat"));
}

#[test]
fn config_and_doctor_do_not_show_the_url_and_doctor_sends_no_heartbeat() {
    let monitor = FakeMonitor::new();
    let with = |command: &[&str], url: &str| {
        let (_, out, err) =
            run(agent_net().args(command).env("HEARTBEAT_URL", url).env("OLLAMA_URL", "http://127.0.0.1:9"));
        monitor.is_not_in(&out);
        monitor.is_not_in(&err);
        out
    };
    let out = with(&["config"], &monitor.kuma());
    assert!(out.contains("HEARTBEAT_URL"), "{out}");
    let line = |url: &str| {
        let out = with(&["doctor"], url);
        let found = out.lines().find(|line| line.contains("heartbeat")).map(str::to_owned);
        found.unwrap_or_else(|| panic!("{out}"))
    };
    let good = line(&monitor.kuma());
    assert!(good.starts_with("pass") && good.contains("responds; no heartbeat was sent"), "{good}");
    assert_eq!(monitor.calls(), ["/"]);
    let bad = line("http://127.0.0.1:9/secret");
    assert!(bad.starts_with("FAIL") && bad.contains("http://127.0.0.1:9/…: ") && !bad.contains("secret"), "{bad}");
}
