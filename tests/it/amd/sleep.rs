//! Cards that sleep are not woken.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{lacks, read};
use crate::fake_amd::boards::RX_6900_XT;
use crate::fake_amd::more_boards::RX_7600S;
use crate::fake_amd::{FakeAmd, idle_ollama, wakes};
use crate::gpus::is_ok;
use crate::harness::{verdict, wait_for};

fn asleep(report: &Value) -> bool {
    report["gpus"][0]["asleep"] == true && report["ollama"]["reachable"] == true
}

/// The files of card 0 that the helper opens during at least this many samples from now on.
fn opened_in(machine: &FakeAmd, samples: usize) -> BTreeSet<String> {
    let card = machine.card(0);
    let before = machine.opened().len();
    wait_for("some samples", || {
        let opened = card.opened(&machine.opened()[before..]);
        let seen = opened.iter().filter(|file| *file == "power/runtime_status").count();
        (seen > samples).then(|| opened.into_iter().collect())
    })
}

/// None of these files asks the chip or its link.
#[track_caller]
fn wakes_nothing(opened: &BTreeSet<String>) {
    let waking: Vec<_> = opened.iter().filter(|file| wakes(file)).collect();
    assert!(waking.is_empty(), "{waking:?} of {opened:?}");
}

#[test]
fn a_sleeping_card_has_its_memory_and_nothing_else() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7600S]), idle_ollama());
    machine.card(0).sleep();
    let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1s")]);
    let report = worker.report_when("a card that sleeps", asleep);
    assert_eq!((verdict(&report), &report["gpu_count"]), ("ok", &json!(1)), "{report:#}");
    let gpu = &report["gpus"][0];
    let expect = [
        ("uuid", json!("GPU-c81b64a0f75e2d93")),
        ("pci_bus_id", json!("0000:03:00.0")),
        ("vram_total_mb", json!(8176)),
        ("vram_used_mb", json!(26)),
        ("temperature_c", Value::Null),
        ("utilization_percent", Value::Null),
        ("power_w", Value::Null),
        ("pcie_width", Value::Null),
        ("failed", json!({})),
        ("error", Value::Null),
    ];
    for (name, value) in expect {
        assert_eq!(gpu[name], value, "{name}: {gpu:#}");
    }
    // From the first sample on.
    opened_in(&machine, 8);
    wakes_nothing(&machine.card(0).opened(&machine.opened()).into_iter().collect());
}

#[test]
fn a_card_that_wakes_is_read_until_it_sleeps_again() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7600S]), idle_ollama());
    machine.card(0).sleep();
    let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1s")]);
    worker.report_when("a card that sleeps", asleep);
    for _ in 0..2 {
        machine.card(0).wake();
        let awake = |r: &Value| {
            let gpu = &r["gpus"][0];
            gpu["asleep"] == false && gpu["temperature_c"] == 53 && gpu["pcie_width"] == 8
        };
        let report = worker.report_when("a card that is awake", awake);
        let gpu = &report["gpus"][0];
        // What is read once is read as soon as that wakes nothing.
        assert_eq!(
            (&gpu["hotspot_temperature_slowdown_c"], &gpu["pcie_width_max"]),
            (&json!(110), &json!(8)),
            "{gpu:#}"
        );
        assert_eq!((verdict(&report), &gpu["power_limit_default_w"]), ("ok", &json!(95.0)), "{report:#}");
        machine.card(0).sleep();
        let report = worker.report_when("a card that sleeps", asleep);
        let gpu = &report["gpus"][0];
        assert!(gpu["temperature_c"].is_null() && gpu["utilization_percent"].is_null(), "{gpu:#}");
        // The next samples, when all that was under way is over.
        opened_in(&machine, 2);
        let opened = opened_in(&machine, 8);
        wakes_nothing(&opened);
        assert!(opened.contains("mem_info_vram_used"), "{opened:?}");
    }
}

/// Each look at a sensor starts over the time after which the kernel suspends a card.
#[test]
fn an_idle_card_is_left_alone_so_that_it_can_fall_asleep() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7600S]), idle_ollama());
    machine.card(0).set("power/autosuspend_delay_ms", "20000");
    let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1s")]);
    worker.report_when("a reading", |r| r["gpus"][0]["temperature_c"] == 53);
    // Its readings stay, and nothing is asked of it.
    wait_for("samples that leave it alone", || opened_in(&machine, 8).iter().all(|file| !wakes(file)).then_some(()));
    let report = worker.report_when("a report", read);
    assert_eq!((&report["gpus"][0]["temperature_c"], &report["gpus"][0]["asleep"]), (&json!(53), &json!(false)));
    machine.card(0).sleep();
    let report = worker.report_when("a card that sleeps", asleep);
    assert!(is_ok(&report) && report["gpus"][0]["temperature_c"].is_null(), "{report:#}");
    // One that may not sleep, or has work, is read at each sample.
    for (file, text) in [("power/control", "on"), ("gpu_busy_percent", "7"), ("power/autosuspend_delay_ms", "-1")] {
        let machine = FakeAmd::new(&[RX_7600S]);
        machine.card(0).set(file, text);
        let worker = machine.start(&ollama, &[]);
        worker.report_when("a reading", |r| r["gpus"][0]["temperature_c"] == 53);
        for _ in 0..3 {
            assert!(opened_in(&machine, 8).contains("gpu_busy_percent"), "{file}");
        }
    }
}

/// A card on its way to sleep is left alone. One whose state cannot be read is taken for awake.
#[test]
fn every_state_of_the_power() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT]), idle_ollama());
    let (card, worker) = (machine.card(0), machine.start(&ollama, &[]));
    for (state, sleeps) in
        [("suspending", true), ("active", false), ("suspended", true), ("unsupported", false), ("resuming", false)]
    {
        card.set("power/runtime_status", state);
        let report = worker.report_when(state, |r| read(r) && r["gpus"][0]["asleep"] == sleeps);
        assert_eq!(report["gpus"][0]["temperature_c"].is_null(), sleeps, "{state}: {report:#}");
    }
    card.remove("power/runtime_status");
    let report = worker.report_when("a reading", |r| r["gpus"][0]["temperature_c"] == 56);
    assert_eq!(report["gpus"][0]["asleep"], false);
    card.set("power/runtime_status", "suspended");
    worker.report_when("a card that sleeps", asleep);
    card.fail("power/runtime_status", crate::fake_amd::EIO);
    worker.report_when("a reading", |r| r["gpus"][0]["temperature_c"] == 56);
}

#[test]
fn a_sleeping_card_beside_one_that_works() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7600S, RX_6900_XT]), idle_ollama());
    machine.card(0).sleep();
    let report = machine.start(&ollama, &[]).report_when("verdict ok", |r| is_ok(r) && asleep(r));
    assert_eq!((&report["gpu_count"], &report["gpus"][1]["asleep"]), (&json!(2), &json!(false)));
    assert_eq!(report["gpus"][1]["temperature_c"], 56);
    assert!(!lacks(&report["gpus"][1], "utilization_percent"));
}
