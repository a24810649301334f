//! `check` with several --url: one line each, the worst exit code.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama};
use crate::gpus::start;
use crate::harness::{Worker, agent_net, run, verdict};
use crate::nvml::FakeNvml;

/// `agent-net check` of these workers: exit code, stdout, stderr.
fn check(urls: &[&str], args: &[&str]) -> (i32, String, String) {
    let urls = urls.iter().flat_map(|url| ["--url", url]);
    let (status, out, err) = run(agent_net().arg("check").args(urls).args(args));
    (status.code().expect("it exits"), out, err)
}

fn url(worker: &Worker) -> String {
    format!("http://{}", worker.addr)
}

#[test]
fn each_worker_is_a_line_and_the_exit_code_is_the_worst() {
    let ollama = FakeOllama::new();
    let nvmls = ["gpus=2", "gpu0.temperature=95", "gpus=2\ngpu1.handle=15"].map(FakeNvml::new);
    let workers = [0, 1, 2].map(|at| start(&ollama, &nvmls[at], &[]));
    for (worker, word) in workers.iter().zip(["ok", "degraded", "unhealthy"]) {
        worker.report_when(word, |report| verdict(report) == word);
    }
    let [ok, degraded, unhealthy] = [0, 1, 2].map(|at| url(&workers[at]));
    let dead = "http://127.0.0.1:9";
    let (rc, out, err) = check(&[&ok, dead, &unhealthy, &degraded], &[]);
    assert_eq!((rc, err.as_str()), (2, ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4, "{out}");
    let starts = [
        format!("{ok} ok: 2 of 2 GPUs usable, 1 model"),
        format!("{dead} unknown: does not respond: connection refused"),
        format!("{unhealthy} unhealthy (GPU_LOST): 1 of 2 GPUs usable"),
        format!("{degraded} degraded (TEMP_HIGH): 1 of 1 GPUs usable"),
    ];
    for (line, start) in lines.iter().zip(&starts) {
        assert!(line.starts_with(start), "{start}: {out}");
    }
    // An unknown worker is worse than one that is ok, and better than one that is known to be degraded.
    for (urls, code) in [(&[&*ok, &*ok][..], 0), (&[&ok, dead], 3), (&[dead, &degraded], 1), (&[&degraded, &ok], 1)] {
        assert_eq!(check(urls, &[]).0, code, "{urls:?}");
    }

    let (rc, out, _) = check(&[&degraded, dead], &["--json"]);
    let all: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((rc, out.lines().count(), all.as_array().map(Vec::len)), (1, 1, Some(2)), "{out}");
    assert_eq!((&all[0]["url"], verdict(&all[0])), (&json!(degraded), "degraded"));
    assert_eq!(
        (&all[1]["url"], &all[1]["status"], &all[1]["code"]),
        (&json!(dead), &json!("error"), &json!("unreachable"))
    );

    let (rc, out, _) = check(&[&ok, dead], &["--text"]);
    let blocks: Vec<&str> = out.split("\n\n").collect();
    assert!(blocks[0].starts_with(&format!("url='{ok}'\nverdict=ok\n")), "{out}");
    assert!(
        blocks[1].starts_with(&format!("url='{dead}'\nverdict=unknown\nerror='{dead}/gpu?format=text does not")),
        "{out}"
    );
    assert_eq!((rc, blocks.len()), (3, 2), "{out}");
}

#[test]
fn a_token_in_the_url_is_sent_and_never_shown() {
    let nvml = FakeNvml::new("");
    let worker = start(&FakeOllama::new(), &nvml, &[("WORKER_TOKEN", "s3cret")]);
    let with = |login: &str| format!("http://{login}{}", worker.addr);
    let known = |out: &str| out.contains("GPUs usable");
    crate::harness::wait_for("a first sample", || known(&check(&[&with(":s3cret@")], &[]).1).then_some(()));
    let (_, out, err) = check(&[&with(":s3cret@"), &with("any:s3cret@"), &with(""), &with(":wr0ng@")], &[]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(known(lines[0]) && known(lines[1]), "{out}");
    assert!(lines[2..].iter().all(|line| line.contains("unknown: requires the worker's token")), "{out}");
    let mut all = out + &err;
    for args in [&["--json"][..], &["--text"]] {
        let (_, out, err) = check(&[&with(":s3cret@"), &with(":wr0ng@")], args);
        all.push_str(&(out + &err));
    }
    // WORKER_TOKEN is for those without a login of their own.
    let (plain, other) = (with(""), with(":wr0ng@"));
    let mut command = agent_net();
    command.env("WORKER_TOKEN", "s3cret").args(["check", "--url", &plain, "--url", &other]);
    let (_, out, _) = run(&mut command);
    let lines: Vec<&str> = out.lines().collect();
    assert!(known(lines[0]) && !known(lines[1]), "{out}");
    for wrong in ["http://:s3cret@h:x", "htp://:s3cret@h", "http://:s3cret@h?a", "http://:s3cret@h/{status}"] {
        let (rc, out, err) = check(&[&plain, wrong], &[]);
        assert_eq!((rc, out.as_str()), (64, ""), "{wrong}: {err}");
        assert!(err.contains("--url: must"), "{err}");
        all.push_str(&err);
    }
    assert!(!all.contains("s3cret") && !all.contains("wr0ng"), "{all}");
}

#[test]
fn hundreds_are_asked_and_silent_ones_delay_no_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let nvml = FakeNvml::new("");
    let worker = start(&FakeOllama::new(), &nvml, &[]);
    worker.report_when("a verdict", |report| report["gpu_count"] == 1);
    let ok = url(&worker);
    let mut urls = vec!["http://127.0.0.1:9"; 500];
    urls[0] = &ok;
    urls[499] = &ok;
    urls[7] = &silent;
    let (rc, out, err) = check(&urls, &["--timeout", "3s"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((rc, lines.len()), (3, 500), "{out}");
    assert!(lines[0].starts_with(&ok) && lines[499].starts_with(&ok), "{out}");
    assert_eq!(lines[7], format!("{silent} unknown: does not respond: timed out"));
    assert!(lines[8].starts_with("http://127.0.0.1:9 unknown: "), "{out}");
    assert_eq!(err, "waiting for 500 workers (up to 3 s) ...\n");
}

/// Whatever responds at a URL, the array is JSON.
#[test]
fn what_is_not_a_report_is_an_unknown_worker() {
    let ollama = FakeOllama::new();
    for (body, why) in [
        (r#"[1,[],2,"m",["ok",[]],"nvml"]"#, "not a report of agent-net: a list"),
        ("<html>", "not a report of agent-net: expected value"),
    ] {
        ollama.set("/gpu", Answer::Json(body.into()));
        let (rc, out, _) = check(&[&ollama.url(), "http://127.0.0.1:9"], &["--json"]);
        let all: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        assert!(all[0]["error"].as_str().is_some_and(|text| text.starts_with(why)), "{out}");
        assert_eq!(rc, 3, "{out}");
    }
    ollama.set("/gpu", Answer::Status(302, String::new()));
    let (_, out, _) = check(&[&ollama.url(), "http://127.0.0.1:9"], &[]);
    assert!(out.contains(" unknown: responded with 302: redirects are not followed\n"), "{out}");
}

#[test]
fn several_can_be_watched() {
    let mut command = agent_net();
    command.args(["check", "--watch", "--interval", "100ms", "--json"]);
    command.args(["--url", "http://127.0.0.1:9", "--url", "http://127.0.0.1:9"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let lines: Vec<String> = std::io::BufRead::lines(out).take(2).map(|line| line.expect("UTF-8")).collect();
    // Its reader is gone.
    let status = crate::harness::wait_for("the end", || child.try_wait().expect("it is our child"));
    assert_eq!(status.code(), Some(3));
    for line in lines {
        let all: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(all.as_array().map(Vec::len), Some(2), "{line}");
    }
}
