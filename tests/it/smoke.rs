//! scripts/gpu-smoke.sh beside an nvidia-smi that agrees, and beside one that does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{command, folder, run};
use crate::nvml::FakeNvml;
use crate::programs;

/// Exit code and output beside an nvidia-smi that knows these fields and prints these lines; with -L those that begin
/// as its list does.
fn smoke(name: &str, nvml: &FakeNvml, fields: &[&str], lines: &str) -> (i32, String) {
    smoke_with(name, nvml, fields, lines, "")
}

/// `long`: what its option -q prints.
fn smoke_with(name: &str, nvml: &FakeNvml, fields: &[&str], lines: &str, long: &str) -> (i32, String) {
    let folder = folder(name);
    let fields = fields.iter().map(|field| format!("\\\"{field}\\\"\\n")).collect::<String>();
    let (instances, lines): (Vec<&str>, Vec<&str>) =
        lines.lines().partition(|line| line.starts_with("GPU") || line.starts_with(' '));
    let (instances, lines) = (instances.join("\n"), lines.join("\n"));
    let script = format!(
        "#!/bin/sh\ncase $1 in\n--help-query-gpu) printf \"{fields}\" ;;\n-L) cat <<'END'\n{instances}\nEND\n;;\n\
         -q) cat <<'END'\n{long}\nEND\n;;\n\
         *) cat <<'END'\n{lines}\nEND\n;;\nesac\n"
    );
    let smi = folder.join("nvidia-smi");
    fs::write(&smi, script).unwrap();
    fs::set_permissions(&smi, fs::Permissions::from_mode(0o755)).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let (status, out, err) = run(command(root.join("scripts/gpu-smoke.sh"))
        .arg(programs::server())
        .env("PATH", path)
        .env("OLLAMA_URL", "http://127.0.0.1:9")
        .envs(programs::environment())
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

/// In the form of the captures of `boards.rs`.
const LONG: &str = "\
==============NVSMI LOG==============

GPU 00000000:01:00.0
    Product Name                                       : x
    ECC Errors
        Channel Repair Pending                         : No
        TPC Repair Pending                             : Yes
        Unrepairable Memory                            : No
    GPU Power Readings
        Average Power Draw                             : 63.20 W
    GPU Memory Power Readings
        Average Power Draw                             : 43.19 W
        Instantaneous Power Draw                       : N/A
    Module Power Readings
        Average Power Draw                             : N/A

GPU 00000000:02:00.0
    ECC Errors
        Channel Repair Pending                         : N/A
    GPU Memory Power Readings
        Average Power Draw                             : N/A";

#[test]
fn readings_of_newer_drivers_are_compared() {
    let nvml = FakeNvml::new(
        "gpus=2\ngpu0.repair=0/1\ngpu0.unrepairable=0\ngpu0.memory_power=43190\ngpu0.sram=0\ngpu0.fabric=3/0/0/0\n\
         gpu0.spares=2560/0/0/0/1\ngpu0.gpm=37.5/1/2/3/4\ngpu0.rows=1/2/1/0\ngpu1.rows=err:3",
    );
    // As nvidia-smi lists them.
    let fields = [
        "remapped_rows.uncorrectable",
        "remapped_rows.pending",
        "remapped_rows.histogram.max",
        "remapped_rows.histogram.none",
        "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded",
        "fabric.state",
        "fabric.status",
    ];
    let good = "0, 2, Yes, 2560, 1, No, state  Completed, Success\n1, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]";
    let (rc, out) = smoke_with("smoke-newer", &nvml, &fields, good, LONG);
    assert!(rc == 0 && out.contains("0 readings differ"), "{out}");
    for row in ["memory_power_w", "tpc_repair_pending", "fabric_state"] {
        assert!(out.lines().any(|line| line.contains(row) && line.contains(" ok ")), "{row}: {out}");
    }
    for (n, (smi, long)) in [
        (good.replace("No,", "Yes,"), LONG.to_owned()),
        (good.replace("2560", "2559"), LONG.to_owned()),
        (good.replace("Completed", "In Progress"), LONG.to_owned()),
        (good.to_owned(), LONG.replace("Pending                             : Yes", "Pending : No")),
        (good.to_owned(), LONG.replace("43.19", "243.19")),
        (good.to_owned(), LONG.replace("Unrepairable Memory                            : No", "Other : No")),
    ]
    .into_iter()
    .enumerate()
    {
        let (rc, out) = smoke_with(&format!("smoke-newer-{n}"), &nvml, &fields, &smi, &long);
        assert!(rc == 1 && out.contains("1 readings differ"), "{n}: {out}");
    }
}
