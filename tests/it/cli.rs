//! The command line: what it prints where, and its exit codes.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::fake_ollama::{Answer, FakeOllama};
use crate::harness::{Worker, agent_net, folder, run, wait_for};
use crate::http;
use crate::programs::others;

/// `agent-net` with these arguments and variables.
fn with(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = agent_net();
    command.args(args).envs(env.iter().copied());
    command
}

/// A word on stderr, nothing on stdout, and this exit code.
#[track_caller]
fn check_refused(command: &mut Command, code: i32, parts: &[&str]) {
    let (status, out, err) = run(command);
    assert_eq!((status.code(), out.as_str()), (Some(code), ""), "{command:?}: {err}");
    assert_eq!(err.lines().count(), 1, "{command:?}: one line is enough: {err}");
    for part in parts {
        assert!(err.contains(part), "{command:?}: {part:?} is not in {err}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for flag in ["--help", "-h"] {
        let (status, out, err) = run(&mut with(&[flag], &[]));
        assert_eq!((status.code(), err.as_str()), (Some(0), ""));
        for word in ["serve", "health", "config", "pm", "78"] {
            assert!(out.contains(word), "{word} is not in {out}");
        }
        assert!(!out.contains('\u{1b}'), "no color without a terminal: {out:?}");
    }
    // Help is there even where the settings are wrong.
    let (status, out, _) = run(&mut with(&["serve", "--help"], &[("SERVER_PORT", "x")]));
    assert_eq!(status.code(), Some(0));
    for word in ["SERVER_PORT", "--server-port", "9876", "WORKER_TOKEN_FILE"] {
        assert!(out.contains(word), "{word} is not in {out}");
    }
    for flag in ["--version", "-V"] {
        let (status, out, _) = run(&mut with(&[flag], &[]));
        let commit = out.strip_prefix(concat!("agent-net ", env!("CARGO_PKG_VERSION"))).expect("the version");
        // Cargo's own build names no commit. Of the static one: static_build.
        assert!(status.success() && (commit == "\n" || others().is_some()), "{out}");
    }
}

#[test]
fn an_invalid_command_line_is_64() {
    let wrong: [&[&str]; 12] = [
        &["--nonsense"],
        &["serve", "--nonsense", "1"],
        &["nonsense"],
        &["serve", "extra"],
        &["health", "-x"],
        &["config", "--server-prot", "1"],
        &["serve", "--server-port"],
        &["serve", "--server-port", "1", "--server-port", "2"],
        &["serve", ""],
        &["nonsense", "--help"],
        &["pm", "nonsense", "--help"],
        &["pm", "--nonsense"],
    ];
    for args in wrong {
        check_refused(&mut with(args, &[]), 64, &["--help"]);
    }
    check_refused(agent_net().arg(OsStr::from_bytes(b"\xff\xfe")), 64, &["--help"]);
    check_refused(&mut with(&["pm", "--nonsense"], &[]), 64, &["unknown option \"--nonsense\""]);
}

#[test]
fn a_default_that_depends_on_other_settings_is_shown() {
    let settings = [("HOSTNAME", "gpu-cellar"), ("SERVER_PORT", "9000"), ("CAPABILITY_NAME", "agent-net-nyc")];
    let (_, out, _) = run(&mut with(&["config"], &settings));
    assert!(out.contains("\nCAPABILITY_URL=http://gpu-cellar:9000  # default\n"), "{out}");
    assert!(out.contains("\nRUNNER_ID=agent-net-nyc  # default\n"), "{out}");
    let (_, out, _) = run(&mut with(&["config", "--server-port", "0"], &[]));
    assert!(out.contains("\nCAPABILITY_URL=  # default\n") && out.contains("\nRUNNER_ID=  # default\n"), "{out}");
}

#[test]
fn what_is_in_the_way_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = other.local_addr().unwrap();
    let port = addr.port().to_string();
    let busy = [("SERVER_HOST", "127.0.0.1"), ("SERVER_PORT", &*port)];
    let parts = [&*addr.to_string(), "in use; stop the worker", "another SERVER_PORT"];
    check_refused(&mut with(&["serve"], &busy), 1, &parts);
    let ledger = with(&["pm", "ledger", "--state-dir"], &[]).arg("/nonexistent").output().unwrap();
    let err = String::from_utf8_lossy(&ledger.stderr);
    assert!(ledger.status.code() == Some(78) && err.contains("/nonexistent/tickets.jsonl: no such file"), "{err}");
}

#[test]
fn a_wrong_setting_is_78_and_says_what_is_valid() {
    #[track_caller]
    fn check(name: &str, value: &str, valid: &str) {
        let quoted = format!("{name}={value:?}");
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        for command in ["serve", "config", "health"] {
            check_refused(&mut with(&[command], &[(name, value)]), 78, &[&quoted, valid]);
            check_refused(&mut with(&[command, &flag, value], &[]), 78, &[&quoted, valid]);
        }
    }
    check("SERVER_PORT", "65536", "0 to 65535");
    check("SERVER_PORT", "80 80", "0 to 65535");
    check("SERVER_HOST", "localhost", "IP address");
    check("OLLAMA_URL", "ollama:11434", "http://");
    check("ORCH_TLS", "maybe", "verify, insecure or ca:/path.pem");
    check("OLLAMA_TLS", "maybe", "verify, insecure or ca:/path.pem");
    check("CAPABILITY_CAPACITY", "0", "1 to 1000");
    check("CAPABILITY_NAME", "two words", "visible ASCII");
    check("SAMPLE_INTERVAL", "5", "100ms to 5m");
    check("EXPECTED_GPUS", "many", "a number of GPUs from 0");
    check("LOG_LEVEL", "loud\nevil", "error, warn, info, debug, trace or off");
    check_refused(&mut with(&[], &[("AGENT_NET_FAULT", "x")]), 78, &["AGENT_NET_FAULT=\"x\": must be panic:AGENT_ID"]);
    check_refused(&mut with(&[], &[("ORCH_URL", "https://127.0.0.1:8935")]), 78, &["CAPABILITY_NAME"]);
    check_refused(with(&[], &[]).env("SERVER_HOST", OsStr::from_bytes(b"\xff")), 78, &["SERVER_HOST", "UTF-8"]);
    let ca = [
        ("ORCH_URL", "https://127.0.0.1:9"),
        ("CAPABILITY_NAME", "a"),
        ("ORCH_TLS", "ca:/nonexistent.pem"),
        ("SERVER_PORT", "0"),
    ];
    check_refused(&mut with(&["serve"], &ca), 78, &["ORCH_TLS", "/nonexistent.pem"]);
    for command in ["pull", "probe"] {
        let tls = [("OLLAMA_TLS", "ca:/nonexistent.pem")];
        check_refused(&mut with(&[command, "m"], &tls), 78, &["OLLAMA_TLS: cannot open"]);
    }
}

#[test]
fn files_of_certificates_are_among_the_wrong_settings_of_a_start() {
    let env =
        [("SERVER_PORT", "abc"), ("ORCH_TLS", "ca:/none"), ("NOTIFY_TLS", "ca:/dev/null"), ("PEERS_TLS", "ca:/none")];
    let (status, _, err) = run(&mut with(&["serve"], &env));
    let expect = [
        "agent-net: SERVER_PORT=\"abc\": must be a port from 0 to 65535",
        "agent-net: ORCH_TLS=\"ca:/none\": cannot open /none: no such file or directory",
        "agent-net: NOTIFY_TLS=\"ca:/dev/null\": /dev/null contains no PEM certificate",
        "agent-net: PEERS_TLS=\"ca:/none\": cannot open /none: no such file or directory",
    ];
    assert_eq!((status.code(), err.lines().collect::<Vec<_>>()), (Some(78), expect.to_vec()));
}

#[test]
fn all_wrong_settings_are_reported_at_once() {
    let env = [
        ("SAMPLE_INTERVAL", "1"),
        ("ORCH_SECRET", "hunter2 x"),
        ("WORKER_TOKEN_FILE", "/nonexistent/secret"),
        ("AGENT_NET_FAULT", "x"),
        ("SERVER_PORT", "abc"),
    ];
    let expect = [
        "agent-net: SERVER_PORT=\"abc\": must be a port from 0 to 65535",
        "agent-net: WORKER_TOKEN_FILE=\"/nonexistent/secret\": ",
        "agent-net: ORCH_SECRET: must be 1 to 4096 visible ASCII characters without spaces; the value is not shown",
        "agent-net: SAMPLE_INTERVAL=\"1\": must be a duration with its unit, from 100ms to 5m",
        "agent-net: AGENT_NET_FAULT=\"x\": must be panic:AGENT_ID",
    ];
    let lines_of = |command: &str, url: &[&str]| {
        let (status, out, err) = run(&mut with(&[&[command], url].concat(), &env));
        assert_eq!((status.code(), out.as_str()), (Some(78), ""), "{err}");
        err.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for command in ["serve", "config", "health"] {
        let lines = lines_of(command, &[]);
        assert_eq!(lines.len(), expect.len(), "{lines:?}");
        assert!(lines.iter().zip(expect).all(|(line, expect)| line.starts_with(expect)), "{lines:?}");
    }
    let lines = lines_of("serve", &["--ollama-url", "foo"]);
    assert!(lines.len() == 6 && lines[2].contains("OLLAMA_URL=\"foo\": must be a URL with http://"), "{lines:?}");
    let (status, out, _) = run(&mut with(&["doctor", "--json"], &env));
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((status.code(), out.matches("\"settings\"").count()), (Some(78), 5), "{report}");
    assert!(!out.contains("hunter2"));
}

#[test]
fn the_hooks_of_tests_are_shown_nowhere() {
    for args in [&["config"][..], &["config", "--json"], &["serve", "--help"], &["man"], &["completions", "bash"]] {
        let (status, out, _) = run(&mut with(args, &[("AGENT_NET_FAULT", "hurry:2")]));
        assert_eq!(
            (status.code(), out.to_lowercase().replace('-', "_").contains("net_fault")),
            (Some(0), false),
            "{out}"
        );
    }
    check_refused(&mut with(&["config", "--agent-net-fault", "x"], &[]), 64, &["unknown option \"--agent-net-fault\""]);
}

#[test]
fn a_flag_wins_over_the_environment_and_empty_is_unset() {
    #[track_caller]
    fn check(args: &[&str], env: &[(&str, &str)], line: &str) {
        let (status, out, err) = run(&mut with(&[&["config"], args].concat(), env));
        assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{out}");
        assert!(
            out.lines().any(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") == line),
            "{line} is not in\n{out}"
        );
    }
    check(&[], &[], "SERVER_PORT=9876 # default");
    check(&[], &[("SERVER_PORT", "")], "SERVER_PORT=9876 # default");
    check(&[], &[("SERVER_PORT", " ")], "SERVER_PORT=9876 # default");
    check(&[], &[("SERVER_PORT", "1")], "SERVER_PORT=1 # environment");
    check(&["--server-port", "2"], &[("SERVER_PORT", "1")], "SERVER_PORT=2 # flag");
    // A wrong value that is overridden does no harm.
    check(&["--server-port", "2"], &[("SERVER_PORT", "wrong")], "SERVER_PORT=2 # flag");
    check(&["--ollama-url", "http://o:1/"], &[], "OLLAMA_URL=http://o:1/ # flag");
    let (_, out, _) =
        run(with(&["config", "--json", "--server-port", "2"], &[("ORCH_SECRET", SECRET)]).env("MODEL", ""));
    let config: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let shown =
        |name: &str| config["settings"].as_array().and_then(|all| all.iter().find(|s| s["name"] == name)).cloned();
    assert_eq!(shown("SERVER_PORT"), Some(json!({ "name": "SERVER_PORT", "value": "2", "source": "flag" })));
    assert_eq!(shown("MODEL"), Some(json!({ "name": "MODEL", "value": null, "source": "default" })));
    assert_eq!(shown("ORCH_SECRET"), Some(json!({ "name": "ORCH_SECRET", "value": "***", "source": "environment" })));
    check_refused(&mut with(&["config", "--json", "--runner-json"], &[]), 64, &["--runner-json"]);
    // What is set cannot pretend to be another line.
    check(
        &[],
        &[("CAPABILITY_DESCRIPTION", "a\nORCH_TLS=verify")],
        r"CAPABILITY_DESCRIPTION=a\nORCH_TLS=verify # environment",
    );
}

const SECRET: &str = "hunter2-orchestrator";
const TOKEN: &str = "hunter2-worker";

#[test]
fn no_secret_is_ever_shown() {
    let secrets = [("ORCH_SECRET", SECRET), ("WORKER_TOKEN", TOKEN), ("OLLAMA_TOKEN", "hunter2-ollama")];
    let (status, out, err) = run(&mut with(&["config"], &secrets));
    assert_eq!(status.code(), Some(0), "{err}");
    for line in ["OLLAMA_TOKEN=***", "ORCH_SECRET=***", "WORKER_TOKEN=***"] {
        assert!(out.lines().any(|l| l.starts_with(line)), "{line} is not in {out}");
    }
    assert!(!(out + &err).contains("hunter2"));
    for (name, value) in [("ORCH_SECRET", "hunter2 with spaces"), ("WORKER_TOKEN", "hunter2\u{e9}")] {
        let (status, out, err) = run(&mut with(&["serve"], &[(name, value)]));
        assert_eq!(status.code(), Some(78));
        assert!(err.contains(name) && !(out + &err).contains("hunter2"), "{err}");
    }
    for args in [["serve", "--worker-tokn=hunter2"], ["config", "--orch-secre=hunter2"]] {
        let (status, out, err) = run(&mut with(&args, &[]));
        let option = args[1].trim_end_matches("=hunter2");
        assert_eq!(status.code(), Some(64));
        assert!(err.contains(&format!("unknown option {option:?}")) && !(out + &err).contains("hunter2"), "{err}");
    }
    // Only Ollama may have a login in its URL.
    for (name, value) in [("ORCH_URL", "http://user:hunter2@h"), ("OLLAMA_URL", "http://user:hunter2/@h")] {
        let (_, out, err) = run(&mut with(&["serve"], &[(name, value)]));
        assert!(err.contains(name) && !(out + &err).contains("hunter2"), "{err}");
    }

    let orchestrator = FakeOllama::new();
    let url = orchestrator.url();
    let more = [("ORCH_URL", url.as_str()), ("CAPABILITY_NAME", "a"), ("LOG_LEVEL", "trace")];
    let worker = Worker::start(&[&secrets[..], &more].concat());
    let path = "/capability/register";
    wait_for("a registration", || (orchestrator.requests(path) > 0).then_some(()));
    for header in [format!("Authorization: Bearer {TOKEN}"), format!("Authorization: Bearer {TOKEN}-wrong")] {
        http::request(worker.addr, "GET", "/gpu", &[&header, "Livepeer-Payment: hunter2-payment"], b"");
    }
    orchestrator.set(path, Answer::Status(400, "invalid authorization\n".into()));
    let before = orchestrator.requests(path);
    wait_for("a refused registration", || (orchestrator.requests(path) > before).then_some(()));
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0));
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn secrets_come_from_files_too() {
    let folder = folder("secrets");
    let file = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, content).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let good = file("good", format!("{TOKEN}\n").as_bytes());
    for name in ["OLLAMA_TOKEN", "ORCH_SECRET", "WORKER_TOKEN"] {
        let variable = format!("{name}_FILE");
        let (status, out, _) = run(&mut with(&["config"], &[(&variable, &good)]));
        assert_eq!(status.code(), Some(0), "{out}");
        assert!(out.contains(&format!("{name}=***")) && !out.contains(TOKEN), "{out}");
        check_refused(&mut with(&["serve"], &[(&variable, &good), (name, "x")]), 78, &[name, &variable, "both"]);
        let bad = [
            ("/nonexistent/secret".to_owned(), "cannot open the file"),
            (folder.to_string_lossy().into_owned(), "cannot read the file"),
            (file("empty", b""), "empty"),
            (file("blank", b" \n\n"), "empty"),
            (file("large", &[b'x'; 4097]), "4096"),
            (file("binary", b"\xff\xfe"), "cannot read the file"),
            (file("two", b"hunter2 two"), "without spaces"),
        ];
        for (path, part) in bad {
            let mut serve = with(&["serve"], &[(&variable, &path)]);
            check_refused(&mut serve, 78, &[&format!("{variable}={path:?}: "), part]);
            assert!(!run(&mut serve).2.contains("hunter2"));
        }
    }
    let largest = file("largest", &[b'x'; 4096]);
    assert_eq!(run(&mut with(&["config"], &[("WORKER_TOKEN_FILE", &largest)])).0.code(), Some(0));
    let worker = Worker::start(&[("WORKER_TOKEN_FILE", &good)]);
    let ask = |header: &str| http::request(worker.addr, "POST", "/gpu-check", &[header], br#"{"agent_id":"a"}"#).status;
    assert_eq!((ask("X: y"), ask(&format!("Authorization: Bearer {TOKEN}"))), (401, 200));
}

#[test]
fn health_asks_the_running_worker() {
    #[track_caller]
    fn check(port: u16, env: &[(&str, &str)], code: i32) {
        let port = port.to_string();
        let (status, out, err) = run(&mut with(&["health", "--server-port", &port], env));
        assert_eq!(status.code(), Some(code), "{out}{err}");
        assert_eq!((out.is_empty(), err.is_empty()), (code != 0, code == 0), "{out}{err}");
        let (status, ..) = run(with(&["health"], env).env("SERVER_PORT", &port));
        assert_eq!(status.code(), Some(code));
    }
    let worker = Worker::start(&[("WORKER_TOKEN", TOKEN)]);
    let port = worker.addr.port();
    check(port, &[], 0);
    check(port, &[("SERVER_HOST", "127.0.0.1")], 0);
    // A proxy is for the way out, never for this machine.
    check(
        port,
        &[
            ("http_proxy", "http://127.0.0.1:9"),
            ("HTTP_PROXY", "http://127.0.0.1:9"),
            ("ALL_PROXY", "http://127.0.0.1:9"),
        ],
        0,
    );
    drop(worker);
    check(port, &[], 3);
    let other = FakeOllama::new();
    let port = other.url().rsplit(':').next().unwrap().parse().unwrap();
    other.set("/health", Answer::Status(500, String::new()));
    check(port, &[], 1);
    for answer in [Answer::Hang, Answer::HangUp, Answer::Raw { bytes: b"garbage\r\n\r\n".to_vec(), close: true }] {
        other.set("/health", answer);
        check(port, &[], 3);
    }
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    for args in [&["--help"][..], &["--version"], &["config"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut child = with(args, &[]).stdout(writer).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stderr = child.stderr.take().expect("piped");
        let err = std::io::read_to_string(&mut stderr).expect("text");
        let status = wait_for("its end", || child.try_wait().unwrap());
        assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
    // The same for what it has to complain about.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut child = with(&["--nonsense"], &[]).stdout(Stdio::null()).stderr(writer).spawn().expect("it starts");
    let status = wait_for("its end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(64));
}
