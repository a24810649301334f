//! Starts the real worker on a free port and talks to it; everything it logged is printed when a test fails.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid};
use serde_json::Value;

use crate::http::{self, Response};
use crate::programs;

/// How long a test waits for what must happen at some time. Generous: the machine may be busy.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// How long the last lines of a program that has ended may be on their way, where another process holds their pipe.
const LAST_LINES: Duration = Duration::from_secs(10);

/// A running worker; killed on drop.
pub struct Worker {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Reads the log.
    reader: JoinHandle<()>,
    /// The values of its settings that must never be shown.
    secrets: Vec<String>,
    pub addr: SocketAddr,
}

/// The command of a program of ours with an environment of its own: nothing of the caller's settings leaks in.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.env_clear().stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// `agent-net`, with the helper that belongs to it.
pub fn agent_net() -> Command {
    let mut command = command(programs::server());
    command.envs(programs::environment());
    command
}

/// The release server under test in the container tests, or None, with a line that says so.
/// With CI=true it must be there: a skipped test may not look green.
pub fn static_server() -> Option<PathBuf> {
    from_env("AGENT_NET_STATIC").map(PathBuf::from)
}

/// The command that runs `static_server`.
pub fn static_command(path: &Path) -> Command {
    if programs::others().is_some() { agent_net() } else { command(path) }
}

/// The value of a variable that `scripts/test.sh` sets, or None, with a line that says so.
pub fn from_env(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|v| !v.is_empty());
    if value.is_none() {
        skip(&format!("{name} is not set"));
    }
    value
}

/// A word about why a test is skipped. With CI=true it may not be: a skipped test may not look green.
#[track_caller]
pub fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}: run scripts/test.sh, which sees to it");
    println!("skipped: {why}; scripts/test.sh sees to it");
}

impl Worker {
    /// Starts `agent-net serve` with `settings` on a free port and waits until it listens.
    /// Unless they say otherwise there is no Ollama, no NVML library and a short sample interval.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::of(agent_net(), settings)
    }

    /// The same with another build of the server.
    pub fn of(mut command: Command, settings: &[(&str, &str)]) -> Self {
        command
            .env("SERVER_HOST", "127.0.0.1")
            .env("SERVER_PORT", "0")
            .env("OLLAMA_URL", "http://127.0.0.1:9")
            .env("NVML_LIB", "/nonexistent/libnvidia-ml.so.1")
            .env("SAMPLE_INTERVAL", "200ms")
            .envs(settings.iter().copied())
            .arg("serve")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("agent-net starts");
        let (log, reader) = read_lines(child.stderr.take().expect("stderr is piped"));
        let is_secret = |name: &str| {
            matches!(name, "HEARTBEAT_URL" | "NOTIFY_URL" | "OLLAMA_TOKEN" | "ORCH_SECRET" | "WORKER_TOKEN")
        };
        let secrets = settings.iter().filter(|(name, value)| is_secret(name) && !value.is_empty());
        let secrets = secrets.map(|(_, value)| (*value).to_owned()).collect();
        let mut worker = Self { child, log, reader, secrets, addr: SocketAddr::from(([127, 0, 0, 1], 0)) };
        worker.addr = wait_for("the line `listening on http://ADDR`", || {
            if let Ok(Some(status)) = worker.child.try_wait() {
                panic!("agent-net ended with {status}:\n{}", worker.log());
            }
            let log = worker.log();
            let (_, rest) = log.split_once("listening on http://")?;
            rest.split_once('\n')?.0.trim().parse().ok()
        });
        worker
    }

    pub fn log(&self) -> String {
        lock(&self.log).clone()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("the worker is there");
    }

    /// Waits for its end; the whole log comes with it.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_for("the worker's end", || self.child.try_wait().expect("it is our child"));
        // Its last lines may be on their way. A process that it left behind would hold its stderr open.
        let end = Instant::now() + LAST_LINES;
        while !self.reader.is_finished() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        (status, self.log())
    }

    /// SIGTERM and the end that follows.
    pub fn stop(self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.wait()
    }

    pub fn get(&self, path: &str) -> Response {
        http::request(self.addr, "GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &str) -> Response {
        http::request(self.addr, "POST", path, &[], body.as_bytes())
    }

    /// `agent-net ack`, and what follows.
    pub fn acknowledge(&self) {
        let done = || self.log().matches("SIGUSR1: the errors so far are acknowledged").count();
        let before = done();
        let (status, _, err) = run(agent_net().args(["ack", "--pid", &self.pid().as_raw_nonzero().to_string()]));
        assert!(status.success(), "{err}");
        wait_for("the acknowledgement", || (done() > before).then_some(()));
    }

    /// A job's whole report; it must be a 200.
    pub fn report(&self) -> Value {
        let reply = self.post("/gpu-check", r#"{"agent_id":"demo-agent"}"#);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// The first report for which `wanted` holds.
    pub fn report_when(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let last = Mutex::new(Value::Null);
        let found = wait_until(|| {
            let report = self.report();
            if wanted(&report) {
                return Some(report);
            }
            *lock(&last) = report;
            None
        });
        found.unwrap_or_else(|| panic!("no report with {what}; the last one: {:#}", lock(&last)))
    }

    /// Pids of its living helpers.
    pub fn helpers(&self) -> Vec<Pid> {
        let pid = self.pid().as_raw_nonzero();
        // One file for each thread of the worker: the thread that spawned the helper is its parent there.
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
        let children = threads
            .flatten()
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
            .collect::<Vec<_>>()
            .join(" ");
        children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        for secret in self.secrets.iter().filter(|_| !thread::panicking()) {
            assert!(!log.contains(secret.as_str()), "a secret is in the log: {log}");
        }
        if thread::panicking() {
            eprintln!("--- the worker's log\n{}---", self.log());
        }
    }
}

/// What a program writes, line by line.
pub fn lines_of(output: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    read_lines(output).0
}

/// The same, and the thread that reads until all writers are gone.
fn read_lines(output: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let log = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&log);
    let reader = thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            lock(&sink).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    (log, reader)
}

/// The codes of a report's reasons.
pub fn codes(report: &Value) -> Vec<&str> {
    let reasons = report["health"]["reasons"].as_array().expect("reasons are a list");
    reasons.iter().map(|r| r["code"].as_str().expect("a code is text")).collect()
}

/// The machine stood still for seconds: the last sample is old, or a call that returns at once took long. No test of this
/// is about that, and a look later it is over.
pub fn stood_still(report: &Value) -> bool {
    let codes = codes(report);
    !codes.is_empty() && codes.iter().all(|code| matches!(*code, "STALE" | "GPU_SLOW"))
}

pub fn verdict(report: &Value) -> &str {
    report["health"]["verdict"].as_str().expect("the verdict is text")
}

/// What `look` finds, asked again and again; None when TIMEOUT is over.
pub fn wait_until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// What `look` finds at last.
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_until(look).unwrap_or_else(|| panic!("waited {TIMEOUT:?} in vain for {what}"))
}

/// Runs a program to its end: status, stdout, stderr. Killed when TIMEOUT is over.
pub fn run(command: &mut Command) -> (ExitStatus, String, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let err = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let out = thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        text
    });
    let status = wait_until(|| child.try_wait().expect("it is our child"));
    if status.is_none() {
        let _ = child.kill();
    }
    let (out, err) = (out.join().expect("read"), err.join().expect("read"));
    (status.unwrap_or_else(|| panic!("it did not end: {out}{err}")), out, err)
}

/// A lock that a failed test cannot poison for others.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fresh folder below cargo's own temporary one.
pub fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the folder can be made");
    path
}

/// An ordinary user: root may start threads beyond any limit.
const ORDINARY: u32 = 65_534;

/// The program as an ordinary user runs it, and the copy of it to be removed, if there is one.
pub fn ordinary_agent_net(name: &str) -> (Command, PathBuf) {
    let own = agent_net();
    let copy = std::env::temp_dir().join(format!("agent-net-{name}-{}", std::process::id()));
    if !geteuid().is_root() {
        return (own, copy);
    }
    // That user may not reach the folder of the build. By another process: a program that is open for writing, in a
    // child that another test starts at this moment as well, cannot be run.
    assert!(command("cp").arg(own.get_program()).arg(&copy).status().expect("cp").success());
    let mut ordinary = command(&copy);
    ordinary.uid(ORDINARY).gid(ORDINARY);
    (ordinary, copy)
}

/// A worker that may start no thread any more, once it is `ready`; None, with a word about it, where that cannot be.
pub fn without_new_threads(name: &str, settings: &[(&str, &str)], ready: impl Fn(&Worker)) -> Option<Worker> {
    let (limited, copy) = ordinary_agent_net(name);
    // Only the user itself may limit its processes.
    let mut limit = command("prlimit");
    if geteuid().is_root() {
        limit.uid(ORDINARY).gid(ORDINARY);
    }
    let worker = Worker::of(limited, settings);
    let _ = std::fs::remove_file(copy);
    ready(&worker);
    // The user has more already.
    limit.args(["--nproc=1", "--pid", &worker.pid().as_raw_nonzero().to_string()]);
    let Ok(status) = limit.status() else {
        skip("there is no prlimit here");
        return None;
    };
    assert!(status.success());
    Some(worker)
}

/// A file system of a given size; gone on drop.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, with a line that says so, where no file system may be mounted.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        let mounted = Self::run(at, &format!("size={size}"));
        if !mounted {
            println!("skipped: no file system may be mounted here");
        }
        mounted.then(|| Self(at.to_owned()))
    }

    #[track_caller]
    pub fn resize(&self, size: &str) {
        assert!(Self::run(&self.0, &format!("remount,size={size}")));
    }

    fn run(at: &Path, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at);
        mount.output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
