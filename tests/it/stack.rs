//! The stack of compose/compose.yaml in real containers: the image under test, and stand-ins for Ollama and go-livepeer
//! on a network of their own. Whatever is killed or cut off comes back by itself.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{self, from_env, skip, wait_until};
use crate::http::Connection;
use crate::image::{Image, client, docker, one_card, unique};
use crate::nvml::{self, FakeNvml};
use crate::static_build::triplet;

const MODEL: &str = "codellama:34b-instruct-q4_k_m";
const SERVICES: [&str; 3] = ["agent-net", "ollama", "orchestrator"];
/// Longer than any deadline of ours to Ollama and orchestrator while the worker hurries.
const PARTITION: Duration = Duration::from_secs(20);

/// A number from the environment: STACK_ROUNDS of everything, a worker that does things STACK_HURRY times faster.
fn number(name: &str, default: u32) -> u32 {
    env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

#[test]
fn whatever_is_killed_or_cut_off_comes_back() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let Some(compose) = compose_command() else {
        skip("Docker Compose is missing");
        return;
    };
    let fakes = fakes_image();
    for round in 1..=number("STACK_ROUNDS", 1) {
        let start = Instant::now();
        let stack = Stack::up(&compose, &image, &fakes.0);
        stack.tell(round, "up", start);
        stack.wait("healthy", || {
            ["agent-net", "ollama"]
                .iter()
                .all(|service| stack.inspect(service, "{{.State.Health.Status}}") == "healthy")
        });
        stack.tell(round, "healthy", start);
        stack.wait_whole();
        stack.tell(round, "registered, pulled and loaded", start);
        assert!(stack.log("agent-net").contains(&format!("{MODEL}: pulled")), "it was not there before");
        stack.wait("an answered probe", || {
            stack.gpu_report().is_some_and(|report| report["models"][0]["probe"]["result"] == "ok")
        });
        assert_eq!(
            stack.inspect("agent-net", "{{.HostConfig.Memory}}"),
            (64 << 20).to_string(),
            "compose.yaml says so"
        );
        for service in SERVICES {
            let (start, loads) = (Instant::now(), stack.loads());
            stack.kill(service);
            if service == "ollama" {
                // What it held is gone with it: a report that still shows it is of the time before.
                stack.wait("another load", || stack.loads() > loads);
            }
            stack.wait_whole();
            stack.tell(round, &format!("{service} was killed; all is back"), start);
        }
        for service in ["ollama", "orchestrator"] {
            stack.part(service);
            std::thread::sleep(PARTITION);
            if service == "ollama" {
                stack.wait("the loss of Ollama", || {
                    stack.gpu_report().is_some_and(|r| r["ollama"]["reachable"] == false)
                });
            }
            let start = Instant::now();
            stack.join(service);
            stack.wait_whole();
            stack.tell(round, &format!("{service} was cut off for {} s; all is back", PARTITION.as_secs()), start);
        }
        let start = Instant::now();
        stack.stop();
        assert_eq!(stack.inspect("agent-net", "{{.State.ExitCode}}"), "0");
        stack.tell(round, "stopped", start);
    }
}

/// `docker compose`, or `docker-compose`.
fn compose_command() -> Option<Vec<&'static str>> {
    let works = |command: &[&str]| {
        let run = Command::new(command[0]).args(&command[1..]).arg("version").output();
        run.is_ok_and(|out| out.status.success())
    };
    [vec!["docker", "compose"], vec!["docker-compose"]].into_iter().find(|command| works(command))
}

/// The stand-ins as `/bin/ollama` in an image that has glibc and nothing else.
fn fakes_image() -> Image {
    let root = harness::folder(&unique("fakes"));
    let program = env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/fakes");
    let rootfs = PathBuf::from(from_env("AGENT_NET_STATIC").expect("scripts/test.sh sets it"));
    let rootfs = rootfs.parent().unwrap();
    fs::create_dir(root.join("bin")).unwrap();
    fs::copy(program, root.join("bin/ollama")).unwrap();
    let copy = |what: &str| {
        let into = root.join(what);
        fs::create_dir_all(&into).unwrap();
        for file in fs::read_dir(rootfs.join(what)).unwrap_or_else(|why| panic!("{what}: {why}")).flatten() {
            if file.path().is_file() {
                fs::copy(file.path(), into.join(file.file_name())).unwrap();
            }
        }
    };
    copy(&format!("lib/{}", triplet()));
    ["lib", "lib64"].iter().filter(|folder| rootfs.join(folder).is_dir()).for_each(|folder| copy(folder));
    let tar = harness::folder(&unique("fakes-tar")).join("root.tar");
    let made =
        Command::new("tar").arg("--create").arg("--file").arg(&tar).arg("--directory").arg(&root).arg(".").status();
    assert!(made.is_ok_and(|status| status.success()), "tar");
    let image = Image(unique("fakes"));
    let entry = ["--change", r#"ENTRYPOINT ["/bin/ollama"]"#, "--change", "ENV PATH=/bin"];
    docker(&[&["import"], &entry[..], &[tar.to_str().unwrap(), &image.0]].concat());
    fs::remove_dir_all(root).unwrap();
    fs::remove_file(tar).unwrap();
    image
}

/// A running stack; gone on drop, with its volumes.
struct Stack {
    compose: Vec<&'static str>,
    project: String,
    settings: Vec<(&'static str, String)>,
    worker: SocketAddr,
    _nvml: FakeNvml,
}

impl Stack {
    fn up(compose: &[&'static str], image: &str, fakes: &str) -> Self {
        let gpus = FakeNvml::new("gpus=1");
        // Two stacks beside each other would want one port.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap().port();
        let settings = vec![
            ("SERVER_PORT", port.to_string()),
            ("STACK_IMAGE", image.to_owned()),
            ("STACK_FAKES", fakes.to_owned()),
            ("STACK_FAULT", format!("hurry:{}", number("STACK_HURRY", 10))),
            ("STACK_LIBRARY", nvml::library().display().to_string()),
            ("STACK_GPUS", gpus.file().display().to_string()),
            ("STACK_CARDS", one_card().display().to_string()),
            ("COMPOSE_HTTP_TIMEOUT", "120".to_owned()),
        ];
        let stack = Self {
            compose: compose.to_vec(),
            project: unique("stack"),
            settings,
            worker: SocketAddr::from(([127, 0, 0, 1], port)),
            _nvml: gpus,
        };
        stack.run(&["up", "--detach", "--no-build"]);
        stack
    }

    fn run(&self, args: &[&str]) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(self.compose[0]);
        command.args(&self.compose[1..]).args(["-p", &self.project]);
        for file in ["compose/compose.yaml", "tests/stack/compose.yaml"] {
            command.arg("-f").arg(root.join(file));
        }
        command.args(args).envs(self.settings.iter().map(|(name, value)| (*name, value))).env_remove("MODEL");
        let (status, out, err) = harness::run(&mut command);
        assert!(status.success(), "{args:?}: {out}{err}");
        out
    }

    fn id(&self, service: &str) -> String {
        self.run(&["ps", "-q", service]).trim().to_owned()
    }

    fn inspect(&self, service: &str, what: &str) -> String {
        docker(&["inspect", "--format", what, &self.id(service)]).trim().to_owned()
    }

    fn log(&self, service: &str) -> String {
        let out = client().args(["logs", &self.id(service)]).output().unwrap();
        String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout)
    }

    /// How often the worker has loaded the model.
    fn loads(&self) -> usize {
        self.log("agent-net").matches(&format!("{MODEL}: loaded\n")).count()
    }

    /// kill -9 from outside: after a `docker kill` Docker would not start it again.
    fn kill(&self, service: &str) {
        let pid: i32 = self.inspect(service, "{{.State.Pid}}").parse().unwrap();
        kill_process(Pid::from_raw(pid).expect("it runs"), Signal::KILL).expect("it can be killed");
        self.wait("another process", || {
            let now: i32 = self.inspect(service, "{{.State.Pid}}").parse().unwrap_or(0);
            now != 0 && now != pid
        });
    }

    fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    fn part(&self, service: &str) {
        docker(&["network", "disconnect", &self.network(), &self.id(service)]);
    }

    fn join(&self, service: &str) {
        docker(&["network", "connect", "--alias", service, &self.network(), &self.id(service)]);
    }

    fn gpu_report(&self) -> Option<Value> {
        let report = ask(self.worker, "GET", "/gpu", "")?;
        serde_json::from_str(&report).ok()
    }

    /// A job gets through the orchestrator, and its report says that all is well.
    fn wait_whole(&self) {
        self.wait("a good job through the orchestrator", || {
            let port = client().args(["port", &self.id("orchestrator"), "8935/tcp"]).output();
            let port = port.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
            let Some(addr) = port.lines().next().and_then(|line| line.parse().ok()) else { return false };
            let Some(answer) = ask(addr, "POST", "/job", r#"{"agent_id":"stack"}"#) else { return false };
            let report: Value = serde_json::from_str(&answer).unwrap_or_default();
            report["agent_id"] == "stack"
                && report["model_keeper"][0]["state"] == "loaded"
                && report["model_name"] == MODEL
                && report["gpu_count"] == 1
                && report["health"]["verdict"] == "ok"
        });
    }

    #[track_caller]
    fn wait(&self, what: &str, is: impl Fn() -> bool) {
        // Docker waits longer and longer before it starts a container again: enough time for three starts.
        let found = (0..4).find_map(|_| wait_until(|| is().then_some(())));
        assert!(
            found.is_some(),
            "no {what}: {:#}\n{}",
            self.gpu_report().unwrap_or_default(),
            SERVICES.map(|service| format!("--- {service}\n{}", self.log(service))).concat()
        );
    }

    fn stop(&self) {
        self.run(&["stop"]);
    }

    #[allow(clippy::unused_self)] // it is about this stack
    fn tell(&self, round: u32, what: &str, since: Instant) {
        println!("round {round}: {what} after {:.1} s", since.elapsed().as_secs_f64());
    }
}

/// The body of a 200; None: anything else, as from Docker's proxy while nothing listens behind it.
fn ask(addr: SocketAddr, method: &str, path: &str, body: &str) -> Option<String> {
    let mut connection = Connection::try_open(addr).ok()?;
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: {length}\r\n\r\n{body}");
    connection.send(request.as_bytes()).ok()?;
    let answer = connection.answer().ok()?;
    (answer.status == 200).then(|| answer.text().to_owned())
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What went wrong was reported; a second failure would hide it.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run(&["down", "--volumes"])));
        } else {
            self.run(&["down", "--volumes"]);
        }
    }
}
