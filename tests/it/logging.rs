//! The log of `serve`: whoever reads it, or does not, changes nothing for jobs.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fake_ollama::FakeOllama;
use crate::harness::{SmallDisk, agent_net, codes, folder, run, wait_for};
use crate::http::{self, Connection};
use crate::jobs::{bytes, job};

/// More panics than there is room for lines.
const PANICS: u64 = 1500;

/// A worker whose log is read by the test alone; killed on drop.
struct Unread {
    child: Child,
    log: BufReader<PipeReader>,
    addr: SocketAddr,
}

impl Unread {
    /// Its log is read up to the line that names its address.
    fn start(ollama: &FakeOllama) -> Self {
        let (reader, stderr) = std::io::pipe().expect("a pipe");
        let url = ollama.url();
        let mut command = agent_net();
        command.arg("serve").stdout(Stdio::null()).stderr(stderr);
        command.envs([("SERVER_HOST", "127.0.0.1"), ("SERVER_PORT", "0"), ("SAMPLE_INTERVAL", "100ms")]);
        command.envs([("OLLAMA_URL", url.as_str()), ("EXPECTED_GPUS", "0"), ("AGENT_NET_FAULT", "panic:boom")]);
        let child = command.spawn().expect("it starts");
        let mut worker = Self { child, log: BufReader::new(reader), addr: SocketAddr::from(([0; 4], 0)) };
        worker.addr = worker.line_with("listening on http://").trim().parse().expect("an address");
        worker
    }

    /// What stands behind `words` in the next line that has them.
    fn line_with(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).expect("the log") > 0, "the log ends before {words:?}");
            if let Some((_, rest)) = line.split_once(words) {
                return rest.to_owned();
            }
        }
    }

    /// Fills the pipe: whoever writes to it without care waits from now on.
    fn fill(&self) {
        let mut stderr = OpenOptions::new();
        let stderr = stderr.write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let mut stderr = stderr.open(format!("/proc/{}/fd/2", self.child.id())).expect("the worker's end of the pipe");
        for size in [4096, 1] {
            while stderr.write(&vec![b'\n'; size]).is_ok() {}
        }
    }

    fn report(&self) -> Value {
        let answer = http::request(self.addr, "POST", "/gpu-check", &[], job("a").as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Jobs that panic, each of which is a line.
    fn panics(&self, count: u64) {
        let mut connection = Connection::open(self.addr);
        for number in 0..count {
            connection.send(&bytes("POST", "/gpu-check", &job("boom"))).unwrap();
            let answer = connection.answer().unwrap_or_else(|why| panic!("{number}: {why}"));
            assert_eq!((answer.status, answer.code().as_str()), (500, "internal"), "{number}: {answer:?}");
        }
    }

    fn dropped(&self) -> u64 {
        let metrics = http::request(self.addr, "GET", "/metrics", &[], b"");
        let value = metrics.text().lines().find_map(|line| line.strip_prefix("agent_net_log_lines_dropped_total "));
        value.expect("the metric is always there").parse().expect("a number")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
    }

    fn exit_code(&mut self) -> Option<i32> {
        wait_for("its end", || self.child.try_wait().expect("it is our child")).code()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn jobs_are_answered_while_the_log_is_not_read_and_missing_lines_are_reported() {
    let mut ollama = FakeOllama::new();
    let mut worker = Unread::start(&ollama);
    wait_for("a first verdict", || codes(&worker.report()).is_empty().then_some(()));
    assert_eq!(worker.dropped(), 0);
    worker.fill();
    // Each change of the verdict is a line.
    for _ in 0..3 {
        ollama.stop();
        wait_for("an Ollama that is gone", || codes(&worker.report()).contains(&"OLLAMA_DOWN").then_some(()));
        ollama.start();
        wait_for("Ollama again", || codes(&worker.report()).is_empty().then_some(()));
    }
    worker.panics(PANICS);
    assert_eq!(http::request(worker.addr, "GET", "/health", &[], b"").status, 200);
    let dropped = worker.dropped();
    assert!(dropped > 0 && dropped < PANICS, "{dropped}");

    // It is read again: first what waited, then how much is missing, then what comes next.
    worker.line_with("unhealthy OLLAMA_DOWN");
    let before = worker.line_with(" WARN  [agent_net::sys::logger] ");
    assert_eq!(
        before.trim(),
        format!("{dropped} log lines are missing here: stderr was not read in time or could not be written")
    );
    worker.panics(1);
    assert!(worker.line_with("panicked").contains("AGENT_NET_FAULT asks for this panic"));
    assert_eq!(worker.dropped(), dropped, "nothing else is missing");
    worker.signal(Signal::TERM);
    worker.line_with("SIGTERM: stopping");
    assert_eq!(worker.exit_code(), Some(0));
}

#[test]
fn a_log_that_is_not_read_keeps_no_worker_alive() {
    let ollama = FakeOllama::new();
    let mut worker = Unread::start(&ollama);
    worker.fill();
    worker.panics(1);
    worker.signal(Signal::TERM);
    assert_eq!(worker.exit_code(), Some(0));
    // Nor one that fails.
    let mut second = Unread::start(&ollama);
    second.fill();
    second.signal(Signal::INT);
    second.signal(Signal::INT);
    second.exit_code();
}

#[test]
fn the_last_lines_arrive() {
    let ollama = FakeOllama::new();
    let mut worker = Unread::start(&ollama);
    worker.signal(Signal::TERM);
    worker.line_with("SIGTERM: stopping; 0 requests in flight");
    assert_eq!(worker.exit_code(), Some(0));

    // Starts that fail, after the log has begun: nothing else comes between the line and the end.
    let taken = Unread::start(&ollama);
    let port = taken.addr.port().to_string();
    for _ in 0..30 {
        let (status, _, log) = run(agent_net().env("SERVER_HOST", "127.0.0.1").env("SERVER_PORT", &port).arg("serve"));
        assert!(status.code() == Some(1) && log.starts_with("agent-net: cannot listen on "), "{status}: {log}");
    }
}

/// A file system without room is a reader that takes nothing: lines are missing, and that is reported when there is room.
#[test]
fn a_log_on_a_full_disk_goes_on_when_there_is_room() {
    let dir = folder("log-full");
    let Some(disk) = SmallDisk::mount(&dir, "8k") else { return };
    let ollama = FakeOllama::new();
    let (url, path) = (ollama.url(), dir.join("log"));
    let mut command = agent_net();
    command.arg("serve").stdout(Stdio::null()).stderr(File::create(&path).unwrap());
    command.envs([("SERVER_HOST", "127.0.0.1"), ("SERVER_PORT", "0"), ("OLLAMA_URL", &url), ("EXPECTED_GPUS", "0")]);
    let child = command.env("AGENT_NET_FAULT", "panic:boom").spawn().expect("it starts");
    let (log, _) = std::io::pipe().expect("a pipe");
    let mut worker = Unread { child, log: BufReader::new(log), addr: SocketAddr::from(([0; 4], 0)) };
    let text = || std::fs::read_to_string(&path).unwrap();
    worker.addr = wait_for("the line `listening on http://ADDR`", || {
        text().split_once("listening on http://")?.1.split_once('\n')?.0.trim().parse().ok()
    });
    worker.panics(200);
    wait_for("lines that are missing", || (worker.dropped() > 0).then_some(()));
    disk.resize("1m");
    wait_for("a word about them", || {
        worker.panics(1);
        text().contains(" log lines are missing here").then_some(())
    });
    let text = text();
    let gap = text.lines().find(|line| line.contains(" log lines are missing here")).unwrap();
    assert_eq!(gap.find(" WARN "), Some("2026-01-01T00:00:00.000Z".len()), "it has a line of its own: {gap}");
    drop(worker);
}

#[test]
fn a_worker_whose_stderr_is_gone_serves_on() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let env =
        [("SERVER_HOST", "127.0.0.1"), ("SERVER_PORT", "0"), ("LOG_LEVEL", "trace"), ("SAMPLE_INTERVAL", "100ms")];
    let mut child = agent_net().arg("serve").envs(env).stdout(Stdio::null()).stderr(writer).spawn().expect("it starts");
    let mut log = String::new();
    let addr = wait_for("the line `listening on http://ADDR`", || {
        let mut some = [0; 4096];
        let read = std::io::Read::read(&mut reader, &mut some).expect("the log");
        log.push_str(&String::from_utf8_lossy(&some[..read]));
        let (_, rest) = log.split_once("listening on http://")?;
        rest.split_once('\n')?.0.trim().parse().ok()
    });
    drop(reader);
    for _ in 0..3 {
        let answer = http::request(addr, "POST", "/gpu-check", &[], br#"{"agent_id":"a"}"#);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let ended = child.try_wait().expect("it is our child");
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(ended, None, "it ended with its log");
}
