//! Prometheus and Alertmanager as programs of this machine, on copies of the shipped files with short times, and what
//! receives their messages. Debian 12 has Prometheus 2.42 and Alertmanager 0.25.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::harness::{self, TIMEOUT, lines_of, lock, run, wait_for};
use crate::request::Request;

/// A program of a package, which a test needs: without it the test fails.
pub struct Tool {
    pub name: &'static str,
    package: &'static str,
}

pub const PROMTOOL: Tool = Tool { name: "promtool", package: "prometheus" };
pub const PROMETHEUS: Tool = Tool { name: "prometheus", package: "prometheus" };
pub const AMTOOL: Tool = Tool { name: "amtool", package: "prometheus-alertmanager" };
pub const ALERTMANAGER: Tool = Tool { name: "prometheus-alertmanager", package: "prometheus-alertmanager" };

/// Runs a tool from the root; its output. It must succeed.
#[track_caller]
pub fn checked(command: &mut Command, tool: &Tool) -> String {
    require(tool);
    let (status, out, err) = run(command.current_dir(env!("CARGO_MANIFEST_DIR")));
    assert!(status.success(), "{command:?}: {out}{err}");
    out
}

#[track_caller]
fn require(tool: &Tool) {
    let there = Command::new(tool.name).arg("--version").output().is_ok();
    assert!(there, "{} is missing: run scripts/test.sh, or install the package {}", tool.name, tool.package);
}

/// A shipped file of compose/monitoring.
pub fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/monitoring").join(name);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// The text with everything in it that a `#` in front of a word switches off.
pub fn uncommented(text: &str) -> String {
    text.lines().map(|line| on(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

/// The same for the one block of lines that begins with `first`.
#[track_caller]
pub fn switched_on(text: &str, first: &str) -> String {
    assert!(text.contains(&format!("#{first}")), "{first} is not there: {text}");
    let mut within = false;
    let line = |line: &str| {
        within = line.trim_start().starts_with(&format!("#{first}")) || (within && on(line).is_some());
        on(line).filter(|_| within).unwrap_or_else(|| line.to_owned()) + "\n"
    };
    text.lines().map(line).collect()
}

/// A line of configuration behind a `#`. A comment has one space there, the options of a block have two.
fn on(line: &str) -> Option<String> {
    let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
    let rest = rest.strip_prefix('#')?;
    let comment = rest.starts_with(' ') && !rest.starts_with("  ");
    (!comment && !rest.is_empty()).then(|| format!("{indent}{rest}"))
}

/// The text with `from` replaced, which must be there.
#[track_caller]
pub fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in {text}");
    text.replace(from, to)
}

/// The folder of a test with the copies that its programs read; gone on drop.
pub struct Files(PathBuf);

impl Files {
    pub fn new(name: &str) -> Self {
        let folder = harness::folder(name);
        for file in ["alerts.yaml", "fleet-rules.yaml"] {
            let rules = shipped(file);
            let rule = |line: &str| match line.trim_start().strip_prefix("for: ") {
                Some(_) => "        for: 1s\n".to_owned(),
                None => format!("{line}\n"),
            };
            fs::write(folder.join(file), rules.lines().map(rule).collect::<String>()).unwrap();
        }
        fs::create_dir(folder.join("targets")).unwrap();
        Self(folder)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }

    /// The fleet's configuration with short times and the paths of this folder.
    pub fn fleet(&self, alertmanager: SocketAddr) -> String {
        let text = replaced(&shipped("fleet.prometheus.yaml"), "interval: 15s", "interval: 1s");
        let text = replaced(&text, "scrape_timeout: 10s", "scrape_timeout: 1s");
        let text = replaced(&text, "alertmanager:9093", &alertmanager.to_string());
        replaced(&text, "/etc/prometheus/", &self.path(""))
    }

    /// Prometheus with this configuration and these options. Two at a time need two names.
    pub fn prometheus(&self, name: &str, config: &str, listen: &str, options: &[&str]) -> Program {
        let file = self.write(&format!("{name}.yaml"), config);
        let mut command = Command::new(PROMETHEUS.name);
        let agent = options.contains(&"--enable-feature=agent");
        let storage = if agent { "--storage.agent.path" } else { "--storage.tsdb.path" };
        command.arg(format!("--config.file={file}")).arg(format!("{storage}={}", self.path(name)));
        command.arg(format!("--web.listen-address={listen}")).args(options);
        Program::start(command, &PROMETHEUS)
    }

    /// Alertmanager with this configuration.
    pub fn alertmanager(&self, config: &str) -> Program {
        self.write("agent-net.tmpl", &shipped("agent-net.tmpl"));
        let config = replaced(config, "/etc/alertmanager/", &self.path(""));
        let file = self.write("alertmanager.yaml", &config);
        let mut command = Command::new(ALERTMANAGER.name);
        command.arg(format!("--config.file={file}")).arg(format!("--storage.path={}", self.path("alertmanager")));
        command.args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="]);
        Program::start(command, &ALERTMANAGER)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// One of them while it runs; killed on drop.
pub struct Program {
    child: Child,
    log: Arc<Mutex<String>>,
    pub addr: SocketAddr,
}

impl Program {
    #[track_caller]
    fn start(mut command: Command, tool: &Tool) -> Self {
        require(tool);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let log = lines_of(child.stderr.take().expect("stderr is piped"));
        let mut program = Self { child, log, addr: SocketAddr::from(([127, 0, 0, 1], 0)) };
        program.addr = wait_for("the address of the program", || {
            if let Some(status) = program.child.try_wait().expect("it is our child") {
                panic!("{} ended with {status}", tool.name);
            }
            let log = lock(&program.log);
            let line = log.lines().find(|line| line.contains(r#"msg="Listening on""#))?;
            line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
        });
        program
    }

    /// The JSON at this path, once it answers.
    pub fn get(&self, target: &str) -> Value {
        wait_for(target, || self.exchange(&format!("GET {target} HTTP/1.0\r\n\r\n")))
    }

    pub fn post(&self, target: &str, body: &str) {
        let (kind, length) = ("Content-Type: application/json", body.len());
        let request = format!("POST {target} HTTP/1.0\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}");
        wait_for(target, || self.exchange(&request));
    }

    /// The body of a 200, null if it is empty. By HTTP/1.0, which has no chunks.
    fn exchange(&self, request: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.addr).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let ok = head.split(' ').nth(1) == Some("200");
        ok.then(|| serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Labels and value of each series that a query finds now.
    pub fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"));
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let value = |one: &Value| one["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a number");
        series.into_iter().map(|one| (one["metric"].clone(), value(&one))).collect()
    }

    /// The one value of a query, once it holds.
    #[track_caller]
    pub fn query_when(&self, query: &str, wanted: f64) -> Value {
        wait_for(&format!("{query} = {wanted}"), || {
            let found = self.query(query);
            // As a number of whole things: no rounding is involved.
            found.into_iter().find(|(_, value)| value.to_bits() == wanted.to_bits()).map(|(labels, _)| labels)
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = lock(&self.log).clone();
            eprintln!("--- the log of {}\n{}---", self.addr, &log[log.len().saturating_sub(8000)..]);
        }
    }
}

/// A receiver of notifications: 200 to everything, as a webhook and as Slack.
pub struct Receiver {
    pub addr: SocketAddr,
    received: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Receiver {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let addr = listener.local_addr().expect("it has one");
        let received = Arc::default();
        let sink = Arc::clone(&received);
        // Both threads end with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sink = Arc::clone(&sink);
                thread::spawn(move || answer(&stream, &sink));
            }
        });
        Self { addr, received }
    }

    /// The bodies so far at this path.
    pub fn bodies(&self, path: &str) -> Vec<Value> {
        let all = lock(&self.received);
        all.iter().filter(|(target, _)| target == path).map(|(_, body)| body.clone()).collect()
    }

    /// The first body at this path that is wanted.
    #[track_caller]
    pub fn wait(&self, what: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || self.bodies(path).into_iter().find(|body| wanted(body)))
    }
}

fn answer(stream: &TcpStream, sink: &Mutex<Vec<(String, Value)>>) {
    let mut reader = BufReader::new(stream);
    while let Ok(Some(request)) = Request::read(&mut reader) {
        let body = serde_json::from_str(&request.body).unwrap_or(Value::Null);
        lock(sink).push((request.target, body));
        let mut writer = stream;
        if writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}
