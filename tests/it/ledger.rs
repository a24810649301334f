//! The file of the ticket ledger: its end after a kill or a power loss, its size, and what all of it costs in memory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::fake_ticket_server::{Behavior, JOB, Scene, TicketServer, pay, try_pay};
use crate::harness::{SmallDisk, Worker, wait_for};
use crate::wallet::Wallet;

const MIB: usize = 1 << 20;

/// As good as a hash for all who only compare them.
fn hash(number: usize) -> String {
    let mut state = u64::try_from(number).unwrap();
    let mut text = "0x".to_owned();
    for _ in 0..4 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        text.push_str(&format!("{:016x}", mixed ^ (mixed >> 27)));
    }
    text
}

/// Whole seconds: lines that are alike are equally long.
fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64().floor()
}

/// The line of a payment with `tickets`, received `age` seconds ago.
fn payment_line(number: usize, tickets: usize, age: f64) -> String {
    long_line(number, tickets, 300 + 97 * tickets, age)
}

/// The same with a header of this many characters.
fn long_line(number: usize, tickets: usize, header: usize, age: f64) -> String {
    let tickets: Vec<String> = (number..number + tickets).map(hash).collect();
    let payment = json!({"payment": {
        "id": tickets[0], "at": now() - age, "sender": "0x7979", "face_value": "10", "round": 7,
        "ev": "7/115792089237316195423570985008687907853269984665640564039457584007913129639935",
        "payment": format!("{number}-{}", "p".repeat(header)), "job": JOB.repeat(20), "tickets": tickets,
    }});
    format!("{payment}\n")
}

fn result_line(number: usize) -> String {
    let id = hash(number);
    let result = json!({"result": {"id": id, "at": now(), "result": "accepted", "status": 200, "message": ""}});
    format!("{result}\n")
}

/// A ledger of this many bytes; returns its number of payments.
fn fill(scene: &Scene, bytes: usize, tickets: usize, ended: bool, age: f64) -> usize {
    fill_with(scene, bytes, |payment| {
        let number = payment * tickets;
        let result = if ended { result_line(number) } else { String::new() };
        payment_line(number, tickets, age) + &result
    })
}

/// Payments whose lines are long, and soon read.
fn fill_long(scene: &Scene) -> usize {
    fill_with(scene, 17 * MIB, |number| long_line(number, 1, 50_000, 100.0))
}

fn fill_with(scene: &Scene, bytes: usize, lines: impl Fn(usize) -> String) -> usize {
    let mut text = String::new();
    let mut payments = 0;
    while text.len() < bytes {
        text.push_str(&lines(payments));
        payments += 1;
    }
    fs::write(scene.file(), text).unwrap();
    fs::set_permissions(scene.file(), fs::Permissions::from_mode(0o600)).unwrap();
    payments
}

fn append(scene: &Scene, bytes: &[u8]) {
    OpenOptions::new().append(true).open(scene.file()).unwrap().write_all(bytes).unwrap();
}

/// Most memory that a process has had, in MiB.
fn peak(worker: &Worker) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", worker.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

fn is_compacted(worker: &Worker) -> Option<()> {
    worker.log().contains("compacted ").then_some(())
}

/// A write(2) that is killed ends at a page's border: the line was never confirmed.
#[test]
fn a_write_that_was_cut_short_is_removed_and_not_counted_as_damage() {
    for (name, end) in [
        ("half", payment_line(7, 3, 1.0).into_bytes()[..500].to_vec()),
        ("nuls", vec![0; 9000]),
        ("both", [&payment_line(7, 3, 1.0).as_bytes()[..500], &[0; 5000]].concat()),
    ] {
        let server = TicketServer::new(Behavior::Say(503));
        let scene = Scene::new(&format!("ledger-{name}"), &server);
        let worker = scene.start();
        let wallet = Wallet::new(20);
        assert_eq!(pay(worker.addr, &wallet.payment([1])).status, 200);
        worker.signal(Signal::KILL);
        worker.wait();
        append(&scene, &end);
        assert_eq!(scene.report()["damaged_lines"], 0, "{name}: nor for a reader");
        let worker = scene.start();
        wait_for("a word about it", || worker.log().contains("an unconfirmed write that was cut short").then_some(()));
        assert_eq!(pay(worker.addr, &wallet.payment([2])).status, 200);
        server.set(Behavior::Judge);
        scene.wait_for_tickets("accepted", 2);
        assert!(!worker.log().contains("damaged"), "{name}: {}", worker.log());
        let (status, _) = worker.stop();
        assert!(status.success());
        let bytes = fs::read(scene.file()).unwrap();
        assert!(!bytes.contains(&0) && scene.entries().iter().all(|entry| entry != "damaged"), "{name}");
    }
}

#[test]
fn a_last_line_that_lacks_only_its_newline_counts() {
    let server = TicketServer::new(Behavior::Judge);
    let scene = Scene::new("ledger-newline", &server);
    append_to_new(&scene, payment_line(1, 1, 1.0).trim_end().as_bytes());
    let worker = scene.start();
    scene.wait_for_tickets("accepted", 1);
    assert_eq!(pay(worker.addr, &Wallet::new(21).payment([1])).status, 200);
    scene.wait_for_tickets("accepted", 2);
    assert!(!scene.entries().contains(&"damaged".to_owned()));
    assert!(!worker.log().contains("cut short"), "{}", worker.log());
}

fn append_to_new(scene: &Scene, bytes: &[u8]) {
    fs::write(scene.file(), bytes).unwrap();
}

#[test]
fn what_is_not_ours_is_never_cut_off() {
    let server = TicketServer::new(Behavior::Judge);
    for (name, text) in [
        ("word", "a file without a newline".to_owned()),
        ("behind", format!("{}not ours\n{{\"payment\":{{\"id\":\"0x12", payment_line(1, 1, 1.0))),
        ("long", format!("{}{{\"payment\":{}", payment_line(1, 1, 1.0), "x".repeat(3 * MIB))),
    ] {
        let scene = Scene::new(&format!("ledger-foreign-{name}"), &server);
        append_to_new(&scene, text.as_bytes());
        let worker = scene.start();
        wait_for("a warning", || worker.log().contains("damaged line").then_some(()));
        assert_eq!(pay(worker.addr, &Wallet::new(22).payment([1])).status, 200);
        assert!(fs::read_to_string(scene.file()).unwrap().starts_with(&text), "{name}");
    }
}

/// Payments of the last days, waiting and ended, small and large: memory is not a matter of the file's size.
#[test]
fn a_large_ledger_needs_little_memory() {
    let server = TicketServer::new(Behavior::Say(503));
    for (tickets, ended) in [(1, false), (1, true), (100, false), (100, true)] {
        let scene = Scene::new(&format!("ledger-large-{tickets}-{ended}"), &server);
        let count = fill(&scene, 24 * MIB, tickets, ended, 100.0);
        let worker = scene.start();
        wait_for("a compaction", || is_compacted(&worker));
        assert_eq!(pay(worker.addr, &Wallet::new(23).payment([1])).status, 200);
        let most = peak(&worker);
        println!("{most} MiB with payments of {tickets} tickets, ended: {ended}");
        assert!(most < 32, "{tickets} tickets, ended: {ended}: {most} MiB");
        let result = if ended { "accepted" } else { "pending" };
        let report = scene.report();
        let expect = count + usize::from(!ended);
        assert_eq!(report["totals"][result]["payments"], expect);
        assert_eq!(report["payments"].as_array().unwrap().len(), count + 1);
    }
}

#[test]
fn what_ended_long_ago_is_summed_up_and_the_rest_stays() {
    let server = TicketServer::new(Behavior::Say(503));
    let scene = Scene::new("ledger-compact", &server);
    let old = fill(&scene, 17 * MIB, 50, true, 3.0 * 86_400.0);
    let (fresh, waits) = (10_000_000, 20_000_000);
    append(&scene, (payment_line(fresh, 2, 50.0) + &result_line(fresh)).as_bytes());
    append(&scene, b"a word by hand\n");
    append(&scene, payment_line(waits, 1, 50.0).as_bytes());
    let worker = scene.start();
    wait_for("a compaction", || is_compacted(&worker));
    assert_eq!(pay(worker.addr, &Wallet::new(29).payment([1])).status, 200);
    server.set(Behavior::Judge);
    scene.wait_for_tickets("accepted", i64::try_from(old).unwrap() * 50 + 4);
    assert!(server.taken().keys().any(|payment| payment.starts_with("20000000-")), "it is found where it is now");
    let report = scene.report();
    assert_eq!(report["payments"].as_array().unwrap().len(), 3);
    assert_eq!((&report["payments"][0]["id"], &report["damaged_lines"]), (&json!(hash(fresh)), &json!(1)));
    let text = fs::read_to_string(scene.file()).unwrap();
    assert!(text.len() < 10_000 && text.contains("a word by hand"), "{} bytes", text.len());
    assert!(!text.contains("10000000-p"), "headers of what has ended are gone");
    assert_eq!(fs::metadata(scene.file()).unwrap().permissions().mode() & 0o777, 0o600);
    // The new file is locked like the old one.
    let second = scene.start();
    wait_for("a warning", || second.log().contains("another worker is using it").then_some(()));
    // It is found again after a restart.
    drop(second);
    worker.stop();
    let _worker = scene.start();
    scene.wait_for_tickets("accepted", i64::try_from(old).unwrap() * 50 + 4);
    assert!(server.taken().len() == 2 && server.taken().values().all(|times| *times == 1));
}

#[test]
fn without_room_for_a_second_file_the_first_one_stays() {
    let server = TicketServer::new(Behavior::Say(503));
    let scene = Scene::new("ledger-room", &server);
    let Some(disk) = SmallDisk::mount(&scene.dir, "24m") else { return };
    let count = fill_long(&scene);
    let worker = scene.start();
    wait_for("a warning", || worker.log().contains("cannot compact").then_some(()));
    let wallet = Wallet::new(24);
    for nonce in 0..20 {
        assert_eq!(pay(worker.addr, &wallet.payment([nonce])).status, 200);
    }
    assert_eq!(worker.log().matches("cannot compact").count(), 1, "{}", worker.log());
    assert!(!scene.dir.join("tickets.jsonl.new").exists(), "its room is given back");
    assert!(worker.get("/metrics").text().contains("agent_net_ticket_write_errors_total 1\n"));
    worker.signal(Signal::KILL);
    worker.wait();
    disk.resize("60m");
    server.set(Behavior::Judge);
    let worker = scene.start();
    wait_for("a compaction", || is_compacted(&worker));
    let all = count + 20;
    wait_for("all of them", || (server.taken().len() == all).then_some(()));
    scene.wait_for_tickets("accepted", i64::try_from(count + 20).unwrap());
    assert!(server.taken().values().all(|times| *times == 1));
}

/// Each life begins with a compaction; the kill comes before it, in it or after it.
#[test]
fn killed_while_the_file_is_compacted_no_acknowledged_ticket_is_lost() {
    let server = TicketServer::new(Behavior::Say(503));
    let scene = Scene::new("ledger-killed", &server);
    let count = fill_long(&scene);
    let wallet = Wallet::new(25);
    let (mut acknowledged, mut compacted) = (Vec::new(), 0);
    for life in 0..40_u64 {
        let inode = fs::metadata(scene.file()).unwrap().ino();
        let worker = scene.start();
        let (addr, from, new) = (worker.addr, u32::try_from(life).unwrap() * 500, scene.dir.join("tickets.jsonl.new"));
        let killer = thread::spawn(move || {
            let half = |length: u64| fs::metadata(&new).is_ok_and(|meta| meta.len() >= length);
            let done = || is_compacted(&worker).is_some();
            wait_for("a moment to die", || match life % 4 {
                0 => (half(0) || done()).then_some(()),
                1 => (half(9 << 20) || done()).then_some(()),
                2 => done().then_some(()),
                _ => {
                    thread::sleep(Duration::from_millis(life * 67 % 500));
                    Some(())
                }
            });
            worker.signal(Signal::KILL);
            worker.wait()
        });
        for nonce in from..from + 500 {
            let payment = wallet.payment([nonce]);
            match try_pay(addr, &payment) {
                Some(200) => acknowledged.push(payment),
                Some(_) => {}
                None => break,
            }
        }
        let (_, log) = killer.join().unwrap();
        assert!(!log.contains("damaged"), "{log}");
        compacted += usize::from(fs::metadata(scene.file()).unwrap().ino() != inode);
    }
    println!("{} acknowledged in 40 lives, {compacted} compactions", acknowledged.len());
    assert!(!acknowledged.is_empty() && compacted >= 10, "{}, {compacted}", acknowledged.len());
    server.set(Behavior::Judge);
    let _worker = scene.start();
    scene.wait_for_tickets("pending", 0);
    let taken = server.taken();
    let lost = acknowledged.iter().filter(|payment| !taken.contains_key(*payment)).count();
    assert_eq!((lost, taken.len() >= count + acknowledged.len()), (0, true));
    assert!(taken.values().all(|times| *times == 1), "nothing was submitted twice");
    assert_eq!((scene.tickets("refused"), scene.tickets("unclear")), (0, 0));
}

#[test]
fn removed_while_it_is_large_it_is_written_again_with_all_that_it_held() {
    let server = TicketServer::new(Behavior::Say(503));
    let scene = Scene::new("ledger-removed", &server);
    let count = fill_long(&scene);
    let worker = scene.start();
    // Before, while and after it is compacted.
    for nonce in 0..6 {
        fs::remove_file(scene.file()).unwrap();
        assert_eq!(pay(worker.addr, &Wallet::new(26).payment([nonce])).status, 200);
        thread::sleep(Duration::from_millis(100));
    }
    assert!(worker.log().contains("was removed or replaced while in use"), "{}", worker.log());
    worker.signal(Signal::KILL);
    worker.wait();
    assert_eq!(scene.report()["totals"]["pending"]["payments"], count + 6);
    assert_eq!(fs::metadata(scene.file()).unwrap().permissions().mode() & 0o777, 0o600);
    server.set(Behavior::Judge);
    let _worker = scene.start();
    scene.wait_for_tickets("pending", 0);
    assert!(server.taken().len() == count + 6 && server.taken().values().all(|times| *times == 1));
}

/// A file that was changed in place is not a reason to submit a payment twice.
#[test]
fn a_payment_missing_from_its_place_is_not_submitted() {
    let server = TicketServer::new(Behavior::Say(503));
    let scene = Scene::new("ledger-changed", &server);
    let first = payment_line(1, 1, 50.0);
    let second = payment_line(2, 1, 50.0);
    assert_eq!(first.len(), second.len(), "one fits in the place of the other");
    append_to_new(&scene, (first + &second).as_bytes());
    let worker = scene.start();
    wait_for("a try", || (!server.came().is_empty()).then_some(()));
    OpenOptions::new().write(true).open(scene.file()).unwrap().write_all(second.as_bytes()).unwrap();
    // What is on its way was read before.
    let came = server.came().len();
    wait_for("more tries", || (server.came().len() > came + 2).then_some(()));
    server.set(Behavior::Judge);
    scene.wait_for_tickets("accepted", 1);
    wait_for("a warning", || worker.log().contains("missing from its place").then_some(()));
    assert_eq!(server.taken().into_values().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_payment_is_given_up_after_two_rounds_of_trying() {
    let server = TicketServer::new(Behavior::HangUp);
    let scene = Scene::new("tickets-expired", &server);
    // Two rounds take 5 s.
    let worker = Worker::start(&[
        ("STATE_DIR", scene.dir.to_str().unwrap()),
        ("TICKET_SUBMIT_URL", &scene.url),
        ("AGENT_NET_FAULT", "hurry:30000"),
    ]);
    assert_eq!(pay(worker.addr, &Wallet::new(31).payment([1])).status, 200);
    scene.wait_for_tickets("expired", 1);
    assert!(worker.log().contains("a payment was expired"), "{}", worker.log());
}

/// What costs nothing is looked at before signatures, which cost a core's time.
#[test]
fn a_client_cannot_have_signatures_looked_at_in_vain() {
    let server = TicketServer::new(Behavior::Judge);
    let scene = Scene::new("ledger-forged", &server);
    let worker = scene.start();
    let wallet = Wallet::new(28);
    let forged = |nonce: u32| {
        let mut signature = wallet.sign(&wallet.hash(nonce));
        signature[3] ^= 1;
        (nonce, signature)
    };
    let refused = |tickets: &[(u32, Vec<u8>)]| pay(worker.addr, &wallet.payment_of(tickets));
    // The first signature that is not good ends it: the others are not counted.
    let answer = refused(&[(1, wallet.sign(&wallet.hash(1))), forged(2), forged(3)]);
    assert!(answer.text().contains("the signature of the ticket with nonce 2 is not valid"), "{answer:?}");
    // One that has not even the form of one is found before a forged one.
    let answer = refused(&[forged(4), (5, vec![1; 64])]);
    assert!(answer.text().contains("nonce 5 is not valid: not 65 bytes long"), "{answer:?}");
    // Used ones are not looked at a second time.
    assert_eq!(refused(&[(6, wallet.sign(&wallet.hash(6)))]).status, 200);
    let answer = refused(&[forged(7), forged(6)]);
    assert_eq!((answer.status, answer.code().as_str()), (400, "ticket_reused"));
    scene.wait_for_tickets("accepted", 1);
}
