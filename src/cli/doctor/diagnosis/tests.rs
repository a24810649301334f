use super::*;
use crate::gpu::host_facts::Node;

fn node(name: &str, access: Access) -> Node {
    Node { name: name.into(), mode: 0o20_666, uid: 0, gid: 44, access }
}

fn bare(pci: Option<u32>) -> Machine {
    let host = HostFacts { pci_gpus: pci, ..HostFacts::default() };
    Machine { host, driver: None, board: None, wsl: false, nodes: Vec::new() }
}

const DRIVER: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\nGCC version: gcc 12.3.0";

#[track_caller]
fn check(found: &[Finding], grade: Grade, parts: &[&str]) {
    let shown = text(found, false);
    assert_eq!(worst(found), grade, "{shown}");
    for part in parts {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    // A problem comes with its fix.
    assert!(found.iter().all(|f| (f.grade == Grade::Pass) == f.fix.is_none()), "{shown}");
}

#[test]
fn driver_and_devices() {
    let limits = Limits::default();
    let none_expected = Limits { expected_gpus: Some(0), ..limits };
    check(&machine(&bare(Some(0)), &limits), Grade::Fail, &["no NVIDIA GPU on the PCI bus", "EXPECTED_GPUS=0"]);
    check(&machine(&bare(Some(0)), &none_expected), Grade::Pass, &["expects no GPU"]);
    check(&machine(&bare(Some(2)), &limits), Grade::Fail, &["2 NVIDIA GPUs", "modprobe nvidia"]);
    check(&machine(&bare(None), &limits), Grade::Fail, &["cannot be read"]);
    let mut lent = bare(Some(1));
    (lent.host.pci_gpus_for_nvidia, lent.host.other_drivers) = (Some(0), vec!["nouveau".into()]);
    check(&machine(&lent, &limits), Grade::Fail, &["other drivers have NVIDIA's cards: nouveau", "blacklist nouveau"]);
    let board = Machine { board: Some("Jetson Orin".into()), ..bare(Some(0)) };
    check(&machine(&board, &limits), Grade::Pass, &["Jetson Orin"]);
    check(&machine(&Machine { wsl: true, ..bare(None) }, &limits), Grade::Pass, &["/dev/dxg"]);

    let with = |nodes| Machine { driver: Some(DRIVER.into()), nodes, ..bare(Some(1)) };
    check(&machine(&with(vec![]), &limits), Grade::Fail, &["550.54.14", "no /dev/nvidia*", "EXPECTED_GPUS=0"]);
    let open =
        || vec![node("nvidia0", Access::Open), node("nvidiactl", Access::Open), node("nvidia-uvm", Access::Open)];
    check(&machine(&with(open()), &limits), Grade::Pass, &["/dev/nvidia0 (mode 666, owner 0:44) opens"]);
    check(&machine(&with(vec![node("nvidiactl", Access::Open)]), &limits), Grade::Fail, &["no /dev/nvidia0"]);
    let mut revoked = open();
    revoked[1].access = Access::Revoked;
    check(&machine(&with(revoked), &limits), Grade::Fail, &["cgroup", "DeviceAllow"]);
    // Another container's.
    let others = || [open(), vec![node("nvidia1", Access::Revoked)]].concat();
    let mut container = with(others());
    container.host.in_container = true;
    check(&machine(&container, &limits), Grade::Pass, &["/dev/nvidia0 (mode 666, owner 0:44) opens"]);
    check(&machine(&with(others()), &limits), Grade::Fail, &["/dev/nvidia1", "DeviceAllow"]);
    let mut refused = open();
    refused[0].access = Access::Refused("Permission denied".into());
    check(&machine(&with(refused), &limits), Grade::Fail, &["/dev/nvidia0", "Permission denied", "group 44"]);
}

#[test]
fn nodes_that_fail_alike_are_one_failure() {
    let fails = |machine: &Machine| {
        let all = super::machine(machine, &Limits::default());
        all.into_iter().filter(|f| f.grade == Grade::Fail).collect::<Vec<_>>()
    };
    let all = |access: &Access| ["nvidia0", "nvidiactl", "nvidia-uvm"].map(|name| node(name, access.clone())).to_vec();
    let with = |nodes| Machine { driver: Some(DRIVER.into()), nodes, ..bare(Some(1)) };
    let [refused] = &fails(&with(all(&Access::Refused("Permission denied".into()))))[..] else { panic!("one") };
    assert!(refused.detail.starts_with("/dev/nvidia0 (mode 666, owner 0:44), /dev/nvidiactl (mode"), "{refused:?}");
    assert!(refused.fix.as_ref().unwrap().contains("group 44"), "{refused:?}");
    // A group does not help where the driver does not answer.
    let [failed] = &fails(&with(all(&Access::Failed("Input/output error".into()))))[..] else { panic!("one") };
    assert_eq!(failed.fix.as_deref(), Some("Check `dmesg` and `nvidia-smi`."));
    // The nodes stay when the driver is unloaded.
    let nodes = all(&Access::Failed("No such device or address".into()));
    for nodes in [nodes.clone(), nodes[1..].to_vec()] {
        let [driver] = &fails(&Machine { nodes, ..bare(Some(1)) })[..] else { panic!("one") };
        assert_eq!((driver.check, driver.fix.as_deref().unwrap().contains("modprobe nvidia")), ("driver", true));
    }
}

#[test]
fn one_cause_is_one_failure() {
    let of_code = |code: Code| {
        let reason = Reason::new(code, Verdict::Unhealthy, None, "why".into(), "Do it.", 1.0);
        super::reason(&reason)
    };
    let driver = || Finding::fail("driver", "no driver", "Load it.");
    let all = one_for_each_cause(vec![driver(), of_code(Code::NvmlLibMissing), of_code(Code::DriverStuck)]);
    let lines = text(&all, false);
    assert_eq!(all.len(), 2, "{lines}");
    assert!(lines.starts_with("FAIL  driver        no driver; NVML_LIB_MISSING: why\n"), "{lines}");
    assert!(lines.contains("Load it.") && lines.contains("DRIVER_STUCK") && lines.matches("Do it.").count() == 1);
    // Another cause, or no failed check, leaves the reason alone.
    let all = vec![Finding::pass("driver", "550"), of_code(Code::NoGpu)];
    assert_eq!(one_for_each_cause(all.clone()), all);
    let all = vec![Finding::fail("devices", "none", "Give one."), of_code(Code::NoGpu), of_code(Code::NvmlInitUnknown)];
    assert_eq!(one_for_each_cause(all).len(), 1);
}

#[test]
fn fixes_fit_where_the_worker_runs() {
    for (place, part) in [
        (Place::Host, "Use a machine with a GPU of NVIDIA or AMD"),
        (Place::Container, "compose/gpu.yaml"),
        (Place::Kubernetes, "nvidia.com/gpu"),
    ] {
        let mut bare = bare(Some(0));
        bare.host.place = place;
        check(&machine(&bare, &Limits::default()), Grade::Fail, &[part, "EXPECTED_GPUS=0"]);
        let mut refused = node("nvidia0", Access::Refused("no".into()));
        refused.gid = 7;
        let shown = node_finding(&[&refused], place).fix.unwrap();
        assert!(shown.contains("group 7") && shown.contains("group_add") == (place == Place::Container), "{shown}");
    }
}

#[test]
fn clocks() {
    let now = 1_800_000_000.0;
    let theirs = |apart: f64| vec![("https://o:8935".to_owned(), now + apart)];
    check(&clock(1000.0, &[]), Grade::Fail, &["wrong by years"]);
    check(&clock(now, &[]), Grade::Pass, &["no orchestrator"]);
    check(&clock(now, &theirs(-30.0)), Grade::Pass, &["https://o:8935"]);
    check(&clock(now, &theirs(90.0)), Grade::Warn, &["differs by 90 s", "timesyncd"]);
}

#[test]
fn disks() {
    check(&[disk(None, Ok(0))], Grade::Warn, &["STATE_DIR is not set"]);
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
