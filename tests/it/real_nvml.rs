//! NVIDIA's own libnvidia-ml of several driver branches: `scripts/test.sh` downloads Debian's packages and names their
//! folder in AGENT_NET_NVML_LIBS. The machine has no driver, so each must load, initialize and report just that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fake_ollama::{Answer, FakeOllama};
use crate::harness::{agent_net, codes, command, folder, from_env, run, skip, verdict};
use crate::image::{client, one_card};
use crate::nvml;

/// `scripts/test.sh` sets the variable only if there are as many.
const BRANCHES: usize = 4;

/// Version and file of each library, the oldest first.
fn libraries() -> Option<Vec<(String, PathBuf)>> {
    let dir = from_env("AGENT_NET_NVML_LIBS")?;
    if Path::new("/proc/driver/nvidia/version").exists() {
        println!("skipped: this machine has an NVIDIA driver, which the libraries would find");
        return None;
    }
    let folders = fs::read_dir(&dir).unwrap_or_else(|why| panic!("AGENT_NET_NVML_LIBS={dir}: {why}"));
    let mut all: Vec<(String, PathBuf)> = folders
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path().join("libnvidia-ml.so.1")))
        .collect();
    let number = |version: &str| version.split('.').map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>();
    all.sort_by_key(|(version, _)| number(version));
    let branches: BTreeSet<u32> = all.iter().map(|(version, _)| number(version)[0]).collect();
    assert!(branches.len() >= BRANCHES, "only {branches:?} in {dir}");
    Some(all)
}

/// Runs `check` and `doctor` with one of NVIDIA's libraries at `place`. The machine must show an NVIDIA card: without one
/// the reason is NO_GPU, whatever the library says.
fn says_that_no_driver_is_loaded(version: &str, place: &str, program: impl Fn(&str) -> Command) -> Value {
    let json = |command: &str| {
        let (status, out, err) = run(program(command).arg("--json"));
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{version}, {why}: {out}{err}"));
        assert_eq!(status.code(), Some(2), "{version}, {command}: {report:#}");
        report
    };
    let report = json("check");
    assert_eq!(verdict(&report), "unhealthy", "{version}: {report:#}");
    let reasons = report["health"]["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|reason| reason["code"] == "DRIVER_NOT_LOADED");
    let reason = reason.unwrap_or_else(|| panic!("{version}: {report:#}"));
    // It was this library that said so.
    assert!(reason["message"].as_str().unwrap().contains(place), "{version}: {reason:#}");
    let diagnosis = json("doctor");
    let checks = diagnosis["checks"].as_array().unwrap();
    let named = |one: &&Value| one["detail"].as_str().is_some_and(|detail| detail.contains("DRIVER_NOT_LOADED"));
    let finding = checks.iter().find(named).unwrap_or_else(|| panic!("{version}: {diagnosis:#}"));
    let detail = finding["detail"].as_str().unwrap();
    assert!(finding["grade"] == "fail" && detail.contains(place), "{version}: {finding:#}");
    report
}

/// `agent-net` without the capability to create device nodes: run by root, NVIDIA's library creates a missing
/// /dev/nvidiactl, which other tests, and other programs, would then report as a GPU that they cannot open.
fn without_mknod() -> Command {
    let program = agent_net();
    if !rustix::process::geteuid().is_root() {
        return program;
    }
    let mut less = command("setpriv");
    less.args(["--bounding-set", "-mknod", "--inh-caps", "-mknod"]).arg(program.get_program());
    less.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    less
}

#[test]
fn nvidias_own_libraries_load_and_say_that_no_driver_is_loaded() {
    let Some(libraries) = libraries() else { return };
    let root = folder("real-nvml");
    fs::create_dir_all(root.join("sys/bus/pci")).unwrap();
    fs::rename(one_card(), root.join("sys/bus/pci/devices")).unwrap();
    let ollama = FakeOllama::new();
    ollama.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    let control_node = Path::new("/dev/nvidiactl");
    let had_node = control_node.exists();
    for (version, library) in &libraries {
        let place = library.to_str().unwrap();
        let report = says_that_no_driver_is_loaded(version, place, |command| {
            let mut program = without_mknod();
            program.env("NVML_LIB", place).env("HOST_ROOT", &root).env("OLLAMA_URL", ollama.url()).arg(command);
            program
        });
        assert_eq!(codes(&report), ["DRIVER_NOT_LOADED"], "{version}: {report:#}");
        assert_eq!(control_node.exists(), had_node, "{version} created {}", control_node.display());
    }
}

/// The image has the loader and all files that each of them needs, and user 65532 may read them.
#[test]
fn nvidias_own_libraries_load_in_the_image() {
    let (Some(image), Some(libraries)) = (from_env("AGENT_NET_IMAGE"), libraries()) else { return };
    let cards = format!("{}:/sys/bus/pci/devices:ro", one_card().display());
    let place = "/usr/lib64/libnvidia-ml.so.1";
    for (version, library) in &libraries {
        let library = format!("{}:{place}:ro", library.display());
        says_that_no_driver_is_loaded(version, place, |command| {
            let mut docker = client();
            docker.args(["run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"]);
            docker.args(["--user", "65532:65532", "--security-opt", "no-new-privileges"]);
            docker.args(["--volume", &library, "--volume", &cards, "--env", "OLLAMA_URL=http://127.0.0.1:9"]);
            docker.args([&image, command]);
            docker
        });
    }
}

/// Newer than the newest library that Debian has, 555.58: from 570, 580 and 590.
const NEWER: [&str; 4] = [
    "nvmlDeviceGetAddressingMode",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetRepairStatus",
    "nvmlDeviceGetUnrepairableMemoryFlag_v1",
];

/// Functions that older drivers lack, and the first branch of those in Debian that has them.
const SINCE: [(&str, u32); 11] = [
    ("nvmlDeviceGetSamples", 340),
    ("nvmlDeviceGetFieldValues", 390),
    ("nvmlDeviceGetProcessUtilization", 390),
    ("nvmlDeviceGetRowRemapperHistogram", 450),
    ("nvmlDeviceGetGpuFabricInfo", 525),
    ("nvmlGpmQueryDeviceSupport", 525),
    ("nvmlGpmSampleGet", 525),
    ("nvmlGpmMigSampleGet", 525),
    ("nvmlGpmMetricsGet", 525),
    ("nvmlDeviceGetSramEccErrorStatus", 535),
    ("nvmlDeviceGetGpuFabricInfoV", 550),
];

/// What a library exports; None without readelf.
fn functions(library: &Path) -> Option<BTreeSet<String>> {
    if Command::new("readelf").arg("--version").output().is_err() {
        skip("readelf is missing");
        return None;
    }
    let (status, out, err) = run(Command::new("readelf").args(["--wide", "--dyn-syms"]).arg(library));
    assert!(status.success(), "{err}");
    let symbols = out.lines().filter(|line| !line.contains(" UND ")).filter_map(|line| line.split_whitespace().nth(7));
    let names = symbols.filter_map(|symbol| symbol.split('@').next()).filter(|name| name.starts_with("nvml"));
    Some(names.map(str::to_owned).collect())
}

/// A misspelt function in the fake would test a call that fails on every real machine.
#[test]
fn the_fake_has_no_function_that_nvidias_own_library_lacks() {
    let Some(libraries) = libraries() else { return };
    let (version, newest) = libraries.last().unwrap();
    let (Some(fake), Some(real)) = (functions(nvml::library()), functions(newest)) else { return };
    assert!(fake.len() > 30 && real.len() > 300, "{} and {}", fake.len(), real.len());
    let unknown: Vec<_> = fake.difference(&real).filter(|name| !NEWER.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "{version} has no {unknown:?}");
}

/// The fake without them stands for the older drivers.
#[test]
fn older_libraries_lack_the_functions_of_newer_ones() {
    let Some(libraries) = libraries() else { return };
    for (version, library) in &libraries {
        let Some(has) = functions(library) else { return };
        let branch: u32 = version.split('.').next().unwrap().parse().unwrap();
        for (name, first) in SINCE {
            assert_eq!(has.contains(name), branch >= first, "{version}: {name}");
        }
    }
    let Some(old) = functions(nvml::old_library()) else { return };
    let lacks = SINCE.iter().filter(|(name, _)| !old.contains(*name)).map(|(_, first)| *first);
    assert!(lacks.clone().count() >= 8 && lacks.min() == Some(450), "{old:?}");
}
