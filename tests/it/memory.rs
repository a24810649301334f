//! What connections take of memory: a thousand are kept in 64 MiB, no crowd of large requests takes more, and a model's
//! connection to Ollama takes little.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::fake_ollama::FakeOllama;
use crate::harness::{Worker, command, wait_for};
use crate::http::Connection;
use crate::jobs::{bytes, job};
use crate::programs;

const LIMIT: u64 = 64 << 20;
const CONNECTIONS: usize = 1000;

/// A control group of the worker alone, with the limit that compose sets; removed on drop. It counts what the kernel holds
/// for the worker as well.
struct Group(PathBuf);

impl Group {
    /// None: no control group can be made here.
    fn new(name: &str) -> Option<Self> {
        let name = format!("agent-net-{name}-{}", std::process::id());
        for (root, limit) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let group = Path::new(root).join(&name);
            if fs::create_dir(&group).is_ok() {
                if fs::write(group.join(limit), LIMIT.to_string()).is_ok() {
                    return Some(Self(group));
                }
                let _ = fs::remove_dir(&group);
            }
        }
        println!("no control group can be made here: the process's own memory is looked at alone");
        None
    }

    /// Most bytes so far.
    fn peak(&self) -> u64 {
        let read = |file: &str| fs::read_to_string(self.0.join(file)).ok()?.trim().parse().ok();
        read("memory.max_usage_in_bytes").or_else(|| read("memory.peak")).unwrap_or_default()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A worker in the group; dropped before it.
struct Scene {
    worker: Worker,
    _ollama: FakeOllama,
    group: Option<Group>,
}

impl Scene {
    fn new(name: &str) -> Self {
        // For this process's own side of all connections.
        let mut files = getrlimit(Resource::Nofile);
        files.current = files.maximum.map_or(Some(8192), |most| Some(most.min(8192)));
        setrlimit(Resource::Nofile, files).expect("as many as are allowed");
        let (ollama, group) = (FakeOllama::new(), Group::new(name));
        let mut shell = command("/bin/sh");
        let enter = group.as_ref().map_or_else(String::new, |g| format!("echo $$ >{}/cgroup.procs && ", g.0.display()));
        shell.args(["-c", &format!("{enter}exec \"$0\" \"$@\""), programs::server()]);
        let url = ollama.url();
        let worker = Worker::of(shell, &[("OLLAMA_URL", url.as_str()), ("EXPECTED_GPUS", "0")]);
        wait_for("the first sample", || (worker.post("/gpu-check", &job("a")).status == 200).then_some(()));
        Self { worker, _ollama: ollama, group }
    }

    /// Nothing has taken more than there is, and no connection was closed for it.
    #[track_caller]
    fn check_memory(&self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.worker.pid().as_raw_nonzero())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
        let kib: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
        // With the page cache, which gives way: in a group that is too small the kernel would have ended the worker.
        println!("resident: {kib} KiB at most; all: {:?} bytes", self.group.as_ref().map(Group::peak));
        assert!(kib << 10 < LIMIT, "{kib} KiB were resident");
    }
}

#[test]
fn a_thousand_kept_connections_do_jobs_in_64_mib() {
    let scene = Scene::new("kept");
    let mut all: Vec<Connection> = (0..CONNECTIONS).map(|_| Connection::open(scene.worker.addr)).collect();
    for round in 0..3 {
        for (number, one) in all.iter_mut().enumerate() {
            let id = format!("{round}-{number}");
            one.send(&bytes("POST", "/gpu-check", &job(&id))).unwrap();
            let answer = one.answer().unwrap_or_else(|why| panic!("{id}: {why}"));
            assert_eq!((answer.status, &answer.json()["agent_id"]), (200, &id.into()));
        }
    }
    assert!(!scene.worker.log().contains("connections at a time"), "none is too many: {}", scene.worker.log());
    scene.check_memory();
}

#[test]
fn a_thousand_large_requests_that_never_end_keep_within_it_and_others_are_served() {
    let scene = Scene::new("large");
    // One that has never sent a request would be closed with the crowd.
    let mut good = Connection::open(scene.worker.addr);
    good.send(&bytes("POST", "/gpu-check", &job("good"))).unwrap();
    assert_eq!(good.answer().unwrap().status, 200);
    let large = vec![b'a'; 65_000];
    let begin = |number: usize| {
        let head: &[u8] = match number % 3 {
            0 => b"POST /gpu-check HTTP/1.1\r\nHost: x\r\nX-Large: ",
            1 => b"POST /gpu-check HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n",
            _ => b"POST /gpu-check HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfff0\r\n",
        };
        let connection = Connection::open(scene.worker.addr);
        // Those who came before may have been closed, and this one be refused.
        let _ = connection.stream().write_all(head).and_then(|()| connection.stream().write_all(&large));
        connection
    };
    let mut crowd: Vec<Connection> = (0..CONNECTIONS).map(begin).collect();
    for _ in 0..50 {
        good.send(&bytes("POST", "/gpu-check", &job("good"))).unwrap();
        assert_eq!(good.answer().expect("the worker lives").status, 200);
    }
    // The worker says why.
    let refused = crowd.iter_mut().filter_map(|one| one.answer().ok());
    assert!(refused.take(1).all(|answer| matches!(answer.status, 408 | 503)));
    scene.check_memory();
}

/// Each has a connection of its own, whose buffers have 256 KiB unless they are set.
#[test]
fn sixteen_models_take_little_memory() {
    let ollama = FakeOllama::new();
    let url = ollama.url();
    let resident = |models: &str, lists: usize| {
        let before = ollama.requests("/api/tags");
        let worker = Worker::start(&[("OLLAMA_URL", url.as_str()), ("EXPECTED_GPUS", "0"), ("MODEL", models)]);
        wait_for("the lists", || (ollama.requests("/api/tags") >= before + lists).then_some(()));
        let status = fs::read_to_string(format!("/proc/{}/status", worker.pid().as_raw_nonzero())).unwrap();
        let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
        own.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let names: Vec<String> = (0..16).map(|i| format!("m{i}")).collect();
    let (none, all) = (resident("", 1), resident(&names.join(","), 16));
    println!("resident: {none} KiB without a model, {all} KiB with sixteen");
    assert!(all < none + 16 * 300, "{all} KiB with sixteen models, {none} KiB without one");
}
