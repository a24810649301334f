//! The scheduler against what Ollama 0.33.0-rc2 (CPU) answered to the same requests in the same order: its requests,
//! statuses, fields, counts, reloads, waits and lists are in `recordings/probes.jsonl`.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::dates::unix_seconds;
use crate::fake_ollama::FakeOllama;
use crate::harness::wait_for;
use crate::ollama_client::{Call, Reply};
use crate::recordings::folder;
use crate::scheduler::model::{Kind, Model};
use crate::scheduler::{End, Scheduler};

/// As many times faster than the real one.
const SCALE: u32 = 20;

struct Replay {
    fake: FakeOllama,
    scheduler: Arc<Scheduler>,
    rows: Vec<Value>,
    /// When the last answer was made.
    ended: f64,
}

/// The models of the recordings, about as fast as they were.
fn models() -> Vec<Model> {
    let middle = Model {
        load: Duration::from_millis(790),
        read: Duration::from_millis(13),
        write: Duration::from_millis(34),
        ..Model::generating("middle")
    };
    let embedder = Model::new("embedder", Kind::Embedding { most_ctx: 512 });
    vec![Model::generating("tiny"), middle, embedder, Model::new("thinker", Kind::Thinking)]
}

/// While others kept the CPU busy.
fn busy() -> Vec<Model> {
    models().into_iter().map(|model| Model { write: model.write * 10, ..model }).collect()
}

impl Replay {
    fn new(change: impl FnOnce(&mut Scheduler)) -> Self {
        Self::of(models(), change)
    }

    fn of(models: Vec<Model>, change: impl FnOnce(&mut Scheduler)) -> Self {
        let mut scheduler = Scheduler::new(3, models);
        scheduler.scale = SCALE;
        change(&mut scheduler);
        let (fake, scheduler) = FakeOllama::by(scheduler);
        let rows = std::fs::read_to_string(folder("probes.jsonl")).unwrap();
        let rows = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Self { fake, scheduler, rows, ended: 0.0 }
    }

    fn row(&self, case: &str) -> &Value {
        self.rows.iter().find(|row| row["case"] == case).unwrap_or_else(|| panic!("no case {case}"))
    }

    fn send(&self, case: &str) -> Call {
        let row = self.row(case);
        Call::send(self.fake.addr(), row["path"].as_str().unwrap(), row.get("ask"))
    }

    /// A request that was not recorded.
    fn ask(&mut self, body: &Value) -> Reply {
        let reply = Call::send(self.fake.addr(), "/api/generate", Some(body)).reply();
        self.ended = unix_seconds(reply.last()["created_at"].as_str().unwrap());
        reply
    }

    /// Sends recorded requests one after the other and compares the answers.
    #[track_caller]
    fn play(&mut self, cases: &[&str]) {
        for case in cases {
            let reply = self.send(case).reply();
            self.compare(case, &reply);
        }
    }

    #[track_caller]
    fn compare(&mut self, case: &str, reply: &Reply) {
        let row = self.row(case);
        assert_eq!(reply.status, row["status"], "{case}: {reply:?}");
        if let Some(listed) = row["ps"].as_array() {
            self.compare_list(case, listed, reply);
            return;
        }
        let last = reply.last();
        assert_eq!(json!(fields(last)), row["fields"], "{case}: {reply:?}");
        for name in ["done", "done_reason", "prompt_eval_count", "eval_count", "error"] {
            assert_eq!(last[name], row[name], "{case}: {name}: {reply:?}");
        }
        if let Some(lines) = row["lines"].as_u64() {
            assert_eq!(reply.lines.len() as u64, lines, "{case}");
        }
        let long = |name: &str, limit: f64| row[name].as_f64().map(|millis| millis >= limit);
        if let Some(reloaded) = long("load_ms", 200.0) {
            assert_eq!(reply.reloaded(), reloaded, "{case}: {reply:?}");
        }
        if let Some(queued) = long("queue_ms", 100.0) {
            assert_eq!(reply.queue() >= Duration::from_millis(100), queued, "{case}: {reply:?}");
        }
        if let Some(at) = last["created_at"].as_str() {
            self.ended = unix_seconds(at);
        }
    }

    #[track_caller]
    fn compare_list(&self, case: &str, expected: &[Value], reply: &Reply) {
        let listed = reply.last()["models"].as_array().unwrap();
        assert_eq!(listed.len(), expected.len(), "{case}: {reply:?}");
        for (model, expected) in listed.iter().zip(expected) {
            assert_eq!(json!(fields(model)), expected["fields"], "{case}: {model}");
            for name in ["name", "context_length"] {
                assert_eq!(model[name], expected[name], "{case}: {model}");
            }
            let kept = unix_seconds(model["expires_at"].as_str().unwrap()) - self.ended;
            let expected = expected["kept_s"].as_f64().unwrap();
            assert!((kept - expected).abs() < 1.0, "{case}: {kept} s after the last answer, not {expected} s");
        }
    }

    fn unload(&mut self, model: &str) {
        let reply = self.ask(&json!({"model": model, "keep_alive": 0, "stream": false}));
        assert_eq!(reply.last()["done_reason"], "unload", "{reply:?}");
        wait_for("the unload", || (!self.lists(model)).then_some(()));
    }

    fn lists(&self, model: &str) -> bool {
        let ps = Call::send(self.fake.addr(), "/api/ps", None).reply();
        let models = ps.last()["models"].as_array().unwrap();
        models.iter().any(|listed| listed["name"] == format!("{model}:latest"))
    }

    /// Another request for what this case asks for has reached Ollama.
    fn reaches(&self, case: &str, send: impl FnOnce() -> Call) -> Call {
        let path = self.row(case)["path"].as_str().unwrap();
        let before = self.fake.requests(path);
        let call = send();
        wait_for("the request", || (self.fake.requests(path) > before).then_some(()));
        call
    }
}

fn fields(value: &Value) -> Vec<&String> {
    // They are sorted.
    value.as_object().expect("an object").keys().collect()
}

#[test]
fn keep_alives_are_those_of_the_recording() {
    let mut replay = Replay::new(|_| {});
    replay.play(&["001", "002", "003", "004", "005", "006", "007", "008", "009"]);
    replay.unload("tiny");
    replay.play(&["010"]);
    // Reloaded: five minutes again.
    let ps = Call::send(replay.fake.addr(), "/api/ps", None).reply();
    let kept = unix_seconds(ps.last()["models"][0]["expires_at"].as_str().unwrap()) - replay.ended;
    assert!((kept - 300.0).abs() < 1.0, "{kept}");
}

#[test]
fn kinds_of_models_answer_as_in_the_recording() {
    let mut replay = Replay::new(|_| {});
    replay.ask(&json!({"model": "tiny", "stream": false}));
    replay.play(&["011", "012", "013", "014", "015", "016", "017", "018", "019"]);
}

#[test]
fn requests_of_all_forms_are_answered_as_in_the_recording() {
    let mut replay = Replay::new(|_| {});
    replay.ask(&json!({"model": "tiny", "stream": false}));
    replay.play(&["057", "058", "059", "060", "061"]);
    replay.ask(&json!({"model": "tiny", "stream": false, "options": {"num_ctx": 2048}}));
    let before = replay.scheduler.served().len();
    replay.play(&["062"]);
    Call::send(replay.fake.addr(), "/api/embed", Some(&json!({"model": "embedder"}))).reply();
    replay.play(&["063"]);
    let renewed = replay.scheduler.served();
    let loads: Vec<Duration> = renewed[before..].iter().map(|served| served.load).collect();
    assert!(loads[0] < Duration::from_millis(200) && loads[2] < Duration::from_millis(200), "{loads:?}");
}

#[test]
fn a_killed_runner_is_that_of_the_recording() {
    let mut replay = Replay::new(|_| {});
    replay.ask(&json!({"model": "tiny", "stream": false, "keep_alive": "10m"}));
    replay.scheduler.kill_runner("tiny");
    replay.play(&["020", "021"]);
    replay.ask(&json!({"model": "middle", "stream": false}));
    let mut stream = replay.send("022");
    stream.begins();
    replay.scheduler.kill_runner("middle");
    let reply = stream.reply();
    assert!(reply.lines.len() > 1, "{reply:?}");
    replay.compare("022", &reply);
}

#[test]
fn a_stopped_runner_is_that_of_the_recording() {
    let mut replay = Replay::new(|_| {});
    replay.ask(&json!({"model": "tiny", "stream": false}));
    replay.ask(&json!({"model": "middle", "stream": false}));
    replay.scheduler.stop_runner("tiny");
    let probe = replay.reaches("023", || replay.send("023"));
    wait_for("the ping", || replay.scheduler.is_busy("tiny").then_some(()));
    // Behind a runner that is asked for, the list waits.
    let ps = Call::send(replay.fake.addr(), "/api/ps", None).reply();
    let waited = ps.total * SCALE;
    assert!(waited > Duration::from_secs(15), "{waited:?}");
    let reply = probe.reply();
    assert!(reply.time("load_duration") > Duration::from_secs(20), "{reply:?}");
    replay.compare("023", &reply);
    // One that hangs up sooner changes nothing.
    replay.scheduler.stop_runner("middle");
    let served = replay.scheduler.served().len();
    let stuck = replay.reaches("024", || replay.send("024"));
    thread::sleep(Duration::from_secs(5) / SCALE);
    drop(stuck);
    assert!(replay.lists("middle"));
    let reply = replay.send("024").reply();
    assert!(reply.time("load_duration") > Duration::from_secs(20), "{reply:?}");
    replay.compare("024", &reply);
    assert_eq!(replay.scheduler.served().len(), served + 1);
}

#[test]
fn a_load_is_that_of_the_recording() {
    let slow = Model { load: Duration::from_millis(8290), ..Model::generating("tiny") };
    let mut replay = Replay::of(vec![slow], |_| {});
    let load = replay.reaches("027", || replay.send("027"));
    let probe = replay.reaches("026", || replay.send("026"));
    replay.play(&["025"]);
    thread::sleep(Duration::from_secs(3) / SCALE);
    drop(probe);
    // The client's load goes on.
    let reply = load.reply();
    replay.compare("027", &reply);
    assert!(replay.lists("tiny"));
    replay.unload("tiny");
    let load = replay.reaches("028", || replay.send("028"));
    let probe = replay.reaches("029", || replay.send("029"));
    let (load, probe) = (load.reply(), probe.reply());
    replay.compare("028", &load);
    replay.compare("029", &probe);
}

#[test]
fn a_full_queue_is_that_of_the_recording() {
    let mut replay =
        Replay::of(busy(), |scheduler| (scheduler.most_pending, *scheduler.most_loaded.get_mut()) = (2, 1));
    replay.ask(&json!({"model": "middle", "stream": false}));
    let mut stream = replay.send("032");
    stream.begins();
    // Two that wait and the one that is in its turn: for the end of the stream.
    let waits = json!({"model": "thinker", "stream": false});
    let waiting: Vec<Call> = (0..3).map(|_| Call::send(replay.fake.addr(), "/api/generate", Some(&waits))).collect();
    wait_for("a full queue", || (replay.scheduler.pending() == 3).then_some(()));
    let probe = replay.reaches("030", || replay.send("030"));
    replay.play(&["031"]);
    let probe = probe.reply();
    replay.compare("030", &probe);
    assert_eq!(stream.reply().status, 200);
    for call in waiting {
        assert_eq!(call.reply().status, 200);
    }
}

/// A probe beside a client's stream, and one with another context that hangs up.
#[track_caller]
fn beside_a_stream(parallel: usize, stream: &str, probe: &str, ps: &str) -> (Reply, Reply) {
    // Others kept the CPU busy.
    let busy = |model: Model| Model { write: model.write * 10, ..model };
    let mut replay = Replay::of(models().into_iter().map(busy).collect(), |scheduler| scheduler.parallel = parallel);
    replay.ask(&json!({"model": "middle", "stream": false}));
    let mut streams = replay.send(stream);
    streams.begins();
    let expires_at = |replay: &Replay| {
        let ps = Call::send(replay.fake.addr(), "/api/ps", None).reply();
        ps.last()["models"][0]["expires_at"].clone()
    };
    let before = expires_at(&replay);
    let probes = replay.reaches(probe, || replay.send(probe));
    assert_eq!(expires_at(&replay), before, "it stands still while a stream runs");
    let (streamed, probed) = (streams.reply(), probes.reply());
    replay.compare(stream, &streamed);
    replay.compare(probe, &probed);
    // The mismatched one.
    let mut streams = replay.send(stream);
    streams.begins();
    let mut other = replay.row(probe)["ask"].clone();
    other["options"]["num_ctx"] = 1024.into();
    let path = "/api/generate";
    let other = replay.reaches(probe, || Call::send(replay.fake.addr(), path, Some(&other)));
    wait_for("its turn", || (replay.scheduler.pending() == 1).then_some(()));
    thread::sleep(Duration::from_secs(1) / SCALE);
    drop(other);
    assert_eq!(streams.reply().status, 200);
    wait_for("the unload", || (!replay.lists("middle")).then_some(()));
    replay.play(&[ps]);
    assert!(replay.scheduler.served().iter().all(|served| served.end == End::Done));
    (streamed, probed)
}

#[test]
fn a_probe_beside_a_stream_is_that_of_the_recording() {
    let (streamed, probed) = beside_a_stream(1, "032", "033", "034");
    // It waited for the rest of the stream, and was as fast as ever.
    let speed =
        |reply: &Reply| reply.last()["eval_count"].as_f64().unwrap() / reply.time("eval_duration").as_secs_f64();
    assert!((speed(&probed) / speed(&streamed) - 1.0).abs() < 0.3, "{} {}", speed(&probed), speed(&streamed));
    assert!(probed.queue() > Duration::from_secs(1), "{probed:?}");
}

#[test]
fn a_probe_beside_a_stream_with_two_slots_is_that_of_the_recording() {
    let (streamed, probed) = beside_a_stream(2, "036", "035", "037");
    let each = |reply: &Reply| reply.time("eval_duration").as_secs_f64() / reply.last()["eval_count"].as_f64().unwrap();
    // Both were slower than alone.
    assert!(each(&probed) > 0.5, "{}", each(&probed));
    assert!(each(&streamed) > 0.36, "{}", each(&streamed));
}
