//! What a worker takes of memory: a thousand connections are kept in 64 MiB, no crowd of large requests or of clients that
//! do not read takes more, nor do many models and a long list of them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::fake_ollama::{Answer, FakeOllama};
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
    ollama: FakeOllama,
    group: Option<Group>,
}

impl Scene {
    fn new(name: &str) -> Self {
        Self::with(name, FakeOllama::new(), &[])
    }

    fn with(name: &str, ollama: FakeOllama, settings: &[(&str, &str)]) -> Self {
        // For this process's own side of all connections.
        let mut files = getrlimit(Resource::Nofile);
        files.current = files.maximum.map_or(Some(8192), |most| Some(most.min(8192)));
        setrlimit(Resource::Nofile, files).expect("as many as are allowed");
        let group = Group::new(name);
        let mut shell = command("/bin/sh");
        let enter = group.as_ref().map_or_else(String::new, |g| format!("echo $$ >{}/cgroup.procs && ", g.0.display()));
        shell.args(["-c", &format!("{enter}exec \"$0\" \"$@\""), programs::server()]);
        let url = ollama.url();
        let worker = Worker::of(shell, &[&[("OLLAMA_URL", url.as_str()), ("EXPECTED_GPUS", "0")], settings].concat());
        wait_for("the first sample", || (worker.post("/gpu-check", &job("a")).status == 200).then_some(()));
        Self { worker, ollama, group }
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
    let does_a_job = |one: &mut Connection, id: String| {
        one.send(&bytes("POST", "/gpu-check", &job(&id))).unwrap();
        let answer = one.answer().unwrap_or_else(|why| panic!("{id}: {why}"));
        assert_eq!((answer.status, &answer.json()["agent_id"]), (200, &id.into()));
    };
    // A new one has 10 s for its first request, which a busy machine may need for all of them.
    let open = |number| {
        let mut connection = Connection::open(scene.worker.addr);
        does_a_job(&mut connection, format!("0-{number}"));
        connection
    };
    let mut all: Vec<Connection> = (0..CONNECTIONS).map(open).collect();
    for round in 1..3 {
        for (number, one) in all.iter_mut().enumerate() {
            does_a_job(one, format!("{round}-{number}"));
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

/// It must not be closed as one that is slow to send: those who hold all of it have been answered once, and stay.
#[test]
fn who_waits_for_memory_in_vain_gets_a_503() {
    let scene = Scene::new("spent");
    if scene.group.is_none() {
        // Without a limit there is too much of it.
        return;
    }
    let large = format!("{{\"agent_id\":\"a\",\"more\":\"{}\"}}", "a".repeat(60_000));
    let whole = bytes("POST", "/gpu-check", &large);
    let part = &whole[..whole.len() - 1];
    let _crowd: Vec<Connection> = (0..100)
        .map(|_| {
            let mut connection = Connection::open(scene.worker.addr);
            connection.send(&bytes("POST", "/gpu-check", &job("a"))).unwrap();
            assert_eq!(connection.answer().unwrap().status, 200);
            let _ = connection.send(part);
            connection
        })
        .collect();
    wait_for("no memory to be left", || {
        let mut connection = Connection::open(scene.worker.addr);
        connection.send(&whole).unwrap();
        (connection.answer().expect("an answer").status == 503).then_some(())
    });
}

fn many_models(count: usize) -> Answer {
    let model = |number| {
        let digest = format!("{number:064x}");
        let details = json!({"format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "70.6B",
            "quantization_level": "Q4_K_M", "parent_model": ""});
        json!({"name": format!("registry.example/team/model-{number}:70b-instruct-q4_K_M"), "digest": digest,
            "size": 42_520_413_916_u64, "modified_at": "2026-11-26T08:15:30.123456789+01:00", "details": details})
    };
    Answer::Json(json!({"models": (0..count).map(model).collect::<Vec<_>>()}).to_string())
}

/// What they do not take is held in a budget that all answers share.
#[test]
fn clients_that_do_not_read_cost_others_no_job() {
    let scene = Scene::new("deaf");
    scene.ollama.set("/api/tags", many_models(500));
    let mut good = Connection::open(scene.worker.addr);
    wait_for("a long report", || {
        good.send(&bytes("POST", "/gpu-check", &job("good"))).unwrap();
        (good.answer().unwrap().body.len() > 16 << 10).then_some(())
    });
    let flood = bytes("GET", "/metrics", "").repeat(50);
    let deaf: Vec<Connection> = (0..100)
        .map(|_| {
            let mut connection = Connection::open(scene.worker.addr);
            // Otherwise the kernel takes megabytes for each of them.
            set_socket_recv_buffer_size(connection.stream(), 4096).expect("a small buffer");
            let _ = connection.send(&flood);
            connection
        })
        .collect();
    for number in 0..200 {
        good.send(&bytes("POST", "/gpu-check", &job("good"))).unwrap();
        let answer = good.answer().expect("the worker lives");
        assert_eq!(answer.status, 200, "{number}: {}", answer.text());
    }
    drop(deaf);
    scene.check_memory();
}

/// Each keeper asks for it, and what answers in Ollama's place may be of any size as well.
#[test]
fn sixteen_models_and_a_long_list_take_the_memory_of_one() {
    let names: Vec<String> = (0..16).map(|i| format!("m{i}")).collect();
    let names = names.join(",");
    for (name, list) in [("long", many_models(4_500)), ("huge", Answer::Huge(20 << 20))] {
        let ollama = FakeOllama::new();
        ollama.set("/api/tags", list);
        // The static build has one heap for all threads.
        let settings = [("MODEL", names.as_str()), ("MALLOC_ARENA_MAX", "1")];
        let scene = Scene::with(name, ollama, &settings);
        wait_for("several rounds of all", || (scene.ollama.requests("/api/tags") > 8).then_some(()));
        scene.check_memory();
    }
}

/// The buffers of a connection have 256 KiB unless they are set.
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
    let (none, all) = (resident("", 1), resident(&names.join(","), 4));
    println!("resident: {none} KiB without a model, {all} KiB with sixteen");
    assert!(all < none + 16 * 300, "{all} KiB with sixteen models, {none} KiB without one");
}
