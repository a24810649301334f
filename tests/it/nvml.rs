//! The fake libnvidia-ml.so.1: compiled once a run, steered by one file for each test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{harness, programs};

/// What the real library names besides libc: empty since glibc 2.34, but it does not load without them.
const NEEDED: [&str; 4] = ["libpthread.so.0", "libdl.so.2", "librt.so.1", "libm.so.6"];

/// The compiled fake; its file name is libnvidia-ml.so.1.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compiled("nvml", &[]))
}

/// The same without the functions of newer drivers.
pub fn old_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compiled("nvml-old", &["--cfg", "old"]))
}

fn compiled(name: &str, options: &[&str]) -> PathBuf {
    if let Some(folder) = programs::others() {
        return folder.join(name).join("libnvidia-ml.so.1");
    }
    let library = harness::folder(name).join("libnvidia-ml.so.1");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort"]).args(options);
    rustc.args(["-C", "link-arg=-Wl,-soname,libnvidia-ml.so.1", "-C", "link-arg=-Wl,--no-as-needed"]);
    for name in NEEDED {
        let found = Command::new("cc").arg(format!("-print-file-name={name}")).output().expect("cc runs");
        let path = String::from_utf8(found.stdout).expect("a path");
        rustc.arg("-C").arg(format!("link-arg={}", path.trim()));
    }
    rustc.arg("-o").arg(&library).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/nvml/fake.rs"));
    let output = rustc.output().expect("rustc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// One test's fake.
pub struct FakeNvml {
    file: PathBuf,
}

impl FakeNvml {
    /// `text`: lines of `key=value`, see fake.rs.
    pub fn new(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fake-nvml-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let fake = Self { file: harness::folder(&name).join("settings") };
        fake.set(text);
        fake
    }

    /// Changes what the GPUs are from the next sample on.
    pub fn set(&self, text: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, text).expect("the file can be written");
        std::fs::rename(&new, &self.file).expect("and put in place");
    }

    /// How often the library was initialized. One that was not touches no GPU.
    pub fn inits(&self) -> u64 {
        std::fs::metadata(self.file.with_extension("inits")).map_or(0, |meta| meta.len())
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The worker's settings with this fake.
    pub fn settings(&self) -> [(&'static str, &str); 2] {
        let library = library().to_str().expect("UTF-8");
        [("NVML_LIB", library), ("FAKE_NVML", self.file.to_str().expect("UTF-8"))]
    }
}
