//! Names of the processes on the GPUs, from trees of files laid out like the /proc of Linux 6.18, and from the real one in
//! namespaces of its own.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FileType, Mode};
use serde_json::{Value, json};

use crate::doctor::machine;
use crate::fake_ollama::FakeOllama;
use crate::harness::{self, agent_net, run, skip, wait_for};
use crate::nvml::FakeNvml;
use crate::programs;
use crate::rules::{Scene, UUID};

/// Behind the name in /proc/PID/stat, with flags, and the start in hundredths of a second.
fn stat(pid: u32, name: &[u8], parent: u32, flags: u32, started: u64) -> Vec<u8> {
    let rest = format!(
        " S {parent} {pid} {pid} 0 -1 {flags} 100 0 0 0 0 0 0 0 20 0 1 0 {started} 3133440 393 18446744073709551615 1 1 1\n"
    );
    [pid.to_string().as_bytes(), b" (", name, b")", rest.as_bytes()].concat()
}

fn write(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = root.join("proc").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

pub fn process(root: &Path, pid: u32, name: &[u8]) {
    write(root, &format!("{pid}/stat"), stat(pid, name, 1, 0x0040_0000, 100));
}

const KERNEL_THREAD: u32 = 0x0020_8040;

/// A machine with such a /proc.
fn host(name: &str, numbers: &str) -> PathBuf {
    let root = machine(name);
    own_proc(&root, numbers);
    root
}

/// The host's /proc, with this process's number in each namespace.
pub fn own_proc(root: &Path, numbers: &str) {
    write(root, "2/stat", stat(2, b"kthreadd", 0, KERNEL_THREAD, 0));
    write(root, "self/status", format!("Name:\tagent-net\nPid:\t7\nNSpid:\t{numbers}\nNSpgid:\t7\n"));
}

/// No process of this machine has such a number: the kernel gives none above 4194304.
const OLLAMA: u32 = 4_200_042;
const PYTHON: u32 = 4_200_099;

fn named(report: &Value) -> Value {
    let rows = report["gpus"][0]["processes"].as_array().into_iter().flatten();
    rows.map(|row| json!([row["pid"], row["name"], row["vram_mb"]])).collect()
}

#[test]
fn names_are_in_the_report_its_lines_the_metrics_and_the_reasons() {
    let root = host("names", "7");
    process(&root, OLLAMA, b"ollama");
    process(&root, PYTHON, b"py\"\\thon\n3");
    let listed =
        format!("gpus=2\ngpu0.processes={OLLAMA}:6321,{PYTHON}:4000,4200001:-,{OLLAMA}:2\ngpu1.processes={PYTHON}:100");
    let scene = Scene::new(&root, &listed, &[]);
    let rows = json!([
        [OLLAMA, "ollama", 6321],
        [PYTHON, "py\"\\thon 3", 4000],
        [4_200_001, null, null],
        [OLLAMA, "ollama", 2]
    ]);
    scene.worker.report_when("names", |report| named(report) == rows);
    let lines = scene.worker.get("/gpu?format=text");
    assert!(lines.text().contains("gpu0_processes0_name='ollama'\n"), "{}", lines.text());
    assert!(!lines.text().contains("gpu0_processes2_name"), "null is left out");
    // A process has one series on each GPU.
    let metrics = scene.worker.get("/metrics");
    let found: Vec<&str> =
        metrics.text().lines().filter(|line| line.starts_with("agent_net_gpu_process_mem")).collect();
    let second = UUID.replace("0000-000000000000", "0000-000000000001");
    let series = |uuid: &str, pid, name: &str, mib: u64| {
        format!("agent_net_gpu_process_memory_bytes{{uuid=\"{uuid}\",pid=\"{pid}\",name=\"{name}\"}} {}", mib << 20)
    };
    let python = r#"py\"\\thon 3"#;
    let all = [
        series(UUID, OLLAMA, "ollama", 6323),
        series(UUID, PYTHON, python, 4000),
        series(&second, PYTHON, python, 100),
    ];
    assert_eq!(found, all);
    // A name that changes, a process that ends, and one without a name.
    process(&root, PYTHON, b"VLLM::EngineCor");
    scene.worker.report_when("another name", |report| named(report)[1][1] == "VLLM::EngineCor");
    fs::remove_dir_all(root.join(format!("proc/{OLLAMA}"))).unwrap();
    scene.worker.report_when("no name", |report| named(report)[0][1].is_null());
    assert!(scene.worker.get("/metrics").text().contains(&series(UUID, OLLAMA, "", 6323)));
}

#[test]
fn reasons_about_vram_name_its_holders_and_what_to_stop() {
    let root = host("names-reasons", "7");
    process(&root, OLLAMA, b"ollama");
    process(&root, PYTHON, b"python3");
    let listed = format!("gpu0.processes={OLLAMA}:1200,{PYTHON}:4000");
    let scene = Scene::new(&root, &listed, &[]);
    scene.is_well();
    scene.runs_on_the_cpu();
    let reason = scene.says("MODEL_ON_CPU", "degraded");
    let held = format!(". VRAM: python3 (pid {PYTHON}) holds 4000 MiB, ollama (pid {OLLAMA}) holds 1200 MiB");
    assert!(reason["message"].as_str().unwrap().ends_with(&held), "{reason:#}");
    let cure = format!("Stop python3 (pid {PYTHON}), or give Ollama another GPU. Restart Ollama");
    assert!(reason["action"].as_str().unwrap().starts_with(&cure), "{reason:#}");
    scene.runs_on_the_gpu();
    scene.is_well();
    scene.nvml.set(&format!("{listed}\ngpu0.memory=24576/3000/512"));
    let reason = scene.says("MODEL_VRAM_MISMATCH", "degraded");
    assert!(reason["message"].as_str().unwrap().ends_with(&held), "{reason:#}");
    assert!(reason["action"].as_str().unwrap().starts_with("Restart Ollama"), "{reason:#}");
}

/// What a container shows instead of the host's /proc.
#[test]
fn a_proc_that_is_not_proved_to_be_the_hosts_gives_no_names() {
    #[track_caller]
    fn check(name: &str, change: impl Fn(&Path)) {
        let root = host(name, "7");
        process(&root, OLLAMA, b"ollama");
        change(&root);
        let scene = Scene::new(&root, &format!("gpu0.processes={OLLAMA}:6321"), &[("LOG_LEVEL", "debug")]);
        let log =
            wait_for("the reason", || Some(scene.worker.log()).filter(|log| log.contains("processes have no names")));
        for temperature in [51, 52] {
            scene.nvml.set(&format!("gpu0.processes={OLLAMA}:6321\ngpu0.temperature={temperature}"));
            let report = scene.worker.report_when(name, |report| report["gpus"][0]["temperature_c"] == temperature);
            assert_eq!(named(&report), json!([[OLLAMA, null, 6321]]), "{name}");
        }
        assert_eq!(log.matches("processes have no names").count(), 1, "{log}");
    }
    check("names-no-threads", |root| fs::remove_file(root.join("proc/2/stat")).unwrap());
    check("names-a-user", |root| write(root, "2/stat", stat(2, b"kthreadd", 0, 0x0040_0000, 0)));
    check("names-a-child", |root| write(root, "2/stat", stat(2, b"kthreadd", 1, KERNEL_THREAD, 0)));
    check("names-no-self", |root| fs::remove_file(root.join("proc/self/status")).unwrap());
    check("names-old", |root| write(root, "self/status", "Name:\tagent-net\nPid:\t7\n"));
}

/// Seen from a container with the host's /proc, a number that also exists in the container may mean either process.
#[test]
fn below_the_hosts_namespace_only_numbers_that_do_not_exist_here_have_names() {
    let root = host("names-below", "4242\t7");
    let own = std::process::id();
    process(&root, OLLAMA, b"ollama");
    process(&root, own, b"another");
    let scene = Scene::new(&root, &format!("gpu0.processes={own}:100,{OLLAMA}:6321"), &[]);
    let report = scene.worker.report_when("a name", |report| named(report)[1][1] == "ollama");
    assert_eq!(named(&report)[0], json!([own, null, 100]));
    // In the host's own namespace there is one process of that number.
    write(&root, "self/status", "NSpid:\t7\n");
    scene.worker.report_when("both names", |report| named(report)[0][1] == "another");
}

#[test]
fn junk_in_proc_delays_nothing_and_names_nothing() {
    let root = host("names-junk", "7");
    let pid = |at: u32| 4_200_000 + at;
    let at = |number: u32| root.join(format!("proc/{}", pid(number)));
    for number in 0..40 {
        process(&root, pid(number), format!("p{number}").as_bytes());
    }
    let replace = |number: u32, text: &[u8]| write(&root, &format!("{}/stat", pid(number)), text);
    let fifo = |number: u32| {
        fs::remove_file(at(number).join("stat")).unwrap();
        let path = at(number).join("stat");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path.as_os_str().as_bytes(),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
    };
    fifo(0);
    replace(1, b"");
    replace(2, &[b'('; 1 << 20]);
    replace(3, &stat(pid(3), &[b'x'; 5000], 1, 0, 100));
    replace(4, &stat(pid(4), b"kworker/0:1", 2, KERNEL_THREAD, 100));
    // It has the number of a process that is gone.
    replace(5, &stat(pid(5), b"later", 1, 0, u64::MAX / 2));
    replace(6, &stat(pid(7), b"other", 1, 0, 100));
    replace(7, b"4200007 (a) S 1");
    fs::remove_dir_all(at(8)).unwrap();
    fs::remove_file(at(9).join("stat")).unwrap();
    fs::create_dir(at(9).join("stat")).unwrap();
    replace(10, &stat(pid(10), b"", 1, 0, 100));
    replace(11, &stat(pid(11), b") R (\xff\x1b[31m\n", 1, 0, 100));
    let listed: Vec<String> = (0..40).map(|number| format!("{}:{}", pid(number), 1 + number)).collect();
    let scene = Scene::new(&root, &format!("gpu0.processes={}", listed.join(",")), &[]);
    let report = scene.worker.report_when("names", |report| named(report)[31][1] == "p31");
    let rows = named(&report);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 32);
    for (number, row) in rows.iter().enumerate() {
        let expect = match number {
            0..=10 => Value::Null,
            11 => json!(") R (\u{fffd} [31m"),
            _ => json!(format!("p{number}")),
        };
        assert_eq!(row[1], expect, "{row}");
    }
    scene.is_well();
}

/// Whether this /proc is the host's, and processes may get namespaces of their own.
fn has_namespaces() -> bool {
    let kthreadd = fs::read_to_string("/proc/2/stat").unwrap_or_default();
    let unshared = Command::new("unshare").args(["--pid", "--fork", "true"]).stderr(Stdio::null()).status();
    kthreadd.starts_with("2 (kthreadd) S 0 ") && unshared.is_ok_and(|status| status.success())
}

#[test]
fn the_kernels_own_proc_names_processes_in_and_below_the_hosts_namespace() {
    if !has_namespaces() {
        return skip("this is not the host's namespace, or it cannot be left");
    }
    let mut sleeping = harness::command("sleep").arg("600").spawn().unwrap();
    let pid = sleeping.id();
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(&format!("gpu0.processes=1:5,{pid}:6321")));
    let ask = |enter: &[&str]| -> Option<Value> {
        let mut command = if enter.is_empty() { agent_net() } else { harness::command("unshare") };
        if !enter.is_empty() {
            command.args(enter).arg(programs::server());
        }
        command.args(["check", "--json"]).env("OLLAMA_URL", ollama.url()).env("SERVER_PORT", "9").envs(nvml.settings());
        let (_, out, err) = run(&mut command);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}{err}"));
        // A GPU that is slow for a moment, as on a busy machine, has none.
        Some(report["gpus"][0]["processes"].as_array()?.iter().map(|row| row["name"].clone()).collect())
    };
    let check = |enter: &[&str]| wait_for("the processes", || ask(enter));
    let init = fs::read_to_string("/proc/1/comm").unwrap();
    assert_eq!(check(&[]), json!([init.trim(), "sleep"]));
    // The host's /proc below it: number 1 may be this namespace's own.
    assert_eq!(check(&["--pid", "--fork", "--kill-child"]), json!([null, "sleep"]));
    assert_eq!(check(&["--pid", "--fork", "--kill-child", "--mount-proc"]), json!([null, null]));
    let _ = sleeping.kill();
    let _ = sleeping.wait();
}
