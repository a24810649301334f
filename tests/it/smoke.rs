//! scripts/gpu-smoke.sh beside an nvidia-smi that agrees, and beside one that does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{command, folder, run};
use crate::nvml::FakeNvml;

/// Exit code and output beside an nvidia-smi that knows these fields and prints these lines.
fn smoke(name: &str, nvml: &FakeNvml, fields: &[&str], lines: &str) -> (i32, String) {
    let folder = folder(name);
    let fields = fields.iter().map(|field| format!("\\\"{field}\\\"\\n")).collect::<String>();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = --help-query-gpu ]; then printf \"{fields}\"; else cat <<'END'\n{lines}\nEND\nfi\n"
    );
    let smi = folder.join("nvidia-smi");
    fs::write(&smi, script).unwrap();
    fs::set_permissions(&smi, fs::Permissions::from_mode(0o755)).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let (status, out, err) = run(command(root.join("scripts/gpu-smoke.sh"))
        .arg(env!("CARGO_BIN_EXE_agent-net"))
        .env("PATH", path)
        .env("OLLAMA_URL", "http://127.0.0.1:9")
        .envs(nvml.settings()));
    (status.code().expect("it exits"), out + &err)
}

#[test]
fn readings_that_agree_and_readings_that_differ() {
    let nvml = FakeNvml::new("gpus=2\ngpu1.temperature=70\ngpu1.name=Fake, the \"second\" 'one'");
    // nvidia-smi asks in the order of the script, whatever hardware it is given.
    let fields = ["temperature.gpu", "uuid", "memory.total", "power.draw"];
    let good = "0, GPU-00000000-0000-0000-0000-000000000000, 24576, 42, 63.21\n\
                1, GPU-00000000-0000-0000-0000-000000000001, 24576, 70, 63.21";
    let (rc, out) = smoke("smoke-good", &nvml, &fields, good);
    assert_eq!(rc, 0, "{out}");
    assert!(out.contains("0 readings differ") && out.contains("device_by_index"), "{out}");
    let (rc, out) = smoke("smoke-hot", &nvml, &fields, &good.replace("70, 63", "41, 63"));
    assert!(rc == 1 && out.contains("DIFFERS") && out.contains("1 readings differ"), "{out}");
    // What one of the two does not have is a difference as well.
    let (rc, out) = smoke("smoke-absent", &nvml, &fields, &good.replace("70, 63", "[N/A], 63"));
    assert!(rc == 1 && out.contains("1 readings differ"), "{out}");
    let (rc, out) = smoke("smoke-fewer", &nvml, &fields, good.lines().next().unwrap());
    assert!(rc == 1 && out.contains("1 GPUs in nvidia-smi, 2 usable in agent-net"), "{out}");
    let (rc, out) = smoke("smoke-none", &nvml, &fields, "");
    assert_ne!(rc, 0, "{out}");
}
