//! The root file system as `scripts/build-static.sh` makes it; `scripts/test.sh` names its server in AGENT_NET_STATIC.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use crate::bad_input::JOB;
use crate::harness::{self, Worker, static_server};
use crate::http::Connection;
use crate::nvml::FakeNvml;

/// Of the programs under test, which may be those of another architecture.
pub fn triplet() -> String {
    let cpu = match static_server().and_then(|path| Elf::read(&path)).map(|elf| elf.number(18, 2)) {
        Some(183) => "aarch64",
        Some(62) => "x86_64",
        _ => env::consts::ARCH,
    };
    format!("{cpu}-linux-gnu")
}

/// All files below a folder of `root`, as paths from there.
pub fn files_below(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap()) {
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() { all.extend(files_below(root, &path)) } else { all.push(path) }
    }
    all
}

/// A 64-bit little-endian ELF file.
struct Elf(Vec<u8>);

impl Elf {
    /// None: it is another file.
    fn read(path: &Path) -> Option<Self> {
        let bytes = fs::read(path).unwrap();
        bytes.starts_with(b"\x7fELF\x02\x01").then_some(Self(bytes))
    }

    fn number(&self, at: usize, count: usize) -> usize {
        self.0[at..at + count].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    /// Kind and alignment of each program header.
    fn parts(&self) -> Vec<(usize, usize)> {
        let (table, size, count) = (self.number(32, 8), self.number(54, 2), self.number(56, 2));
        let headers = (0..count).map(|entry| table + entry * size);
        headers.map(|at| (self.number(at, 4), self.number(at + 48, 8))).collect()
    }
}

const LOAD: usize = 1;

#[test]
fn the_static_server_needs_no_loader_and_is_small() {
    let Some(path) = static_server() else { return };
    let elf = Elf::read(&path).expect("a 64-bit little-endian ELF file");
    // A position-independent one names an interpreter that an empty image lacks.
    assert_eq!(elf.number(16, 2), 2, "e_type is ET_EXEC");
    let kinds: Vec<usize> = elf.parts().into_iter().map(|(kind, _)| kind).collect();
    let (dynamic, interpreter) = (2, 3);
    assert!(kinds.contains(&LOAD), "{kinds:?}");
    assert!(!kinds.contains(&dynamic) && !kinds.contains(&interpreter), "{kinds:?}");
    let elf = elf.0;
    assert!(elf.len() <= 4_500_000, "{} bytes", elf.len());
    let holds = |text: &[u8]| elf.windows(text.len()).any(|window| window == text);
    assert!(!holds(b"nvmlInit"), "NVML is the helper's business");
}

/// A kernel for arm64 has pages of 4, 16 or 64 KiB, and starts no program whose parts share one.
#[test]
fn all_programs_and_libraries_are_laid_out_for_the_largest_pages() {
    let Some(server) = static_server() else { return };
    let root = server.parent().unwrap();
    let largest = if triplet().starts_with("aarch64") { 64 << 10 } else { 4 << 10 };
    let mut seen = 0;
    for path in files_below(root, Path::new("")) {
        let Some(elf) = Elf::read(&root.join(&path)) else { continue };
        for (_, align) in elf.parts().into_iter().filter(|(kind, _)| *kind == LOAD) {
            assert!(align >= largest, "{}: {align}", path.display());
        }
        seen += 1;
    }
    // Server, helper, loader and six libraries.
    assert_eq!(seen, 9);
}

/// Only qemu-user knows the variable, and shows such pages to an emulated program. It does not refuse what a kernel with
/// such pages refuses.
#[test]
fn the_programs_run_on_larger_pages() {
    let Some(path) = static_server() else { return };
    for size in ["16384", "65536"] {
        let nvml = FakeNvml::new("gpus=2");
        let mut command = harness::static_command(&path);
        command.env("QEMU_PAGESIZE", size);
        let settings = [&[("AGENT_NET_FAULT", "panic:boom")], &nvml.settings()[..]].concat();
        let worker = Worker::of(command, &settings);
        worker.report_when("two GPUs", |report| report["gpu_count"] == 2);
        assert_eq!(worker.post("/gpu-check", r#"{"agent_id":"boom"}"#).status, 500, "{size}");
        // The stacks of many connections, and memory for large bodies, given back after each.
        let connections: Vec<_> = (0..50).map(|_| Connection::open(worker.addr)).collect();
        let filler = "x".repeat(60_000);
        for _ in 0..50 {
            let body = format!(r#"{{"agent_id":"demo-agent","filler":"{filler}"}}"#);
            assert_eq!(worker.post("/gpu-check", &body).status, 200, "{size}");
        }
        drop(connections);
        assert_eq!(worker.report()["gpu_count"], 2, "{size}");
        assert_eq!(worker.stop().0.code(), Some(0), "{size}");
    }
}

#[test]
fn the_static_server_has_no_async_runtime_and_loads_no_library() {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut tree = Command::new(cargo);
    tree.args(["tree", "--no-default-features", "--edges", "normal", "--locked", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let (status, out, err) = harness::run(&mut tree);
    assert!(status.success() && out.contains("rouille v"), "{out}{err}");
    for crate_name in ["nvml-wrapper", "libloading", "tokio"] {
        assert!(!out.lines().any(|line| line.starts_with(&format!("{crate_name} "))), "{crate_name} in\n{out}");
    }
}

#[test]
fn the_static_server_outlives_a_panic() {
    let Some(path) = static_server() else { return };
    // Whether a panic can be caught is decided by what the static program was linked with.
    let worker = Worker::of(harness::static_command(&path), &[("AGENT_NET_FAULT", "panic:boom")]);
    let reply = worker.post("/gpu-check", r#"{"agent_id":"boom"}"#);
    assert_eq!((reply.status, reply.code().as_str()), (500, "internal"));
    assert_eq!(worker.post("/gpu-check", JOB).status, 200);
}

#[test]
fn the_image_says_what_is_in_it() {
    let Some(path) = static_server() else { return };
    let rootfs = path.parent().unwrap();
    let sbom = fs::read(rootfs.join("usr/share/sbom/agent-net.cdx.json")).expect("the list is there");
    let sbom: Value = serde_json::from_slice(&sbom).expect("it is JSON");
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let all = sbom["components"].as_array().unwrap();
    let named =
        |name: &str| all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} is not listed"));
    for name in ["rouille", "ureq", "k256", "nvml-wrapper"] {
        assert!(named(name)["purl"].as_str().unwrap().starts_with("pkg:cargo/"), "{name}");
    }
    let folder = format!("/lib/{}/", triplet());
    let libc = named(&format!("{folder}libc.so.6"));
    assert_ne!(libc["version"], "unknown", "{libc}");
    assert!(libc["purl"].as_str().unwrap().starts_with("pkg:deb/debian/libc6"), "{libc}");
    assert_eq!(libc["hashes"][0]["content"].as_str().map(str::len), Some(64), "{libc}");
    let files = fs::read_dir(rootfs.join(&folder[1..])).unwrap().count();
    let listed = all.iter().filter(|one| one["name"].as_str().unwrap().starts_with(&folder)).count();
    assert_eq!(listed, files);
    for other in ["proptest", "tokio"] {
        assert!(all.iter().all(|one| one["name"] != other), "{other}");
    }
}
