use super::Said::*;
use super::*;

/// Texts behind the prefix, as kernels 5.10 to 7.2 write them (issues of ROCm and of distributions, and the driver's
/// sources).
const TEXTS: &[(&str, Said)] = &[
    ("ring gfx_0.0.0 timeout, signaled seq=57638, emitted seq=57641", Hang),
    ("ring sdma0 timeout, signaled seq=1, emitted seq=3", Hang),
    ("ring comp_1.1.0 timeout, but soft recovered", RingRecovered),
    ("Ring comp_1.1.0 reset succeeded", RingRecovered),
    ("Ring gfx_0.0.0 reset failed", Hang),
    ("GPU reset begin!", ResetBegun),
    ("GPU reset begin!. Source:  1", ResetBegun),
    ("VRAM is lost due to GPU reset!", VramLost),
    ("GPU reset(12) succeeded!", Recovered),
    ("GPU reset(2) failed", ResetFailed),
    ("GPU reset end with ret = -19", ResetFailed),
    ("GPU reset end with ret = 0", Works),
    ("GPU Recovery Failed: -19", ResetFailed),
    ("[drm] device wedged, but recovered through reset", Works),
    ("[drm] device wedged, needs recovery", ResetFailed),
    ("device lost from bus!", OffTheBus),
    ("amdgpu_job_timedout - device unplugged skipping recovery on scheduler:gfx_0.0.0", OffTheBus),
    // MS-02-Ultra#26, firmware-open#259.
    ("pci_channel_io_perm_failure: state(3)!!", OffTheBus),
    ("not ready 65535ms after resume; giving up", OffTheBus),
    ("Unable to change power state from D3cold to D0, device inaccessible", OffTheBus),
    ("can't change power state from D3cold to D0 (config space inaccessible)", OffTheBus),
    ("MES failed to respond to msg=REMOVE_QUEUE", FirmwareHung),
    // legacy-rocm-build#3265.
    ("MES failed to response msg=3", FirmwareHung),
    // Kernels from 7.0 on.
    ("SMU: No response msg_reg: 17 resp_reg: 0", FirmwareHung),
    ("MES(1) failed to respond to msg=REMOVE_QUEUE", FirmwareHung),
    ("MES might be in unrecoverable state, issue a GPU reset", FirmwareHung),
    ("Queue preemption failed for queue with doorbell_id: 80004008", FirmwareHung),
    ("Failed to evict process queues", FirmwareHung),
    ("SMU: I'm not done with your previous command: SMN_C2PMSG_66:0x00000026 SMN_C2PMSG_82:0x00000000", FirmwareHung),
    ("{1}uncorrectable hardware error(ERREVENT_ATHUB_INTERRUPT) detected!", Uncorrectable),
    ("uncorrectable hardware error(ERREVENT_ATHUB_INTERRUPT) detected!", Uncorrectable),
    ("socket: 0, die: 0, 3 new uncorrectable hardware errors detected in umc block", Uncorrectable),
    ("{3}socket: 0, die: 0, 1 new uncorrectable hardware errors detected in gfx block", Uncorrectable),
    ("1 new uncorrectable hardware errors detected in umc block", Uncorrectable),
    ("This GPU is in BAD status.", Unrepairable),
    ("RAS records:300 exceed threshold:256", Unrepairable),
    ("Saved bad pages 256 reaches threshold value 256", Unrepairable),
    ("GPU will not be initialized. Replace this GPU or increase the threshold", Unrepairable),
    ("ERROR: GPU over temperature range(SW CTF) detected!", TooHot),
    ("ERROR: System is going to shutdown due to GPU SW CTF!", TooHot),
    ("Fatal error during GPU init", InitFailed),
    ("amdgpu_device_ip_init failed", InitFailed),
    // linux-cachyos#916, ROCm/amdgpu#183.
    ("amdgpu_device_ip_resume failed (-62).", ResumeFailed),
    ("SMU is resumed successfully!", Resumed),
];

#[test]
fn every_shape_of_a_line() {
    let place = PciId::parse("0000:03:00.0");
    for (text, expect) in TEXTS {
        for (prefix, pci) in [
            ("amdgpu 0000:03:00.0: amdgpu: ", place),
            ("amdgpu 0000:03:00.0: ", place),
            ("amdgpu 0000:03:00.0: [drm] *ERROR* ", place),
            ("[drm:amdgpu_job_timedout [amdgpu]] *ERROR* ", None),
            ("amdgpu: ", None),
            ("amdgpu: [drm] ", None),
        ] {
            assert_eq!(said(&format!("{prefix}{text}")), Some((pci, *expect)), "{prefix}{text}");
            assert_eq!(said(&format!(" {prefix}{text}\r")), Some((pci, *expect)), "{prefix}{text}");
        }
        assert_eq!(said(text).is_some(), text.contains("amdgpu"), "another driver's: {text}");
    }
    for loaded in [
        "[drm] Initialized amdgpu 3.57.0 20150101 for 0000:03:00.0 on minor 1",
        "amdgpu 0000:03:00.0: [drm] Initialized amdgpu 3.61.0 on minor 1",
    ] {
        assert_eq!(said(loaded), Some((place, Loaded)), "{loaded}");
    }
}

#[test]
fn lines_that_are_not_faults_of_a_gpu() {
    for text in [
        "",
        "amdgpu",
        "amdgpu: ",
        "amdgpu nowhere: ring gfx timeout",
        "amdgpu 0000:03:00.0",
        "amdgpu 0000:03:00.0: ",
        "amdgpu 0000:03:00.0: amdgpu: {",
        "amdgpu 0000:03:00.0: amdgpu: {{{{",
        // A process' own fault.
        "amdgpu 0000:03:00.0: amdgpu: [gfxhub] page fault (src_id:0 ring:24 vmid:8 pasid:319)",
        "amdgpu 0000:03:00.0: amdgpu:   in page starting at address 0x0000 from client 0x1b (UTCL2)",
        // Names of programs.
        "amdgpu 0000:03:00.0: amdgpu: Process information: process GPU reset(1) fa pid 1 thread ring x timeout pid 2",
        "amdgpu 0000:03:00.0:  Process device lost fro pid 1 thread BAD pid 2",
        // Not the end of waiting.
        "amdgpu 0000:03:00.0: not ready 1023ms after resume; waiting",
        "amdgpu 0000:03:00.0: ready 2047ms after resume",
        // Half way, by hand, or nothing new.
        "amdgpu 0000:03:00.0: amdgpu: resume of IP block <smu> failed -62",
        "amdgpu 0000:03:00.0: amdgpu: SMU is resuming...",
        "amdgpu 0000:03:00.0: amdgpu: GPU reset succeeded, trying to resume",
        "amdgpu 0000:03:00.0: amdgpu: MODE1 reset",
        "amdgpu 0000:03:00.0: amdgpu: Starting comp_1.1.0 ring reset",
        "amdgpu 0000:03:00.0: amdgpu: socket: 0, die: 0, 0 new uncorrectable hardware errors detected in umc block",
        "amdgpu 0000:03:00.0: amdgpu: socket: 0, die: 0, 3 uncorrectable hardware errors detected in total in umc block",
        "amdgpu 0000:03:00.0: amdgpu: 3 new correctable hardware errors detected in umc block",
        "amdgpu 0000:03:00.0: amdgpu: RAS records:12 count",
        "amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 uses VM inv eng 0 on hub 0",
        "[drm:amdgpu_device_init [amdgpu]] *ERROR* x",
        "[drm:amdgpu_device_init [amdgpu",
        "amdgpu 0000:03:00.0: [drm] Initialized",
        "[drm] Initialized amdgpu 3.57.0 20150101 for nowhere on minor 1",
        "xe 0000:03:00.0: [drm] device wedged, needs recovery",
        "vfio-pci 0000:03:00.0: Unable to change power state from D3cold to D0, device inaccessible",
    ] {
        assert_eq!(said(text), None, "{text}");
    }
    // Nothing takes longer than its length.
    for flood in ["amdgpu: ", "{1}", "[drm] ", "amdgpu 0000:03:00.0: ", "ERROR: "] {
        assert_eq!(said(&format!("amdgpu: {}", flood.repeat(1000))), None);
    }
}

#[test]
fn what_a_later_line_settles() {
    let (one, two) = (PciId::parse("03:00"), PciId::parse("04:00"));
    let open = |lines: &[(Option<PciId>, Said)]| {
        let mut log = AmdLog::default();
        lines.iter().zip(1..).for_each(|((pci, said), at)| log.record(*pci, *said, f64::from(at)));
        log.open().map(|report| report.said).collect::<Vec<_>>()
    };
    assert_eq!(open(&[(one, Hang), (one, ResetBegun), (one, VramLost), (one, Recovered)]), [Hang, VramLost, Recovered]);
    assert_eq!(open(&[(one, ResetBegun), (one, ResetFailed)]), [ResetFailed]);
    assert_eq!(open(&[(one, ResetFailed), (one, Works)]), []);
    assert_eq!(open(&[(one, ResetFailed), (one, OffTheBus), (one, FirmwareHung), (two, Recovered)]).len(), 4);
    assert_eq!(open(&[(one, ResetFailed), (one, OffTheBus), (one, FirmwareHung), (one, Recovered)]), [Recovered]);
    assert_eq!(open(&[(one, InitFailed), (one, Uncorrectable), (one, Unrepairable), (one, Loaded)]), [Unrepairable]);
    assert_eq!(open(&[(one, Recovered), (one, ResetFailed)]), [Recovered, ResetFailed]);
    assert_eq!(open(&[(one, OffTheBus), (one, ResumeFailed), (one, ResetFailed), (one, Resumed)]), [ResetFailed]);
    // The chip answers, and another part of it does not come up.
    assert_eq!(open(&[(one, Resumed), (one, ResumeFailed), (two, Resumed)]), [ResumeFailed]);
    assert_eq!(open(&[(one, ResumeFailed), (one, Recovered)]), [Recovered]);
    let mut log = AmdLog::default();
    log.record(one, ResetFailed, 9.0);
    log.record(one, Works, 8.0);
    assert_eq!(log.open().count(), 1, "it worked before");
    let mut log = AmdLog::default();
    (0..3).for_each(|at| log.record(one, Recovered, f64::from(at)));
    log.record(None, Recovered, 9.0);
    assert_eq!(log.resets(), [(one.unwrap(), 3)]);
    log.settle();
    assert_eq!((log.open().count(), log.resets().len()), (0, 1));
    log.record(one, Recovered, 10.0);
    assert_eq!(log.open().map(|report| report.count).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_reset_that_does_not_end_has_failed() {
    let mut log = AmdLog::default();
    log.record(None, ResetBegun, 100.0);
    let failed = |log: &AmdLog, now| log.open().any(|report| report.is_failed_reset(now));
    assert_eq!((failed(&log, 160.0), failed(&log, 161.0)), (false, true));
    log.record(None, Recovered, 170.0);
    assert!(!failed(&log, 1000.0));
}

#[test]
fn a_flood_of_places_stays_small() {
    let mut log = AmdLog::default();
    for bus in 0..=255_u8 {
        for device in 0..8 {
            log.record(PciId::parse(&format!("{bus:x}:{device}")), Hang, f64::from(bus));
        }
    }
    assert_eq!(log.0.len(), MAX_KINDS);
    assert!(log.open().all(|report| report.last > 200.0));
}
