//! What the driver amdgpu writes to the kernel's log about a card that it cannot use, and such a card on the bus. The
//! lines are those of kernels 5.13 to 7.2, as issues of ROCm and of distributions quote them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::kernel_log::{bare_machine, kernel_says};
use crate::rules::{Scene, reason};

const CARD: &str = "0000:03:00.0";

/// A card behind the switch that it carries, as `lspci -t` shows one.
fn add_card(root: &Path) {
    let devices = root.join("sys/devices/pci0000:00/0000:00:01.0");
    let bus = root.join("sys/bus/pci/devices");
    for (path, vendor, id, class) in [
        ("0000:01:00.0", "0x1002", "0x1478", "0x060400"),
        ("0000:01:00.0/0000:02:00.0", "0x1002", "0x1479", "0x060400"),
        ("0000:01:00.0/0000:02:00.0/0000:03:00.0", "0x1002", "0x744c", "0x030000"),
    ] {
        let device = devices.join(path);
        fs::create_dir_all(&device).unwrap();
        for (file, text) in [("vendor", vendor), ("device", id), ("class", class)] {
            fs::write(device.join(file), format!("{text}\n")).unwrap();
        }
        let link = bus.join(device.file_name().unwrap());
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(&device, link).unwrap();
        }
    }
}

fn codes(report: &Value) -> Vec<&str> {
    let reasons = report["health"]["reasons"].as_array().unwrap();
    reasons.iter().map(|reason| reason["code"].as_str().unwrap()).collect()
}

#[test]
fn a_card_that_did_not_start_is_missed_and_the_log_says_why() {
    let root = bare_machine("amd-init");
    add_card(&root);
    kernel_says(&root, "amdgpu 0000:03:00.0: amdgpu: amdgpu_device_ip_init failed");
    kernel_says(&root, "amdgpu 0000:03:00.0: amdgpu: Fatal error during GPU init");
    let scene = Scene::new(&root, "", &[]);
    let missing = scene.says("GPU_COUNT_LOW", "unhealthy");
    let text = missing["message"].as_str().unwrap();
    assert!(
        text.starts_with("1 of 2 GPUs usable") && text.ends_with("no driver has the AMD GPU at 0000:03:00"),
        "{text}"
    );
    let why = scene.says("GPU_HANDLE_ERROR", "unhealthy");
    let text = why["message"].as_str().unwrap();
    assert_eq!(text, "An AMD GPU not in the list (0000:03:00): the driver amdgpu could not start it");
    assert!(why["gpu"].is_null(), "{why:#}");
    // The next try.
    kernel_says(&root, "[drm] Initialized amdgpu 3.57.0 20150101 for 0000:03:00.0 on minor 1");
    scene.worker.report_when("only the count", |report| codes(report) == ["GPU_COUNT_LOW"]);
}

#[test]
fn what_is_not_wanted_is_not_missed() {
    let root = bare_machine("amd-off");
    add_card(&root);
    kernel_says(&root, "amdgpu 0000:03:00.0: amdgpu: Fatal error during GPU init");
    let scene = Scene::new(&root, "", &[("AMD_GPUS", "off")]);
    scene.is_well();
    // Nor is another driver's, or a program's own fault.
    for text in [
        "amdgpu: [drm] device wedged, needs recovery",
        "xe 0000:03:00.0: [drm] device wedged, needs recovery",
        "[drm:amdgpu_job_timedout [amdgpu]] *ERROR* ring gfx_0.0.0 timeout, signaled seq=1, emitted seq=3",
    ] {
        kernel_says(&root, text);
    }
    kernel_says(&root, "NVRM: Xid (PCI:0000:01:00): 63, pid='<unknown>', row remap");
    let report = scene.worker.report_when("XID 63", |report| reason(report, "XID_WARN").is_some());
    assert_eq!(codes(&report), ["XID_WARN"], "{report:#}");
}

#[test]
fn resets_are_held_and_cleared_as_the_log_says() {
    let root = bare_machine("amd-resets");
    add_card(&root);
    let says = |text: &str| kernel_says(&root, &format!("amdgpu {CARD}: {text}"));
    says("amdgpu: ring gfx_0.0.0 timeout, signaled seq=57638, emitted seq=57641");
    says("amdgpu: Process information: process ollama pid 7 thread ollama:cs0 pid 8");
    says("amdgpu: GPU reset begin!. Source:  1");
    let scene = Scene::new(&root, "", &[]);
    let hung = scene.says("GPU_RESET", "degraded");
    assert!(hung["message"].as_str().unwrap().ends_with(": 1 hung job, a reset has begun"), "{hung:#}");
    says("GPU reset(2) failed");
    says("GPU reset end with ret = -19");
    scene.says("RESET_REQUIRED", "unhealthy");
    says("VRAM is lost due to GPU reset!");
    says("GPU reset(3) succeeded!");
    let report = scene.worker.report_when("no reset is needed", |report| reason(report, "RESET_REQUIRED").is_none());
    let hung = reason(&report, "GPU_RESET").expect("it is recent");
    assert!(hung["message"].as_str().unwrap().ends_with(": 1 hung job, its memory was lost, 1 GPU reset"), "{hung:#}");
    says("device lost from bus!");
    scene.says("GPU_LOST", "unhealthy");
    // The operator has seen to it.
    scene.worker.acknowledge();
    scene.worker.report_when("only the count", |report| codes(report) == ["GPU_COUNT_LOW"]);
}

/// linux-cachyos#916, MS-02-Ultra#26, legacy-rocm-build#3265: cards that do not come back from a sleep, and the words of
/// other kernels.
#[test]
fn a_card_that_does_not_resume_is_reported_until_it_answers() {
    let root = bare_machine("amd-resume");
    add_card(&root);
    let says = |text: &str| kernel_says(&root, &format!("amdgpu {CARD}: {text}"));
    says("SMU is resuming...");
    says("SMU: No response msg_reg: 6 resp_reg: 0");
    says("resume of IP block <smu> failed -62");
    says("amdgpu_device_ip_resume failed (-62).");
    let scene = Scene::new(&root, "", &[]);
    let asleep = scene.says("GPU_HANDLE_ERROR", "unhealthy");
    let text = asleep["message"].as_str().unwrap();
    assert_eq!(text, "An AMD GPU not in the list (0000:03:00): the driver amdgpu could not resume it");
    let hung = scene.says("GPU_RESET", "degraded");
    assert!(hung["message"].as_str().unwrap().ends_with(": its firmware did not respond"), "{hung:#}");
    says("SMU is resumed successfully!");
    scene.worker.report_when("it answers", |report| reason(report, "GPU_HANDLE_ERROR").is_none());
    for gone in [
        "pci_channel_io_perm_failure: state(3)!!",
        "not ready 65535ms after resume; giving up",
        "Unable to change power state from D3cold to D0, device inaccessible",
        "can't change power state from D3cold to D0 (config space inaccessible)",
    ] {
        says(gone);
        scene.says("GPU_LOST", "unhealthy");
        says("amdgpu: SMU is resumed successfully!");
        scene.worker.report_when("it is back", |report| reason(report, "GPU_LOST").is_none());
    }
    scene.worker.acknowledge();
    scene.worker.report_when("only the count", |report| codes(report) == ["GPU_COUNT_LOW"]);
    kernel_says(
        &root,
        &format!(
            "amdgpu {CARD}: [drm:mes_v11_0_submit_pkt_and_poll_completion.constprop.0 [amdgpu]] *ERROR* MES failed to response msg=3"
        ),
    );
    scene.says("GPU_RESET", "degraded");
}

#[test]
fn a_flood_and_garbage_hide_nothing() {
    let root = bare_machine("amd-flood");
    add_card(&root);
    kernel_says(&root, "Linux version 6.8.0");
    let scene = Scene::new(&root, "", &[]);
    for number in 0..2000 {
        kernel_says(&root, &format!("amdgpu {CARD}: amdgpu: ring comp_1.{number}.0 timeout, signaled seq=1"));
    }
    kernel_says(&root, &format!("amdgpu {}", "x".repeat(9000)));
    kernel_says(&root, &format!("amdgpu {CARD}: {}", "amdgpu: ".repeat(900)));
    kernel_says(&root, "amdgpu \u{1b}[2J: GPU reset(1) failed");
    kernel_says(&root, &format!("amdgpu {CARD}: This GPU is in BAD status."));
    scene.says("MEMORY_UNREPAIRABLE", "unhealthy");
    let hung = scene.says("GPU_RESET", "degraded");
    assert!(hung["message"].as_str().unwrap().ends_with(": 2000 hung jobs"), "{hung:#}");
}
