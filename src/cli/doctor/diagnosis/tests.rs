use super::*;
use crate::gpu::surroundings::Node;

fn node(name: &str, access: Access) -> Node {
    Node { name: name.into(), mode: 0o20_666, uid: 0, gid: 44, access }
}

fn bare(pci: Option<u32>) -> Machine {
    let around = Surroundings { pci_gpus: pci, ..Surroundings::default() };
    Machine { around, driver: None, board: None, wsl: false, nodes: Vec::new() }
}

const DRIVER: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\nGCC version: gcc 12.3.0";

#[track_caller]
fn check(found: &[Finding], grade: Grade, parts: &[&str]) {
    let shown = text(found, false);
    assert_eq!(worst(found), grade, "{shown}");
    for part in parts {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    // Whoever is told of a trouble is told what to do.
    assert!(found.iter().all(|f| (f.grade == Grade::Pass) == f.mend.is_none()), "{shown}");
}

#[test]
fn driver_and_devices() {
    let limits = Limits::default();
    let none_expected = Limits { expected_gpus: Some(0), ..limits };
    check(&machine(&bare(Some(0)), &limits), Grade::Fail, &["no NVIDIA GPU on the PCI bus", "EXPECTED_GPUS=0"]);
    check(&machine(&bare(Some(0)), &none_expected), Grade::Pass, &["expects none"]);
    check(&machine(&bare(Some(2)), &limits), Grade::Fail, &["2 NVIDIA GPUs", "modprobe nvidia"]);
    check(&machine(&bare(None), &limits), Grade::Fail, &["cannot be seen"]);
    let mut lent = bare(Some(1));
    (lent.around.pci_gpus_for_nvidia, lent.around.other_drivers) = (Some(0), vec!["nouveau".into()]);
    check(&machine(&lent, &limits), Grade::Fail, &["other drivers have NVIDIA's cards: nouveau", "blacklist nouveau"]);
    let board = Machine { board: Some("Jetson Orin".into()), ..bare(Some(0)) };
    check(&machine(&board, &limits), Grade::Pass, &["Jetson Orin"]);
    check(&machine(&Machine { wsl: true, ..bare(None) }, &limits), Grade::Pass, &["/dev/dxg"]);

    let with = |nodes| Machine { driver: Some(DRIVER.into()), nodes, ..bare(Some(1)) };
    check(&machine(&with(vec![]), &limits), Grade::Fail, &["550.54.14", "no /dev/nvidia*", "compose/gpu.yaml"]);
    let open =
        || vec![node("nvidia0", Access::Open), node("nvidiactl", Access::Open), node("nvidia-uvm", Access::Open)];
    check(&machine(&with(open()), &limits), Grade::Pass, &["/dev/nvidia0 (mode 666, owner 0:44) can be opened"]);
    check(&machine(&with(vec![node("nvidiactl", Access::Open)]), &limits), Grade::Fail, &["no /dev/nvidia0"]);
    let mut revoked = open();
    revoked[1].access = Access::Revoked;
    check(&machine(&with(revoked), &limits), Grade::Fail, &["cgroup", "restart the worker's"]);
    let mut refused = open();
    refused[0].access = Access::Refused("Permission denied".into());
    check(&machine(&with(refused), &limits), Grade::Fail, &["/dev/nvidia0", "Permission denied", "add group 44"]);
}

#[test]
fn clocks() {
    let now = 1_800_000_000.0;
    let theirs = |apart: f64| vec![("https://o:8935".to_owned(), now + apart)];
    check(&clock(1000.0, &[]), Grade::Fail, &["years ago"]);
    check(&clock(now, &[]), Grade::Pass, &["no orchestrator"]);
    check(&clock(now, &theirs(-30.0)), Grade::Pass, &["https://o:8935"]);
    check(&clock(now, &theirs(90.0)), Grade::Warn, &["90 s apart", "timesyncd"]);
}

#[test]
fn disks() {
    check(&[disk(None, Ok(0))], Grade::Warn, &["STATE_DIR is unset"]);
    check(&[disk(Some("/s"), Err("Read-only".into()))], Grade::Fail, &["STATE_DIR=/s", "Read-only"]);
    check(&[disk(Some("/s"), Ok(4096))], Grade::Warn, &["4096 bytes"]);
    check(&[disk(Some("/s"), Ok(5 << 30))], Grade::Pass, &["5120 MiB"]);
}

#[test]
fn lines_stay_lines() {
    let found = [Finding::fail("models", "a\nb\u{1b}[2J", "c\rd")];
    assert_eq!(text(&found, false), "FAIL  models        a b [2J\n                    -> c d\n");
    assert!(text(&found, true).starts_with("\u{1b}[31mFAIL\u{1b}[0m  models"));
    let shown: serde_json::Value = serde_json::from_str(&json(&found)).unwrap();
    assert_eq!((&shown["status"], &shown["checks"][0]["detail"]), (&"fail".into(), &"a\nb\u{1b}[2J".into()));
}
