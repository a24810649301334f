//! The programs under test: cargo's own, or those of the folder AGENT_NET_PROGRAMS, with which `scripts/test.sh` tests the
//! build for another architecture: scripts named `agent-net` and `agent-net-nvml`, which emulate it, and its simulated
//! libraries, `nvml/libnvidia-ml.so.1` and `nvml-old/libnvidia-ml.so.1`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The folder of other programs, or None.
pub fn others() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| std::env::var_os("AGENT_NET_PROGRAMS").map(PathBuf::from)).as_deref()
}

/// The path of `agent-net`.
pub fn server() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| path("agent-net", env!("CARGO_BIN_EXE_agent-net")))
}

/// The path of `agent-net-nvml`.
pub fn helper() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| path("agent-net-nvml", env!("CARGO_BIN_EXE_agent-net-nvml")))
}

/// What `agent-net` needs in its environment to find the helper: emulated, it sees itself in another folder.
pub fn environment() -> Option<(&'static str, &'static str)> {
    others().map(|_| ("NVML_HELPER", helper()))
}

fn path(name: &str, own: &str) -> String {
    others().map_or_else(|| own.to_owned(), |folder| folder.join(name).to_str().expect("UTF-8").to_owned())
}

fn module(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(name).with_extension("rs");
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// A test that was renamed would no longer run emulated, or would run where it cannot.
#[test]
fn the_lists_of_emulated_tests_name_tests_that_exist() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test.sh");
    let script = std::fs::read_to_string(script).unwrap();
    let between = |start: &str, end: &str| {
        let (_, rest) = script.split_once(start).unwrap_or_else(|| panic!("{start} in scripts/test.sh"));
        rest.split_once(end).unwrap().0.to_owned()
    };
    let emulated = between("\nemulated=\"", "\"").replace('\\', "");
    let all: Vec<_> = emulated.split_whitespace().map(|name| name.split_once("::").expect("MODULE::")).collect();
    for (name, test) in &all {
        let text = module(name);
        assert!(text.contains("#[test]\n") && text.contains(&format!("\nfn {test}")), "{name}::{test}");
    }
    for line in between("<<'LIST'\n", "\nLIST").lines() {
        let (test, reason) = line.split_once(": ").expect("TEST: reason");
        let (name, test) = test.split_once("::").expect("MODULE::TEST");
        assert!(module(name).contains(&format!("#[test]\nfn {test}() {{")), "{line}");
        assert!(!reason.is_empty() && all.iter().any(|(module, _)| *module == name), "{line}");
    }
}
