//! Tickets that come with jobs: saved before the job is answered, and submitted once, whatever happens in between.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fake_ticket_server::{Behavior, JOB, Scene, TicketServer, pay, try_pay};
use crate::harness::{SmallDisk, Worker, folder, wait_for};
use crate::hold_port::free_port;
use crate::http::{self, Response};
use crate::wallet::Wallet;

#[track_caller]
fn check_refused(answer: &Response, status: u16, code: &str, part: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
    assert!(answer.text().contains(part), "{answer:?}");
}

#[test]
fn tickets_are_saved_and_submitted_as_received() {
    let server = TicketServer::new(Behavior::Judge);
    let scene = Scene::new("tickets-kept", &server);
    let worker = scene.start();
    let (one, many) = (Wallet::new(1).payment([0]), Wallet::new(2).payment(1..=600));
    assert!(many.len() > 57_000, "{}", many.len());
    for payment in [&one, &many] {
        let answer = pay(worker.addr, payment);
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("success")));
    }
    scene.wait_for_tickets("accepted", 601);
    assert_eq!(server.came(), [(one.clone(), JOB.to_owned()), (many.clone(), JOB.to_owned())]);
    assert_eq!(scene.entries(), ["payment", "sent", "result", "payment", "sent", "result"]);
    let report = scene.report();
    let first = &report["payments"][0];
    let hash: String = Wallet::new(1).hash(0).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&first["id"], &first["tickets"]), (&json!(format!("0x{hash}")), &json!(1)));
    assert_eq!((&first["total_ev_floor"], &first["wins"]), (&json!("29000000000000"), &Value::Null));
    assert_eq!((&first["result"], &first["status"], &first["round"]), (&json!("accepted"), &json!(200), &json!(7)));
    assert_eq!(report["totals"]["accepted"]["ev_floor"], "17429000000000000");
    let metrics = worker.get("/metrics").text().to_owned();
    for line in [
        "agent_net_ticket_payments_total{result=\"kept\"} 2",
        "agent_net_tickets{result=\"accepted\"} 601",
        "agent_net_tickets{result=\"pending\"} 0",
        "agent_net_ticket_ev_wei{result=\"accepted\"} 17429000000000000",
        "agent_net_ticket_write_errors_total 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(scene.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let (status, log) = worker.stop();
    assert!(status.success() && !log.contains(&one) && !log.contains(JOB), "headers stay secret: {log}");
}

#[test]
fn what_no_orchestrator_would_take_is_refused_before_any_work() {
    let server = TicketServer::new(Behavior::Judge);
    let scene = Scene::new("tickets-bad", &server);
    let worker = scene.start();
    let wallet = Wallet::new(3);
    let good = wallet.sign(&wallet.hash(1));
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut signature = good.clone();
        change(&mut signature);
        wallet.payment_of(&[(1, signature)])
    };
    let foreign = wallet.payment_of(&[(1, Wallet::new(4).sign(&wallet.hash(1)))]);
    let twice = wallet.payment_of(&[(1, good.clone()), (1, good.clone())]);
    for (payment, part) in [
        (with(&|signature| signature[3] ^= 1), "not the sender's"),
        (with(&|signature| signature[64] -= 27), "neither 27 nor 28"),
        (with(&|signature| signature.truncate(64)), "65 bytes"),
        (with(&|signature| signature[..32].fill(0xff)), "outside"),
        (foreign, "not the sender's"),
        (twice, "two tickets have the nonce 1"),
        (wallet.payment_of(&[]), "holds no ticket"),
        (wallet.payment(0..601), "601 tickets"),
        ("%%%".into(), "not valid base64"),
        ("AAAA".into(), "net.Payment"),
        (wallet.payment([9])[..40].into(), "net.Payment"),
    ] {
        check_refused(&pay(worker.addr, &payment), 400, "bad_payment", part);
    }
    assert!(scene.lines().is_empty() && server.came().is_empty());
    assert!(worker.get("/metrics").text().contains("agent_net_ticket_payments_total{result=\"invalid\"} 11\n"));
    // The same wallet's good ones are taken.
    assert_eq!(pay(worker.addr, &wallet.payment([1])).status, 200);
    scene.wait_for_tickets("accepted", 1);
}

#[test]
fn a_ticket_pays_once() {
    let server = TicketServer::new(Behavior::Judge);
    let scene = Scene::new("tickets-once", &server);
    let wallet = Wallet::new(5);
    let worker = scene.start();
    let at_once: Vec<_> = (0..8)
        .map(|_| {
            let (addr, payment) = (worker.addr, wallet.payment([1, 2]));
            thread::spawn(move || pay(addr, &payment).status)
        })
        .collect();
    let mut answers: Vec<u16> = at_once.into_iter().map(|one| one.join().unwrap()).collect();
    answers.sort_unstable();
    assert_eq!(answers, [200, 400, 400, 400, 400, 400, 400, 400]);
    check_refused(&pay(worker.addr, &wallet.payment([2, 3])), 400, "ticket_reused", "already used");
    scene.wait_for_tickets("accepted", 2);
    worker.stop();
    let worker = scene.start();
    check_refused(&pay(worker.addr, &wallet.payment([2, 3])), 400, "ticket_reused", "already used");
    assert_eq!(pay(worker.addr, &wallet.payment([3])).status, 200);
    scene.wait_for_tickets("accepted", 3);
    assert_eq!(server.came().len(), 2);
}

#[test]
fn a_final_answer_ends_it_and_everything_else_is_retried() {
    for (name, moods, result, failed) in [
        ("refused", vec![Behavior::Say(400)], "refused", 0),
        ("busy", vec![Behavior::Say(429), Behavior::Say(404), Behavior::Judge], "accepted", 2),
        ("moved", vec![Behavior::Say(307), Behavior::Say(402)], "refused", 1),
        ("proxied", vec![Behavior::WebPage(400), Behavior::WebPage(200), Behavior::Judge], "accepted", 2),
        // A server that hangs up may have taken it.
        ("unclear", vec![Behavior::HangUp, Behavior::Say(400)], "unclear", 1),
        ("broken", vec![Behavior::Say(502), Behavior::Say(409)], "unclear", 1),
        ("failed", vec![Behavior::Say(500), Behavior::Say(409)], "unclear", 1),
        ("taken", vec![Behavior::HangUp, Behavior::Judge], "accepted", 1),
    ] {
        let server = TicketServer::new(moods[0]);
        let scene = Scene::new(&format!("tickets-{name}"), &server);
        let worker = scene.start();
        assert_eq!(pay(worker.addr, &Wallet::new(6).payment([1])).status, 200);
        for (at, behavior) in moods.iter().enumerate().skip(1) {
            // One try has ended with the behavior before.
            wait_for("a failed try", || {
                let tries = scene.entries().iter().filter(|entry| *entry == "failed").count();
                (tries >= at).then_some(())
            });
            server.set(*behavior);
        }
        scene.wait_for_tickets(result, 1);
        let report = scene.report();
        let payment = &report["payments"][0];
        assert!(payment["failed_tries"].as_u64().unwrap() >= failed, "{name}: {report}");
        let message = payment["message"].as_str().unwrap();
        assert_eq!(message, if result == "accepted" { "" } else { "no, because of reasons" }, "{name}");
        let came = server.came().len();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(server.came().len(), came, "{name}: it continues after a final answer");
        assert!(!worker.log().contains("because of"), "an answer may hold anything: {}", worker.log());
    }
}

#[test]
fn while_payments_are_not_accepted_jobs_are_answered_and_tickets_wait() {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let scene = Scene { dir: folder("tickets-away"), url: format!("http://{addr}/ai/stream/payment") };
    let worker = scene.start();
    let wallet = Wallet::new(7);
    for nonce in 0..20 {
        assert_eq!(pay(worker.addr, &wallet.payment([nonce])).status, 200);
    }
    wait_for("a warning", || worker.log().contains("TICKET_SUBMIT_URL: ").then_some(()));
    assert_eq!(scene.tickets("pending"), 20);
    assert!(worker.log().matches("WARN").count() < 10, "once per change: {}", worker.log());
    let (status, _) = worker.stop();
    assert!(status.success());
    let worker = scene.start();
    wait_for("a word about them", || worker.log().contains("20 payments waiting").then_some(()));
    let server = TicketServer::at(TcpListener::bind(addr).unwrap(), Behavior::Judge);
    scene.wait_for_tickets("accepted", 20);
    assert!(server.taken().values().all(|times| *times == 1) && server.taken().len() == 20);
}

#[test]
fn one_payment_that_is_never_taken_does_not_fill_the_log() {
    let server = TicketServer::new(Behavior::ToFirst(500));
    let scene = Scene::new("tickets-poison", &server);
    let (worker, wallet) = (scene.start(), Wallet::new(30));
    for nonce in 0..12 {
        let tried = server.came().len();
        assert_eq!(pay(worker.addr, &wallet.payment([nonce])).status, 200);
        wait_for("another round", || (server.came().len() > tried + 2).then_some(()));
    }
    scene.wait_for_tickets("accepted", 11);
    assert_eq!(worker.log().matches("TICKET_SUBMIT_URL").count(), 1, "{}", worker.log());
}

#[test]
fn killed_two_hundred_times_between_ledger_and_submission() {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let scene = Scene { dir: folder("tickets-killed"), url: format!("http://{addr}/ai/stream/payment") };
    let wallet = Wallet::new(8);
    let mut acknowledged = Vec::new();
    for nonce in 0..200 {
        let worker = scene.start();
        let payment = wallet.payment([nonce]);
        let answer = pay(worker.addr, &payment);
        assert_eq!(answer.status, 200, "{answer:?}");
        acknowledged.push(payment);
        worker.signal(Signal::KILL);
        worker.wait();
    }
    let server = TicketServer::at(TcpListener::bind(addr).unwrap(), Behavior::Judge);
    let worker = scene.start();
    scene.wait_for_tickets("accepted", 200);
    let taken = server.taken();
    assert_eq!(taken.len(), 200);
    for payment in &acknowledged {
        assert_eq!(taken.get(payment), Some(&1));
    }
    assert!(!worker.log().contains("damaged"), "{}", worker.log());
}

/// At any moment: while a ticket is written, submitted, or its result is written. The server that takes payments counts a
/// ticket once, as go-livepeer does.
#[test]
fn killed_at_any_moment_no_acknowledged_ticket_is_lost() {
    let server = TicketServer::new(Behavior::Judge);
    let scene = Scene::new("tickets-any", &server);
    let wallet = Wallet::new(9);
    let mut acknowledged = Vec::new();
    let mut nonce = 0;
    let saved = || scene.entries().iter().filter(|entry| *entry == "payment").count();
    for life in 0..60_u64 {
        let worker = scene.start();
        let (addr, from, before) = (worker.addr, nonce, saved());
        nonce += 40;
        let payments: Vec<String> = (from..from + 40).map(|nonce| wallet.payment([nonce])).collect();
        let client = thread::spawn(move || {
            let mut taken = Vec::new();
            for payment in payments {
                match try_pay(addr, &payment) {
                    Some(200) => taken.push(payment),
                    Some(_) => {}
                    None => break,
                }
            }
            taken
        });
        thread::sleep(Duration::from_millis(10 + life * 7 % 90));
        // A slow machine has taken too few by then.
        wait_for("some tickets", || (saved() >= before + 3).then_some(()));
        worker.signal(Signal::KILL);
        worker.wait();
        acknowledged.extend(client.join().unwrap());
    }
    assert!(acknowledged.len() > 100, "{} are too few to tell", acknowledged.len());
    let _worker = scene.start();
    scene.wait_for_tickets("pending", 0);
    let (taken, report) = (server.taken(), scene.report());
    let lost: Vec<_> = acknowledged.iter().filter(|payment| !taken.contains_key(*payment)).collect();
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), acknowledged.len());
    // A second delivery happens only where the first is unknown, and is not counted as refused.
    let again = taken.values().filter(|times| **times > 1).count();
    assert_eq!(scene.tickets("refused"), 0, "{report}");
    assert!(scene.tickets("unclear") <= again as i64);
    println!("{} acknowledged in 60 lives, {again} delivered twice", acknowledged.len());
}

#[test]
fn a_full_disk_refuses_the_job_and_says_why() {
    let server = TicketServer::new(Behavior::Say(503));
    let scene = Scene::new("tickets-full", &server);
    let Some(disk) = SmallDisk::mount(&scene.dir, "512k") else { return };
    let worker = scene.start();
    wait_for("an uptime file", || scene.dir.join("uptime.bin").exists().then_some(()));
    let wallet = Wallet::new(10);
    let large = |n: u32| wallet.payment(n * 100..n * 100 + 99);
    let first_refused = (0..100).find(|n| {
        let answer = pay(worker.addr, &large(*n));
        if answer.status != 200 {
            check_refused(&answer, 503, "ledger_failed", "no space left");
            assert_eq!(answer.header("retry-after"), Some("10"));
        }
        answer.status != 200
    });
    let first_refused = first_refused.expect("the disk is full at some time");
    assert!(first_refused > 2, "{first_refused}");
    assert_eq!(worker.report()["status"], "success", "jobs without tickets are answered");
    assert!(scene.entries().iter().all(|entry| entry != "damaged"), "nothing half-written stays");
    assert!(worker.get("/metrics").text().contains("agent_net_ticket_payments_total{result=\"unwritten\"} 1\n"));
    // With room, the same ticket is good.
    disk.resize("4m");
    assert_eq!(pay(worker.addr, &large(first_refused)).status, 200);
    server.set(Behavior::Judge);
    scene.wait_for_tickets("accepted", i64::from(first_refused + 1) * 99);
    assert!(server.taken().values().all(|times| *times == 1));
}

#[test]
fn a_ledger_that_cannot_be_opened_refuses_tickets_and_nothing_else() {
    let server = TicketServer::new(Behavior::Judge);
    let scene = Scene::new("tickets-pipe", &server);
    assert!(Command::new("mkfifo").arg(scene.file()).status().unwrap().success());
    let worker = scene.start();
    wait_for("a warning", || worker.log().contains("not a regular file").then_some(()));
    check_refused(&pay(worker.addr, &Wallet::new(11).payment([1])), 503, "ledger_failed", "not a regular file");
    assert_eq!(worker.report()["status"], "success");
    let other = Scene::new("tickets-two", &server);
    let first = other.start();
    assert_eq!(pay(first.addr, &Wallet::new(11).payment([1])).status, 200);
    let second = other.start();
    wait_for("a warning", || second.log().contains("another worker is using it").then_some(()));
    check_refused(&pay(second.addr, &Wallet::new(11).payment([2])), 503, "ledger_failed", "another worker");
}

/// To a clock of 2099 all payments are old. What is too old is refused by who redeems it.
#[test]
fn damaged_lines_are_left_out_and_no_date_makes_a_payment_worthless() {
    let server = TicketServer::new(Behavior::HangUp);
    let scene = Scene::new("tickets-damaged", &server);
    let wallet = Wallet::new(12);
    let worker = scene.start();
    for nonce in 1..=4 {
        assert_eq!(pay(worker.addr, &wallet.payment([nonce])).status, 200);
    }
    worker.signal(Signal::KILL);
    worker.wait();
    // Received three days and 73 years ago, before the clock was set, and with one that was far ahead. The last line is half
    // a line.
    let mut lines = scene.lines();
    let ats = lines.iter_mut().filter_map(|line| line.pointer_mut("/payment/at"));
    for (at, change) in ats.zip([-3.0 * 86_400.0, -2.3e9, -1e12, 2.3e9]) {
        *at = json!((at.as_f64().unwrap() + change).max(5.0));
    }
    let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    text.push_str("not json\n{\"payment\":{\"id\":\"0x12");
    fs::write(scene.file(), text).unwrap();
    server.set(Behavior::Judge);
    let worker = scene.start();
    wait_for("a warning", || worker.log().contains("2 damaged lines").then_some(()));
    scene.wait_for_tickets("accepted", 4);
    // What is written after the half line is whole.
    assert_eq!(pay(worker.addr, &wallet.payment([5])).status, 200);
    scene.wait_for_tickets("accepted", 5);
    assert_eq!(scene.report()["damaged_lines"], 2);
    assert_eq!(server.taken().len(), 5);
}

#[test]
fn tickets_that_another_worker_has_taken_are_left_alone() {
    let server = TicketServer::new(Behavior::Judge);
    let scene = Scene::new("tickets-proxied", &server);
    let worker = scene.start();
    let payment = format!("Livepeer-Payment: {}", Wallet::new(14).payment([1]));
    let job = format!("Livepeer: {JOB}");
    for headers in [
        // The orchestrator's proxy passes on what it has taken.
        vec![payment.as_str(), &job, "Livepeer-Runner-Route: /x"],
        // There is no URL to submit them to.
        vec![payment.as_str()],
        vec![job.as_str()],
        vec!["Livepeer-Payment: ", &job],
    ] {
        let answer = http::request(worker.addr, "POST", "/gpu-check", &headers, br#"{"agent_id":"a"}"#);
        assert_eq!(answer.status, 200, "{headers:?}: {answer:?}");
    }
    assert!(scene.lines().is_empty());
    // Without the setting tickets are ignored, even forged ones.
    let worker = Worker::start(&[]);
    assert_eq!(pay(worker.addr, "%%%").status, 200);
    assert!(!worker.get("/metrics").text().contains("agent_net_ticket"));
}

#[test]
fn a_hanging_ticket_server_delays_neither_jobs_nor_the_stop() {
    let server = TicketServer::new(Behavior::Hang);
    let scene = Scene::new("tickets-hang", &server);
    let worker = scene.start();
    let wallet = Wallet::new(15);
    for nonce in 0..30 {
        assert_eq!(pay(worker.addr, &wallet.payment([nonce])).status, 200);
    }
    wait_for("a payment on its way", || (server.came().len() == 1).then_some(()));
    let (status, _) = worker.stop();
    assert!(status.success());
    assert_eq!(scene.tickets("pending"), 30);
}
