//! Cards that hang, are busy with a reset, or are slow, and what reading them costs.

use serde_json::{Value, json};

use super::{failure, read};
use crate::fake_amd::boards::{RADEON_780M, RX_6600, RX_6900_XT, RX_7900_XTX};
use crate::fake_amd::more_boards::{MI250X, RX_580};
use crate::fake_amd::{EBUSY, EINVAL, EIO, ENODEV, EOPNOTSUPP, EPERM, FakeAmd, idle_ollama, wakes};
use crate::gpus::{has, is_ok};
use crate::harness::{agent_net, codes, run, verdict, wait_for};
use crate::kernel_log::kernel_says;

#[test]
fn a_file_that_hangs_delays_its_own_card_alone() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_6600]), idle_ollama());
    let worker = machine.start(&ollama, &[]);
    worker.report_when("verdict ok", is_ok);
    machine.card(0).hang("H/temp2_input");
    let slow = |r: &Value| codes(r).iter().any(|code| matches!(*code, "GPU_SLOW" | "DRIVER_STUCK"));
    let report = worker.report_when("a GPU that hangs", slow);
    assert_ne!(verdict(&report), "ok");
    assert!(report["gpus"][0]["error"].is_string(), "{report:#}");
    assert_eq!(report["gpus"][0]["uuid"], "GPU-5d1a7c0d3b2f4e61");
    // What the other one does is still seen.
    machine.card(1).set("H/temp1_input", "39000");
    let report = worker.report_when("the other card", |r| r["gpus"][1]["temperature_c"] == 39);
    assert_eq!(report["gpus"][1]["verdict"], "ok");
    machine.card(0).heal("H/temp2_input");
    worker.report_when("verdict ok", is_ok);
}

/// A new helper does not know the card, and must not wait for it either.
#[test]
fn a_card_that_hangs_from_the_start() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_6600]), idle_ollama());
    machine.card(0).hang("mem_info_vram_total");
    let worker = machine.start(&ollama, &[]);
    let report = worker.report_when("the other card", |r| r["gpus"][1]["temperature_c"] == 28);
    assert!(report["gpus"][0]["error"].is_string() && verdict(&report) != "ok", "{report:#}");
    let gpu = ["vendor", "uuid", "pci_bus_id"].map(|name| &report["gpus"][0][name]);
    assert_eq!(gpu, ["amd", "GPU-5d1a7c0d3b2f4e61", "0000:03:00.0"], "{report:#}");
    machine.card(0).heal("mem_info_vram_total");
    worker.report_when("verdict ok", is_ok);
}

/// The files that say what kind of card it is are read where all cards are looked for, by the worker as well.
#[test]
fn a_gpu_whose_kind_cannot_be_read_does_not_hide_the_others() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RADEON_780M]), idle_ollama());
    machine.card(1).hang("pp_dpm_pcie");
    let worker = machine.start(&ollama, &[("AMD_GPUS", "all"), ("SLOW_SAMPLE_INTERVAL", "1s")]);
    let read = |r: &Value| r["gpus"][0]["temperature_c"] == 56 && r["gpus"][0]["error"].is_null();
    worker.report_when("the other card", read);
    machine.card(0).set("H/temp1_input", "57000");
    worker.report_when("the other card again", |r| r["gpus"][0]["temperature_c"] == 57);
    machine.card(1).heal("pp_dpm_pcie");
    worker.report_when("both", |r| r["gpu_count"] == 2 && is_ok(r));
}

/// Each errno that a driver gives while it resets its card; the card is awake.
#[test]
fn a_card_that_is_reset_has_failed_readings() {
    for errno in [EBUSY, EPERM] {
        let (machine, ollama) = (FakeAmd::new(&[RX_7900_XTX]), idle_ollama());
        let worker = machine.start(&ollama, &[]);
        worker.report_when("verdict ok", is_ok);
        let card = machine.card(0);
        let files: Vec<&str> = RX_7900_XTX.files.iter().map(|(file, _)| *file).filter(|file| wakes(file)).collect();
        files.iter().for_each(|file| card.fail(file, errno));
        // The files fail one after the other.
        let names = ["utilization_percent", "temperature_c", "power_w", "graphics_clock_mhz"];
        let failed = |r: &Value| names.iter().all(|name| r["gpus"][0]["failed"][name].is_string());
        let report = worker.report_when("failed readings", failed);
        let gpu = &report["gpus"][0];
        for name in names {
            let why = failure(gpu, name);
            assert!(why.contains("reset"), "{name}: {why}");
        }
        assert_eq!((&gpu["asleep"], &gpu["vram_total_mb"]), (&json!(false), &json!(24560)), "{gpu:#}");
        assert_ne!(verdict(&report), "ok");
        assert!(!has("GPU_LOST")(&report), "{report:#}");
        files.iter().for_each(|file| card.heal(file));
        worker.report_when("verdict ok", is_ok);
    }
}

#[test]
fn one_failed_reading_does_not_make_a_dead_card() {
    let (machine, ollama) = (FakeAmd::new(&[RX_580]), idle_ollama());
    machine.card(0).fail("H/temp1_input", ENODEV);
    let worker = machine.start(&ollama, &[]);
    let report = worker.report_when("FIELD_READ_ERROR", has("FIELD_READ_ERROR"));
    assert_eq!((verdict(&report), &report["gpu_count"]), ("degraded", &json!(1)), "{report:#}");
    failure(&report["gpus"][0], "temperature_c");
    machine.card(0).heal("H/temp1_input");
    worker.report_when("verdict ok", is_ok);
}

/// A card that never had the file lacks the reading; where the file vanishes or is refused later, the value is unknown.
#[test]
fn a_file_that_had_a_value_must_not_end() {
    let rows = [
        ("mem_info_vram_used", "vram_used_mb"),
        ("gpu_busy_percent", "utilization_percent"),
        ("H/temp1_input", "temperature_c"),
        ("H/temp2_input", "hotspot_temperature_c"),
        ("H/temp3_input", "memory_temperature_c"),
        ("H/power1_average", "power_w"),
    ];
    let (machine, ollama) = (FakeAmd::new(&[RX_7900_XTX]), idle_ollama());
    let (card, worker) = (machine.card(0), machine.start(&ollama, &[]));
    let failed = |r: &Value| rows.iter().all(|(_, name)| r["gpus"][0]["failed"][name].is_string());
    let fault = |r: &Value| failed(r) && has("FIELD_READ_ERROR")(r) && verdict(r) == "degraded";
    for errno in [EINVAL, EOPNOTSUPP] {
        worker.report_when("verdict ok", is_ok);
        rows.iter().for_each(|(file, _)| card.fail(file, errno));
        worker.report_when(&format!("failures with {errno}"), fault);
        rows.iter().for_each(|(file, _)| card.heal(file));
    }
    worker.report_when("verdict ok", is_ok);
    rows.iter().for_each(|(file, _)| card.remove(file));
    let report = worker.report_when("failures without the files", fault);
    rows.iter().for_each(|(_, name)| assert!(!failure(&report["gpus"][0], name).is_empty()));
}

/// Uptime and history go by the id: a card must not stay without it.
#[test]
fn an_id_that_could_not_be_read_is_read_again() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT]), idle_ollama());
    machine.card(0).fail("unique_id", EIO);
    let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1s")]);
    let report = worker.report_when("a reading", read);
    assert!(report["gpus"][0]["uuid"].is_null(), "{report:#}");
    machine.card(0).heal("unique_id");
    worker.report_when("the id", |r| r["gpus"][0]["uuid"] == "GPU-5d1a7c0d3b2f4e61");
}

/// A helper that another program ended.
#[test]
fn a_helper_that_is_killed_is_replaced() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_6600]), idle_ollama());
    let worker = machine.start(&ollama, &[]);
    worker.report_when("verdict ok", is_ok);
    let old = worker.helpers();
    rustix::process::kill_process(old[0], rustix::process::Signal::KILL).unwrap();
    wait_for("a new helper", || worker.helpers().first().is_some_and(|new| *new != old[0]).then_some(()));
    let report = worker.report_when("verdict ok", is_ok);
    assert_eq!(report["gpu_count"], 2, "{report:#}");
}

/// Two halves of one board may have one id; a text for Prometheus with a series twice is refused as a whole.
#[test]
fn two_gpus_with_one_id_are_two() {
    let (machine, ollama) = (FakeAmd::new(&[MI250X, MI250X]), idle_ollama());
    let worker = machine.start(&ollama, &[]);
    let report = worker.report_when("verdict ok", is_ok);
    assert_eq!(report["gpu_count"], 2, "{report:#}");
    let metrics = worker.get("/metrics").text().to_owned();
    let mut series: Vec<&str> =
        metrics.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' ')).map(|(s, _)| s).collect();
    series.sort_unstable();
    let twice: Vec<_> = series.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0]).collect();
    assert_eq!(twice, Vec::<&str>::new());
}

/// Within its 33 seconds, of which the card that hangs takes 30.
#[test]
fn doctor_names_the_card_that_hangs_and_shows_the_others() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_6600]), idle_ollama());
    machine.card(0).hang("H/temp1_input");
    let mut doctor = agent_net();
    doctor.arg("doctor").envs(machine.settings()).env("OLLAMA_URL", ollama.url());
    let (_, out, _) = run(&mut doctor);
    assert!(
        out.contains("gpu           1 AMD GPU 1002:73ff: 28 °C") && out.contains("GPU 0: has not answered"),
        "{out}"
    );
    assert!(!out.contains("no answer within"), "{out}");
}

/// The names of the files that the helper opened for card 0, as often as it did.
fn opened(machine: &FakeAmd) -> Vec<String> {
    machine.card(0).opened(&machine.opened())
}

#[test]
fn a_sample_opens_each_file_once_and_slow_ones_rarely() {
    for board in [RX_580, MI250X, RX_7900_XTX] {
        let (machine, ollama) = (FakeAmd::new(&[board]), idle_ollama());
        let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1h")]);
        worker.report_when("a reading", read);
        let count = |all: &[String], file: &str| all.iter().filter(|other| *other == file).count();
        let all = wait_for("twelve samples", || {
            let all = opened(&machine);
            (count(&all, "gpu_busy_percent") >= 12).then_some(all)
        });
        let samples = count(&all, "gpu_busy_percent");
        // The read takes a second.
        assert_eq!(count(&all, "pcie_bw"), 0);
        for file in all.iter().filter(|file| !file.starts_with("S/")) {
            // A card is looked at when it is found; the sample under way may have opened some already.
            assert!(count(&all, file) <= samples + 3, "{file}: {} in {samples} samples", count(&all, file));
        }
        let rare =
            ["unique_id", "vbios_version", "H/temp1_crit", "ras/umc_err_count", "pcie_replay_count", "H/fan1_input"];
        for file in rare.iter().filter(|file| board.files.iter().any(|(other, _)| other == *file)) {
            let times = count(&all, file);
            assert!((1..=3).contains(&times), "{file}: {times} in {samples} samples");
        }
    }
}

/// However often the slow readings are due.
#[test]
fn what_does_not_change_is_read_once() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7900_XTX]), idle_ollama());
    let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "100ms")]);
    worker.report_when("a reading", read);
    let count = |all: &[String], file: &str| all.iter().filter(|other| *other == file).count();
    let all = wait_for("slow readings", || {
        let all = opened(&machine);
        (count(&all, "pcie_replay_count") >= 8).then_some(all)
    });
    for file in ["vbios_version", "unique_id", "H/temp1_crit", "H/temp2_crit", "H/power1_cap_default"] {
        assert_eq!(count(&all, file), 1, "{file}");
    }
}

#[test]
fn the_helper_ends_with_the_worker() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT]), idle_ollama());
    let worker = machine.start(&ollama, &[]);
    worker.report_when("verdict ok", is_ok);
    let helpers = worker.helpers();
    assert_eq!(helpers.len(), 1, "one helper, and none for NVML");
    worker.stop();
    wait_for("its end", || rustix::process::test_kill_process(helpers[0]).is_err().then_some(()));
}

#[test]
fn the_kernels_log_is_about_the_listed_card_until_the_driver_says_otherwise() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_7900_XTX]), idle_ollama());
    let log = std::path::Path::new(machine.root()).to_owned();
    machine.write("dev/kmsg", "");
    let worker = machine.start(&ollama, &[]);
    worker.report_when("two GPUs", is_ok);
    let second = machine.card(1).slot();
    let says = |text: &str| kernel_says(&log, &format!("amdgpu {second}: amdgpu: {text}"));
    let reasons = |report: &Value| -> Vec<(String, String, Value)> {
        let all = report["health"]["reasons"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        all.map(|r| (text(&r["code"]), text(&r["severity"]), r["gpu"].clone())).collect()
    };
    let uuid = worker.report_when("two GPUs", is_ok)["gpus"][1]["uuid"].clone();
    let is = |code: &str, severity: &str| {
        let expect = vec![(code.to_owned(), severity.to_owned(), uuid.clone())];
        move |report: &Value| reasons(report) == expect
    };
    says("ring gfx_0.0.0 timeout, signaled seq=57638, emitted seq=57641");
    worker.report_when("a hang", is("GPU_RESET", "degraded"));
    says("GPU reset begin!");
    says("GPU reset(1) failed");
    worker.report_when("a failed reset", |r| reasons(r).iter().any(|r| r.0 == "RESET_REQUIRED" && r.1 == "unhealthy"));
    says("GPU reset(2) succeeded!");
    worker.report_when("a reset that succeeded", is("GPU_RESET", "degraded"));
    says("device lost from bus!");
    worker.report_when("a lost card", |r| reasons(r).iter().any(|r| r.0 == "GPU_LOST" && r.1 == "unhealthy"));
    kernel_says(&log, &format!("[drm] Initialized amdgpu 3.57.0 20150101 for {second} on minor 1"));
    worker.report_when("a new start", |r| !reasons(r).iter().any(|r| r.1 == "unhealthy"));
}
