//! What a job on a kept connection costs: system calls, counted by strace.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::fake_ollama::FakeOllama;
use crate::harness::{Worker, folder, skip, wait_for};
use crate::http::Connection;
use crate::jobs::{beside, bytes, job};

const JOBS: usize = 1000;

/// `(calls, name)` of strace's table.
fn calls(table: &str) -> Vec<(usize, &str)> {
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter_map(|columns| Some((columns.get(3)?.parse().ok()?, *columns.last()?))).collect()
}

/// The system calls of all threads that serve connections while the jobs are done.
fn traced(worker: &Worker, connection: &mut Connection) -> Option<Vec<(usize, String)>> {
    let (dir, pid) = (folder("strace"), worker.pid().as_raw_nonzero());
    let mut ask = |id: &str| {
        connection.send(&bytes("POST", "/gpu-check", &job(id))).unwrap();
        assert_eq!(connection.answer().unwrap().status, 200);
    };
    // Its thread has been given its timeouts by then.
    (0..3).for_each(|_| ask("first"));
    let mut traced = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        if fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == "connection") {
            traced.extend(["-p".to_owned(), thread.file_name().into_string().unwrap()]);
        }
    }
    let (table, log) = (dir.join("table"), dir.join("log"));
    let mut strace = Command::new("strace")
        .arg("-c")
        .arg("-o")
        .arg(&table)
        .args(&traced)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let wanted = traced.len() / 2;
    let attached = wait_for("strace", || {
        let text = fs::read_to_string(&log).unwrap();
        let refused = text.contains("Operation not permitted");
        (refused || text.matches("attached").count() >= wanted).then_some(!refused)
    });
    if !attached {
        let _ = strace.wait();
        skip("strace may not look at processes here");
        return None;
    }
    (0..JOBS).for_each(|_| ask("a"));
    kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
    strace.wait().unwrap();
    let table = fs::read_to_string(&table).unwrap();
    Some(calls(&table).into_iter().map(|(count, name)| (count, name.to_owned())).collect())
}

#[test]
fn a_job_on_a_kept_connection_is_one_receive_and_one_send() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip("strace is not installed");
    }
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let mut connection = Connection::open(worker.addr);
    let mut last = Vec::new();
    // On a busy machine some jobs take long, and their clients are looked at: another try.
    for _ in 0..5 {
        let Some(calls) = traced(&worker, &mut connection) else { return };
        let of = |name: &str| calls.iter().find(|(_, called)| called == name).map_or(0, |(count, _)| *count);
        let total: usize = calls.iter().filter(|(_, name)| name != "total").map(|(count, _)| count).sum();
        assert!(of("sendto") >= JOBS && of("recvfrom") >= JOBS, "{calls:?}");
        // Beside these: memory that is taken, and threads that wait for connections.
        if total <= 2 * JOBS + JOBS / 20 && of("futex") <= JOBS / 50 {
            return;
        }
        last = calls;
    }
    panic!("more than one receive and one send a job: {last:?}");
}
