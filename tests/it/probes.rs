//! Probes of the models that a worker keeps, against an Ollama whose runners hang, die, fall to the CPU or lie.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama};
use crate::harness::{Worker, codes, folder, wait_for};
use crate::model_store::{becomes, metric};
use crate::ollama_client::Call;
use crate::rules::reason;
use crate::scheduler::model::{Kind, Model};
use crate::scheduler::{End, Scheduler, Served};

pub const MODEL: &str = "lab:1";
const SCALE: u32 = 50;
/// Something that a runner does not survive.
const DEAD: &str = r#"{"error":"llama runner process has terminated: CUDA error: an illegal memory access"}"#;

fn start(models: Vec<Model>) -> (FakeOllama, Arc<Scheduler>) {
    let mut scheduler = Scheduler::new(3, models);
    scheduler.scale = SCALE;
    FakeOllama::by(scheduler)
}

fn one() -> (FakeOllama, Arc<Scheduler>) {
    start(vec![Model::generating(MODEL)])
}

/// A worker that runs as much faster as its Ollama and probes each 0.6 s.
pub fn probes(fake: &FakeOllama, more: &[(&str, &str)]) -> Worker {
    let (url, hurry) = (fake.url(), format!("hurry:{SCALE}"));
    let settings = [
        ("OLLAMA_URL", url.as_str()),
        ("MODEL", MODEL),
        ("EXPECTED_GPUS", "0"),
        ("AGENT_NET_FAULT", &hurry),
        ("PROBE_INTERVAL", "30s"),
        ("SAMPLE_INTERVAL", "100ms"),
    ];
    Worker::start(&[&settings[..], more].concat())
}

pub fn probe_of(report: &Value) -> &Value {
    &report["models"][0]["probe"]
}

#[track_caller]
pub fn ends(worker: &Worker, result: &str) -> Value {
    let report =
        worker.report_when(&format!("a probe that is {result}"), |report| probe_of(report)["result"] == result);
    probe_of(&report).clone()
}

pub fn sent(scheduler: &Scheduler) -> Vec<Served> {
    scheduler.served().into_iter().filter(|served| served.raw).collect()
}

fn counted(worker: &Worker, result: &str) -> f64 {
    let name = format!("agent_net_model_probes_total{{model=\"{MODEL}\",result=\"{result}\"}}");
    metric(worker, &name).unwrap_or(0.0)
}

#[test]
fn a_kept_model_is_probed_again_and_again() {
    let (fake, scheduler) = one();
    let worker = probes(&fake, &[]);
    let probe = ends(&worker, "ok");
    assert!(probe["tokens_per_second"].as_f64().is_some_and(|speed| speed > 100.0), "{probe}");
    assert!(probe["load_ms"].as_u64().is_some_and(|ms| ms < 200) && probe["why"].is_null(), "{probe}");
    let usual = worker.report_when("a usual speed", |report| probe_of(report)["usual_tokens_per_second"].is_f64());
    assert!(codes(&usual).iter().all(|code| !code.starts_with("MODEL")), "{usual}");
    let sent = sent(&scheduler);
    assert!(sent.len() >= 5 && sent.iter().all(|probe| probe.end == End::Done && probe.keep_alive.is_none()));
    let request: Value = serde_json::from_str(
        fake.bodies("/api/generate").iter().find(|body| body.contains("prompt")).expect("a probe"),
    )
    .unwrap();
    let options = json!({"num_predict": 16, "temperature": 0, "seed": 1, "num_ctx": 4096});
    assert_eq!((&request["raw"], &request["stream"], &request["options"]), (&json!(true), &json!(false), &options));
    assert!(counted(&worker, "ok") >= 5.0);
}

#[test]
fn a_killed_runner_is_found_and_its_keep_alive_restored() {
    let (fake, scheduler) = one();
    let worker = probes(&fake, &[]);
    ends(&worker, "ok");
    let loads = scheduler.served().iter().filter(|served| !served.prompt).count();
    scheduler.kill_runner(MODEL);
    wait_for("the log", || worker.log().contains("its runner had died or hung").then_some(()));
    wait_for("a renewal", || {
        let all = scheduler.served();
        (all.iter().filter(|served| !served.prompt).count() > loads).then_some(())
    });
    let renewal = scheduler.served().into_iter().rfind(|served| !served.prompt).unwrap();
    assert_eq!(renewal.keep_alive.map(|time| time.as_secs()), Some(900), "the worker's own keep-alive");
    let heals = "agent_net_model_heals_total{model=\"lab:1\",kind=\"runner\",result=\"ok\"}";
    wait_for("its count", || (metric(&worker, heals) == Some(1.0)).then_some(()));
    assert!(!codes(&worker.report()).contains(&"MODEL_HANGS"));
    assert_eq!(counted(&worker, "hangs") + counted(&worker, "failed"), 0.0);
}

/// The end of a probe that fails moves the expiry, as a client's request does.
#[test]
fn a_runner_that_dies_under_a_probe_is_not_taken_for_a_clients() {
    let (fake, scheduler) = start(vec![Model { write: Duration::from_millis(500), ..Model::generating(MODEL) }]);
    let worker = probes(&fake, &[]);
    ends(&worker, "ok");
    wait_for("a probe", || scheduler.is_busy(MODEL).then_some(()));
    scheduler.kill_runner(MODEL);
    wait_for("the probe that fails", || (counted(&worker, "failed") >= 1.0).then_some(()));
    wait_for("the log", || worker.log().contains("it answers a probe").then_some(()));
    assert!(worker.log().contains("its runner had died or hung"), "{}", worker.log());
    let more = sent(&scheduler).len() + 2;
    wait_for("further probes", || (sent(&scheduler).len() >= more).then_some(()));
}

#[test]
fn a_stopped_runner_is_replaced_for_the_probe() {
    let (fake, scheduler) = one();
    let worker = probes(&fake, &[]);
    ends(&worker, "ok");
    scheduler.stop_runner(MODEL);
    wait_for("the log", || worker.log().contains("Ollama started another one in 20").then_some(()));
    assert!(!codes(&worker.report()).contains(&"MODEL_HANGS"));
}

/// A timeout of 5 s is too short for Ollama to replace the runner: the second probe waits longer, and nothing is wrong then.
#[test]
fn a_runner_is_replaced_where_the_timeout_is_short() {
    let mut scheduler = Scheduler::new(3, vec![Model::generating(MODEL)]);
    scheduler.scale = 10;
    let (fake, scheduler) = FakeOllama::by(scheduler);
    let worker = probes(&fake, &[("PROBE_TIMEOUT", "5s"), ("AGENT_NET_FAULT", "hurry:10")]);
    ends(&worker, "ok");
    scheduler.stop_runner(MODEL);
    wait_for("the log", || worker.log().contains("Ollama started another one in 20").then_some(()));
    wait_for("its count", || (counted(&worker, "hangs") == 1.0).then_some(()));
    assert!(!worker.log().contains("MODEL_HANGS"), "{}", worker.log());
}

/// No GPU shows that it is in use: the probes wait behind a client's answer of two minutes, and that is not a finding.
#[test]
fn a_long_answer_to_a_client_is_not_a_hang() {
    let model = Model { write: Duration::from_millis(100), ..Model::generating(MODEL) };
    let mut scheduler = Scheduler::new(3, vec![model]);
    scheduler.scale = 20;
    let (fake, scheduler) = FakeOllama::by(scheduler);
    let worker = probes(&fake, &[("AGENT_NET_FAULT", "hurry:20")]);
    ends(&worker, "ok");
    let more = sent(&scheduler).len();
    let body = json!({"model": MODEL, "prompt": "tell me", "stream": false, "options": {"num_ctx": 4096, "num_predict": 1200}});
    assert_eq!(Call::send(fake.addr(), "/api/generate", Some(&body)).reply().status, 200);
    wait_for("the next probe", || {
        (sent(&scheduler).iter().filter(|probe| probe.end == End::Done).count() > more).then_some(())
    });
    assert!(counted(&worker, "hangs") <= 1.0 && !worker.log().contains("MODEL_HANGS"), "{}", worker.log());
}

#[test]
fn a_model_that_never_answers_is_unhealthy_until_it_does() {
    let (fake, scheduler) = one();
    let worker = probes(&fake, &[]);
    ends(&worker, "ok");
    fake.set("/api/generate", Answer::Hang);
    let report = worker.report_when("MODEL_HANGS", |report| codes(report).contains(&"MODEL_HANGS"));
    let hangs = reason(&report, "MODEL_HANGS").unwrap();
    assert_eq!(hangs["severity"], "unhealthy");
    assert!(hangs["message"].as_str().unwrap().contains(MODEL), "{hangs}");
    assert_eq!(worker.get("/ready").status, 503);
    assert_eq!(worker.get("/ready?model=lab:1&gpu=0").status, 503);
    assert!(counted(&worker, "hangs") >= 2.0);
    fake.set("/api/generate", Answer::By(scheduler));
    worker.report_when("its end", |report| !codes(report).contains(&"MODEL_HANGS"));
    ends(&worker, "ok");
}

#[test]
fn one_bad_probe_decides_nothing() {
    let (fake, scheduler) = one();
    let worker = probes(&fake, &[]);
    ends(&worker, "ok");
    fake.set_once("/api/generate", Answer::Status(500, DEAD.into()));
    wait_for("a failed probe", || (counted(&worker, "failed") == 1.0).then_some(()));
    let more = sent(&scheduler).len() + 2;
    wait_for("two more", || (sent(&scheduler).len() >= more).then_some(()));
    assert!(!worker.log().contains("MODEL_HANGS"), "{}", worker.log());
}

#[test]
fn a_model_that_fails_twice_is_unhealthy_with_its_error() {
    let (fake, _scheduler) = one();
    let worker = probes(&fake, &[]);
    ends(&worker, "ok");
    fake.set("/api/generate", Answer::Status(500, DEAD.into()));
    let report = worker.report_when("MODEL_HANGS", |report| codes(report).contains(&"MODEL_HANGS"));
    let message = reason(&report, "MODEL_HANGS").unwrap()["message"].to_string();
    assert!(message.contains("illegal memory access"), "{message}");
}

#[test]
fn answers_without_truth_are_failures() {
    for untrue in [
        r#"{"model":"","created_at":"0001-01-01T00:00:00Z","response":"","done":false}"#,
        r#"{"model":"lab:1","created_at":"2026-11-26T19:34:50Z","response":"jjjj","done":false}"#,
        r#"{"model":"lab:1","response":"","done":true,"eval_count":0,"eval_duration":0}"#,
        r#"{"error":"unexpected EOF"}"#,
    ] {
        let (fake, scheduler) = one();
        let worker = probes(&fake, &[]);
        ends(&worker, "ok");
        scheduler.answer_prompts_with(Some(untrue));
        worker.report_when("MODEL_HANGS", |report| codes(report).contains(&"MODEL_HANGS"));
        scheduler.answer_prompts_with(None);
        worker.report_when("its end", |report| !codes(report).contains(&"MODEL_HANGS"));
    }
}

#[test]
fn what_reaches_no_model_is_skipped() {
    let busy = r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#;
    let (fake, _scheduler) = one();
    let worker = probes(&fake, &[]);
    ends(&worker, "ok");
    fake.set("/api/generate", Answer::Status(503, busy.into()));
    let probe = ends(&worker, "skipped");
    assert!(probe["why"].as_str().unwrap().contains("server busy"), "{probe}");
    assert!(probe["tokens_per_second"].is_f64(), "the last answer stays: {probe}");
    wait_for("more of them", || (counted(&worker, "skipped") >= 3.0).then_some(()));
    assert!(!codes(&worker.report()).contains(&"MODEL_HANGS"));
}

#[test]
fn a_slow_model_is_judged_by_its_own_best_median() {
    let (fake, scheduler) = one();
    let state = folder("slow-model");
    let worker = probes(&fake, &[("STATE_DIR", state.to_str().unwrap())]);
    worker.report_when("a usual speed", |report| probe_of(report)["usual_tokens_per_second"].is_f64());
    scheduler.fall_to_cpu(MODEL);
    let report = worker.report_when("MODEL_SLOW", |report| codes(report).contains(&"MODEL_SLOW"));
    let slow = reason(&report, "MODEL_SLOW").unwrap();
    assert!(slow["value"].as_f64() < slow["threshold"].as_f64() && slow["severity"] == "degraded", "{slow}");
    worker.stop();
    // Another worker knows the usual speed from the start.
    let worker = probes(&fake, &[("STATE_DIR", state.to_str().unwrap())]);
    worker.report_when("MODEL_SLOW again", |report| codes(report).contains(&"MODEL_SLOW"));
    assert!(counted(&worker, "ok") == 0.0, "no fast answer was needed");
}

#[test]
fn weights_that_change_under_a_probe_cost_the_measurement() {
    let (fake, _scheduler) = one();
    let worker = probes(&fake, &[]);
    ends(&worker, "ok");
    let tags = json!({"models": [{"name": MODEL, "model": MODEL, "size": 9, "digest": "another"}]}).to_string();
    let answer = json!({
        "model": MODEL, "created_at": "2026-11-26T19:34:50Z", "response": "9, 10", "done": true,
        "total_duration": 9_000_000, "load_duration": 1_000_000, "prompt_eval_count": 9,
        "prompt_eval_duration": 1_000_000, "eval_count": 16, "eval_duration": 7_000_000
    });
    let changed = vec![("/api/tags", Answer::Json(tags))];
    fake.set("/api/generate", Answer::Then(changed, Box::new(Answer::Json(answer.to_string()))));
    let probe = ends(&worker, "skipped");
    assert!(probe["why"].as_str().unwrap().contains("weights"), "{probe}");
}

#[test]
fn an_embedding_model_is_asked_for_an_embedding() {
    let (fake, scheduler) = start(vec![Model::new(MODEL, Kind::Embedding { most_ctx: 2048 })]);
    let worker = probes(&fake, &[]);
    let probe = ends(&worker, "ok");
    assert!(probe["tokens_per_second"].is_null(), "{probe}");
    wait_for("five", || (counted(&worker, "ok") >= 5.0).then_some(()));
    let reloads = scheduler.served().iter().skip(1).filter(|served| served.load.as_millis() > 200).count();
    assert_eq!(reloads, 0);
}

#[test]
fn an_ollama_that_lists_no_context_is_never_probed() {
    let mut scheduler = Scheduler::new(3, vec![Model::generating(MODEL)]);
    (scheduler.scale, scheduler.reports_context) = (SCALE, false);
    let (fake, scheduler) = FakeOllama::by(scheduler);
    let worker = probes(&fake, &[]);
    let probe = ends(&worker, "skipped");
    assert!(probe["why"].as_str().unwrap().contains("context length"), "{probe}");
    assert!(sent(&scheduler).is_empty());
}

#[test]
fn no_probe_is_sent_where_they_are_off() {
    let (fake, scheduler) = one();
    let worker = probes(&fake, &[("PROBE_INTERVAL", "off")]);
    becomes(&worker, "loaded");
    let lists = fake.requests("/api/ps") + 40;
    wait_for("many looks", || (fake.requests("/api/ps") >= lists).then_some(()));
    assert!(sent(&scheduler).is_empty() && worker.report()["models"][0]["probe"].is_null());
}

/// Two models are never probed at the same time: the second probe would wait in no queue, and both would be slow.
#[test]
fn probes_of_several_models_follow_each_other() {
    let slow = |name| Model { write: Duration::from_millis(200), ..Model::generating(name) };
    let (fake, scheduler) = start(vec![slow(MODEL), slow("other:1")]);
    let worker = probes(&fake, &[("MODEL", "lab:1,other:1")]);
    let running = |name| scheduler.is_busy(name);
    let mut seen = [false; 2];
    wait_for("probes of both", || {
        let busy = ["lab:1", "other:1"].map(running);
        assert!(busy != [true; 2] || sent(&scheduler).is_empty(), "both at once");
        seen = [seen[0] | busy[0], seen[1] | busy[1]];
        (sent(&scheduler).len() >= 6 && seen == [true; 2]).then_some(())
    });
    let all_ok = |report: &Value| report["models"].as_array().unwrap().iter().all(|m| m["probe"]["result"] == "ok");
    worker.report_when("both", all_ok);
}
