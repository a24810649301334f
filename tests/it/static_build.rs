//! The root file system as `scripts/build-static.sh` makes it; `scripts/test.sh` names its server in AGENT_NET_STATIC.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;
use sha2::Digest;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
fn the_static_server_names_its_commit() {
    let Some(path) = static_server() else { return };
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let Some(head) = git.output().ok().filter(|done| done.status.success()) else {
        harness::skip("not a git work tree");
        return;
    };
    let head = &String::from_utf8(head.stdout).unwrap()[..12];
    let (status, out, err) = harness::run(harness::static_command(&path).arg("--version"));
    let named = format!("agent-net {} ({head}", env!("CARGO_PKG_VERSION"));
    let right = [format!("{named})\n"), format!("{named}-dirty)\n")];
    assert!(
        status.success() && right.contains(&out),
        "{out}{err}: HEAD is {head}; was scripts/build-static.sh run since?"
    );
}

/// `amd64` or `arm64`, as the scripts name it.
fn arch() -> &'static str {
    if triplet().starts_with("aarch64") { "arm64" } else { "amd64" }
}

fn sbom(rootfs: &Path) -> Value {
    let text = fs::read(rootfs.join("usr/share/sbom/agent-net.cdx.json")).expect("the list is there");
    serde_json::from_slice(&text).expect("it is JSON")
}

/// What a second build would have otherwise: the umask and the time of this one, and its folders.
#[test]
fn nothing_in_the_image_depends_on_who_built_it_and_where() {
    let Some(path) = static_server() else { return };
    let rootfs = path.parent().unwrap();
    let built = sbom(rootfs)["metadata"]["timestamp"].as_str().expect("a time").to_owned();
    let built = OffsetDateTime::parse(&built, &Rfc3339).expect("of RFC 3339").unix_timestamp();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = env::var_os("CARGO_HOME").map_or_else(|| env::home_dir().unwrap().join(".cargo"), PathBuf::from);
    let folders = [source.join("src"), source.join("target"), cargo.join("registry")];
    let mut all = vec![PathBuf::new()];
    while let Some(path) = all.pop() {
        let metadata = fs::symlink_metadata(rootfs.join(&path)).unwrap();
        assert_eq!(metadata.mtime(), built, "{}", path.display());
        let executable = path.starts_with("lib") || path.starts_with("lib64") || path.parent() == Some(Path::new(""));
        let mode = match (metadata.is_dir(), path.to_str().unwrap()) {
            (true, "tmp" | "state") => 0o1777,
            (false, _) if !executable => 0o644,
            _ => 0o755,
        };
        assert_eq!(metadata.mode() & 0o7777, mode, "{}", path.display());
        if metadata.is_dir() {
            all.extend(fs::read_dir(rootfs.join(&path)).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
            continue;
        }
        let bytes = fs::read(rootfs.join(&path)).unwrap();
        for folder in &folders {
            let folder = folder.to_str().unwrap().as_bytes();
            let found = bytes.windows(folder.len()).any(|window| window == folder);
            assert!(!found, "{} names {}", path.display(), String::from_utf8_lossy(folder));
        }
    }
}

#[test]
fn a_file_says_how_the_image_was_built() {
    let Some(path) = static_server() else { return };
    let rootfs = path.parent().unwrap();
    let text = fs::read_to_string(rootfs.with_file_name(format!("build-{}.json", arch()))).expect("it is there");
    let build: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!((&build["arch"], &build["version"]), (&arch().into(), &env!("CARGO_PKG_VERSION").into()));
    for key in
        ["rustc", "cargo", "method_server", "method_helper", "c_compiler", "linker_server", "linker_helper", "os"]
    {
        assert!(build[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {}", build[key]);
    }
    let flags = build["rustflags_server"].as_array().expect("a list");
    for flag in ["--remap-path-prefix=<source>=.", "-Ctarget-feature=+crt-static"] {
        assert!(flags.contains(&flag.into()), "{flag} in {flags:?}");
    }
    assert!(build["rustflags_helper"].as_array().is_some_and(|flags| !flags.is_empty()), "{build}");
    let libc = build["glibc"].as_array().expect("a list").iter().find(|one| one["package"] == "libc6");
    assert!(libc.is_some_and(|libc| libc["version"].is_string()), "{build}");
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");
}

#[test]
fn the_image_says_what_is_in_it() {
    let Some(path) = static_server() else { return };
    let rootfs = path.parent().unwrap();
    let sbom = sbom(rootfs);
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    // A serial number would be another one each time.
    assert_eq!(sbom.get("serialNumber"), None);
    let all = sbom["components"].as_array().unwrap();
    let named =
        |name: &str| all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} is not listed"));
    let both = ["agent-net", "agent-net-nvml"];
    let static_only = &both[..1];
    let helper_only = &both[1..];
    for (name, programs) in [
        ("rouille", &both[..]),
        ("ureq", &both),
        ("k256", &both),
        ("dlmalloc", static_only),
        ("nvml-wrapper", helper_only),
    ] {
        let one = named(name);
        assert!(one["purl"].as_str().unwrap().starts_with("pkg:cargo/"), "{one}");
        let mut of: Vec<_> =
            one["properties"].as_array().unwrap().iter().map(|one| one["value"].as_str().unwrap()).collect();
        of.sort_unstable();
        assert_eq!(of, programs, "{one}");
    }
    crates_have_licenses_and_the_sums_of_cargo_lock(all);
    let sum = |file: &Path| {
        let sum = sha2::Sha256::digest(fs::read(file).unwrap());
        sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    for program in both {
        assert_eq!(named(program)["hashes"][0]["content"], sum(&rootfs.join(program)), "{program}");
    }
    assert!(named("std")["version"].as_str().is_some_and(|version| version.starts_with("1.")), "{}", named("std"));
    let folder = format!("/lib/{}/", triplet());
    let libc = named(&format!("{folder}libc.so.6"));
    assert_ne!(libc["version"], "unknown", "{libc}");
    assert!(libc["purl"].as_str().unwrap().starts_with("pkg:deb/"), "{libc}");
    assert_eq!(libc["hashes"][0]["content"], sum(&rootfs.join(&folder[1..]).join("libc.so.6")), "{libc}");
    let files = fs::read_dir(rootfs.join(&folder[1..])).unwrap().count();
    let listed = all.iter().filter(|one| one["name"].as_str().unwrap().starts_with(&folder)).count();
    assert_eq!(listed, files);
    for other in ["proptest", "tokio", "serde_derive"] {
        assert!(all.iter().all(|one| one["name"] != other), "{other}");
    }
    every_reference_is_one_components(&sbom, all);
}

fn every_reference_is_one_components(sbom: &Value, all: &[Value]) {
    let mut known: Vec<_> = all.iter().map(|one| one["bom-ref"].as_str().expect("a reference")).collect();
    known.push(sbom["metadata"]["component"]["bom-ref"].as_str().expect("a reference"));
    known.sort_unstable();
    assert!(known.windows(2).all(|two| two[0] != two[1]), "{known:?}");
    let mut needed = vec![known.iter().find(|name| name.starts_with("agent-net@")).copied().expect("the image")];
    for one in sbom["dependencies"].as_array().unwrap() {
        assert!(known.contains(&one["ref"].as_str().unwrap()), "{one}");
        needed.extend(one["dependsOn"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()));
    }
    needed.sort_unstable();
    needed.dedup();
    // Nothing is listed that nothing needs.
    assert_eq!(needed, known);
}

fn crates_have_licenses_and_the_sums_of_cargo_lock(all: &[Value]) {
    let lock = include_str!("../../Cargo.lock");
    for one in all.iter().filter(|one| one["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/"))) {
        let license = one["licenses"][0]["expression"].as_str().unwrap_or_default();
        assert!(!license.is_empty() && !license.contains('/'), "{one}");
        let sum = one["hashes"][0]["content"].as_str().expect("a sum");
        let entry = format!("name = {}\nversion = {}\n", one["name"], one["version"]);
        let (_, entry) = lock.split_once(&entry).unwrap_or_else(|| panic!("{one} is not in Cargo.lock"));
        assert!(entry.split("[[package]]").next().unwrap().contains(sum), "{one}");
    }
}
