//! Repairs, errors beyond repair, spare rows and the NVLink fabric.

use super::*;

/// The reason with this code.
#[track_caller]
fn reason(json: &str, code: Code) -> Reason {
    let reasons = of(json).reasons(&[], NOW);
    reasons.into_iter().find(|reason| reason.code == code).unwrap_or_else(|| panic!("{code} by {json}"))
}

#[test]
fn repairs_and_what_is_beyond_repair() {
    let row = |json: &str, expect: &[_]| of(json).check(expect);
    row(r#"{"sram_threshold_exceeded":false,"unrepairable_memory":false}"#, &[]);
    row(r#"{"channel_repair_pending":false,"tpc_repair_pending":false}"#, &[]);
    row(r#"{"sram_threshold_exceeded":true}"#, &[(SramThreshold, Unhealthy)]);
    row(r#"{"unrepairable_memory":true}"#, &[(MemoryUnrepairable, Unhealthy)]);
    row(r#"{"channel_repair_pending":true}"#, &[(RepairPending, Degraded)]);
    row(r#"{"tpc_repair_pending":true}"#, &[(RepairPending, Degraded)]);
    row(r#"{"channel_repair_pending":true,"tpc_repair_pending":true}"#, &[(RepairPending, Degraded)]);
    // User rights and older drivers: unknown, and no fault.
    row(r#"{"slow_gaps":{"unsupported":["sram_threshold_exceeded","channel_repair_pending"]}}"#, &[]);
    let message = reason(r#"{"channel_repair_pending":true,"tpc_repair_pending":true}"#, RepairPending).message;
    assert!(message.contains("a memory channel and a compute unit (TPC)"), "{message}");
}

#[test]
fn a_board_that_must_be_replaced_is_not_to_be_reset_for_a_repair() {
    let pending = r#""channel_repair_pending":true,"remapped_rows":{"correctable":0,"uncorrectable":1,"pending":true,"failed":false}"#;
    of(&format!("{{{pending}}}")).check(&[(RepairPending, Degraded), (RowRemapPending, Degraded)]);
    of(&format!(r#"{{"unrepairable_memory":true,{pending}}}"#)).check(&[(MemoryUnrepairable, Unhealthy)]);
    of(&format!(r#"{{"sram_threshold_exceeded":true,{pending}}}"#)).check(&[(SramThreshold, Unhealthy)]);
    for code in [RepairPending, RowRemapPending] {
        // The driver requests the same reset now.
        let same = "RESET_REQUIRED";
        for (action, expect) in [
            (0, "when the GPU is idle"),
            (1, same),
            (2, same),
            (3, "idle"),
            (4, same),
            (5, "idle"),
            (6, same),
            (7, same),
        ] {
            let reason = reason(&format!(r#"{{"recovery_action":{action},{pending}}}"#), code);
            assert!(reason.action.contains(expect), "{action}: {reason:?}");
        }
    }
}

#[test]
fn banks_without_spare_rows_are_a_reason_to_plan() {
    let row = |json: &str, expect: &[_]| of(json).check(expect);
    row(r#"{"spare_rows":{"max":0,"high":1,"partial":2,"low":3,"none":0}}"#, &[]);
    let empty = r#""spare_rows":{"max":2559,"high":0,"partial":0,"low":0,"none":1}"#;
    row(&format!("{{{empty}}}"), &[(RowRemapMany, Degraded)]);
    let rows = r#""remapped_rows":{"correctable":0,"uncorrectable":600,"pending":false,"failed":false}"#;
    let both = format!("{{{empty},{rows}}}");
    row(&both, &[(RowRemapMany, Degraded)]);
    assert!(reason(&both, RowRemapMany).message.contains("600 rows"));
}

#[test]
fn the_fabric_in_all_its_states() {
    let row = |json: &str, expect: &[_]| of(json).check(expect);
    row(r#"{"fabric_state":"completed","fabric_status":"success"}"#, &[]);
    row(r#"{"fabric_state":"completed","fabric_status":"success","fabric_health":"healthy"}"#, &[]);
    row(r#"{"fabric_health":"limited capacity: reduced bandwidth"}"#, &[]);
    row(r#"{"fabric_health":"unhealthy: unhealthy route"}"#, &[(FabricUnhealthy, Unhealthy)]);
    row(r#"{"fabric_state":"completed","fabric_status":"no"}"#, &[(FabricUnhealthy, Unhealthy)]);
}

#[test]
fn a_gpu_waits_for_its_fabric_for_minutes_while_nothing_computes_on_it() {
    // Seen each 30 s: from the eleventh on for five minutes.
    let waiting = |times: u32, more: &str, expect: &[_]| {
        for state in ["not_started", "in_progress"] {
            of(&format!(r#"{{"nvlinks_active":18,"fabric_state":"{state}"{more}}}"#)).seen(times).check(expect);
        }
    };
    let unhealthy = &[(FabricUnhealthy, Unhealthy)];
    waiting(1, "", &[]);
    waiting(10, "", &[]);
    waiting(11, "", unhealthy);
    waiting(11, r#","processes":[],"utilization_percent":0,"vram_used_bytes":900000"#, unhealthy);
    waiting(11, r#","processes":[{"pid":1,"vram_bytes":null}]"#, &[]);
    waiting(11, r#","utilization_percent":1"#, &[]);
    waiting(11, r#","vram_used_bytes":1073741824"#, &[]);
    // Without NVLink it is in no fabric.
    of(r#"{"fabric_state":"in_progress"}"#).seen(21).check(&[]);
    let mut case = of(r#"{"nvlinks_active":0,"fabric_state":"in_progress"}"#).seen(21);
    let reasons = case.reasons(&[], NOW);
    assert_eq!(
        reasons[0].message,
        "GPU 0: not registered with its NVLink fabric for 10 minutes (in progress): CUDA programs fail with error 802"
    );
    assert!(reasons[0].action.contains("nvidia-fabricmanager"), "{reasons:?}");
    // It is registered.
    let GpuState::Sample(done) = of(r#"{"fabric_state":"completed","fabric_status":"success"}"#).gpu else {
        unreachable!()
    };
    let done = GpuSample { slow_fresh: true, ..done };
    case.history.see(&done, &up(), None, Duration::from_secs(700));
    case.gpu = GpuState::Sample(done);
    case.check(&[]);
}
