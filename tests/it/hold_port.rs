//! `agent-net hold-port`, and workers that serve the port that it holds.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::fake_ollama::FakeOllama;
use crate::fake_orchestrator::{Behavior, FakeOrchestrator};
use crate::fake_runners::Runners;
use crate::harness::{Worker, agent_net, command, folder, lines_of, lock, run, skip, wait_for};
use crate::http::{self, Connection};
use crate::programs;

pub const NAME: &str = "agent-net-nyc";

/// A port that nothing listens on. It is none of those that the kernel gives to whoever asks for any, so that no other test
/// and no connection gets it before it is used.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(61);
    let ports = std::iter::repeat_with(|| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut ports = ports.map(|number| 20_000 + (number % 12_000) as u16).take(12_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// What an upgrade needs around a worker.
pub struct Scene {
    pub orchestrator: FakeOrchestrator,
    ollama: FakeOllama,
    pub dir: PathBuf,
    /// Where jobs go.
    pub port: u16,
}

impl Scene {
    pub fn new(name: &str, port: u16) -> Self {
        let orchestrator = FakeOrchestrator::new(Behavior::Ok);
        Self { orchestrator, ollama: FakeOllama::new(), dir: folder(&format!("handover-{name}")), port }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("port.sock")
    }

    pub fn worker(&self, command: Command, more: &[(&str, &str)]) -> Worker {
        let (orchestrator, ollama) = (self.orchestrator.url(), self.ollama.url());
        let url = format!("http://127.0.0.1:{}", self.port);
        let settings = [
            ("ORCH_URL", orchestrator.as_str()),
            ("CAPABILITY_NAME", NAME),
            ("CAPABILITY_URL", url.as_str()),
            ("OLLAMA_URL", ollama.as_str()),
            ("EXPECTED_GPUS", "0"),
        ];
        Worker::of(command, &[&settings[..], more].concat())
    }

    /// One that serves the port that `hold-port` holds.
    pub fn beside_holder(&self, more: &[(&str, &str)]) -> Worker {
        let worker = self.worker(agent_net(), &[&[("PORT_SOCKET", self.socket().to_str().unwrap())], more].concat());
        wait_for("the held port", || worker.log().contains("accepting jobs on").then_some(()));
        worker
    }

    pub fn is_registered(&self) {
        wait_for("a registration", || self.orchestrator.registered(NAME));
    }

    pub fn unregistered(&self) -> usize {
        self.orchestrator.requests("/capability/unregister").len()
    }
}

/// A running `agent-net hold-port`, or another program; killed on drop.
pub struct Holder {
    pub child: Child,
    pub log: Arc<Mutex<String>>,
}

impl Holder {
    pub fn of(mut child: Child) -> Self {
        let log = lines_of(child.stderr.take().expect("stderr is piped"));
        Self { child, log }
    }

    pub fn start(port: u16, socket: &Path) -> Self {
        let mut command = agent_net();
        command.env("SERVER_HOST", "127.0.0.1").env("SERVER_PORT", port.to_string()).env("PORT_SOCKET", socket);
        let child = command.arg("hold-port").stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let holder = Self::of(child.expect("agent-net starts"));
        wait_for("the held port", || lock(&holder.log).contains("holding ").then_some(()));
        holder
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    pub fn end(mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        wait_for("the holder's end", || self.child.try_wait().expect("our child")).code()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the holder's log\n{}---", lock(&self.log));
        }
    }
}

#[track_caller]
pub fn ends_well(worker: Worker) {
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("the port stays open for the next worker"), "{log}");
}

/// The orchestrator would send jobs to a port that closes.
#[test]
fn a_worker_that_no_job_reaches_by_the_held_port_unregisters() {
    let scene = Scene::new("unknown-port", free_port());
    let _holder = Holder::start(scene.port, &scene.socket());
    let (own, held) = (free_port().to_string(), scene.port.to_string());
    let url = format!("http://127.0.0.1:{own}");
    let worker = scene.beside_holder(&[("CAPABILITY_URL", &url), ("SERVER_PORT", &own)]);
    wait_for("a warning", || worker.log().contains("the port of this worker alone").then_some(()));
    drop(worker);
    let mut same = agent_net();
    same.env("PORT_SOCKET", scene.socket()).args(["serve", "--server-host", "127.0.0.1", "--server-port", &held]);
    let (status, _, err) = run(&mut same);
    assert!(status.code() == Some(1) && err.contains("SERVER_PORT must differ"), "{err}");
    let worker = scene.beside_holder(&[("CAPABILITY_URL", ""), ("HOSTNAME", "127.0.0.1")]);
    wait_for("a warning", || worker.log().contains("CAPABILITY_URL is unset: jobs come to ").then_some(()));
    scene.is_registered();
    worker.stop();
    assert!(scene.orchestrator.registered(NAME).is_none());
    // Where no orchestrator sends jobs, others do: to the held port.
    let worker = scene.beside_holder(&[("ORCH_URL", ""), ("CAPABILITY_URL", "")]);
    ends_well(worker);
}

#[test]
fn a_worker_waits_for_its_holder_and_follows_it_through_a_restart() {
    let scene = Scene::new("late", free_port());
    let socket = scene.socket();
    let worker = scene.worker(agent_net(), &[("PORT_SOCKET", socket.to_str().unwrap())]);
    wait_for("a warning", || worker.log().contains("Start agent-net hold-port").then_some(()));
    assert_eq!(worker.get("/health").status, 200);
    let held = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let served = || {
        wait_for("an answer from the held port", || {
            let mut connection = Connection::try_open(held).ok()?;
            connection.send(b"GET /health HTTP/1.1\r\nHost: worker\r\n\r\n").ok()?;
            connection.answer().ok().filter(|answer| answer.status == 200)
        })
    };
    let holder = Holder::start(scene.port, &socket);
    served();
    assert_eq!(holder.end(Signal::TERM), Some(0));
    assert!(!socket.exists(), "it is removed at the end");
    let second = Holder::start(scene.port, &socket);
    served();
    // A killed one leaves its socket behind, and the worker the port.
    second.end(Signal::KILL);
    assert!(socket.exists());
    let third = Holder::start(scene.port, &socket);
    served();
    // Only the holder's own user may ask.
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (status, _, err) = run(&mut second_holder(&socket));
    assert!(status.code() == Some(1) && err.contains("PORT_SOCKET="), "{status}: {err}");
    drop(third);
}

pub fn second_holder(socket: &Path) -> Command {
    let (mut second, port) = (agent_net(), free_port().to_string());
    second.args(["hold-port", "--server-host", "127.0.0.1", "--server-port", &port, "--port-socket"]).arg(socket);
    second
}

#[test]
fn a_holder_survives_clients_that_say_nothing_or_too_much() {
    let scene = Scene::new("silent", free_port());
    let holder = Holder::start(scene.port, &scene.socket());
    let pid = holder.child.id();
    let files = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = files();
    let silent: Vec<_> = (0..100).map(|_| UnixStream::connect(scene.socket()).expect("it accepts")).collect();
    for mut client in (0..100).map(|_| UnixStream::connect(scene.socket()).expect("it accepts")) {
        let _ = std::io::Write::write_all(&mut client, &[b'x'; 1000]);
    }
    let worker = scene.beside_holder(&[]);
    assert_eq!(http::request(SocketAddr::from(([127, 0, 0, 1], scene.port)), "GET", "/health", &[], b"").status, 200);
    assert!(files() < 40, "{} open files", files());
    assert_eq!(lock(&holder.log).matches("more than 16 workers connect to this port").count(), 1);
    drop((silent, worker));
    // One that has gone would wake the holder again and again.
    wait_for("the connections' end", || (files() == before).then_some(()));
    assert_eq!(holder.end(Signal::INT), Some(0));
}

/// Someone has removed its socket, and another holder has made one of that name.
#[test]
fn a_holder_that_ends_leaves_the_socket_of_another_one() {
    let socket = folder("handover-two-holders").join("port.sock");
    let first = Holder::start(0, &socket);
    std::fs::remove_file(&socket).unwrap();
    let second = Holder::start(0, &socket);
    assert_eq!(first.end(Signal::TERM), Some(0));
    UnixStream::connect(&socket).expect("the other one listens there");
    assert_eq!(second.end(Signal::TERM), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_holder_whose_port_is_taken_says_so_and_stops_when_asked() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = folder("handover-taken").join("port.sock");
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = agent_net();
    command.args(["hold-port", "--server-host", "127.0.0.1", "--server-port", &port, "--port-socket"]).arg(&socket);
    let holder = Holder::of(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    wait_for("a line", || lock(&holder.log).contains("address already in use: retrying for 30 s").then_some(()));
    let log = Arc::clone(&holder.log);
    assert_eq!(holder.end(Signal::TERM), Some(0), "{}", lock(&log));
    // The next one is not stopped by a socket that is left behind, and warns of none that only looks.
    let holder = Holder::start(free_port(), &socket);
    let log = Arc::clone(&holder.log);
    drop(UnixStream::connect(&socket).unwrap());
    let (status, _, err) = run(&mut second_holder(&socket));
    assert!(status.code() == Some(1) && err.contains("another process is using it"), "{err}");
    assert_eq!(holder.end(Signal::TERM), Some(0));
    assert!(!lock(&log).contains("WARN"), "{}", lock(&log));
}

/// A fake holder that gives its socket and ends, as one in a restart loop does: nothing but the waits is compared.
#[test]
fn a_holder_that_ends_again_and_again_is_asked_less_and_less() {
    let socket = folder("handover-ends").join("port.sock");
    let unix = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _worker = Worker::start(&[("PORT_SOCKET", socket.to_str().unwrap())]);
    let (first, _) = unix.accept().unwrap();
    let start = std::time::Instant::now();
    give(&first, &listener);
    drop(first);
    for _ in 0..4 {
        let (peer, _) = unix.accept().unwrap();
        give(&peer, &listener);
    }
    assert!(start.elapsed() >= std::time::Duration::from_millis(1400), "{:?}", start.elapsed());
}

pub fn give(peer: &UnixStream, socket: &impl AsFd) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&sockets)));
    let byte = [std::io::IoSlice::new(b"1")];
    rustix::net::sendmsg(peer, &byte, &mut control, rustix::net::SendFlags::empty()).unwrap();
}

#[test]
fn what_is_not_a_holder_is_not_used() {
    let dir = folder("handover-not");
    let socket = dir.join("port.sock");
    let file = dir.join("file");
    std::fs::write(&file, "").unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut peer| {
            let _ = std::io::Write::write_all(&mut peer, b"1");
        });
    });
    let silent = dir.join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    let cases = [
        (&socket, "it gives no listening TCP socket"),
        (&file, "Connection refused"),
        (&silent, "no answer within 2 s"),
    ];
    for (path, why) in cases {
        let worker = Worker::start(&[("PORT_SOCKET", path.to_str().unwrap())]);
        wait_for(why, || worker.log().contains(why).then_some(()));
        assert_eq!(worker.get("/health").status, 200);
        assert_eq!(worker.log().matches("PORT_SOCKET=").count(), 1, "{}", worker.log());
    }
    let diagnosis = |path: &Path| run(agent_net().arg("doctor").arg("--port-socket").arg(path)).1;
    let found = diagnosis(&file);
    assert!(found.contains("warn  held port") && found.contains(": connection refused"), "{found}");
    let port = free_port();
    let _holder = Holder::start(port, &dir.join("held.sock"));
    let found = diagnosis(&dir.join("held.sock"));
    assert!(found.contains(&format!("agent-net hold-port holds 127.0.0.1:{port}")), "{found}");
    let (status, _, err) = run(agent_net().arg("hold-port"));
    assert!(status.code() == Some(78) && err.contains("PORT_SOCKET is unset"), "{err}");
}

/// go-livepeer refuses the id of an entry that lives for 20 s, unless the beat has the entry's secret.
#[test]
fn a_live_runner_stays_listed_over_a_restart() {
    const ID: &str = "gpu-1";
    let scene = Scene::new("runner", free_port());
    let mut registry = Runners::new("s3cret");
    // Its 20 s are longer than a restart.
    registry.time_scale = 1;
    scene.orchestrator.runners(|runners| *runners = Some(registry));
    let _holder = Holder::start(scene.port, &scene.socket());
    let state = scene.dir.to_str().unwrap().to_owned();
    let settings =
        [("ORCH_PROTOCOL", "both"), ("ORCH_SECRET", "s3cret"), ("RUNNER_ID", ID), ("STATE_DIR", state.as_str())];
    let listed = || scene.orchestrator.listed(ID);
    // Without a place for its secret it leaves.
    let worker = scene.beside_holder(&settings[..3]);
    wait_for("an entry", listed);
    ends_well(worker);
    assert_eq!(listed(), None);
    // The same where it cannot be written.
    let blocked = scene.dir.join("runner-secrets.new");
    std::fs::create_dir_all(blocked.join("full")).unwrap();
    let worker = scene.beside_holder(&settings);
    wait_for("an entry", listed);
    ends_well(worker);
    assert_eq!(listed(), None);
    std::fs::remove_dir_all(&blocked).unwrap();
    let worker = scene.beside_holder(&settings);
    wait_for("an entry", listed);
    ends_well(worker);
    assert!(listed().is_some(), "it was left there");
    let file = scene.dir.join("runner-secrets");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let beats = || scene.orchestrator.requests("/runners/heartbeat");
    let before = beats().len();
    let worker = scene.beside_holder(&settings);
    wait_for("a beat", || (beats().len() > before).then_some(()));
    assert!(!file.exists(), "it is of use once");
    wait_for("a good beat", || {
        let report = worker.get("/gpu").json();
        let rows = report["registrations"].as_array().cloned().unwrap_or_default();
        rows.iter().any(|row| row["capability"] == ID && row["state"] == "registered").then_some(())
    });
    assert!(listed().is_some() && !worker.log().contains("cannot register live runner"), "{}", worker.log());
}

#[test]
fn a_worker_does_not_start_with_what_is_not_a_listening_socket() {
    let cases = [
        ("LISTEN_FDS=1", "exec 3</dev/null", "not a listening TCP socket"),
        ("LISTEN_FDS=3", "exec 3<&-", "larger than the number of sockets that were passed"),
        ("LISTEN_FDS=x", "exec 3<&-", "are not numbers"),
    ];
    for (variable, files, why) in cases {
        let start = format!("{files}; {variable} LISTEN_PID=$$ exec {} serve --server-port 0", programs::server());
        let (status, _, err) = run(command("sh").arg("-c").arg(start).envs(programs::environment()));
        assert!(status.code() == Some(1) && err.contains(why), "{variable}: {status}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

/// The real systemd, as far as it works without being process 1: it listens, and starts the worker at the first connection.
#[test]
fn systemd_socket_activate_starts_a_worker_that_serves_its_port() {
    let port = free_port();
    let mut activate = command("systemd-socket-activate");
    activate.args(["--listen", &format!("127.0.0.1:{port}"), "--setenv=SERVER_PORT=0", "--setenv=EXPECTED_GPUS=0"]);
    activate.arg(programs::server()).arg("serve").stdout(Stdio::null()).stderr(Stdio::piped());
    let Ok(child) = activate.spawn() else { return skip("systemd-socket-activate is missing") };
    let mut worker = Holder::of(child);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = wait_for("an answer", || {
        let mut connection = Connection::try_open(addr).ok()?;
        connection.send(b"GET /health HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n").ok()?;
        connection.answer().ok()
    });
    assert_eq!(answer.status, 200);
    let logs = |part: &str| wait_for(part, || lock(&worker.log).contains(part).then_some(()));
    logs(&format!("listening on http://{addr}"));
    worker.signal(Signal::TERM);
    logs("the port stays open for the next worker");
    let status = wait_for("its end", || worker.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
