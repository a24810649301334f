//! `check --watch`: again and again, until it is stopped or its reader is gone.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::fake_ollama::FakeOllama;
use crate::harness::{Worker, agent_net, skip, verdict, wait_for};
use crate::nvml::FakeNvml;
use crate::programs;

/// A running `check --watch`; killed on drop.
struct Watch(Child);

impl Watch {
    fn start(args: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut command = agent_net();
        command.env("SERVER_PORT", "9").envs(settings.iter().copied()).args(["check", "--watch"]).args(args);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"))
    }

    fn lines(&mut self) -> std::io::Lines<BufReader<std::process::ChildStdout>> {
        BufReader::new(self.0.stdout.take().expect("piped")).lines()
    }

    /// SIGINT, the end that follows, and what it said on stderr.
    fn interrupt(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        self.end()
    }

    fn end(&mut self) -> (Option<i32>, String) {
        let status = wait_for("the end", || self.0.try_wait().expect("it is our child"));
        let mut err = String::new();
        self.0.stderr.take().expect("piped").read_to_string(&mut err).unwrap();
        (status.code(), err)
    }

    /// Its helpers, which its threads have started.
    fn helpers(&self) -> Vec<Pid> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).into_iter().flatten().flatten();
        let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let children: String = children.collect::<Vec<_>>().join(" ");
        children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_follows_the_verdict_with_one_helper_until_it_is_interrupted() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let url = ollama.url();
    let settings = [&[("OLLAMA_URL", url.as_str())], &nvml.settings()[..]].concat();
    for (signal, last, code) in
        [(Signal::INT, "gpu0.temperature=92", 1), (Signal::TERM, "gpu0.handle=15", 2), (Signal::INT, "", 0)]
    {
        nvml.set("");
        let mut watch = Watch::start(&["--interval", "100ms", "--json"], &settings);
        let mut lines = watch.lines();
        let mut until = |word: &str| {
            for _ in 0..200 {
                let line = lines.next().expect("a line").expect("UTF-8");
                let report: Value = serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"));
                if verdict(&report) == word {
                    return;
                }
            }
            panic!("never {word}");
        };
        until("ok");
        let helpers = watch.helpers();
        assert_eq!(helpers.len(), 1);
        (0..5).for_each(|_| until("ok"));
        assert_eq!(watch.helpers(), helpers, "it was started again");
        nvml.set(last);
        until(["ok", "degraded", "unhealthy"][code]);
        // The exit code is that of the last verdict, and the helper does not outlive it.
        let all = watch.helpers();
        assert_eq!(watch.interrupt(signal), (Some(code as i32), String::new()));
        all.iter()
            .for_each(|helper| wait_for("the helper's end", || test_kill_process(*helper).is_err().then_some(())));
    }
    // Also while it waits for the driver; nothing is known then.
    nvml.set("at_init=hang");
    let mut watch = Watch::start(&[], &settings);
    let mut err = BufReader::new(watch.0.stderr.take().expect("piped"));
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert_eq!(line, "waiting for the GPUs' driver (up to 30 s) ...\n");
    kill_process(Pid::from_child(&watch.0), Signal::INT).unwrap();
    assert_eq!(wait_for("the end", || watch.0.try_wait().unwrap()).code(), Some(3));
}

#[test]
fn a_reader_that_is_gone_ends_it() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpu0.temperature=92"));
    let url = ollama.url();
    let settings = [&[("OLLAMA_URL", url.as_str())], &nvml.settings()[..]].concat();
    let mut watch = Watch::start(&["--interval", "100ms"], &settings);
    let mut lines = watch.lines();
    let mut block = || -> Vec<String> {
        lines.by_ref().map(|line| line.expect("UTF-8")).take_while(|line| !line.is_empty()).collect()
    };
    let first = block();
    assert!(first[0].starts_with("agent-net degraded (TEMP_HIGH)") && first.len() == 4, "{first:?}");
    // An empty line stands between two blocks, and no character steers a terminal that is not there.
    assert_eq!(block(), first);
    assert!(!first.concat().contains('\u{1b}'), "{first:?}");
    // It is not a worker that errors could be acknowledged to: the signal for that would end it.
    let pid = watch.0.id().to_string();
    let ack = agent_net().args(["ack", "--pid", &pid]).output().expect("it starts");
    let why = String::from_utf8_lossy(&ack.stderr);
    assert!(ack.status.code() == Some(3) && why.contains("is not a running worker"), "{why}");
    assert_eq!(block(), first);
    drop(lines);
    assert_eq!(watch.end(), (Some(1), String::new()));
}

#[test]
fn a_worker_that_comes_and_goes_is_followed() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let url = ollama.url();
    let settings = [&[("OLLAMA_URL", url.as_str())], &nvml.settings()[..]].concat();
    let worker = Worker::start(&settings);
    let port = worker.addr.port().to_string();
    let own = [&settings[..], &[("SERVER_PORT", port.as_str())]].concat();
    let mut watch = Watch::start(&["--interval", "100ms", "--text"], &own);
    let mut lines = watch.lines();
    let mut until = |part: &str| {
        let mut lines = lines.by_ref().map(|line| line.expect("UTF-8")).take(5_000);
        assert!(lines.any(|line| line.starts_with(part)), "never {part}");
    };
    until("verdict=ok");
    assert_eq!(watch.helpers().len(), 0, "the worker has one");
    drop(worker);
    wait_for("a helper of its own", || (watch.helpers().len() == 1).then_some(()));
    until("verdict=ok");
    // One that was named is not replaced by anything.
    let mut watch = Watch::start(&["--interval", "100ms", "--url", "http://127.0.0.1:9", "--json"], &settings);
    let mut lines = watch.lines();
    for _ in 0..2 {
        let said: Value = serde_json::from_str(&lines.next().expect("a line").expect("UTF-8")).expect("JSON");
        assert_eq!((&said["status"], &said["code"]), (&"error".into(), &"unreachable".into()));
    }
    assert_eq!(watch.interrupt(Signal::INT), (Some(3), String::new()));
}

#[test]
fn a_terminal_is_drawn_again() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("script is missing");
    }
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let worker = Worker::start(&[&[("OLLAMA_URL", ollama.url().as_str())], &nvml.settings()[..]].concat());
    let line = format!("{} check --watch --interval 100ms --url http://{}", programs::server(), worker.addr);
    let mut script = crate::harness::command("script");
    script.args(["-qec", &line, "/dev/null"]).stdout(Stdio::piped()).stderr(Stdio::null());
    // The terminal ends with it, and the command with the terminal.
    let mut terminal = Watch(script.spawn().expect("it starts"));
    let mut out = terminal.0.stdout.take().expect("piped");
    let (mut said, mut buffer) = (String::new(), [0; 4096]);
    let redraw = "\u{1b}[H\u{1b}[2Jagent-net ";
    while said.matches(redraw).count() < 3 {
        let read = out.read(&mut buffer).expect("it can be read");
        assert!(read > 0, "it ended: {said:?}");
        said.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(said.starts_with(redraw) && !said.contains("\r\n\r\n"), "{said:?}");
}
