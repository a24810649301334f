//! The image as it is shipped: `scratch.Dockerfile` makes it, `scripts/test.sh` names it in AGENT_NET_IMAGE.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process, thread};

use serde_json::Value;

use crate::harness::{self, from_env, static_server, wait_for, wait_until};
use crate::http::{self, Connection, Response};
use crate::nvml::{self, FakeNvml};
use crate::static_build::{files_below, triplet};

const JOB: &str = r#"{"agent_id":"demo-agent"}"#;

#[test]
fn the_image_is_small() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let size: u64 = docker(&["image", "inspect", "--format", "{{.Size}}", &image]).trim().parse().unwrap();
    assert!(size <= 9_000_000, "{size} bytes");
}

/// Also that for an architecture whose programs cannot be started here.
#[test]
fn the_image_is_the_root_file_system_for_its_architecture() {
    let (Some(image), Some(server)) = (from_env("AGENT_NET_IMAGE"), static_server()) else { return };
    let architecture = if triplet().starts_with("aarch64") { "arm64" } else { "amd64" };
    assert_eq!(docker(&["image", "inspect", "--format", "{{.Architecture}}", &image]).trim(), architecture);
    let root = unpacked(&image);
    for entry in files_below(server.parent().unwrap(), Path::new("")) {
        let read = |root: &Path| fs::read(root.join(&entry)).unwrap_or_else(|why| panic!("{}: {why}", entry.display()));
        assert!(read(&root) == read(server.parent().unwrap()), "{}", entry.display());
    }
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn the_image_runs_without_rights_and_stops_when_asked() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let container = Container::run(&image, &[]);
    let reply = container.job();
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["agent_id"], "demo-agent");
    wait_for("a healthy container", || (container.inspect("{{.State.Health.Status}}") == "healthy").then_some(()));
    docker(&["stop", &container.name]);
    // 137 would be the SIGKILL that follows a SIGTERM that was not handled.
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0");
}

#[test]
fn the_image_finds_nvml_where_nvidias_tools_put_it() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let places = [
        "/usr/lib64/libnvidia-ml.so.1",
        &format!("/usr/lib/{}/libnvidia-ml.so.1", triplet()),
        // As the host names it, in a folder that no one searches and without the link that ldconfig makes.
        "/opt/odd/libnvidia-ml.so.550.54",
    ];
    for place in places {
        let container = Container::with_nvml(&image, place);
        let report = container.report_when(|report| report["gpu_count"] == GPUS);
        assert_eq!(report["gpus"].as_array().map(Vec::len), Some(GPUS), "{place}: {report:#}");
    }
}

#[test]
fn the_test_above_would_notice_a_missing_file() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let image = Image::without(&image, &format!("lib/{}/libpthread.so.0", triplet()));
    let container = Container::with_nvml(&image.0, "/usr/lib64/libnvidia-ml.so.1");
    let missing = |report: &Value| {
        let reasons = report["health"]["reasons"].as_array()?;
        reasons.iter().find(|reason| reason["code"] == "NVML_LIB_MISSING").cloned()
    };
    let report = container.report_when(|report| missing(report).is_some());
    assert_eq!(report["gpu_count"], 0, "{report:#}");
    let reason = missing(&report).unwrap();
    assert!(reason["message"].as_str().unwrap().contains("libpthread.so.0"), "{reason:#}");
}

#[test]
fn the_uptime_outlives_the_container() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let volume = Volume(unique("state"));
    let mounted = format!("{}:/state", volume.0);
    let options = ["--volume", mounted.as_str(), "--env", "STATE_DIR=/state"];
    let up = |container: &Container| container.get("/uptime").json()["windows"]["1h"]["down_seconds"].as_u64();
    let first = Container::run(&image, &options);
    first.job();
    // There is no GPU: that is time down. User 65532 may write where no one has made a folder for it.
    let seen = wait_for("seconds", || up(&first).filter(|seconds| *seconds >= 2));
    docker(&["stop", &first.name]);
    let (_, _, log) = harness::run(client().args(["logs", &first.name])); // on stderr, as it was written
    assert!(log.contains("listening on") && !log.contains("cannot write"), "{log}");
    drop(first);
    let second = Container::run(&image, &options);
    second.job();
    wait_for("what the first has seen", || up(&second).filter(|seconds| *seconds >= seen));
}

#[test]
fn errors_are_acknowledged_from_inside_the_container() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let acknowledged = |container: &Container| docker(&["exec", &container.name, "/agent-net", "ack"]);
    let container = Container::run(&image, &[]);
    assert!(acknowledged(&container).starts_with("sent SIGUSR1 to process 1;"));
    let log = || harness::run(client().args(["logs", &container.name])).2;
    wait_for("the log", || log().contains("SIGUSR1: the errors so far are acknowledged").then_some(()));
    let volume = Volume(unique("state"));
    let state = ["--volume", &format!("{}:/state", volume.0), "--env", "STATE_DIR=/state"];
    let container = Container::run(&image, &state);
    wait_for("the socket", || acknowledged(&container).starts_with("acknowledged; the verdict is ").then_some(()));
}

#[test]
fn check_and_doctor_work_in_the_container() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let container = Container::with_nvml(&image, "/usr/lib64/libnvidia-ml.so.1");
    container.report_when(|report| report["gpu_count"] == GPUS && report["health"]["verdict"] == "unhealthy");
    let exec = |args: &[&str]| harness::run(client().args(["exec", &container.name, "/agent-net"]).args(args));
    // Its Ollama is away.
    let (status, out, err) = exec(&["check"]);
    assert_eq!((status.code(), err.as_str()), (Some(2), ""), "{out}");
    assert!(out.starts_with("agent-net unhealthy (OLLAMA_DOWN): 2 of 2 GPUs usable"), "{out}");
    let (status, out, err) = exec(&["doctor", "--json"]);
    assert_eq!(status.code(), Some(2), "{out}{err}");
    let all: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}{err}"));
    let checks = all["checks"].as_array().unwrap();
    let grade =
        |name: &str| checks.iter().find(|c| c["check"] == name).map(|c| c["grade"].as_str().unwrap().to_owned());
    assert_eq!((grade("readings").as_deref(), grade("ollama").as_deref()), (Some("pass"), Some("fail")), "{all:#}");
    assert_eq!(grade("worker").as_deref(), Some("pass"), "{all:#}");
}

/// What a systemctl daemon-reload does to containers: the node is there, and the right to open it is not.
#[test]
fn a_device_that_the_container_may_no_longer_open_is_reported() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let node = harness::folder(&unique("node")).join("nvidiactl");
    assert!(succeeds(Command::new("mknod").arg("--mode=666").arg(&node).args(["c", "195", "255"])), "mknod is root's");
    let mounted = format!("{}:/dev/nvidiactl", node.display());
    let container = Container::with(&image, "/usr/lib64/libnvidia-ml.so.1", &["--volume", &mounted]);
    let lost = |report: &Value| {
        let reasons = report["health"]["reasons"].as_array()?;
        reasons.iter().find(|reason| reason["code"] == "GPU_ACCESS_LOST").cloned()
    };
    let report = container.report_when(|report| lost(report).is_some());
    assert_eq!(report["gpu_count"], GPUS, "NVML works all the same: {report:#}");
    let message = lost(&report).unwrap()["message"].to_string();
    assert!(message.contains("may no longer open"), "{message}");
}

/// As many slow clients as there may be, each with a head and a body as large as they may be.
#[test]
fn little_memory_is_enough_for_all_connections() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let container = Container::run(&image, &["--memory", "64m", "--memory-swap", "64m"]);
    container.job();
    // Not through Docker's proxy, which would hold up what is not read.
    let addr = container.inspect("{{.NetworkSettings.IPAddress}}:9876").parse().expect("an address of its own");
    let fill = "x".repeat(60_000);
    let request = format!("POST /gpu-check HTTP/1.1\r\nHost: x\r\nContent-Length: 65000\r\nX-A: {fill}\r\n\r\n{fill}");
    let slow: Vec<Connection> = (0..1200)
        .filter_map(|_| {
            let mut connection = Connection::try_open(addr).ok()?;
            connection.send(request.as_bytes()).ok()?;
            Some(connection)
        })
        .collect();
    assert!(slow.len() >= 100, "{}", slow.len());
    thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(container.inspect("{{.State.Running}} {{.State.OOMKilled}}"), "true false");
    drop(slow);
    assert_eq!(container.job().status, 200);
    assert!(docker(&["logs", &container.name]).len() < 10_000);
}

// ---- Docker ----

/// A running container of the image with no rights at all; removed on drop.
pub struct Container {
    pub name: String,
    addr: SocketAddr,
}

impl Container {
    pub fn run(image: &str, options: &[&str]) -> Self {
        let mut container = Self { name: unique("container"), addr: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut run = vec!["run", "--detach", "--name", &container.name, "--publish", "127.0.0.1::9876"];
        run.extend(["--read-only", "--cap-drop", "ALL", "--user", "65532:65532"]);
        run.extend(["--security-opt", "no-new-privileges", "--health-interval", "1s"]);
        // Nothing answers there: the container is alone.
        run.extend(["--env", "OLLAMA_URL=http://127.0.0.1:9", "--env", "SAMPLE_INTERVAL=200ms"]);
        run.extend(options);
        run.push(image);
        docker(&run);
        let published = docker(&["port", &container.name, "9876/tcp"]);
        container.addr = published.lines().next().unwrap_or_default().parse().expect("a published address");
        container
    }

    /// One with the fake libnvidia-ml.so.1 at `place`, mounted as NVIDIA's tools mount the real one, on a machine
    /// with an NVIDIA card.
    fn with_nvml(image: &str, place: &str) -> Self {
        Self::with(image, place, &[])
    }

    fn with(image: &str, place: &str, more: &[&str]) -> Self {
        let folder = one_card();
        let fake = FakeNvml::new(&format!("gpus={GPUS}"));
        let library = format!("{}:{place}:ro", nvml::library().display());
        let gpus = format!("{}:/gpus:ro", fake.file().display());
        let cards = format!("{}:/sys/bus/pci/devices:ro", folder.display());
        let mut options = vec!["--volume", &library, "--volume", &gpus, "--volume", &cards];
        options.extend(["--env", "FAKE_NVML=/gpus"]);
        options.extend(more);
        Self::run(image, &options)
    }

    pub fn inspect(&self, what: &str) -> String {
        docker(&["inspect", "--format", what, &self.name]).trim().to_owned()
    }

    /// The answer to a job. Docker's proxy accepts connections before the worker listens, and drops them.
    pub fn job(&self) -> Response {
        wait_for("an answer from the container", || {
            let mut connection = Connection::open(self.addr);
            let head = format!("POST /gpu-check HTTP/1.1\r\nHost: worker\r\nContent-Length: {}\r\n\r\n", JOB.len());
            connection.send(format!("{head}{JOB}").as_bytes()).ok()?;
            connection.answer().ok()
        })
    }

    pub fn get(&self, path: &str) -> Response {
        http::request(self.addr, "GET", path, &[], b"")
    }

    fn report_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = wait_until(|| {
            last = self.job().json();
            wanted(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("the report never came to that; the last one: {last:#}"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if thread::panicking() {
            let logs = client().args(["logs", &self.name]).output();
            let text = logs.map(|out| String::from_utf8_lossy(&out.stderr).into_owned());
            eprintln!("--- the container's log\n{}---", text.unwrap_or_default());
        }
        let _ = client().args(["rm", "--force", "--volumes", &self.name]).output();
    }
}

/// A volume made for one test; removed on drop.
struct Volume(String);

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = client().args(["volume", "rm", "--force", &self.0]).output();
    }
}

/// An image made for one test; removed on drop.
pub struct Image(pub String);

impl Image {
    /// The same image without one file. Import needs neither a registry nor a builder.
    fn without(image: &str, file: &str) -> Self {
        let root = unpacked(image);
        fs::remove_file(root.join(file)).unwrap();
        let less = root.with_extension("tar").display().to_string();
        assert!(succeeds(Command::new("tar").args(["--create", "--file", &less, "--directory"]).arg(&root).arg(".")));
        let made = Self(unique("image"));
        docker(&["import", "--change", r#"ENTRYPOINT ["/agent-net"]"#, &less, &made.0]);
        fs::remove_dir_all(&root).unwrap();
        fs::remove_file(less).unwrap();
        made
    }
}

/// The image's files in a folder.
pub fn unpacked(image: &str) -> PathBuf {
    let folder = harness::folder(&unique("root"));
    // Only containers can be exported; this one is never started.
    let name = unique("export");
    let tar = folder.with_extension("exported").display().to_string();
    docker(&["create", "--name", &name, image]);
    let exported = succeeds(client().args(["export", "--output", &tar, &name]));
    docker(&["rm", &name]);
    assert!(exported, "docker export {name}");
    assert!(succeeds(Command::new("tar").args(["--extract", "--file", &tar, "--directory"]).arg(&folder)), "tar");
    fs::remove_file(tar).unwrap();
    folder
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = client().args(["image", "rm", "--force", &self.0]).output();
    }
}

/// A PCI bus with one card of NVIDIA's, to mount over the machine's own.
pub fn one_card() -> PathBuf {
    let folder = harness::folder(&unique("pci"));
    let card = folder.join("0000:01:00.0");
    fs::create_dir_all(&card).unwrap();
    fs::write(card.join("vendor"), "0x10de\n").unwrap();
    fs::write(card.join("class"), "0x030200\n").unwrap();
    folder
}

/// Tests run beside each other, and so may test runs.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("agent-net-test-{what}-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub fn client() -> Command {
    let mut client = Command::new("docker");
    client.stdin(Stdio::null());
    client
}

/// What docker says; it must succeed.
#[track_caller]
pub fn docker(args: &[&str]) -> String {
    let (status, out, err) = harness::run(client().args(args));
    assert!(status.success(), "docker {}: {out}{err}", args.join(" "));
    out
}

fn succeeds(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

/// How many GPUs the fake library shows.
const GPUS: usize = 2;
