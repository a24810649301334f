//! `agent-net ack`: by the socket in STATE_DIR, else by SIGUSR1; never over the network.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fake_ollama::FakeOllama;
use crate::gpus::is_ok;
use crate::harness::{TIMEOUT, Worker, agent_net, codes, command, folder, run, wait_for};
use crate::http;
use crate::nvml::FakeNvml;
use crate::programs;

/// `agent-net ack` with these arguments, for this folder: exit code, stdout, stderr.
fn ack(dir: Option<&Path>, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = agent_net();
    command.arg("ack").args(args).envs(dir.map(|dir| ("STATE_DIR", dir)));
    let (status, out, err) = run(&mut command);
    (status.code(), out, err)
}

/// A worker that misses one of two GPUs.
struct Scene {
    nvml: FakeNvml,
    worker: Worker,
    _ollama: FakeOllama,
}

impl Scene {
    fn new(settings: &[(&str, &str)]) -> Self {
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
        let url = ollama.url();
        let all = [&[("OLLAMA_URL", url.as_str())], &nvml.settings()[..], settings].concat();
        let scene = Self { worker: Worker::start(&all), nvml, _ollama: ollama };
        scene.loses_a_gpu();
        scene
    }

    fn loses_a_gpu(&self) {
        self.nvml.set("gpus=2");
        self.worker.report_when("two GPUs", |report| is_ok(report) && report["gpu_count"] == 2);
        self.nvml.set("gpus=1");
        self.worker.report_when("GPU_COUNT_LOW", |report| codes(report).contains(&"GPU_COUNT_LOW"));
    }
}

/// The socket of a worker, once it is there.
fn socket(dir: &Path) -> PathBuf {
    let path = dir.join("control.sock");
    wait_for("the socket", || UnixStream::connect(&path).ok());
    path
}

#[test]
fn through_the_socket_it_reports_what_is_left() {
    let dir = folder("ack-socket");
    let scene = Scene::new(&[("STATE_DIR", dir.to_str().unwrap())]);
    let path = socket(&dir);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "for its owner only");
    assert_eq!(ack(Some(&dir), &[]), (Some(0), "acknowledged; the verdict is ok\n".into(), String::new()));
    assert!(is_ok(&scene.worker.report()), "it holds at once");
    let (code, out, _) = ack(Some(&dir), &["--json"]);
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &said["status"], &said["verdict"]), (Some(0), &"ready".into(), &"ok".into()), "{said}");
    wait_for("the log", || scene.worker.log().contains("agent-net ack: the errors so far are").then_some(()));
    // The next one is news.
    scene.loses_a_gpu();
}

#[test]
fn by_a_signal_it_works_without_a_state_folder() {
    let scene = Scene::new(&[]);
    let pid = scene.worker.pid().as_raw_nonzero().to_string();
    let (code, out, err) = ack(None, &["--pid", &pid]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("sent SIGUSR1 to process {pid}; agent-net check shows the verdict\n"));
    scene.worker.report_when("verdict ok", is_ok);
    wait_for("the log", || scene.worker.log().contains("SIGUSR1: the errors so far are acknowledged").then_some(()));
    scene.loses_a_gpu();
    let (code, out, _) = ack(None, &["--json", "--pid", &pid]);
    assert_eq!((code, out), (Some(0), format!("{{\"status\":\"signalled\",\"pid\":{pid}}}\n")));
    scene.worker.report_when("verdict ok", is_ok);
}

#[test]
fn nothing_acknowledges_over_the_network() {
    let dir = folder("ack-network");
    let scene = Scene::new(&[("STATE_DIR", dir.to_str().unwrap())]);
    for headers in [&[][..], &["X-Agent-Net-Operator: 1", "X-Agent-Net-Local: 1"]] {
        for method in ["GET", "POST"] {
            let answer = http::request(scene.worker.addr, method, "/ack", headers, b"");
            assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{answer:?}");
        }
    }
    assert!(codes(&scene.worker.report()).contains(&"GPU_COUNT_LOW"));
}

#[test]
fn without_a_worker_it_says_what_to_do() {
    #[track_caller]
    fn check((code, out, err): (Option<i32>, String, String), expect: i32, parts: &[&str]) {
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(expect), "", 1), "{err}");
        parts.iter().for_each(|part| assert!(err.contains(part), "{part:?} is not in {err}"));
    }
    let dir = folder("ack-nobody");
    check(ack(Some(&dir), &[]), 3, &["no worker listens on", "control.sock", "No such file"]);
    // A socket that a worker left behind.
    drop(UnixListener::bind(dir.join("control.sock")).unwrap());
    check(ack(Some(&dir), &[]), 3, &["no worker listens on", "Connection refused"]);
    // SIGUSR1 would end these.
    let mut other = command("sleep").arg("600").spawn().unwrap();
    check(ack(None, &["--pid", &other.id().to_string()]), 3, &["not a running worker", "--pid"]);
    assert!(other.try_wait().unwrap().is_none(), "it was left alone");
    other.kill().unwrap();
    other.wait().unwrap();
    check(ack(None, &["--pid", "4194304"]), 3, &["not a running worker"]);
    for pid in ["x", "-1", "99999999999"] {
        let wrong = format!("--pid={pid:?}: must be the number of a process; see agent-net ack --help");
        check(ack(None, &["--pid", pid]), 64, &[&wrong]);
    }
    // Something else listens there.
    fs::remove_file(dir.join("control.sock")).unwrap();
    let other = UnixListener::bind(dir.join("control.sock")).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut peer, _) = other.accept().unwrap();
        peer.read_exact(&mut [0; 4]).unwrap();
        peer.write_all(b"hello").unwrap();
    });
    check(ack(Some(&dir), &[]), 3, &["not an answer of agent-net"]);
    answering.join().unwrap();
}

#[test]
fn a_socket_that_was_left_behind_is_replaced_and_one_that_is_used_is_not() {
    let dir = folder("ack-stale");
    let state = [("STATE_DIR", dir.to_str().unwrap())];
    let first = Worker::start(&state);
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let before = inode(&socket(&dir));
    let second = Worker::start(&state);
    let pid = second.pid().as_raw_nonzero().to_string();
    let hint = format!("control.sock: another process is using it; agent-net ack --pid {pid}");
    wait_for("a warning", || second.log().contains(&hint).then_some(()));
    assert_eq!(inode(&dir.join("control.sock")), before, "it is the first one's");
    assert_eq!(ack(Some(&dir), &[]).0, Some(0));
    wait_for("the first one's log", || first.log().contains("acknowledged").then_some(()));
    assert!(!second.log().contains("acknowledged"));
    drop((first, second));
    // Both were killed.
    assert!(dir.join("control.sock").exists());
    let third = Worker::start(&state);
    socket(&dir);
    assert_eq!(ack(Some(&dir), &[]).0, Some(0));
    drop(third);
    // Anything but a socket stays.
    fs::remove_file(dir.join("control.sock")).unwrap();
    fs::write(dir.join("control.sock"), "precious").unwrap();
    let fourth = Worker::start(&state);
    wait_for("a warning", || fourth.log().contains("not a socket; remove it").then_some(()));
    assert_eq!(fs::read(dir.join("control.sock")).unwrap(), b"precious");
    assert_eq!(fourth.get("/health").status, 200);
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_a_warning() {
    let dir = folder("ack-long").join("x".repeat(100));
    let worker = Worker::start(&[("STATE_DIR", dir.to_str().unwrap())]);
    let pid = worker.pid().as_raw_nonzero().to_string();
    let hint = format!("control.sock: the path is too long for a socket; agent-net ack --pid {pid} works without it");
    wait_for("a warning", || worker.log().contains(&hint).then_some(()));
    // Everything else is kept there.
    wait_for("the uptime", || dir.join("uptime.bin").exists().then_some(()));
    let (code, _, err) = ack(Some(&dir), &[]);
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("too long") && err.contains("--pid"), "{err}");
    assert_eq!(ack(Some(&dir), &["--pid", &pid]).0, Some(0));
    wait_for("the log", || worker.log().contains("SIGUSR1: the errors so far are acknowledged").then_some(()));
}

#[test]
fn whoever_says_nothing_too_much_or_nonsense_delays_only_those_behind_it() {
    let dir = folder("ack-slow");
    let worker = Worker::start(&[("STATE_DIR", dir.to_str().unwrap())]);
    let path = socket(&dir);
    let said = |request: &[u8]| {
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.set_read_timeout(Some(TIMEOUT)).unwrap();
        // It may have stopped reading.
        let _ = peer.write_all(request);
        let mut answer = Vec::new();
        let _ = peer.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    assert!(said(b"reboot\n").contains("unknown request; available: ack"));
    said(&[b'x'; 100_000]);
    said(b"");
    said(b"ack and more\n");
    assert!(!worker.log().contains("acknowledged"), "{}", worker.log());
    let silent = UnixStream::connect(&path).unwrap();
    assert_eq!(worker.get("/health").status, 200);
    assert_eq!(ack(Some(&dir), &[]).0, Some(0), "the silent one's time is over");
    drop(silent);
}

/// As in a container: the worker is process 1, and nothing can be written.
#[test]
fn process_1_of_a_container_is_found() {
    let mut inside = command("unshare");
    inside.args(["--pid", "--fork", "--kill-child", "--mount-proc", programs::server()]);
    if !command("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).status().is_ok_and(|s| s.success()) {
        println!("skipped: no namespaces may be made here");
        return;
    }
    for state in ["", "/proc/agent-net"] {
        let mut container = command("unshare");
        container.args(inside.get_args());
        let worker = Worker::of(container, &[("STATE_DIR", state)]);
        let parent = worker.pid().as_raw_nonzero();
        let children = format!("/proc/{parent}/task/{parent}/children");
        let pid = wait_for("process 1", || fs::read_to_string(&children).ok()?.trim().parse::<i32>().ok());
        let enter = |args: &[&str]| -> (ExitStatus, String, String) {
            let mut enter = command("nsenter");
            enter.args(["--target", &pid.to_string(), "--pid", "--mount", programs::server(), "ack"]);
            run(enter.args(args).env("STATE_DIR", state))
        };
        let (status, out, err) = enter(&[]);
        assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{out}");
        assert!(out.starts_with("sent SIGUSR1 to process 1;"), "{out}");
        wait_for("the log", || worker.log().contains("SIGUSR1: the errors so far are acknowledged").then_some(()));
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}
