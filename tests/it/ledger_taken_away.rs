//! The file of the ticket ledger is moved, removed or cut while the worker uses it.

use std::fs::{self, OpenOptions};
use std::path::Path;

use rustix::process::Signal;

use crate::fake_ticket_server::{Behavior, Scene, TicketServer, pay};
use crate::harness::wait_for;
use crate::wallet::Wallet;

/// What `take` does with the file costs no acknowledged payment: the next worker finds all of them at the path.
#[track_caller]
fn check_kept(name: &str, take: impl Fn(&Path)) {
    let server = TicketServer::new(Behavior::Say(503));
    let scene = Scene::new(&format!("tickets-{name}"), &server);
    let wallet = Wallet::new(13);
    let worker = scene.start();
    assert_eq!(pay(worker.addr, &wallet.payment([1])).status, 200);
    take(&scene.file());
    assert_eq!(pay(worker.addr, &wallet.payment([2])).status, 200);
    wait_for("both", || (scene.tickets("pending") == 2).then_some(()));
    let again = worker.log().matches("was removed or replaced while in use; writing it again").count();
    assert_eq!(again, 1, "{name}: {}", worker.log());
    // It is used as before.
    assert_eq!(pay(worker.addr, &wallet.payment([3])).status, 200);
    worker.signal(Signal::KILL);
    let (_, log) = worker.wait();
    assert_eq!(log.matches("while in use; writing it again").count(), 1, "{name}: {log}");
    server.set(Behavior::Judge);
    let worker = scene.start();
    scene.wait_for_tickets("accepted", 3);
    assert!(server.taken().values().all(|times| *times == 1), "{name}: nothing was submitted twice");
    assert_eq!(pay(worker.addr, &wallet.payment([1])).code(), "ticket_reused", "{name}");
}

#[test]
fn a_removed_ledger_is_recreated_with_all_that_waits() {
    check_kept("removed", |file| fs::remove_file(file).unwrap());
}

#[test]
fn a_ledger_that_was_moved_away_is_written_again() {
    let (old, new) = (|file: &Path| file.with_extension("jsonl.1"), |file: &Path| file.with_extension("tmp"));
    check_kept("moved", |file| fs::rename(file, old(file)).unwrap());
    // As logrotate's `create`, and as an editor saves a file.
    check_kept("rotated", |file| {
        fs::hard_link(file, old(file)).unwrap();
        fs::write(new(file), "").unwrap();
        fs::rename(new(file), file).unwrap();
    });
    check_kept("edited", |file| {
        fs::copy(file, new(file)).unwrap();
        fs::rename(new(file), file).unwrap();
    });
    check_kept("folder", |file| {
        let dir = file.parent().unwrap();
        let other = dir.with_file_name("tickets-folder-moved");
        let _ = fs::remove_dir_all(&other);
        fs::rename(dir, other).unwrap();
    });
}

/// As logrotate's `copytruncate`: what is cut off is nowhere else in the worker.
#[test]
fn a_ledger_that_was_cut_is_reported_and_holds_up_no_other_payment() {
    let server = TicketServer::new(Behavior::Hang);
    let scene = Scene::new("tickets-cut", &server);
    let wallet = Wallet::new(32);
    let worker = scene.start();
    for nonce in 1..=20 {
        assert_eq!(pay(worker.addr, &wallet.payment([nonce])).status, 200);
    }
    // Until it is answered, the worker writes nothing.
    wait_for("a payment on its way", || (server.came().len() == 1).then_some(()));
    let copy = fs::read_to_string(scene.file()).unwrap();
    OpenOptions::new().write(true).open(scene.file()).unwrap().set_len(0).unwrap();
    assert_eq!(pay(worker.addr, &wallet.payment([21])).status, 200);
    wait_for("a warning", || worker.log().contains("20 waiting payments lost. If there is a copy").then_some(()));
    server.set(Behavior::Judge);
    scene.wait_for_tickets("accepted", 1);
    assert_eq!(pay(worker.addr, &wallet.payment([1])).code(), "ticket_reused");
    assert_eq!(worker.log().matches("was cut while in use").count(), 1, "{}", worker.log());
    worker.stop();
    // With the lines of the copy all of them are submitted.
    let own = fs::read_to_string(scene.file()).unwrap();
    fs::write(scene.file(), own + &copy).unwrap();
    let _worker = scene.start();
    scene.wait_for_tickets("accepted", 21);
    assert!(server.taken().values().all(|times| *times == 1), "nothing was submitted twice");
}
