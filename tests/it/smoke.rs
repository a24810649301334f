//! scripts/gpu-smoke.sh beside an nvidia-smi that agrees, and beside one that does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{command, folder, run};
use crate::nvml::FakeNvml;

/// Exit code and output beside an nvidia-smi that knows these fields and prints these lines; with -L those that begin
/// as its list does.
fn smoke(name: &str, nvml: &FakeNvml, fields: &[&str], lines: &str) -> (i32, String) {
    let folder = folder(name);
    let fields = fields.iter().map(|field| format!("\\\"{field}\\\"\\n")).collect::<String>();
    let (instances, lines): (Vec<&str>, Vec<&str>) =
        lines.lines().partition(|line| line.starts_with("GPU") || line.starts_with(' '));
    let (instances, lines) = (instances.join("\n"), lines.join("\n"));
    let script = format!(
        "#!/bin/sh\ncase $1 in\n--help-query-gpu) printf \"{fields}\" ;;\n-L) cat <<'END'\n{instances}\nEND\n;;\n\
         *) cat <<'END'\n{lines}\nEND\n;;\nesac\n"
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

#[test]
fn mig_instances_are_compared_as_well() {
    let nvml =
        FakeNvml::new("gpu0.mig=1\ngpu0.memory=81559/20/0\ngpu0.mig2=3/0/60/3/3/40448/9\ngpu0.mig3=4/0/16/1/1/9984/9");
    let zeros = "00000000-0000-0000-0000-000000000000";
    let good = format!(
        "0, GPU-{zeros}\nGPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-{zeros})\n\
        \u{20}\u{20}MIG 3g.40gb     Device  0: (UUID: MIG-00000000-0000-0000-0002-000000000000)\n\
        \u{20}\u{20}MIG 1g.10gb     Device  1: (UUID: MIG-00000000-0000-0000-0003-000000000000)"
    );
    let (rc, out) = smoke("smoke-mig", &nvml, &["uuid"], &good);
    assert!(rc == 0 && out.contains("2 MIG instances are the same"), "{out}");
    for other in [
        good.replace("3g.40gb", "4g.40gb"),
        good.replace("0003-", "0004-"),
        good.lines().take(3).collect::<Vec<_>>().join("\n"),
    ] {
        let (rc, out) = smoke("smoke-mig-other", &nvml, &["uuid"], &other);
        assert!(rc == 1 && out.contains("MIG instances DIFFER"), "{out}");
    }
}
