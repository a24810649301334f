//! Errors that the driver reported.

use super::*;
use crate::gpu::xid;

fn place(text: &str) -> PciId {
    PciId::parse(text).unwrap()
}

const FATAL: &[(Code, Verdict)] = &[(XidFatal, Unhealthy)];
const WARN: &[(Code, Verdict)] = &[(XidWarn, Degraded)];
/// What NVML says of a GPU for which the driver asks for nothing.
const ASKS_FOR_NOTHING: &str = r#"{"recovery_action":0}"#;

/// A GPU that says `json`, of which the driver has reported these: number, its words, seconds ago.
fn reported(json: &str, reports: &[(u32, &str, f64)]) -> Case {
    let mut case = of(json);
    for (number, words, age_s) in reports {
        case.xids.record(place("1:0"), *number, xid::class(*number, words), UP - age_s);
    }
    case
}

#[track_caller]
fn check(json: &str, reports: &[(u32, &str, f64)], expect: &[(Code, Verdict)]) {
    let mut case = reported(json, reports);
    case.check(expect);
    case.xids.settle();
    case.check(&[]);
}

#[test]
fn each_number_has_its_class() {
    for number in [46, 48, 62, 64, 79, 95, 110, 119, 120, 140, 143, 156, 158] {
        check("{}", &[(number, "", 5.0)], FATAL);
    }
    for number in [54, 63, 94, 109, 154, 167, 169] {
        check("{}", &[(number, "", 599.0)], WARN);
        check("{}", &[(number, "", 600.0)], &[]);
    }
    for number in [13, 31, 43, 45, 68, 92, 7777] {
        check("{}", &[(number, "", 5.0)], &[]);
    }
    // NVLink errors count only where there ever was a link.
    for number in [74, 136, 144, 150, 155] {
        check("{}", &[(number, "", 5.0)], &[]);
        check(r#"{"nvlinks_active":0}"#, &[(number, "", 5.0)], &[]);
        check(r#"{"nvlinks_active":4}"#, &[(number, "", 5.0)], FATAL);
    }
}

#[test]
fn what_the_driver_calls_nonfatal_is_a_warning() {
    let nonfatal = ", RLW_REMAP Nonfatal XC0 i0 Link 10 (0x00000004 0x00000040)";
    let fatal = ", NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000)";
    for links in ["{}", r#"{"nvlinks_active":0}"#, r#"{"nvlinks_active":18}"#] {
        for number in [144, 147, 150] {
            check(links, &[(number, nonfatal, 599.0)], WARN);
            check(links, &[(number, nonfatal, 600.0)], &[]);
            check(links, &[(number, fatal, 90_000.0)], FATAL);
            // A harmless one neither hides a fatal one nor makes it younger.
            check(links, &[(number, fatal, 700.0), (number, nonfatal, 5.0)], &[FATAL, WARN].concat());
        }
    }
    check(ASKS_FOR_NOTHING, &[(149, fatal, 600.0), (149, nonfatal, 5.0)], WARN);
}

#[test]
fn a_fatal_one_is_over_when_the_driver_says_so_and_everything_can_be_read() {
    let old = &[(79, "", 600.0)];
    check(ASKS_FOR_NOTHING, &[(79, "", 599.0)], FATAL);
    check(ASKS_FOR_NOTHING, old, &[]);
    check("{}", &[(79, "", 90_000.0)], FATAL);
    // A reading that has never worked is not a fault and keeps nothing raised.
    let with = |more: &str| format!(r#"{{"recovery_action":0,{more}}}"#);
    check(&with(r#""slow_gaps":{"failed":{"fan_percent":{"words":"no"}}}"#), old, &[]);
    check(&with(r#""gaps":{"failed":{"energy_mj":{"words":"27"}}}"#), old, &[]);
    check(&with(r#""gaps":{"unsupported":["power_w"]}"#), old, &[]);
    // One that every GPU has is a fault, and so is one that has worked.
    let read_error = (FieldReadError, Degraded);
    reported(&with(r#""gaps":{"failed":{"power_w":{"words":"no"}}}"#), old).check(&[FATAL, &[read_error]].concat());
    let mut case = reported(ASKS_FOR_NOTHING, old);
    case.gpu = of(&with(r#""gaps":{"failed":{"energy_mj":{"words":"27"}}}"#)).gpu;
    case.check(&[FATAL, &[read_error]].concat());
    // It asks for something.
    reported(r#"{"recovery_action":3}"#, old).check(&[FATAL, &[(DrainP2p, Degraded)]].concat());
}

#[test]
fn where_nothing_says_that_it_is_over_the_action_says_how_to_say_so() {
    let action = |json: &str, reports: &[_]| reported(json, reports).reasons(&[], NOW)[0].action.clone();
    let unknown = action("{}", &[(79, "", 9000.0)]);
    assert!(unknown.contains("agent-net ack") && unknown.contains("does not report"), "{unknown}");
    let known = action(ASKS_FOR_NOTHING, &[(79, "", 9.0)]);
    assert!(known.contains("10 minutes") && known.contains("agent-net ack"), "{known}");
}

#[test]
fn the_recovery_action_that_the_log_names_counts() {
    let to = |action: &str| format!(", GPU recovery action changed from 0x7 (Whatever) to {action}");
    let [reset, reboot, flr, drain_reset] =
        ["0x1 (GPU Reset Required)", "0x2 (Node Reboot Required)", "0x1 (PF FLR)", "0x4 (Drain and Reset)"].map(to);
    let [none, drain, unknown] = ["0x0 (None)", "0x3 (Drain P2P)", "0x9 (Tea Break)"].map(to);
    for action in [&reset, &reboot, &flr, &drain_reset] {
        check("{}", &[(154, action, 90_000.0)], FATAL);
        check(ASKS_FOR_NOTHING, &[(154, action, 599.0)], FATAL);
        check(ASKS_FOR_NOTHING, &[(154, action, 600.0)], &[]);
        check("{}", &[(154, action, 9.0), (154, &none, 5.0)], &[]);
        check("{}", &[(154, &none, 9.0), (154, action, 5.0)], FATAL);
        check("{}", &[(154, action, 9.0), (154, &drain, 5.0)], WARN);
        check("{}", &[(154, action, 9.0), (154, &unknown, 5.0)], &[FATAL, WARN].concat());
    }
    for action in [&drain, &unknown] {
        check("{}", &[(154, action, 599.0)], WARN);
        check("{}", &[(154, action, 600.0)], &[]);
        check("{}", &[(154, action, 9.0), (154, &none, 5.0)], &[]);
    }
    check("{}", &[(154, &none, 5.0)], &[]);
    // The all-clear says what NVML's "recovery action 0" says, no more: other errors still wait for their ten minutes.
    check("{}", &[(79, "", 700.0), (154, &reboot, 699.0), (154, &none, 5.0)], &[]);
    check("{}", &[(79, "", 599.0), (154, &reboot, 598.0), (154, &none, 5.0)], FATAL);
    check("{}", &[(154, &none, 800.0), (79, "", 700.0)], FATAL);
    check("{}", &[(79, "", 700.0), (154, &none, 650.0), (154, &drain, 640.0)], FATAL);
    // What NVML says is of this moment.
    let case = reported(r#"{"recovery_action":3}"#, &[(79, "", 700.0), (154, &none, 5.0)]);
    case.check(&[FATAL, &[(DrainP2p, Degraded)]].concat());
    // Of another GPU it says nothing.
    let mut case = reported("{}", &[(79, "", 700.0)]);
    case.xids.record(place("2:0"), 154, xid::Class::AllClear, UP);
    case.check(FATAL);
}

#[test]
fn the_wall_clock_decides_nothing() {
    let case = reported(ASKS_FOR_NOTHING, &[(63, "", 599.0), (48, "", 599.0)]);
    let over = reported(ASKS_FOR_NOTHING, &[(63, "", 600.0), (48, "", 600.0)]);
    for now in [0.0, 5.0, NOW, NOW * 2.0] {
        assert_eq!(case.reasons(&[], now).len(), 2, "{now}");
        assert_eq!(over.reasons(&[], now).len(), 0, "{now}");
    }
}

#[test]
fn errors_of_other_gpus_count_on_the_bare_machine_alone() {
    let off = |case: &mut Case, at: &str| case.xids.record(place(at), 79, xid::Class::Fatal, UP);
    let mut case = Case::default().seen(1);
    off(&mut case, "2:0");
    case.check(FATAL);
    let action = case.reasons(&[], NOW)[0].action.clone();
    assert!(action.contains("agent-net ack"), "{action}");
    case.host.in_container = true;
    case.host.device_nodes = Some(1);
    case.check(&[]);
    // One that was ours and is gone.
    case.xids = XidLog::default();
    off(&mut case, "1:0");
    case.gpu = sample(vec![Gpu { uuid: Some("GPU-2".into()), pci_bus_id: Some("00000000:03:00.0".into()), ..gpu() }]);
    case.check(FATAL);
    // Words count here as well, and so does the all-clear.
    case.xids = XidLog::default();
    let change = |to: &str| xid::class(154, &format!(", GPU recovery action changed from 0x0 (None) to {to}"));
    case.xids.record(place("1:0"), 154, change("0x2 (OS Reboot)"), UP);
    case.check(FATAL);
    case.xids.record(place("1:0"), 154, change("0x0 (None)"), UP);
    case.check(&[]);
    case.xids.record(place("1:0"), 149, xid::class(149, ", TREX Nonfatal XC0"), UP);
    case.check(&[]);
    case.xids.record(place("1:0"), 149, xid::class(149, ", TREX Fatal XC0"), UP);
    case.check(FATAL);
}

#[test]
fn a_gpu_that_was_not_read_yet_is_not_missing() {
    let mut case = Case::default();
    case.xids.record(place("1:0"), 79, xid::Class::Fatal, UP - 90_000.0);
    case.gpu = GpuState::Pending;
    case.check(&[(NoSample, Unknown)]);
    let starting = |gpus| GpuState::Starting { vendor: Vendor::Nvidia, lasting_s: 2.0, gpus };
    case.gpu = starting(Vec::new());
    case.check(&[(DriverStarting, Unknown)]);
    case.gpu = starting(vec![Gpu { vendor: Vendor::Amd, pci_bus_id: Some("0000:03:00.0".into()), ..gpu() }]);
    case.check(&[(DriverStarting, Unknown)]);
    // The others are known.
    let other = Gpu { uuid: Some("GPU-2".into()), pci_bus_id: Some("00000000:02:00.0".into()), ..gpu() };
    case.gpu = starting(vec![other.silent("starting")]);
    case.check(&[FATAL, &[(DriverStarting, Unknown)]].concat());
    case.gpu = fault(FaultKind::Stuck, 40.0);
    case.check(&[(DriverStuck, Unhealthy), (XidFatal, Unhealthy)]);
}
