//! scripts/poll.sh, job.sh and demo.sh, by every shell that is here.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::fake_ollama::{Answer, FakeOllama, MODEL};
use crate::fake_orchestrator::{Behavior, FakeOrchestrator};
use crate::gpus::start;
use crate::harness::{Worker, command, folder, run, skip, verdict};
use crate::nvml::FakeNvml;

/// Debian's own, and the one of small images.
const SHELLS: [&[&str]; 2] = [&["dash"], &["busybox", "ash"]];

/// A script by this shell; None, with a line that says so, where that shell is missing. With CI=true it must be there.
fn script(shell: &[&str], name: &str, args: &[&str]) -> Option<Command> {
    let there = Command::new(shell[0]).args(&shell[1..]).args(["-c", ":"]).output().is_ok_and(|o| o.status.success());
    if !there {
        skip(&format!("{} is missing", shell[0]));
        return None;
    }
    let mut command = command(shell[0]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    command.args(&shell[1..]).arg(path).args(args);
    Some(command)
}

/// Exit code, stdout and stderr by each shell.
pub fn by_all_shells(name: &str, args: &[&str], settings: &[(&str, &str)]) -> Vec<(i32, String, String)> {
    let commands = SHELLS.iter().filter_map(|shell| script(shell, name, args));
    let ended = commands.map(|mut command| run(command.envs(settings.iter().copied())));
    ended.map(|(status, out, err)| (status.code().expect("it exits"), out, err)).collect()
}

#[test]
fn poll_prints_a_line_and_exits_with_the_verdict() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = start(&ollama, &nvml, &[("WORKER_TOKEN", "s3cret-token")]);
    let at = format!("http://{}", worker.addr);
    let token = [("WORKER_TOKEN", "s3cret-token")];
    for (library, word, code) in [
        ("gpus=2", "ok", 0),
        ("gpus=2\ngpu1.temperature=95", "degraded", 1),
        ("gpus=2\ngpu1.handle=15", "unhealthy", 2),
    ] {
        nvml.set(library);
        crate::harness::wait_for(word, || {
            let answer = crate::http::request(worker.addr, "GET", "/gpu", &["Authorization: Bearer s3cret-token"], b"");
            // 503 before the first sample.
            (answer.status == 200 && verdict(&answer.json()) == word).then_some(())
        });
        for (rc, out, err) in by_all_shells("poll.sh", &["--once", &at], &token) {
            assert_eq!((rc, err.as_str(), out.lines().count()), (code, "", 1), "{out}");
            assert_eq!(out.split(' ').nth(1), Some(word));
            assert!(out.contains(" gpus=") && out.contains(MODEL), "{out}");
        }
        for (rc, out, _) in by_all_shells("poll.sh", &["--once", "--csv", &at], &token) {
            let lines: Vec<&str> = out.lines().collect();
            assert_eq!((rc, lines.len()), (code, 2), "{out}");
            assert_eq!(lines[0].split(',').count(), lines[1].split(',').count(), "{out}");
            assert_eq!(lines[1].split(',').nth(1), Some(word));
        }
    }
    // The token is not in the arguments, and without it the state is unknown.
    for (rc, out, _) in by_all_shells("poll.sh", &["--once", &at], &[]) {
        assert!(rc == 3 && out.contains(" unknown "), "{out}");
    }
    for (rc, out, err) in by_all_shells("poll.sh", &["--once", "http://127.0.0.1:1"], &[]) {
        assert!(rc == 3 && out.contains(" unknown ") && !err.is_empty(), "{out}{err}");
    }
    for args in [["--interval", "x"], ["--interval", "0"], ["nonsense", "--once"]] {
        for (rc, _, err) in by_all_shells("poll.sh", &args, &[]) {
            assert!(rc == 64 && err.starts_with("poll: "), "{err}");
        }
    }
}

#[test]
fn job_reports_what_became_of_each_job() {
    let worker = Worker::start(&[]);
    let at = format!("http://{}", worker.addr);
    let args = ["--worker", &at, "--jobs", "5", "--delay", "0", "--capability", "a,b"];
    for (rc, out, err) in by_all_shells("job.sh", &args, &[]) {
        assert_eq!((rc, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("a: 3 jobs, 3 answered, 0 failed") && out.contains("b: 2 jobs, 2 answered"), "{out}");
    }
    let gateway = FakeOllama::new();
    let url = gateway.url();
    let args = ["--gateway", &url, "--jobs", "1", "--agent", "me"];
    let path = "/process/request/agent-net";
    for (answer, result) in [
        (Answer::Json(r#"{"status":"success","vram_usage_mb":6321}"#.into()), "1 answered"),
        (Answer::Json(String::new()), "empty_200"),
        (Answer::Json("<html>".into()), "strange_200"),
        (Answer::Status(503, "no orchestrators".into()), "status_503"),
        (Answer::HangUp, "no_answer"),
    ] {
        gateway.set(path, answer);
        for (rc, out, _) in by_all_shells("job.sh", &args, &[]) {
            assert!(out.contains(result), "{out}");
            assert_eq!(rc, i32::from(result != "1 answered"), "{out}");
        }
    }
    assert!(gateway.bodies(path).iter().all(|body| body == r#"{"agent_id":"me"}"#));
    for args in
        [["--jobs", "x"], ["--gateway", "ftp://x"], ["--capability", "a\"b"], ["--what", "x"], ["--timeout", ""]]
    {
        for (rc, _, err) in by_all_shells("job.sh", &args, &[]) {
            assert!(rc == 64 && err.starts_with("job: "), "{err}");
        }
    }
}

#[test]
fn job_sends_the_header_of_a_gateways_client() {
    use base64::Engine;
    let gateway = FakeOrchestrator::new(Behavior::Ok);
    let url = gateway.url();
    by_all_shells(
        "job.sh",
        &["--gateway", &url, "--jobs", "1", "--timeout", "20"],
        &[("CAPABILITY_NAME", "agent-net-nyc")],
    );
    let requests = gateway.requests("/process/request/agent-net");
    assert!(!requests.is_empty());
    for request in requests {
        let header = request.header("livepeer").expect("the header");
        let text = base64::engine::general_purpose::STANDARD.decode(header).expect("base64");
        let job: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!((&job["capability"], &job["timeout_seconds"]), (&"agent-net-nyc".into(), &20.into()));
        for part in ["request", "parameters"] {
            let inner = job[part].as_str().expect("JSON in a string");
            assert!(serde_json::from_str::<serde_json::Value>(inner).expect("JSON").is_object(), "{job}");
        }
    }
}

/// As the original testers were: the more Ollama holds, the sooner the next job comes.
#[test]
fn jobs_are_paced_by_the_answer() {
    let gateway = FakeOllama::new();
    let url = gateway.url();
    let folder = folder("sleep");
    let sleep = folder.join("sleep");
    // Prints how long it should sleep, and does not.
    std::fs::write(&sleep, "#!/bin/sh\necho \"$1\" >>\"$SLEPT\"\n").expect("a file");
    std::fs::set_permissions(&sleep, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("a PATH"));
    for (mb, seconds) in [(0, "15"), (1000, "15"), (1001, "5"), (30_000, "5"), (30_001, "0")] {
        let body = format!(r#"{{"status":"success","vram_usage_mb":{mb}}}"#);
        gateway.set("/process/request/agent-net", Answer::Json(body));
        let slept = folder.join(format!("slept-{mb}"));
        let Some(mut job) = script(SHELLS[0], "job.sh", &["--gateway", &url, "--jobs", "3"]) else { return };
        let (status, out, err) = run(job.env("PATH", &path).env("SLEPT", &slept));
        assert!(status.success(), "{out}{err}");
        let slept = std::fs::read_to_string(slept).expect("it slept");
        assert_eq!(slept.lines().collect::<Vec<_>>(), [seconds; 2], "{mb} MB");
    }
}

#[test]
fn ctrl_c_ends_with_the_statistics() {
    let worker = Worker::start(&[]);
    let at = format!("http://{}", worker.addr);
    for shell in SHELLS {
        let Some(mut command) = script(shell, "job.sh", &["--worker", &at, "--delay", "5"]) else { continue };
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut out = child.stdout.take().expect("piped");
        // The first answer has come.
        let mut text = [0; 64];
        let read = out.read(&mut text).expect("a line");
        assert!(String::from_utf8_lossy(&text[..read]).contains("agent-net ok"));
        thread::sleep(Duration::from_millis(100));
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
        let mut rest = String::new();
        out.read_to_string(&mut rest).expect("text");
        assert_eq!(child.wait().expect("our child").code(), Some(0), "{rest}");
        assert!(rest.contains("1 jobs, 1 answered, 0 failed"), "{rest}");
    }
}

#[test]
fn the_demonstration_shows_the_whole_chain() {
    let mut command = script(&["sh"], "demo.sh", &["--once"]).expect("every machine has one");
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    // Most of what it builds is there already, but not on every machine within the timeout of `run`.
    let output = command.output().expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    for part in
        ["\"url\":\"http", "3 jobs, 3 answered", " degraded ", "TEMP_HIGH", " unhealthy ", "GPU_LOST", "no real GPU"]
    {
        assert!(out.contains(part), "{part}: {out}{err}");
    }
}
