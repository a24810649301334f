//! Where the worker can be found: which registries an orchestrator has, what is reported of that, and what one of them
//! says about the other. Time runs a hundred times faster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::fake_orchestrator::{Behavior, Discovery, FakeOrchestrator};
use crate::fake_runners::Runners;
use crate::harness::{Worker, agent_net, run, wait_for};
use crate::http;
use crate::nvml::FakeNvml;

const ID: &str = "agent-net-nyc";
const BEAT: &str = "/runners/heartbeat";
const REGISTER: &str = "/capability/register";
const ASK: &str = "/discovery";
const LEAVE: &str = "/capability/unregister";

/// A worker with a GPU at an orchestrator, with ORCH_PROTOCOL as it is by default.
pub struct Scene {
    pub worker: Worker,
    pub nvml: FakeNvml,
    _ollama: FakeOllama,
}

impl Scene {
    pub fn new(orchestrators: &[&FakeOrchestrator], more: &[(&str, &str)]) -> Self {
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
        let urls: Vec<String> = orchestrators.iter().map(|orchestrator| orchestrator.url()).collect();
        let (urls, ollama_url) = (urls.join(","), ollama.url());
        let mut settings = vec![
            ("ORCH_URL", urls.as_str()),
            ("ORCH_SECRET", "orch-s3cret"),
            ("CAPABILITY_NAME", ID),
            ("AGENT_NET_FAULT", "hurry:100"),
            ("OLLAMA_URL", ollama_url.as_str()),
        ];
        settings.extend(nvml.settings());
        // What is said again wins.
        settings.retain(|(name, _)| !more.iter().any(|(n, _)| n == name));
        settings.extend(more);
        Self { worker: Worker::start(&settings), nvml, _ollama: ollama }
    }

    /// The one line that says what an orchestrator has.
    #[track_caller]
    pub fn says(&self, words: &str) -> String {
        wait_for(words, || self.worker.log().lines().find(|line| line.contains(words)).map(str::to_owned))
    }

    fn sentences(&self) -> usize {
        self.worker.log().matches(": this worker is ").count()
    }

    fn row(&self, protocol: &str) -> Value {
        let report = self.worker.get("/gpu").json();
        let mut rows = report["registrations"].as_array().into_iter().flatten();
        rows.find(|row| row["protocol"] == protocol).cloned().unwrap_or_default()
    }
}

pub fn orchestrator(behavior: Behavior, with_runners: bool) -> FakeOrchestrator {
    let orchestrator = FakeOrchestrator::new(behavior);
    if with_runners {
        switch(&orchestrator, true);
    }
    orchestrator
}

/// It is started with -useLiveRunners, or without.
pub fn switch(orchestrator: &FakeOrchestrator, with_runners: bool) {
    orchestrator.runners(|runners| *runners = with_runners.then(|| Runners::new("orch-s3cret")));
}

pub fn change(orchestrator: &FakeOrchestrator, change: impl Fn(&mut Runners)) {
    orchestrator.runners(|runners| change(runners.as_mut().unwrap()));
}

#[test]
fn auto_takes_all_that_there_is_and_says_so_once() {
    let both = orchestrator(Behavior::Ok, true);
    let byoc = orchestrator(Behavior::Ok, false);
    let runners = orchestrator(Behavior::NoByoc, true);
    let none = orchestrator(Behavior::NoByoc, false);
    // Else a fifth of a second without a beat, on a busy machine, would lose the entry, and there would be more to say.
    change(&both, |runners| runners.time_scale = 1);
    change(&runners, |runners| runners.time_scale = 1);
    let scene = Scene::new(&[&both, &byoc, &runners, &none], &[]);
    let as_byoc = format!("BYOC capability {ID}");
    let as_runner = format!("Live Runner {ID} of app agent-net/gpu-check (GET /discovery)");
    for (orchestrator, words) in [
        (&both, format!("has BYOC and has Live Runner: this worker is visible as {as_byoc} and as {as_runner}")),
        (&byoc, format!("has BYOC and has no Live Runner: this worker is visible as {as_byoc}. For call_runner of")),
        (&runners, format!("has no BYOC and has Live Runner: this worker is visible as {as_runner}")),
        (&none, "has no BYOC and has no Live Runner: this worker is not visible. ORCH_URL".to_owned()),
    ] {
        scene.says(&format!("{} {words}", orchestrator.url()));
    }
    for orchestrator in [&both, &runners] {
        let entry = wait_for("an entry", || orchestrator.listed(ID));
        assert_eq!((&entry["gpu"]["name"], &entry["app"]), (&json!("Fake RTX 0"), &json!("agent-net/gpu-check")));
    }
    assert!(both.registered(ID).is_some() && byoc.registered(ID).is_some());
    // What is not there is asked for again and again without a line in the log.
    none.wait_for(ASK, 3);
    both.wait_for(REGISTER, 3);
    let log = scene.worker.log();
    // A beat has half a second here, which a busy machine may take: that is logged, and not what this is about.
    let complaints = log.lines().filter(|line| line.contains("cannot register") && !line.contains("timed out")).count();
    assert_eq!((scene.sentences(), complaints), (4, 0), "{log}");
    assert!(both.requests(ASK).len() == 1 && byoc.requests(BEAT).is_empty() && none.requests(BEAT).is_empty());
    // What is not missed does not count as a failure, and there is nothing to alert on.
    wait_for("the states", || {
        let report = scene.worker.get("/gpu").json();
        let rows = report["registrations"].as_array()?;
        let mut states: Vec<_> = rows.iter().map(|row| row["state"].as_str().unwrap()).collect();
        states.sort_unstable();
        (states == ["absent", "failing", "registered", "registered", "registered", "registered"]).then_some(())
    });
    let metrics = scene.worker.get("/metrics");
    let samples = metrics.text().lines().filter(|line| line.starts_with("agent_net_registration{"));
    assert_eq!(samples.map(|line| line.ends_with(" 1")).filter(|taken| *taken).count(), 4);
    let absent =
        format!("agent_net_registration{{orchestrator=\"{}\",capability=\"{ID}\",protocol=\"byoc\"}}", runners.url());
    assert!(!metrics.text().contains(&absent), "{}", metrics.text());
}

#[test]
fn what_an_orchestrator_gets_or_loses_later_is_noticed_and_said() {
    let orchestrator = orchestrator(Behavior::Ok, false);
    let scene = Scene::new(&[&orchestrator], &[]);
    scene.says("has no Live Runner: this worker is visible as BYOC capability");
    switch(&orchestrator, true);
    scene.says("has BYOC and has Live Runner: this worker is visible as BYOC capability agent-net-nyc and as Live");
    assert_eq!(scene.row("live-runner")["state"], "registered");
    orchestrator.set(Behavior::NoByoc);
    scene.says("has no BYOC and has Live Runner");
    change(&orchestrator, |runners| runners.enabled = false);
    scene.says("is not visible");
    wait_for("its state", || (scene.row("live-runner")["state"] == "failing").then_some(()));
    orchestrator.set(Behavior::Ok);
    change(&orchestrator, |runners| runners.enabled = true);
    wait_for("both", || orchestrator.listed(ID).filter(|_| orchestrator.registered(ID).is_some()));
}

#[test]
fn an_odd_answer_about_one_registry_does_not_block_the_other() {
    for odd in [
        Discovery::Hang,
        Discovery::Status(500),
        Discovery::Status(401),
        Discovery::Status(307),
        Discovery::Html,
        Discovery::HugeHtml,
    ] {
        let orchestrator = orchestrator(Behavior::Ok, true);
        orchestrator.discovery(Some(odd));
        let scene = Scene::new(&[&orchestrator], &[]);
        wait_for("a registration", || orchestrator.registered(ID));
        let line = scene.says("may have Live Runner (no clear answer)");
        assert!(line.contains("visible as BYOC capability agent-net-nyc"), "{odd:?}: {line}");
        assert_eq!((orchestrator.requests(BEAT).len(), scene.sentences()), (0, 1), "{odd:?}");
        // It comes to its senses.
        orchestrator.discovery(None);
        scene.says("visible as BYOC capability agent-net-nyc and as Live Runner");
    }
    // A list of thousands is a list.
    let orchestrator = orchestrator(Behavior::Ok, true);
    orchestrator.discovery(Some(Discovery::HugeList));
    let scene = Scene::new(&[&orchestrator], &[]);
    scene.says("visible as BYOC capability agent-net-nyc and as Live Runner");
}

/// The waits grow to three minutes, however often the names are renewed.
#[test]
fn what_never_answers_clearly_is_asked_ever_less() {
    let orchestrator = orchestrator(Behavior::Ok, true);
    orchestrator.discovery(Some(Discovery::Status(500)));
    let names: Vec<String> = (0..8).map(|i| format!("name-{i}")).collect();
    let scene = Scene::new(&[&orchestrator], &[("CAPABILITY_NAME", &names.join(","))]);
    orchestrator.wait_for(REGISTER, 60);
    let asked = orchestrator.requests(ASK).len();
    assert!((3..=12).contains(&asked), "{asked}");
    // The other way round: beats that are taken do not shorten the waits of names that fail.
    change(&orchestrator, |runners| runners.time_scale = 1);
    orchestrator.discovery(None);
    scene.says("and as Live Runner");
    drop(scene);
    orchestrator.set(Behavior::Error500);
    let _scene = Scene::new(&[&orchestrator], &[("CAPABILITY_NAME", &names[0])]);
    let before = (orchestrator.requests(REGISTER).len(), orchestrator.requests(BEAT).len());
    orchestrator.wait_for(BEAT, before.1 + 60);
    let tried = orchestrator.requests(REGISTER).len() - before.0;
    assert!((6..=16).contains(&tried), "{tried}");
}

#[test]
fn a_registry_that_is_not_there_is_not_left() {
    let orchestrator = orchestrator(Behavior::NoByoc, true);
    let scene = Scene::new(&[&orchestrator], &[("WITHDRAW_WHEN_UNHEALTHY", "true")]);
    scene.says("has no BYOC and has Live Runner: this worker is visible as Live Runner");
    scene.nvml.set("gpu0.handle=15");
    wait_for("unavailable", || (scene.row("live-runner")["state"] == "withdrawn").then_some(()));
    orchestrator.wait_for(LEAVE, 1);
    let beats = orchestrator.requests(BEAT).len();
    orchestrator.wait_for(BEAT, beats + 2);
    let row = scene.row("byoc");
    assert_eq!((&row["state"], scene.sentences()), (&json!("absent"), 1), "{row}");
    let (_, log) = scene.worker.stop();
    let complaints = log.lines().filter(|line| line.contains("registrar") && line.contains("cannot"));
    assert_eq!(complaints.count(), 0, "{log}");
}

#[test]
fn a_name_that_cannot_be_unregistered_is_tried_again() {
    let orchestrator = orchestrator(Behavior::Ok, false);
    let scene = Scene::new(&[&orchestrator], &[("WITHDRAW_WHEN_UNHEALTHY", "true")]);
    wait_for("a registration", || orchestrator.registered(ID));
    orchestrator.set(Behavior::Error500);
    scene.nvml.set("gpu0.handle=15");
    scene.says("cannot unregister agent-net-nyc at");
    wait_for("its state", || (scene.row("byoc")["state"] == "failing").then_some(()));
    orchestrator.set(Behavior::Ok);
    wait_for("its end", || orchestrator.registered(ID).is_none().then_some(()));
    wait_for("its state", || (scene.row("byoc")["state"] == "withdrawn").then_some(()));
}

/// go-livepeer works at requests side by side: one that began before the unregistration may take effect after it.
#[test]
fn a_registration_that_ends_late_is_taken_back() {
    let (held, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (hold, pass) = (Arc::clone(&held), Arc::clone(&open));
    let count = AtomicUsize::new(0);
    let orchestrator = FakeOrchestrator::with_witness(Behavior::Ok, move |request| {
        if request.path == REGISTER && count.fetch_add(1, Ordering::AcqRel) == 1 {
            hold.store(true, Ordering::Release);
            wait_for("leave to go on", || pass.load(Ordering::Acquire).then_some(()));
        }
    });
    let scene = Scene::new(&[&orchestrator], &[]);
    wait_for("a renewal", || held.load(Ordering::Acquire).then_some(()));
    scene.worker.signal(Signal::TERM);
    wait_for("its end", || orchestrator.registered(ID).is_none().then_some(()));
    open.store(true, Ordering::Release);
    let (status, log) = scene.worker.wait();
    assert!(status.success() && orchestrator.requests(LEAVE).len() == 2, "{log}");
    assert_eq!(orchestrator.registered(ID), None, "{log}");
}

#[test]
fn names_are_taken_out_a_few_at_a_time() {
    let orchestrator = orchestrator(Behavior::Ok, false);
    let names: Vec<String> = (0..20).map(|i| format!("name-{i}")).collect();
    let scene = Scene::new(&[&orchestrator], &[("CAPABILITY_NAME", &names.join(","))]);
    wait_for("all", || names.iter().all(|name| orchestrator.registered(name).is_some()).then_some(()));
    // An orchestrator that does not answer for one name is not asked for the others.
    orchestrator.set(Behavior::Hang);
    scene.worker.stop();
    // A renewal that was under way takes its own name back.
    let asked = orchestrator.requests(LEAVE).len();
    assert!((4..=5).contains(&asked), "{asked}");
    orchestrator.set(Behavior::Ok);
    let scene = Scene::new(&[&orchestrator], &[("CAPABILITY_NAME", &names.join(","))]);
    wait_for("all again", || (scene.worker.log().matches("; jobs go to").count() == names.len()).then_some(()));
    scene.worker.stop();
    assert!(names.iter().all(|name| orchestrator.registered(name).is_none()));
}

#[test]
fn an_orchestrator_that_comes_later_is_asked_for_both_and_described_once() {
    let mut orchestrator = orchestrator(Behavior::Ok, true);
    orchestrator.stop();
    let scene = Scene::new(&[&orchestrator], &[]);
    scene.says("cannot register agent-net-nyc");
    scene.says("has Live Runner: connection refused; retrying");
    assert_eq!(scene.sentences(), 0);
    orchestrator.start();
    scene.says("visible as BYOC capability agent-net-nyc and as Live Runner");
    assert_eq!(scene.sentences(), 1, "{}", scene.worker.log());
}

#[test]
fn a_token_keeps_auto_with_byoc_and_that_is_said_once() {
    let (one, two) = (orchestrator(Behavior::Ok, true), orchestrator(Behavior::NoByoc, true));
    let scene = Scene::new(&[&one, &two], &[("WORKER_TOKEN", "t0ken")]);
    scene.says(&format!("{} has BYOC: this worker is visible as BYOC capability agent-net-nyc", one.url()));
    scene.says(&format!("{} has no BYOC: this worker is not visible", two.url()));
    one.wait_for(REGISTER, 3);
    let log = scene.worker.log();
    assert_eq!(log.matches("BYOC only, because a Live Runner's proxy cannot send WORKER_TOKEN").count(), 1, "{log}");
    assert_eq!((one.requests(ASK).len(), one.requests(BEAT).len(), two.requests(BEAT).len()), (0, 0, 0));
}

/// In life's own pace the next renewal would be a minute away, and the next question for a registry three.
#[test]
fn what_one_registry_learns_hastens_the_other() {
    let life = ("AGENT_NET_FAULT", "");
    let orchestrator = orchestrator(Behavior::Ok, true);
    change(&orchestrator, |runners| runners.time_scale = 1);
    let scene = Scene::new(&[&orchestrator], &[life]);
    scene.says("visible as BYOC capability agent-net-nyc and as Live Runner");
    // A restart, which the beat is the first to notice. BYOC's own renewal would come after 51 s at the earliest.
    let start = Instant::now();
    orchestrator.forget();
    change(&orchestrator, Runners::forget);
    wait_for("both again", || orchestrator.listed(ID).filter(|_| orchestrator.registered(ID).is_some()));
    assert!(start.elapsed() < Duration::from_secs(45), "{:?}", start.elapsed());
    assert_eq!(orchestrator.requests(REGISTER).len(), 2);
    assert_eq!(scene.worker.log().matches("has lost live runner").count(), 1);
    assert_eq!(scene.sentences(), 1);
    // It is restarted again, and a proxy in front of it answers 404 meanwhile.
    orchestrator.set(Behavior::NoByoc);
    change(&orchestrator, |runners| (runners.enabled, _) = (false, runners.forget()));
    orchestrator.forget();
    scene.says("has no BYOC and has no Live Runner");
    orchestrator.set(Behavior::Ok);
    change(&orchestrator, |runners| runners.enabled = true);
    wait_for("both again", || orchestrator.listed(ID).filter(|_| orchestrator.registered(ID).is_some()));
}

#[test]
fn a_registration_that_hangs_costs_no_beat() {
    let life = ("AGENT_NET_FAULT", "");
    // Only requests about runners get an answer within 10 s.
    let orchestrator = orchestrator(Behavior::Hang, true);
    change(&orchestrator, |runners| runners.time_scale = 1);
    let scene = Scene::new(&[&orchestrator], &[life]);
    wait_for("beats while it hangs", || {
        let beats = orchestrator.meanwhile().iter().filter(|request| request.path == BEAT).count();
        (beats >= 2 && orchestrator.listed(ID).is_some()).then_some(())
    });
    drop(scene);
}

#[test]
fn many_names_that_fail_leave_none_out() {
    let orchestrator = orchestrator(Behavior::Error500, true);
    let names: Vec<String> = (0..8).map(|i| format!("name-{i}")).collect();
    let scene = Scene::new(&[&orchestrator], &[("CAPABILITY_NAME", &names.join(",")), ("RUNNER_ID", ID)]);
    for name in &names {
        wait_for(name, || orchestrator.requests(REGISTER).iter().any(|r| r.json()["name"] == **name).then_some(()));
    }
    wait_for("beats", || (orchestrator.requests(BEAT).len() >= 10).then_some(()));
    orchestrator.set(Behavior::Ok);
    for name in &names {
        wait_for(name, || orchestrator.registered(name));
    }
    drop(scene);
}

#[test]
fn a_name_registered_with_another_token_is_reported() {
    let orchestrator = orchestrator(Behavior::Ok, false);
    let scene = Scene::new(&[&orchestrator], &[("WORKER_TOKEN", "t0ken")]);
    wait_for("a registration", || orchestrator.registered(ID));
    let job = |headers: &[&str]| {
        let answer = http::request(scene.worker.addr, "POST", "/gpu-check", headers, b"{}");
        assert_eq!(answer.status, 401);
    };
    // Without a token at all it is another matter.
    job(&[]);
    orchestrator.wait_for(REGISTER, 2);
    assert!(!scene.worker.log().contains("other than WORKER_TOKEN"));
    job(&["Authorization: Bearer old"]);
    scene.says("a job came with a token other than WORKER_TOKEN: registering again");
    wait_for("the second line", || {
        job(&["Authorization: Bearer old"]);
        scene.worker.log().contains("another worker registers the same CAPABILITY_NAME").then_some(())
    });
    (0..5).for_each(|_| job(&["Authorization: Bearer old"]));
    let registrations = orchestrator.requests(REGISTER).len();
    orchestrator.wait_for(REGISTER, registrations + 1);
    let log = scene.worker.log();
    assert_eq!(log.matches("other than WORKER_TOKEN").count(), 2, "{log}");
}

#[test]
fn a_live_runner_alone_needs_no_capability() {
    let orchestrator = orchestrator(Behavior::NoByoc, true);
    let settings = [("CAPABILITY_NAME", ""), ("RUNNER_ID", ID), ("ORCH_PROTOCOL", "live-runner")];
    let scene = Scene::new(&[&orchestrator], &settings);
    scene.says("has Live Runner: this worker is visible as Live Runner agent-net-nyc of app agent-net/gpu-check");
    assert!(orchestrator.listed(ID).is_some() && orchestrator.requests(REGISTER).is_empty());
    for (more, words) in [
        ([("ORCH_PROTOCOL", "auto"), ("RUNNER_ID", ID)], "ORCH_URL requires CAPABILITY_NAME"),
        ([("ORCH_PROTOCOL", "both"), ("RUNNER_ID", ID)], "ORCH_URL requires CAPABILITY_NAME"),
        ([("ORCH_PROTOCOL", "live-runner"), ("RUNNER_ID", "")], "or set RUNNER_ID"),
    ] {
        let (status, _, err) = run(agent_net().arg("serve").env("ORCH_URL", "http://o:1").envs(more));
        assert_eq!((status.code(), err.contains(words)), (Some(78), true), "{err}");
    }
}
