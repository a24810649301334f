//! A thread that panics is reported by its name, and its service is back without a restart of the process.

use std::path::Path;
use std::thread;

use crate::fake_monitor::FakeMonitor;
use crate::fake_ollama::{FakeOllama, MODEL};
use crate::fake_orchestrator::{Behavior, FakeOrchestrator};
use crate::fake_receiver::FakeReceiver;
use crate::harness::{Worker, agent_net, folder, run, wait_for};
use crate::jobs::job;
use crate::systemd::FakeSystemd;

const NAME: &str = "agent-net-nyc";

/// Every thread that runs as long as the worker does, except those of connections.
const THREADS: [&str; 26] = [
    "accept",
    "acknowledged",
    "control",
    "first-snapshot",
    "gpus",
    "health",
    "heartbeat",
    "held-port",
    "keeper",
    "kernel",
    "ledger",
    "live-runner",
    "log",
    "notified",
    "notify",
    "notify-1",
    "ollama",
    "peers",
    "registrar",
    "signals",
    "speeds",
    "systemd",
    "tickets",
    "uptime",
    "uptime-file",
    "watchdog",
];

/// A worker with all that there is, one of whose threads panics once.
struct Scene {
    orchestrator: FakeOrchestrator,
    _ollama: FakeOllama,
    receiver: FakeReceiver,
    monitor: FakeMonitor,
    systemd: FakeSystemd,
    worker: Worker,
    dir: std::path::PathBuf,
}

impl Scene {
    fn new(thread: &str) -> Self {
        let (orchestrator, ollama) = (FakeOrchestrator::new(Behavior::Ok), FakeOllama::new());
        let receiver = FakeReceiver::new();
        let dir = folder(&format!("restarts-{thread}"));
        let monitor = FakeMonitor::new();
        let systemd = FakeSystemd::at_path(&dir.join("notify"));
        let settings = [
            ("AGENT_NET_FAULT", format!("panic-thread:{thread}")),
            ("OLLAMA_URL", ollama.url()),
            ("MODEL", MODEL.into()),
            ("EXPECTED_GPUS", "0".into()),
            ("ORCH_URL", orchestrator.url()),
            ("ORCH_PROTOCOL", "both".into()),
            ("CAPABILITY_NAME", NAME.into()),
            ("HOSTNAME", "127.0.0.1".into()),
            ("STATE_DIR", dir.to_str().unwrap().to_owned()),
            ("TICKET_SUBMIT_URL", "http://127.0.0.1:9/".into()),
            ("PEERS", "http://127.0.0.1:9".into()),
            ("NOTIFY_URL", receiver.url("/hook")),
            ("NOTIFY_AFTER", "0s".into()),
            ("HEARTBEAT_URL", monitor.kuma()),
            ("NOTIFY_SOCKET", systemd.name().to_owned()),
            ("PORT_SOCKET", "/nonexistent/port.sock".into()),
        ];
        let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let worker = Worker::start(&settings);
        Self { orchestrator, _ollama: ollama, receiver, monitor, systemd, worker, dir }
    }

    fn metric(&self, name: &str) -> bool {
        self.worker.get("/metrics").text().lines().any(|line| line.starts_with(name))
    }

    /// All services do their work.
    fn check(&self) {
        wait_for("a job", || (self.worker.post("/gpu-check", &job("a")).status == 200).then_some(()));
        let report = self.worker.report_when("all readings", |report| {
            let model = &report["model_keeper"][0];
            report["ollama"]["reachable"] == true && model["state"] != "waiting" && !model.is_null()
        });
        assert_eq!(report["status"], "success", "{report:#}");
        wait_for("a registration", || self.orchestrator.registered(NAME));
        wait_for("a notification", || (!self.receiver.messages().is_empty()).then_some(()));
        wait_for("the ledger", || self.metric("agent_net_tickets{").then_some(()));
        wait_for("a heartbeat", || self.monitor.calls().pop());
        self.systemd.wait_for("STATUS=");
        wait_for("the files", || {
            let there = |name: &str| Path::new(&self.dir).join(name).exists();
            (there("uptime.bin")
                && there("speeds.json")
                && there("tickets.jsonl")
                && there("control.sock")
                && there("notified.json"))
            .then_some(())
        });
        let (status, _, err) = run(agent_net().args(["ack", "--state-dir"]).arg(&self.dir));
        assert!(status.success(), "{err}");
    }
}

fn check_restart(name: &str) {
    let scene = Scene::new(name);
    let log = wait_for(&format!("{name}'s restart"), || {
        let log = scene.worker.log();
        log.contains(&format!("the thread {name} panicked; it restarts in 1 s")).then_some(log)
    });
    assert!(log.contains(&format!("thread {name} panicked at")), "where and why: {log}");
    scene.check();
    let Scene { worker, .. } = scene;
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{name}: {log}");
    assert_eq!(log.matches("it restarts in").count(), 1, "{name}: {log}");
}

#[test]
fn every_thread_that_panics_is_reported_and_starts_again() {
    thread::scope(|scope| {
        for half in THREADS.chunks(THREADS.len() / 4) {
            scope.spawn(move || half.iter().for_each(|name| check_restart(name)));
        }
    });
}

/// The list above is whole: the names of all threads of a worker with all that there is.
#[test]
fn no_thread_is_forgotten() {
    // Its folder is its own: the other test has one for each thread.
    let scene = Scene::new("none");
    scene.check();
    let tasks = std::fs::read_dir(format!("/proc/{}/task", scene.worker.pid().as_raw_nonzero())).unwrap();
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    // Pools survive a panic in what they do, and the threads of the helper end with it.
    let known = |name: &str| {
        THREADS.contains(&name) || ["agent-net", "connection", "resolver"].contains(&name) || name.starts_with("nvml-")
    };
    let other: Vec<String> = names.map(|name| name.trim().to_owned()).filter(|name| !known(name)).collect();
    assert!(other.is_empty(), "{other:?}");
}
