//! systemd's notifications, received by a socket of the test.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::fake_ollama::FakeOllama;
use crate::gpus::start;
use crate::harness::{TIMEOUT, Worker, command, folder, lock, skip, wait_for};
use crate::nvml::FakeNvml;
use crate::programs;

/// The receiving end of systemd. Compared with systemd's own by man/sd_notify.xml: names, keys, one datagram a message.
pub struct FakeSystemd {
    name: String,
    messages: Arc<Mutex<Vec<String>>>,
}

impl FakeSystemd {
    pub fn at_path(path: &Path) -> Self {
        Self::of(UnixDatagram::bind(path).unwrap(), path.to_str().unwrap().to_owned())
    }

    fn at_abstract(name: &str) -> Self {
        let addr = SocketAddr::from_abstract_name(name).unwrap();
        Self::of(UnixDatagram::bind_addr(&addr).unwrap(), format!("@{name}"))
    }

    fn of(socket: UnixDatagram, name: String) -> Self {
        let systemd = Self { name, messages: Arc::default() };
        let messages = Arc::clone(&systemd.messages);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = socket.recv(&mut bytes) {
                lock(&messages).push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
        });
        systemd
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn messages(&self) -> Vec<String> {
        lock(&self.messages).clone()
    }

    /// The first message that begins like this.
    #[track_caller]
    pub fn wait_for(&self, start: &str) -> String {
        wait_for(start, || self.messages().into_iter().find(|message| message.starts_with(start)))
    }

    fn count(&self, start: &str) -> usize {
        self.messages().iter().filter(|message| message.starts_with(start)).count()
    }
}

/// From the start to the end, in this order.
fn check_life(systemd: &FakeSystemd) {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2\ngpu1.temperature=95"));
    let worker = start(&ollama, &nvml, &[("NOTIFY_SOCKET", systemd.name()), ("WATCHDOG_USEC", "600000")]);
    systemd.wait_for("STATUS=degraded: TEMP_HIGH GPU 1");
    systemd.wait_for("WATCHDOG=1");
    nvml.set("gpus=2");
    systemd.wait_for("STATUS=ok");
    worker.signal(Signal::HUP);
    let reload = systemd.wait_for("RELOADING=1\nMONOTONIC_USEC=");
    let micros: u64 = reload.rsplit('=').next().unwrap().parse().expect("a number");
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!(micros > 0 && micros as f64 / 1e6 <= seconds + 1.0, "{reload} {uptime}");
    wait_for("a second READY", || (systemd.count("READY=1") == 2).then_some(()));
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    let messages = systemd.messages();
    let mut known: Vec<&str> = messages.iter().map(|m| m.split(['=', '\n']).next().unwrap()).collect();
    known.retain(|key| !["STATUS", "WATCHDOG"].contains(key));
    assert_eq!(known, ["READY", "RELOADING", "READY", "STOPPING"], "{messages:?}");
    assert_eq!(messages[0], "READY=1", "{messages:?}");
}

#[test]
fn a_life_is_reported_to_a_socket_with_a_path_and_to_an_abstract_one() {
    check_life(&FakeSystemd::at_path(&folder("systemd").join("notify")));
    check_life(&FakeSystemd::at_abstract(&format!("agent-net-test-{}", std::process::id())));
}

#[test]
fn the_sign_of_life_ends_with_the_service() {
    let systemd = FakeSystemd::at_path(&folder("systemd-deaf").join("notify"));
    let settings = [("NOTIFY_SOCKET", systemd.name()), ("WATCHDOG_USEC", "30000000")];
    let watched = Worker::start(&[&settings[..], &[("AGENT_NET_FAULT", "watched")]].concat());
    wait_for("three signs of life", || (systemd.count("WATCHDOG=1") >= 3).then_some(()));
    watched.stop();
    let before = systemd.count("WATCHDOG=1");
    let deaf = Worker::start(&[&settings[..], &[("AGENT_NET_FAULT", "deaf")]].concat());
    let (status, log) = deaf.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    // It accepts one connection: that of the first look.
    assert!(systemd.count("WATCHDOG=1") <= before + 1, "{:?}", systemd.messages());
}

#[test]
fn the_watchdog_of_another_process_is_not_ours() {
    let systemd = FakeSystemd::at_path(&folder("systemd-other").join("notify"));
    let settings = [("NOTIFY_SOCKET", systemd.name()), ("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")];
    let worker = Worker::start(&[&settings[..], &[("AGENT_NET_FAULT", "watched")]].concat());
    // One that starts later looks at itself as often.
    let other = FakeSystemd::at_path(&folder("systemd-own").join("notify"));
    let settings = [("NOTIFY_SOCKET", other.name()), ("WATCHDOG_USEC", "100000"), ("AGENT_NET_FAULT", "watched")];
    let _later = Worker::start(&settings);
    wait_for("ten signs of life", || (other.count("WATCHDOG=1") >= 10).then_some(()));
    systemd.wait_for("STATUS=");
    worker.stop();
    assert_eq!(systemd.count("WATCHDOG"), 0, "{:?}", systemd.messages());
}

#[test]
fn the_helper_cannot_speak_for_the_service() {
    let systemd = FakeSystemd::at_path(&folder("systemd-helper").join("notify"));
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let own = std::process::id().to_string();
    let more = [("NOTIFY_SOCKET", systemd.name()), ("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", own.as_str())];
    // Sockets of another process.
    let sockets = [("LISTEN_FDS", "1"), ("LISTEN_PID", "1"), ("LISTEN_FDNAMES", "jobs")];
    let more = [&more[..], &sockets].concat();
    let worker = start(&ollama, &nvml, &more);
    let helper = wait_for("the helper", || worker.helpers().pop());
    let environment =
        |pid: rustix::process::Pid| std::fs::read_to_string(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap();
    let is_there = |text: &str, name: &str| text.split('\0').any(|pair| pair.starts_with(&format!("{name}=")));
    // It has its own environment once its program runs.
    let theirs =
        wait_for("its environment", || Some(environment(helper)).filter(|text| is_there(text, "MALLOC_ARENA_MAX")));
    for (name, _) in more {
        assert!(is_there(&environment(worker.pid()), name) && !is_there(&theirs, name), "{name}: {theirs}");
    }
}

#[test]
fn a_socket_that_is_missing_or_full_changes_nothing() {
    for name in ["/nonexistent/notify", "@agent-net-without-a-listener", "vsock:2:1", "", "@"] {
        let worker = Worker::start(&[("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "100000")]);
        worker.report_when("a report", |report| report["status"] == "success");
        let (status, log) = worker.stop();
        assert_eq!(status.code(), Some(0), "{name}: {log}");
        assert!(!log.contains("NOTIFY_SOCKET"), "{name}: {log}");
    }
    let path = folder("systemd-full").join("notify");
    // Nothing reads it.
    let full = UnixDatagram::bind(&path).unwrap();
    full.set_read_timeout(Some(TIMEOUT)).unwrap();
    let settings =
        [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "3000"), ("AGENT_NET_FAULT", "watched")];
    let worker = Worker::start(&settings);
    wait_for("many jobs", || (0..200).all(|_| worker.get("/health").status == 200).then_some(()));
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_busy_systemd_still_learns_that_the_service_is_ready() {
    let path = folder("systemd-busy").join("notify");
    let busy = UnixDatagram::bind(&path).unwrap();
    busy.set_read_timeout(Some(TIMEOUT)).unwrap();
    let others = UnixDatagram::unbound().unwrap();
    others.set_nonblocking(true).unwrap();
    while others.send_to(b"of other services", &path).is_ok() {}
    let settings = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("LOG_LEVEL", "debug"), ("SAMPLE_INTERVAL", "100ms")];
    let worker = Worker::start(&settings);
    // READY and STATUS.
    wait_for("two failures", || (worker.log().matches("NOTIFY_SOCKET: ").count() >= 2).then_some(()));
    let mut missing = vec!["READY=1", "STATUS="];
    let mut bytes = [0; 4096];
    while !missing.is_empty() {
        let length = busy.recv(&mut bytes).expect("both arrive");
        missing.retain(|start| !bytes[..length].starts_with(start.as_bytes()));
    }
    worker.stop();
}

#[test]
fn systemd_accepts_the_unit() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/agent-net.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    assert!(text.contains("\nType=notify\nNotifyAccess=main\nWatchdogSec="), "{text}");
    // The program need not be installed where the unit says.
    let copy = folder("systemd-unit").join("agent-net.service");
    std::fs::write(&copy, text.replace("/usr/local/bin/agent-net", programs::server())).unwrap();
    let socket = copy.with_extension("socket");
    std::fs::copy(unit.with_extension("socket"), &socket).unwrap();
    let Ok(output) = command("systemd-analyze").arg("verify").args([&copy, &socket]).output() else {
        return skip("systemd-analyze is missing");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("agent-net."), "{said}");
}
