//! `doctor`: what it says of a machine that is well, and of each thing that can be wrong with one.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::fake_amd::{FakeAmd, boards::RX_6600};
use crate::fake_ollama::{Answer, FakeOllama, MODEL, PS};
use crate::fake_orchestrator::{Behavior, Discovery, FakeOrchestrator};
use crate::fake_runners::Runners;
use crate::gpus::HURRY;
use crate::harness::{Worker, agent_net, folder, ordinary_agent_net, run};
use crate::nvml::FakeNvml;

/// A machine's /dev, /proc and /sys with one NVIDIA GPU.
pub fn machine(name: &str) -> PathBuf {
    let root = folder(name);
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\n");
    for node in ["nvidia0", "nvidiactl", "nvidia-uvm"] {
        write(&format!("dev/{node}"), "");
    }
    write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
    write("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n");
    root
}

/// A machine that is well, with everything around it.
struct Host {
    root: PathBuf,
    ollama: FakeOllama,
    orchestrator: FakeOrchestrator,
    nvml: FakeNvml,
    state: PathBuf,
}

impl Host {
    fn new(name: &str) -> Self {
        Self {
            root: machine(name),
            ollama: FakeOllama::new(),
            orchestrator: FakeOrchestrator::new(Behavior::Ok),
            nvml: FakeNvml::new(""),
            state: folder(&format!("{name}-state")),
        }
    }

    /// The exit code, and all lines as JSON, of doctor with more settings.
    fn examine(&self, more: &[(&str, &str)]) -> (i32, Vec<Value>) {
        let (rc, out) = self.say(&["doctor", "--json"], more);
        let all: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}"));
        let checks = all["checks"].as_array().expect("a list").clone();
        let worst = if checks.iter().any(|c| c["grade"] == "fail") {
            "fail"
        } else if checks.iter().any(|c| c["grade"] == "warn") {
            "warn"
        } else {
            "pass"
        };
        assert_eq!(all["status"], worst, "{all:#}");
        (rc, checks)
    }

    fn say(&self, args: &[&str], more: &[(&str, &str)]) -> (i32, String) {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (status, out, err) = run(agent_net()
            .args(args)
            .envs(self.nvml.settings())
            .env("HOST_ROOT", text(&self.root))
            .env("STATE_DIR", text(&self.state))
            .env("OLLAMA_URL", self.ollama.url())
            .env("ORCH_URL", self.orchestrator.url())
            .env("ORCH_SECRET", "s3cret")
            .env("CAPABILITY_NAME", "agent-net-test")
            .env("SERVER_PORT", "9")
            .envs(more.iter().copied()));
        assert!(!out.contains("s3cret") && !err.contains("s3cret"), "{out}{err}");
        (status.code().expect("it exits"), out)
    }

    /// Doctor finds this of `check`, and says what to do unless all is well.
    #[track_caller]
    fn finds(&self, more: &[(&str, &str)], check: &str, grade: &str, parts: &[&str]) {
        let (rc, checks) = self.examine(more);
        let fits = |c: &&Value| {
            let all = c.to_string();
            c["check"] == check && c["grade"] == grade && parts.iter().all(|part| all.contains(part))
        };
        let found = checks.iter().find(fits).unwrap_or_else(|| panic!("no {grade} of {check} {parts:?}: {checks:#?}"));
        assert_eq!(found["fix"].is_string(), grade != "pass", "{found}");
        match grade {
            "fail" => assert_eq!(rc, 2),
            "warn" => assert!(rc == 1 || rc == 2),
            _ => {}
        }
    }
}

#[test]
fn peers_that_do_not_report_are_named() {
    let (host, peer) = (Host::new("doctor-peers"), Worker::start(&[("EXPECTED_GPUS", "0")]));
    peer.report();
    let there = format!("http://{}", peer.addr);
    host.finds(&[("PEERS", &there)], "peers", "pass", &["1 worker of PEERS respond"]);
    let both = format!("{there},http://127.0.0.1:9");
    let said = ["1 of 2 workers in PEERS do not report: 127.0.0.1:9: connection refused"];
    host.finds(&[("PEERS", &both)], "peers", "warn", &said);
    let (_, checks) = host.examine(&[]);
    assert!(checks.iter().all(|check| check["check"] != "peers"), "{checks:#?}");
}

/// What cannot be seen without the kernel's log, and how to open it.
#[test]
fn the_kernels_log_is_about_the_gpus_of_this_machine() {
    #[track_caller]
    fn check(root: &str, expect: &str) {
        let (_, out, _) = run(agent_net().arg("doctor").envs([("HOST_ROOT", root), HURRY]));
        let line = out.lines().find(|line| line.contains("  xids  ")).unwrap_or_else(|| panic!("{out}"));
        assert!(line.contains(&format!("no such file or directory): {expect}. ")) && line.ends_with('.'), "{line}");
    }
    check(FakeAmd::new(&[RX_6600]).root(), "hangs and resets of AMD GPUs are not seen");
    let jetson = folder("doctor-jetson");
    fs::create_dir_all(jetson.join("proc/device-tree")).unwrap();
    fs::write(jetson.join("proc/device-tree/compatible"), "nvidia,p3701-0005\0nvidia,tegra234\0").unwrap();
    check(jetson.to_str().unwrap(), "XID errors are not seen");
    check(folder("doctor-nothing").to_str().unwrap(), "XID errors come from NVML, which misses some");
}

#[test]
fn a_healthy_machine_passes() {
    let host = Host::new("doctor-well");
    let secret = folder("doctor-secret").join("secret");
    fs::write(&secret, "s3cret\n").unwrap();
    let file = [("ORCH_SECRET", ""), ("ORCH_SECRET_FILE", secret.to_str().unwrap())];
    let (rc, checks) = host.examine(&file);
    assert_eq!(rc, 0, "{checks:#?}");
    let mut names: Vec<&str> = checks.iter().map(|c| c["check"].as_str().unwrap()).collect();
    names.dedup();
    let wanted = ["settings", "driver", "devices", "readings", "gpu", "xids", "ollama", "models", "probe"];
    assert_eq!(names, [&wanted[..], &["orchestrator", "clock", "notify", "disk", "worker"]].concat(), "{checks:#?}");
    // It has looked at the orchestrator and changed nothing there: no registration, and a name that is not registered.
    assert!(host.orchestrator.requests("/capability/register").iter().all(|r| r.body.is_empty()));
    let gone = host.orchestrator.requests("/capability/unregister");
    assert!(gone.len() == 1 && gone[0].body.starts_with("agent-net-doctor-"), "{gone:?}");
    assert_eq!(gone[0].header("authorization"), Some("s3cret"));
    // Nothing is left behind where it tried to write.
    assert_eq!(fs::read_dir(&host.state).unwrap().count(), 0);

    let (rc, text) = host.say(&["doctor"], &[]);
    assert_eq!(rc, 0);
    assert!(text.lines().all(|line| line.starts_with("pass  ")) && !text.contains('\u{1b}'), "{text}");
    assert!(text.contains("kernel module 550.54.14; 1 NVIDIA GPU on the PCI bus"), "{text}");
}

#[test]
fn driver_and_devices_have_findings_of_their_own() {
    let host = Host::new("doctor-driver");
    let dev = host.root.join("dev");
    fs::remove_file(dev.join("nvidia0")).unwrap();
    host.finds(&[], "devices", "fail", &["no /dev/nvidia0", "EXPECTED_GPUS=0"]);
    for node in ["nvidiactl", "nvidia-uvm"] {
        fs::remove_file(dev.join(node)).unwrap();
    }
    host.finds(&[], "devices", "fail", &["no /dev/nvidia*"]);
    // A socket cannot be opened by anybody.
    let socket = std::os::unix::net::UnixListener::bind(dev.join("nvidiactl"));
    if socket.is_ok() {
        host.finds(&[], "devices", "fail", &["/dev/nvidiactl", "cannot be opened"]);
    }
    fs::remove_file(host.root.join("proc/driver/nvidia/version")).unwrap();
    host.finds(&[], "driver", "fail", &["1 NVIDIA GPU on the PCI bus", "modprobe nvidia"]);
    fs::remove_dir_all(host.root.join("sys/bus/pci/devices/0000:01:00.0")).unwrap();
    host.finds(&[], "driver", "fail", &["no NVIDIA GPU on the PCI bus"]);
    host.finds(&[("EXPECTED_GPUS", "0")], "driver", "pass", &["EXPECTED_GPUS=0"]);
    fs::write(dev.join("dxg"), "").unwrap();
    host.finds(&[], "driver", "pass", &["WSL"]);
}

#[test]
fn what_nvml_says_is_passed_on() {
    let host = Host::new("doctor-nvml");
    let lib = ("NVML_LIB", "/nonexistent/libnvidia-ml.so.1");
    host.finds(&[lib], "readings", "fail", &["NVML_LIB_MISSING", "/nonexistent/libnvidia-ml.so.1"]);
    host.finds(&[("NVML_HELPER", "/nonexistent")], "readings", "fail", &["NVML_HELPER_MISSING"]);
    for (settings, check, grade, part) in [
        ("init=18", "readings", "fail", "DRIVER_LIB_MISMATCH"),
        ("at_init=hang", "readings", "fail", "DRIVER_STUCK"),
        ("at_sample=crash", "readings", "fail", "NVML_HELPER_FAILED"),
        ("gpus=2\ngpu1.handle=15", "gpu", "fail", "GPU_LOST"),
        ("gpu0.temperature=95", "gpu", "warn", "TEMP_HIGH"),
    ] {
        host.nvml.set(settings);
        host.finds(&[HURRY], check, grade, &[part]);
    }
}

#[test]
fn ollama_and_its_models() {
    let mut host = Host::new("doctor-ollama");
    host.finds(&[], "models", "pass", &["100 % of it on the GPU"]);
    let cpu = r#"{"models":[{"name":"m","size":10,"size_vram":0}]}"#;
    host.ollama.set("/api/ps", Answer::Json(cpu.into()));
    host.finds(&[], "models", "warn", &["m is running on the CPU", "reload the module nvidia_uvm"]);
    host.ollama.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    host.finds(&[], "models", "pass", &["none loaded"]);
    let wanted = ("MODEL", "codellama:34b-instruct-q4_k_m,other");
    host.finds(&[wanted], "models", "warn", &["codellama:34b-instruct-q4_k_m is not loaded", "model_keeper"]);
    host.finds(&[wanted], "models", "warn", &["other is not pulled", "agent-net pull"]);
    let cloud = r#"{"models":[{"name":"far:1","remote_host":"https://ollama.com:443","remote_model":"far"}]}"#;
    host.ollama.set("/api/tags", Answer::Json(cloud.into()));
    host.finds(&[("MODEL", "far:1")], "models", "warn", &["far:1 runs in Ollama's cloud", "Remove it from MODEL"]);
    host.ollama.set("/api/tags", Answer::Status(500, "no".into()));
    host.finds(&[], "ollama", "warn", &["cannot list its models", "500"]);
    host.ollama.stop();
    host.finds(&[], "ollama", "fail", &["is not responding", "OLLAMA_URL"]);
}

#[test]
fn whether_models_are_probed() {
    let host = Host::new("doctor-probe");
    let model = ("MODEL", MODEL);
    host.finds(&[], "probe", "pass", &["MODEL is unset"]);
    host.finds(&[model, ("PROBE_INTERVAL", "off")], "probe", "pass", &["PROBE_INTERVAL is off"]);
    host.finds(&[model], "probe", "pass", &[MODEL, "is probed every 300 s"]);
    host.finds(&[model, ("PROBE_INTERVAL", "60s")], "probe", "pass", &["is probed every 60 s"]);
    host.ollama.set("/api/ps", Answer::Json(PS.replace(",\"context_length\":4096", "")));
    host.finds(&[model], "probe", "warn", &["MODEL=codellama", "does not list its context length", "0.10 or later"]);
    let endless = PS.replace("\"expires_at\"", "\"expires\"");
    assert_ne!(endless, PS);
    host.ollama.set("/api/ps", Answer::Json(endless));
    host.finds(&[model], "probe", "warn", &["is not probed: Ollama does not list when it expires"]);
    host.ollama.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    host.finds(&[model], "probe", "pass", &["is not probed: it is not loaded"]);
    host.finds(&[("MODEL", "other")], "probe", "pass", &["MODEL=other is not probed: it is not loaded"]);
    let cloud = r#"{"models":[{"name":"far:1","remote_host":"https://ollama.com:443","remote_model":"far"}]}"#;
    host.ollama.set("/api/tags", Answer::Json(cloud.into()));
    host.finds(&[("MODEL", "far:1")], "probe", "pass", &["is not probed: it runs in Ollama's cloud"]);
    // What is wrong with Ollama stands in its own line alone.
    host.ollama.set("/api/ps", Answer::Status(500, "no".into()));
    let (_, checks) = host.examine(&[("MODEL", "far:1")]);
    assert!(checks.iter().all(|check| check["check"] != "probe"), "{checks:#?}");
}

#[test]
fn orchestrators_and_their_secret() {
    let mut host = Host::new("doctor-orch");
    host.finds(&[], "orchestrator", "pass", &["has BYOC and accepts the secret", "visible there as agent-net-test"]);
    host.finds(&[], "orchestrator", "pass", &["has no Live Runner registry", "call_runner"]);
    host.finds(&[("WORKER_TOKEN", "t0ken")], "orchestrator", "pass", &["ORCH_PROTOCOL=auto: BYOC only"]);
    for url in ["http://127.0.0.1:9876", "http://0.0.0.0:9876", "http://[::]:9876", "http://[::ffff:127.0.0.1]:9876"] {
        host.finds(&[("CAPABILITY_URL", url)], "orchestrator", "warn", &["CAPABILITY_URL", url]);
    }
    host.finds(&[("RUNNER_PRICE", "0.0005usd/fixed")], "orchestrator", "warn", &["BYOC jobs are served for free"]);
    host.finds(&[("ORCH_URL", "")], "orchestrator", "pass", &["does not register"]);
    host.orchestrator.set(Behavior::OldClock);
    host.finds(&[], "clock", "warn", &["differs by", "timesyncd"]);
    for (behavior, part) in [
        (Behavior::BadSecret, "ORCH_SECRET"),
        (Behavior::NoByoc, "no Live Runner registry"),
        (Behavior::PlainHttpToTls, "https://"),
        (Behavior::Error500, "500"),
        (Behavior::HangUp, "timed out"),
    ] {
        host.orchestrator.set(behavior);
        host.finds(&[], "orchestrator", "fail", &[part]);
    }
    // Live Runner is looked for where it is wanted.
    host.orchestrator.set(Behavior::NoByoc);
    let live = [("ORCH_PROTOCOL", "live-runner")];
    host.finds(&live, "orchestrator", "fail", &["no Live Runner registry", "-useLiveRunners"]);
    host.orchestrator.runners(|runners| *runners = Some(Runners::new("s3cret")));
    host.finds(&live, "orchestrator", "pass", &["has a Live Runner registry", "does not list agent-net-test"]);
    host.finds(&[], "orchestrator", "pass", &["has a Live Runner registry"]);
    host.finds(&[], "orchestrator", "pass", &["has no BYOC, which is optional"]);
    host.finds(&[("ORCH_PROTOCOL", "both")], "orchestrator", "fail", &["no BYOC"]);
    // A worker is there.
    host.orchestrator.runners(|runners| {
        let runners = runners.as_mut().unwrap();
        runners.time_scale = 1;
        runners.put("agent-net-test", json!({"app": "agent-net/gpu-check", "status": "ready"}));
    });
    host.finds(&[], "orchestrator", "pass", &["lists agent-net-test as ready", "/apps/agent-net-test/app/gpu-check"]);
    // Both are asked; an odd answer about the one is not a failure of the other.
    host.orchestrator.set(Behavior::Ok);
    for odd in [Discovery::Html, Discovery::Status(500), Discovery::Status(401), Discovery::HugeHtml] {
        host.orchestrator.discovery(Some(odd));
        host.finds(&[], "orchestrator", "warn", &["unknown whether", "ORCH_PROTOCOL=both"]);
    }
    host.orchestrator.discovery(Some(Discovery::Hang));
    host.finds(&[], "orchestrator", "fail", &["timed out"]);
    host.finds(&[], "orchestrator", "pass", &["has BYOC and accepts the secret"]);
    host.orchestrator.discovery(None);
    host.orchestrator.stop();
    host.finds(&[], "orchestrator", "fail", &["connection refused"]);
}

#[test]
fn disk_port_and_settings() {
    let host = Host::new("doctor-disk");
    host.finds(&[("STATE_DIR", "")], "disk", "warn", &["STATE_DIR is not set"]);
    host.finds(&[("STATE_DIR", "/dev/null/state")], "disk", "fail", &["is not writable"]);
    host.finds(&[("STATE_DIR", "/proc/state")], "disk", "fail", &["is not writable"]);
    // The program that listens is not a worker, and never answers.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    host.finds(&[("SERVER_PORT", &port)], "worker", "warn", &["does not respond"]);
    let (rc, checks) = host.examine(&[("ORCH_SECRET_FILE", "/nonexistent/secret"), ("ORCH_SECRET", "")]);
    assert_eq!((rc, checks.len(), &checks[0]["check"]), (78, 1, &"settings".into()), "{checks:#?}");
    assert!(checks[0]["detail"].as_str().unwrap().contains("ORCH_SECRET_FILE"), "{checks:#?}");
}

/// As after `kmsg.yaml`, with which the worker runs as root: a new file can be written, and those that are there cannot.
#[test]
fn a_file_of_another_user_in_the_state_folder_is_found() {
    let state = std::env::temp_dir().join(format!("agent-net-doctor-state-{}", std::process::id()));
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(&state).unwrap();
    set_mode(&state, 0o1777);
    fs::write(state.join("uptime.bin"), "x").unwrap();
    set_mode(&state.join("uptime.bin"), 0o444);
    let (mut doctor, copy) = ordinary_agent_net("doctor");
    doctor.args(["doctor", "--json"]).env("STATE_DIR", &state).env("OLLAMA_URL", "http://127.0.0.1:9");
    let (_, out, err) = run(&mut doctor);
    let _ = fs::remove_file(copy);
    fs::remove_dir_all(state).unwrap();
    assert!(out.contains("is not writable: uptime.bin: Permission denied"), "{out}{err}");
}

#[test]
fn a_check_that_hangs_costs_only_its_own_line() {
    let host = Host::new("doctor-hang");
    host.ollama.set_all(&Answer::Hang);
    host.orchestrator.set(Behavior::Hang);
    host.nvml.set("at_init=hang");
    let (rc, checks) = host.examine(&[HURRY]);
    assert_eq!(rc, 2);
    for (check, grade) in [("driver", "pass"), ("readings", "fail"), ("ollama", "fail"), ("orchestrator", "fail")] {
        assert!(checks.iter().any(|c| c["check"] == check && c["grade"] == grade), "{check}: {checks:#?}");
    }
    assert!(checks.iter().any(|c| c["check"] == "disk" && c["grade"] == "pass"), "{checks:#?}");
    // Even a file that never ends: it is given up.
    let host = Host::new("doctor-stuck");
    let version = host.root.join("proc/driver/nvidia/version");
    fs::remove_file(&version).unwrap();
    pipe(&version);
    host.finds(&[], "driver", "fail", &["no answer within 3 s"]);
    host.finds(&[], "ollama", "pass", &[]);
}

/// Whoever reads it waits for a writer who never comes.
pub fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}
