//! The fault matrix: everything a worker depends on is missing at its start, dies, hangs, is slow, sends garbage, stops
//! halfway, or goes and comes back. In each row jobs are answered throughout and the verdict shows the fault. Once it
//! is over, everything recovers without help, the registration included.

mod parts;

use std::fs::{self, File, OpenOptions};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::fake_ollama::FakeOllama;
use crate::fake_orchestrator::{Behavior, FakeOrchestrator};
use crate::gpus::is_ok;
use crate::harness::{Worker, agent_net, codes, folder, verdict, wait_for, wait_until};
use crate::http::Connection;
use crate::jobs::{bytes, job};
use crate::nvml::FakeNvml;
use crate::programs;

use parts::Part;

const NAME: &str = "agent-net-faults";

/// What happens to a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// The worker starts without it.
    AwayAtStart,
    Dies,
    Hangs,
    Slow,
    Garbage,
    HalfAnswer,
    /// It goes and comes, three times.
    ComesBack,
}

/// What a report says meanwhile.
#[derive(Debug)]
pub enum Meanwhile {
    Ok,
    /// One of these codes, and not ok.
    Says(&'static [&'static str]),
}

/// A worker and everything around it.
pub struct Scene {
    pub ollama: FakeOllama,
    pub orchestrator: FakeOrchestrator,
    pub nvml: FakeNvml,
    pub state: PathBuf,
    /// The link by which the worker finds its helper.
    pub helper: PathBuf,
    /// See preload.rs.
    faults: File,
    settings: Vec<(&'static str, String)>,
    worker: Option<Worker>,
    /// It was open before the fault.
    kept: Option<Connection>,
    crowd: Vec<TcpStream>,
}

impl Scene {
    fn new(row: &str) -> Self {
        let (ollama, orchestrator) = (FakeOllama::new(), FakeOrchestrator::new(Behavior::Ok));
        let (nvml, dir) = (FakeNvml::new(""), folder(&format!("faults-{row}")));
        let (state, helper, faults) = (dir.join("state"), dir.join("helper"), dir.join("faults"));
        fs::create_dir(&state).unwrap();
        fs::write(&faults, [0; 4096]).unwrap();
        std::os::unix::fs::symlink(programs::helper(), &helper).unwrap();
        let port = |url: String| url.rsplit(':').next().unwrap().to_owned();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut settings = vec![
            ("OLLAMA_URL", format!("http://ollama.test:{}", port(ollama.url()))),
            ("ORCH_URL", format!("http://orchestrator.test:{}", port(orchestrator.url()))),
            ("CAPABILITY_NAME", NAME.into()),
            ("STATE_DIR", text(&state)),
            ("SAMPLE_INTERVAL", "100ms".into()),
            ("AGENT_NET_FAULT", "hurry:100".into()),
            ("NVML_HELPER", text(&helper)),
            ("LD_PRELOAD", text(library())),
            ("FAULTS", text(&faults)),
            // What the clock says of the past is another test's business.
            ("GPU_SHORT_TERM_UPTIME_THRESHOLD", "0".into()),
            ("GPU_MEDIUM_TERM_UPTIME_THRESHOLD", "0".into()),
            ("GPU_LONG_TERM_UPTIME_THRESHOLD", "0".into()),
        ];
        settings.extend(nvml.settings().map(|(name, value)| (name, value.to_owned())));
        let faults = OpenOptions::new().read(true).write(true).open(&faults).unwrap();
        Self {
            ollama,
            orchestrator,
            nvml,
            state,
            helper,
            faults,
            settings,
            worker: None,
            kept: None,
            crowd: Vec::new(),
        }
    }

    fn settings(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    pub fn start(&mut self) {
        (self.worker, self.kept) = (None, None);
        self.worker = Some(Worker::start(&self.settings()));
    }

    /// `agent-net serve` as it is, for what must not start.
    pub fn command(&self) -> Command {
        let mut command = agent_net();
        command.envs(self.settings()).env("SERVER_HOST", "127.0.0.1").env("SERVER_PORT", "0").arg("serve");
        command
    }

    pub fn set(&mut self, name: &'static str, value: &str) {
        self.settings.push((name, value.to_owned()));
    }

    pub fn worker(&self) -> &Worker {
        self.worker.as_ref().expect("it was started")
    }

    /// Sets the mode of a part of the C library.
    pub fn tamper(&self, part: u64, mode: u8) {
        self.faults.write_all_at(&[mode], part).unwrap();
    }

    /// Calls that were tampered with so far.
    pub fn tampered(&self, part: u64) -> u32 {
        let mut count = [0; 4];
        self.faults.read_exact_at(&mut count, 64 + 4 * part).unwrap();
        u32::from_ne_bytes(count)
    }

    /// The sum of its samples, asked for on a new connection.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.worker().get("/metrics").text().to_owned();
        let samples = text.lines().filter(|line| line.starts_with(name));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Connections that say nothing.
    pub fn crowd(&mut self, size: usize) {
        let addr = self.worker().addr;
        self.crowd = (0..size).map(|_| TcpStream::connect(addr).expect("the kernel takes it")).collect();
    }

    /// As an orchestrator keeps one. One that has come back less often is closed for others of its address after 250 ms
    /// without a request, where threads are short.
    fn keep_a_connection(&mut self) {
        self.kept = Some(Connection::open(self.worker().addr));
        for _ in 0..4 {
            self.report();
        }
    }

    /// On the kept connection, if there is one.
    pub fn report(&mut self) -> Value {
        match &mut self.kept {
            Some(kept) => ask(kept, "a kept connection"),
            None => ask(&mut Connection::open(self.worker().addr), "a new connection"),
        }
    }

    pub fn report_when(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) {
        let mut last = Value::Null;
        let found = wait_until(|| {
            last = self.report();
            wanted(&last).then_some(())
        });
        assert!(found.is_some(), "no report with {what}; the last one: {last:#}");
    }

    /// Through many samples.
    fn stays_ok(&mut self) {
        self.report_when("verdict ok meanwhile", is_ok);
        for _ in 0..20 {
            let report = self.report();
            assert!(is_ok(&report), "{report:#}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn jobs_are_answered(&mut self, by_new_connections: bool) {
        for _ in 0..5 {
            self.report();
            if by_new_connections {
                ask(&mut Connection::open(self.worker().addr), "a new connection");
            }
        }
    }

    /// It is forgotten, and comes back by itself.
    fn is_registered(&self) {
        self.orchestrator.forget();
        wait_for("a registration", || self.orchestrator.registered(NAME));
    }
}

/// The compiled preload.rs.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = folder("faults").join("libfaults.so");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort", "-o"]);
        rustc.arg(&library).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/faults/preload.rs"));
        let output = rustc.output().expect("rustc runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        library
    })
}

fn ask(connection: &mut Connection, how: &str) -> Value {
    connection.send(&bytes("POST", "/gpu-check", &job("a"))).unwrap_or_else(|why| panic!("{how}: {why}"));
    let answer = connection.answer().unwrap_or_else(|why| panic!("{how}: {why}"));
    assert_eq!(answer.status, 200, "{how}: {answer:?}");
    answer.json()
}

/// One row.
fn row(part: Part, fault: Fault) {
    let mut scene = Scene::new(&format!("{part:?}-{fault:?}"));
    if fault == Fault::AwayAtStart {
        part.inject(&mut scene, fault);
        if part.is_needed_to_start() {
            part.refuses_to_start(&scene);
            part.heal(&mut scene, fault);
        }
        scene.start();
    } else {
        part.prepare(&mut scene, fault);
        scene.start();
        scene.report_when("verdict ok", is_ok);
        scene.is_registered();
        scene.keep_a_connection();
        part.inject(&mut scene, fault);
    }
    scene.jobs_are_answered(part.takes_connections(fault));
    part.is_felt(&mut scene, fault);
    let meanwhile = part.meanwhile(fault);
    match &meanwhile {
        Meanwhile::Ok => scene.stays_ok(),
        Meanwhile::Says(wanted) => scene.report_when(&format!("one of {wanted:?}"), |report| {
            verdict(report) != "ok" && codes(report).iter().any(|code| wanted.contains(code))
        }),
    }
    scene.jobs_are_answered(part.takes_connections(fault));
    part.heal(&mut scene, fault);
    scene.report_when("verdict ok again", is_ok);
    scene.is_registered();
    scene.jobs_are_answered(true);
    part.is_well(&mut scene);
    let log = scene.worker().log();
    assert!(!log.contains("panicked"), "{log}");
    println!("| {part:?} | {fault:?} | {meanwhile:?} |");
}

macro_rules! matrix {
    ($($name:ident: $part:ident,)*) => { $(
        mod $name {
            use super::*;

            matrix!(of $part: away_at_start AwayAtStart, dies Dies, hangs Hangs, slow Slow, garbage Garbage,
                half_answer HalfAnswer, comes_back ComesBack);
        }
    )* };
    (of $part:ident: $($name:ident $fault:ident),*) => { $(
        #[test]
        fn $name() {
            row(Part::$part, Fault::$fault);
        }
    )* };
}

matrix! {
    gpu_helper: GpuHelper,
    ollama: Ollama,
    orchestrator: Orchestrator,
    disk: Disk,
    clock: Clock,
    memory: Memory,
    descriptors: Descriptors,
    threads: Threads,
    names: Names,
}
