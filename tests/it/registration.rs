//! Registering with an orchestrator that accepts it, rejects it, hangs or is down.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::json;

use crate::fake_orchestrator::{Behavior, FakeOrchestrator};
use crate::harness::{Worker, folder, lock, wait_for};
use crate::http::{self, Connection};
use crate::visibility;

const REGISTER: &str = "/capability/register";
const UNREGISTER: &str = "/capability/unregister";

fn start(orchestrator: &FakeOrchestrator, more: &[(&str, &str)]) -> Worker {
    let url = orchestrator.url();
    let mut settings = vec![("ORCH_URL", url.as_str()), ("CAPABILITY_NAME", "agent-net-nyc"), ("HOSTNAME", "gpu-1")];
    settings.extend(more);
    Worker::start(&settings)
}

#[test]
fn a_registration_says_what_is_set_and_nothing_else() {
    let orchestrator = FakeOrchestrator::new(Behavior::Ok);
    let worker = start(&orchestrator, &[]);
    let request = orchestrator.wait_for(REGISTER, 1).remove(0);
    let expect = json!({
        "url": format!("http://gpu-1:{}", worker.addr.port()), "name": "agent-net-nyc",
        "description": "GPU uptime monitoring (BYOC)", "capacity": 10
    });
    assert_eq!(request.json(), expect);
    assert_eq!((request.header("authorization"), request.header("content-type")), (None, Some("application/json")));
    wait_for("the log", || worker.log().contains("registered agent-net-nyc at").then_some(()));
}

#[test]
fn every_setting_of_a_registration_is_sent() {
    let orchestrator = FakeOrchestrator::new(Behavior::Ok);
    let _worker = start(
        &orchestrator,
        &[
            ("ORCH_SECRET", "s3cret"),
            ("CAPABILITY_URL", "https://worker.example:9000/base/"),
            ("CAPABILITY_DESCRIPTION", "mine"),
            ("CAPABILITY_CAPACITY", "3"),
            ("CAPABILITY_PRICE_PER_UNIT", "29000000000000"),
            ("CAPABILITY_PRICE_SCALING", "1"),
            ("CAPABILITY_CURRENCY", "wei"),
            ("WORKER_TOKEN", "t0ken"),
        ],
    );
    let request = orchestrator.wait_for(REGISTER, 1).remove(0);
    let expect = json!({
        "url": "https://worker.example:9000/base", "name": "agent-net-nyc", "description": "mine", "capacity": 3,
        "price_per_unit": 29_000_000_000_000_i64, "price_scaling": 1, "currency": "wei", "token": "t0ken"
    });
    assert_eq!(request.json(), expect);
    assert_eq!(request.header("authorization"), Some("s3cret"));
}

#[test]
fn the_worker_serves_before_it_registers() {
    let seen = Arc::new(Mutex::new(None));
    let sink = Arc::clone(&seen);
    // A port of our own choice, so that the orchestrator knows it: it is given in the registration.
    let orchestrator = FakeOrchestrator::with_witness(Behavior::Ok, move |request| {
        if request.path == REGISTER {
            let port = request.json()["url"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
            let health = http::request(SocketAddr::from(([127, 0, 0, 1], port)), "GET", "/health", &[], b"");
            *lock(&sink) = Some(health.status);
        }
    });
    let _worker = start(&orchestrator, &[]);
    assert_eq!(wait_for("a registration", || *lock(&seen)), 200);
}

#[test]
fn every_name_is_registered_everywhere_and_taken_out_again() {
    let (first, second) = (FakeOrchestrator::new(Behavior::Ok), FakeOrchestrator::new(Behavior::Ok));
    // The same one in other words is one.
    let urls = format!("{}, {}, {}/", first.url(), second.url(), first.url());
    let worker = start(&first, &[("ORCH_URL", &urls), ("CAPABILITY_NAME", "a, b"), ("ORCH_SECRET", "s3cret")]);
    for orchestrator in [&first, &second] {
        let names: Vec<_> = orchestrator.wait_for(REGISTER, 2).iter().map(|r| r.json()["name"].clone()).collect();
        assert_eq!(names, ["a", "b"]);
    }
    wait_for("the log", || (worker.log().matches("registered").count() >= 4).then_some(()));
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    for orchestrator in [&first, &second] {
        let mut requests = orchestrator.requests(UNREGISTER);
        requests.sort_by(|a, b| a.body.cmp(&b.body));
        // The bare name: a newline or quotes would unregister nothing.
        assert_eq!(requests.iter().map(|r| r.body.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(requests.iter().all(|r| r.header("authorization") == Some("s3cret")));
    }
}

#[test]
fn it_tries_until_it_is_taken() {
    for behavior in [Behavior::Error500, Behavior::HangUp, Behavior::Hang, Behavior::BadSecret] {
        let orchestrator = FakeOrchestrator::new(behavior);
        let worker = start(&orchestrator, &[]);
        orchestrator.wait_for(REGISTER, 2);
        orchestrator.set(Behavior::Ok);
        wait_for("the log", || {
            worker.log().contains("INFO  [agent_net::livepeer::registrar::byoc] registered").then_some(())
        });
    }
}

#[test]
fn it_registers_with_an_orchestrator_that_comes_later() {
    let mut orchestrator = FakeOrchestrator::new(Behavior::Ok);
    orchestrator.stop();
    let worker = start(&orchestrator, &[]);
    wait_for("a failed try", || worker.log().contains("connection refused; retrying in 1 s").then_some(()));
    orchestrator.start();
    orchestrator.wait_for(REGISTER, 1);
}

#[test]
fn each_refusal_says_what_to_do_and_never_the_secret() {
    #[track_caller]
    fn check(behavior: Behavior, secret: &str, words: &str) {
        let orchestrator = FakeOrchestrator::new(behavior);
        let worker = start(&orchestrator, &[("ORCH_SECRET", secret), ("LOG_LEVEL", "trace")]);
        wait_for(words, || worker.log().contains(words).then_some(()));
        // The same complaint is not repeated at each try.
        orchestrator.wait_for(REGISTER, 2);
        let (status, log) = worker.stop();
        assert_eq!(status.code(), Some(0));
        let complaints = log.matches("cannot register").count();
        // Where there is no BYOC, the message about the orchestrator is enough.
        assert_eq!(complaints, usize::from(!matches!(behavior, Behavior::NoByoc)), "{log}");
        assert!(log.matches("this worker is not visible").count() <= 1, "{log}");
        assert!(secret.is_empty() || !log.contains(secret), "{log}");
        assert_eq!(orchestrator.requests("/elsewhere").len(), 0);
    }
    check(
        Behavior::BadSecret,
        "s3cret",
        "secret rejected; retrying in 1 s. Set ORCH_SECRET to its -orchSecret, or unset it",
    );
    check(Behavior::BadSecret, "", "secret required; retrying in 1 s. Set ORCH_SECRET to its -orchSecret");
    check(Behavior::BadBody, "s3cret", "cannot unmarshal string");
    check(Behavior::PlainHttpToTls, "s3cret", "Use https:// in ORCH_URL");
    check(Behavior::NoByoc, "s3cret", "has no BYOC and has no Live Runner: this worker is not visible");
    check(Behavior::WebPage, "s3cret", "it answered with a web page (HTML); retrying in 1 s. Check ORCH_URL");
    check(Behavior::Redirect, "s3cret", "a redirect, which is not followed with a secret");
    check(Behavior::Error500, "s3cret", "it answered 500: oops");
    // It repeats what it was sent.
    check(Behavior::Error500, "oops", "it answered 500: ***");
}

#[test]
fn a_secret_comes_from_its_file() {
    let file = folder("orch-secret").join("secret");
    std::fs::write(&file, "from-file\n").unwrap();
    let orchestrator = FakeOrchestrator::new(Behavior::Ok);
    let _worker = start(&orchestrator, &[("ORCH_SECRET_FILE", file.to_str().unwrap())]);
    let request = orchestrator.wait_for(REGISTER, 1).remove(0);
    assert_eq!(request.header("authorization"), Some("from-file"));
}

#[test]
fn an_orchestrator_that_is_down_or_hangs_delays_no_job_and_no_stop() {
    // A port without accept(): the kernel answers the first connects, then nothing does.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf_url = format!("http://{}", deaf.local_addr().unwrap());
    let hanging = FakeOrchestrator::new(Behavior::Hang);
    for url in ["http://127.0.0.1:9", &deaf_url, &hanging.url()] {
        let worker = start(&hanging, &[("ORCH_URL", url)]);
        assert_eq!(worker.report()["agent_id"], "demo-agent");
        if url == hanging.url() {
            hanging.wait_for(REGISTER, 1);
        }
        let (status, log) = worker.stop();
        assert_eq!(status.code(), Some(0), "{log}");
    }
    // A name that may be registered without an answer is unregistered.
    assert_eq!(hanging.requests(UNREGISTER).len(), 1);
}

#[test]
fn a_second_signal_ends_it_immediately_unless_its_supervisor_stops_it_too() {
    let orchestrator = FakeOrchestrator::new(Behavior::Ok);
    let worker = start(&orchestrator, &[]);
    // Its answer is there, too.
    wait_for("the log", || worker.log().contains("registered agent-net-nyc at").then_some(()));
    orchestrator.set(Behavior::Hang);
    worker.signal(Signal::INT);
    orchestrator.wait_for(UNREGISTER, 1);
    worker.signal(Signal::TERM);
    worker.signal(Signal::INT);
    let (status, log) = worker.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("second signal"), "{log}");

    // `docker compose kill -s SIGINT` returns immediately, and `docker compose down` sends SIGTERM.
    let worker = start(&orchestrator, &[]);
    orchestrator.wait_for(REGISTER, 2);
    worker.signal(Signal::INT);
    orchestrator.wait_for(UNREGISTER, 2);
    worker.signal(Signal::TERM);
    let (status, log) = worker.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("second signal"), "{log}");
}

/// A registry that was missing is asked for each three minutes, unless the orchestrator was restarted.
#[test]
fn an_orchestrator_that_was_away_is_asked_at_once_what_it_has_now() {
    let orchestrator = visibility::orchestrator(Behavior::Ok, false);
    let scene = visibility::Scene::new(&[&orchestrator], &[("AGENT_NET_FAULT", "")]);
    scene.says("visible as BYOC");
    orchestrator.set(Behavior::HangUp);
    visibility::switch(&orchestrator, true);
    let tries = orchestrator.requests(REGISTER).len();
    // Has it registered again, which fails.
    let mut gone = Connection::open(scene.worker.addr);
    gone.send(b"POST /gpu-check HTTP/1.1\r\nHost: worker\r\nContent-Length: 100\r\n\r\n{").unwrap();
    drop(gone);
    orchestrator.wait_for(REGISTER, tries + 1);
    orchestrator.set(Behavior::Ok);
    wait_for("an entry", || orchestrator.listed("agent-net-nyc"));
}
