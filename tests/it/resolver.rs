//! Names that cannot be resolved, and connections that are kept or closed.

use std::net::{Ipv4Addr, SocketAddr};

use crate::fake_dns::{Behavior, FakeDns};
use crate::fake_ollama::{Answer, FakeOllama, MODEL, TAGS};
use crate::harness::{Worker, agent_net, codes, run, verdict, wait_for};

const HERE: Behavior = Behavior::Address(Ipv4Addr::LOCALHOST);
/// What any failure looks like that takes its time, as with musl, which asks again after SERVFAIL.
const LATE: &str = "no answer from DNS within 1.0s";
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn polls(fake: &FakeOllama, more: usize) {
    let before = fake.requests("/api/ps");
    wait_for("more polls", || (fake.requests("/api/ps") >= before + more).then_some(()));
}

#[test]
fn the_last_addresses_stay_in_use_while_the_dns_fails() {
    let Some(dns) = FakeDns::new(61, HERE) else { return };
    let mut fake = FakeOllama::new();
    let port = fake.addr().port();
    let url = format!("http://ollama.test:{port}");
    let worker = Worker::of(dns.agent_net(), &[("OLLAMA_URL", &url), ("EXPECTED_GPUS", "0")]);
    worker.report_when("ok", |report| verdict(report) == "ok");
    polls(&fake, 20);
    assert!(dns.questions() <= 2, "a kept connection needs no look-up: {}", dns.questions());

    for (behavior, words) in [
        (Behavior::ServFail, "the DNS server fails or does not answer"),
        (Behavior::NxDomain, "DNS does not know this name"),
        (Behavior::Silent, LATE),
    ] {
        let logged = worker.log().matches("stay in use").count();
        if logged > 0 {
            dns.set(HERE);
            wait_for("an end of the outage", || {
                fake.stop();
                fake.start();
                polls(&fake, 1);
                (worker.log().matches("can be resolved again").count() >= logged).then_some(())
            });
        }
        dns.set(behavior);
        // Its connections are gone with it.
        fake.stop();
        fake.start();
        polls(&fake, 3);
        worker.report_when("ok without the DNS", |report| verdict(report) == "ok");
        wait_for(words, || {
            let log = worker.log();
            let last = log.lines().rfind(|line| line.contains("stay in use"))?.to_owned();
            (log.matches("stay in use").count() > logged && (last.contains(words) || last.contains(LATE))).then_some(())
        });
    }

    // A container that is started again elsewhere.
    let there = FakeOllama::at(SocketAddr::from((THERE, port)));
    dns.set(Behavior::Address(THERE));
    fake.stop();
    polls(&there, 3);
    worker.report_when("ok elsewhere", |report| verdict(report) == "ok");
    // A look-up that is late goes on behind the samples.
    dns.set(Behavior::Late(2500, Ipv4Addr::LOCALHOST));
    drop(there);
    fake.start();
    polls(&fake, 3);
    worker.report_when("ok where it was", |report| verdict(report) == "ok");
    // What fails then says both.
    dns.set(Behavior::ServFail);
    fake.stop();
    let why = "cannot resolve ollama.test: the DNS server fails or does not answer. Its last address 127.0.0.1 does not answer: connection refused";
    worker.report_when(why, |report| report["health"]["reasons"].to_string().contains(why));
}

/// AlexsJones/llmfit#319: a name with an address of IPv6 too, at which nothing listens.
#[test]
fn all_addresses_of_a_name_are_tried() {
    let Some(dns) = FakeDns::new(63, Behavior::Both(Ipv4Addr::LOCALHOST)) else { return };
    let fake = FakeOllama::new();
    let url = format!("http://ollama.test:{}", fake.addr().port());
    let worker = Worker::of(dns.agent_net(), &[("OLLAMA_URL", &url), ("EXPECTED_GPUS", "0")]);
    worker.report_when("ok", |report| verdict(report) == "ok");
    fake.hang_up_on_kept_connections();
    polls(&fake, 5);
    assert_eq!(verdict(&worker.report()), "ok");
}

#[test]
fn reasons_and_errors_name_the_dns() {
    let Some(dns) = FakeDns::new(62, Behavior::NxDomain) else { return };
    let settings = [
        ("OLLAMA_URL", "http://ollama.test:11434"),
        ("ORCH_URL", "http://orchestrator.test:8935"),
        ("CAPABILITY_NAME", "n"),
        ("ORCH_PROTOCOL", "byoc"),
        ("MODEL", MODEL),
        ("EXPECTED_GPUS", "0"),
    ];
    let says = |name: &str| format!("cannot resolve {name}.test: DNS does not know this name");
    let worker = Worker::of(dns.agent_net(), &settings);
    let report = worker.report_when("OLLAMA_DOWN", |report| codes(report).contains(&"OLLAMA_DOWN"));
    let reason = report["health"]["reasons"].to_string();
    assert!(reason.contains(&says("ollama")) && reason.contains("DNS. Docker"), "{reason}");
    wait_for("the registration's error", || worker.log().contains(&says("orchestrator")).then_some(()));
    worker.report_when("the keeper's error", |report| report["model_keeper"].to_string().contains(&says("ollama")));
    assert!(!worker.log().contains("failed to lookup"), "{}", worker.log());

    let (_, out, err) = run(dns.agent_net().arg("doctor").envs(settings));
    assert!(out.contains(&says("ollama")) && out.contains(&says("orchestrator")), "{out}{err}");
}

#[test]
fn a_connection_that_is_closed_when_the_next_request_comes_is_not_a_failure() {
    let fake = FakeOllama::new();
    let worker = Worker::start(&[("OLLAMA_URL", &fake.url()), ("EXPECTED_GPUS", "0")]);
    worker.report_when("ok", |report| verdict(report) == "ok");
    fake.hang_up_on_kept_connections();
    for _ in 0..20 {
        polls(&fake, 1);
        assert_eq!(verdict(&worker.report()), "ok", "{:#}", worker.report());
    }
    // What closes a new connection is asked once each time: doctor asks twice.
    fake.set("/api/version", Answer::HangUp);
    drop(worker);
    let before = fake.requests("/api/version");
    run(agent_net().arg("doctor").env("OLLAMA_URL", fake.url()));
    assert_eq!(fake.requests("/api/version"), before + 2);
}

#[test]
fn a_loaded_model_that_is_not_listed_has_the_list_read_again_once() {
    let fake = FakeOllama::new();
    let worker = Worker::start(&[("OLLAMA_URL", &fake.url()), ("EXPECTED_GPUS", "0"), ("SAMPLE_INTERVAL", "100ms")]);
    worker.report_when("ok", |report| verdict(report) == "ok");
    let new = |list: &str| list.replace(MODEL, "new:1").replace("685be00e", "00000000");
    fake.set("/api/tags", Answer::Json(new(TAGS)));
    let before = fake.requests("/api/tags");
    fake.set("/api/ps", Answer::Json(new(crate::fake_ollama::PS)));
    let report = worker.report_when("the new model", |report| report["model_name"] == "new:1");
    assert_eq!((&report["total_models"], fake.requests("/api/tags")), (&1.into(), before + 1), "{report:#}");
    // It was deleted while it is loaded.
    fake.set("/api/tags", Answer::Json(r#"{"models":[]}"#.into()));
    fake.set("/api/ps", Answer::Json(new(crate::fake_ollama::PS).replace("new:1", "gone:1").replace("00000000", "1")));
    worker.report_when("an empty list", |report| report["total_models"] == 0);
    let read = fake.requests("/api/tags");
    polls(&fake, 10);
    assert!(fake.requests("/api/tags") <= read + 1, "not at each sample");
}
