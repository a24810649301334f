//! The file of the ticket ledger is moved, removed or cut while the worker uses it.

use std::fs;

use rustix::process::Signal;

use crate::fake_ticket_server::{Behavior, Scene, TicketServer, pay};
use crate::harness::wait_for;
use crate::wallet::Wallet;

#[test]
fn a_removed_ledger_is_recreated_with_all_that_waits() {
    let server = TicketServer::new(Behavior::Say(503));
    let scene = Scene::new("tickets-removed", &server);
    let wallet = Wallet::new(13);
    let worker = scene.start();
    assert_eq!(pay(worker.addr, &wallet.payment([1])).status, 200);
    fs::remove_file(scene.file()).unwrap();
    assert_eq!(pay(worker.addr, &wallet.payment([2])).status, 200);
    wait_for("both", || (scene.tickets("pending") == 2).then_some(()));
    worker.signal(Signal::KILL);
    worker.wait();
    server.set(Behavior::Judge);
    let _worker = scene.start();
    scene.wait_for_tickets("accepted", 2);
}
