//! An upgrade from 0.1.0 and the way back: no minute and no ticket is lost, and the start reports what changed. The files
//! and how they came about: `state`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fake_ticket_server::{Behavior, pay};
use crate::harness::{Worker, folder, wait_for};
use crate::state::{MINUTES, Scene, minutes_ago, minutes_of, new, old, read, windows};
use crate::wallet::Wallet;

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn the_uptime_of_the_old_version_is_kept() {
    let scene = Scene::recorded("state-uptime", 150.0);
    let before = minutes_ago(150.0);
    let answer: Value = serde_json::from_str(&read("uptime.json")).unwrap();
    let worker = scene.start(None);
    let now = wait_for("its minutes, and a second more", || {
        let now = windows(&worker);
        (now["minutes"].as_array().unwrap().len() > before.len()).then_some(now)
    });
    let seconds = |value: &Value, name: &str| value[name].as_u64().unwrap();
    let minutes = now["minutes"].as_array().unwrap();
    let own = |name: &str| minutes[before.len()..].iter().map(|minute| seconds(minute, name)).sum::<u64>();
    for window in ["1h", "24h", "30d"] {
        for name in ["up_seconds", "down_seconds"] {
            let (then, now) = (seconds(&answer["windows"][window], name), seconds(&now["windows"][window], name));
            assert_eq!(now, then + own(name), "{window} {name}");
        }
    }
    let listed = minutes[..before.len()].iter().map(|minute| {
        (seconds(minute, "start") / 60, (seconds(minute, "up_seconds") as u8, seconds(minute, "down_seconds") as u8))
    });
    assert_eq!(listed.collect::<BTreeMap<_, _>>(), before);
    assert!(worker.stop().0.success());
    let after = minutes_of(&scene.read("uptime.bin"));
    assert!(after.len() > before.len() && before.iter().all(|(at, seconds)| after.get(at) == Some(seconds)));
}

/// A copy that ended early, or a disk that was full.
#[test]
fn a_part_of_the_old_versions_uptime_file_is_read_as_far_as_it_goes() {
    let (scene, before) = (Scene::recorded("state-torn-uptime", 150.0), minutes_ago(150.0));
    let third = *before.keys().nth(2).unwrap();
    let file = scene.read("uptime.bin");
    fs::write(scene.dir.join("uptime.bin"), &file[..8 * ((third % MINUTES) as usize + 1) + 3]).unwrap();
    let worker = scene.start(None);
    let listed = wait_for("a second of its own", || {
        let listed = windows(&worker)["minutes"].as_array().unwrap().clone();
        (listed.len() > 2).then_some(listed)
    });
    let up =
        listed.iter().map(|minute| (minute["start"].as_u64().unwrap() / 60, minute["up_seconds"].as_u64().unwrap()));
    let up: Vec<_> = up.filter(|(at, _)| before.contains_key(at)).collect();
    let whole = before.iter().filter(|(at, _)| **at < third).map(|(at, (up, _))| (*at, u64::from(*up)));
    assert_eq!(up, whole.collect::<Vec<_>>());
    assert!(worker.stop().0.success());
    assert_eq!(scene.read("uptime.bin").len(), file.len());
}

/// What came of the recorded payments: 201 was accepted, 202 refused, 203 and 204 wait.
fn check_submitted(scene: &Scene) {
    scene.wait_for_tickets("accepted", 4);
    let ledger = scene.ledger(new());
    let tickets = |result: &str| ledger["totals"][result]["tickets"].as_i64().unwrap_or(0);
    assert_eq!((tickets("pending"), tickets("refused"), tickets("unclear")), (0, 3, 0), "{ledger}");
    let mut came: Vec<_> = scene.tickets.came().into_iter().map(|(payment, _)| payment).collect();
    came.sort();
    let mut wanted = [Wallet::new(203).payment(1..=2), Wallet::new(204).payment([9])];
    wanted.sort();
    assert_eq!(came, wanted, "each that waited once, and no other");
}

#[test]
fn no_ticket_of_the_old_version_is_lost_or_sent_twice() {
    let scene = Scene::recorded("state-tickets", 60.0);
    let (then, text) = (serde_json::from_str::<Value>(&read("ledger.json")).unwrap(), scene.read("tickets.jsonl"));
    let now = scene.ledger(new());
    assert_eq!((&now["totals"], &now["damaged_lines"]), (&then["totals"], &then["damaged_lines"]));
    let facts = |ledger: &Value| {
        let payments = ledger["payments"].as_array().unwrap().iter();
        payments
            .map(|p| ["id", "sender", "ev", "result", "failed_tries"].map(|name| p[name].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(facts(&now), facts(&then));
    let worker = scene.start(None);
    check_submitted(&scene);
    for seed in [201, 202, 203] {
        let answer = pay(worker.addr, &Wallet::new(seed).payment([1]));
        assert_eq!((answer.status, answer.code().as_str()), (400, "ticket_reused"), "{seed}");
    }
    assert!(worker.stop().0.success());
    assert!(scene.read("tickets.jsonl").starts_with(&text), "this version appends");
}

#[test]
fn a_torn_end_of_the_old_versions_ledger_costs_no_other_ticket() {
    let scene = Scene::recorded("state-torn-tickets", 60.0);
    let text = String::from_utf8(scene.read("tickets.jsonl")).unwrap();
    let torn = &text[..text.find('\n').unwrap() / 2];
    fs::write(scene.dir.join("tickets.jsonl"), format!("{text}{torn}")).unwrap();
    let _worker = scene.start(None);
    check_submitted(&scene);
}

/// The kinds of the ledger's lines, with their fields.
fn kinds(ledger: &str) -> BTreeSet<String> {
    let kind = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        let (kind, fields) = line.as_object().unwrap().iter().next().unwrap();
        format!("{kind} {:?}", fields.as_object().unwrap().keys().collect::<Vec<_>>())
    };
    ledger.lines().map(kind).collect()
}

/// 0.1.0 requires all of its fields and ignores others. Its uptime file begins with the same bytes.
#[test]
fn this_version_writes_what_the_old_one_reads() {
    let scene = Scene::recorded("state-back", 60.0);
    let known = kinds(&read("tickets.jsonl"));
    assert_eq!(known.len(), 4, "payment, sent, failed, result: {known:?}");
    scene.tickets.set(Behavior::HangUp);
    let worker = scene.start(None);
    assert_eq!(pay(worker.addr, &Wallet::new(205).payment([1])).status, 200);
    wait_for("a failed try", || (scene.tickets.came().len() > 3).then_some(()));
    scene.tickets.set(Behavior::Judge);
    scene.wait_for_tickets("accepted", 5);
    wait_for("a minute of its own", || (windows(&worker)["minutes"].as_array().unwrap().len() > 5).then_some(()));
    assert!(worker.stop().0.success());
    let text = String::from_utf8(scene.read("tickets.jsonl")).unwrap();
    assert_eq!(kinds(&text), known);
    let minutes = minutes_of(&scene.read("uptime.bin"));
    let Some(old) = old() else { return };

    assert_eq!(scene.ledger(&old)["totals"], scene.ledger(new())["totals"]);
    let came = scene.tickets.came().len();
    let worker = scene.start(Some(&old));
    let listed = wait_for("the minutes", || {
        let listed = windows(&worker)["minutes"].as_array().unwrap().clone();
        (listed.len() >= minutes.len()).then_some(listed)
    });
    for (listed, (at, (up, _))) in listed.iter().zip(minutes).take(5) {
        assert_eq!((listed["start"].as_u64(), listed["up_seconds"].as_u64()), (Some(at * 60), Some(up.into())));
    }
    assert_eq!(pay(worker.addr, &Wallet::new(205).payment([1])).code(), "ticket_reused");
    assert_eq!(pay(worker.addr, &Wallet::new(206).payment([1])).status, 200);
    scene.wait_for_tickets("accepted", 6);
    assert_eq!(scene.tickets.came().len(), came + 1, "nothing is sent again");
    assert!(worker.stop().0.success());
}

/// Sums of payments that are too old to be kept one by one.
#[test]
fn the_old_version_reads_the_sums_of_this_one() {
    let scene = Scene::recorded("state-sums", 200_000.0);
    // Files of 16 MiB are compacted.
    let mut text = String::from_utf8(scene.read("tickets.jsonl")).unwrap();
    // Those that waited have expired.
    let ledger = scene.ledger(new());
    for payment in ledger["payments"].as_array().unwrap().iter().filter(|payment| payment["result"] == "pending") {
        let (id, at) = (&payment["id"], &payment["received_at"]);
        let result = json!({"id": id, "at": at, "result": "expired", "status": null, "message": ""});
        text.push_str(&format!("{}\n", json!({ "result": result })));
    }
    let (file, sent) = (scene.dir.join("tickets.jsonl"), format!("{}\n", text.lines().nth(1).unwrap()));
    fs::write(&file, text + &sent.repeat((17 << 20) / sent.len())).unwrap();
    let worker = scene.start(None);
    wait_for("a smaller file", || (fs::metadata(&file).unwrap().len() < 1 << 20).then_some(()));
    scene.wait_for_tickets("expired", 3);
    assert!(worker.stop().0.success());
    let ledger = scene.ledger(new());
    let tickets = |result: &str| ledger["totals"][result]["tickets"].as_i64();
    assert_eq!(["accepted", "refused", "expired"].map(tickets), [1, 3, 3].map(Some), "{ledger}");
    let text = String::from_utf8(scene.read("tickets.jsonl")).unwrap();
    assert!(text.contains("{\"summary\":{\"accepted\":{\"payments\":1,\"tickets\":1,\"ev\":\""), "{text}");
    if let Some(old) = old() {
        assert_eq!(scene.ledger(&old)["totals"], ledger["totals"]);
    }
}

/// The log of a start and a stop in `dir`, once the version is kept there.
fn log_of_a_start(dir: &Path, more: &[(&str, &str)]) -> String {
    let settings = [&[("STATE_DIR", dir.to_str().unwrap()), ("MODEL", "a")], more].concat();
    let worker = Worker::start(&settings);
    let kept = || fs::read_to_string(dir.join("version")).is_ok_and(|text| text == format!("{VERSION}\n"));
    wait_for("the version", || kept().then_some(()));
    let (status, log) = worker.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains(&format!(" agent-net {VERSION}")) && log.contains(": listening on "), "{log}");
    log
}

#[test]
fn a_start_reports_another_version_and_what_it_changes() {
    let dir = Scene::recorded("state-version", 60.0).dir;
    let orchestrator = [("ORCH_URL", "http://127.0.0.1:9"), ("CAPABILITY_NAME", "a"), ("SERVER_HOST", "")];
    let log = log_of_a_start(&dir, &orchestrator);
    assert!(log.contains(&format!("the last start with this STATE_DIR was 0.1.0, this one is {VERSION}")), "{log}");
    for setting in ["ORCH_PROTOCOL=byoc", "PROBE_INTERVAL=off"] {
        assert!(log.contains("new since 0.1.0: ") && log.contains(setting), "{setting}: {log}");
    }
    let on_ipv6 = log.contains("listening on http://[::]");
    assert_eq!(log.contains("SERVER_HOST=0.0.0.0"), on_ipv6, "{log}");

    let quiet = |log: String| assert!(!log.contains("the last start") && !log.contains("new since"), "{log}");
    quiet(log_of_a_start(&dir, &orchestrator));
    quiet(log_of_a_start(&folder("state-fresh"), &orchestrator));
    // A newer version, and what is not a version at all.
    fs::write(dir.join("version"), "9.9.9\n").unwrap();
    let log = log_of_a_start(&dir, &orchestrator);
    assert!(log.contains("was 9.9.9, this one is") && !log.contains("new since"), "{log}");
    fs::write(dir.join("version"), "no version\nERROR all is lost").unwrap();
    quiet(log_of_a_start(&dir, &orchestrator));
    // Not even text.
    fs::write(dir.join("version"), [0xff; 100]).unwrap();
    quiet(log_of_a_start(&dir, &orchestrator));
}

#[test]
fn settings_that_do_the_same_as_before_are_not_reported() {
    let dir = Scene::recorded("state-same", 60.0).dir;
    let same = [("MODEL", ""), ("ORCH_URL", "http://127.0.0.1:9"), ("CAPABILITY_NAME", "a"), ("ORCH_PROTOCOL", "byoc")];
    let log = log_of_a_start(&dir, &same);
    assert!(log.contains("was 0.1.0") && !log.contains("new since"), "{log}");
}
