//! Each condition alone, and what is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::gpu::state::{GpuState, XidSource};
use crate::health::snapshot::Counts;
use crate::health::uptime::Windows;
use crate::health::verdict;
use crate::ollama::models::{Loaded, Model};
use crate::ollama::probe::row::ProbeResult;
use crate::outgoing::refusal::Trouble;

const NAME: &str = "llama3";

fn model(name: &str, size_bytes: Option<u64>, vram_bytes: u64) -> Model {
    Model {
        name: name.into(),
        size_bytes: Some(9),
        pulled: true,
        loaded: Some(Loaded { size_bytes, vram_bytes, expires_at: None, context_length: None, outdated: false }),
        digest: Some("d".into()),
        remote_host: None,
    }
}

fn probe(result: ProbeResult, why: &str) -> ProbeRow {
    ProbeRow { at: 5.0, result, why: Some(why.into()), ..ProbeRow::empty() }
}

/// All of it on the GPU, and a keeper for it and for another one.
fn well() -> Snapshot {
    let up = Reach::Up { version: "0.32.4".into() };
    let models =
        vec![model("llama3:latest", Some(100), 100), Model { digest: Some("e".into()), ..model("b:1", Some(9), 9) }];
    Snapshot {
        at: Instant::now(),
        gpu: GpuState::Pending,
        ollama: OllamaState { reach: up, models, lists_known: true, list_error: None },
        keepers: Arc::new(vec![KeeperRow::new("LLAMA3"), KeeperRow::new("b:1")]),
        reasons: Vec::new(),
        uptime: Windows::default(),
        xids: Vec::new(),
        resets: Vec::new(),
        xid_source: XidSource::None,
        counts: Counts::default(),
    }
}

fn judge(snapshot: &Snapshot, name: &str, gpu_percent: u8) -> Vec<String> {
    let reasons: Vec<&Reason> = snapshot.reasons.iter().collect();
    of_model(snapshot, &reasons, name, gpu_percent).why
}

/// What is said after this change of a machine where all is well.
#[track_caller]
fn check(change: impl FnOnce(&mut Snapshot), expect: &[&str]) {
    let mut snapshot = well();
    change(&mut snapshot);
    assert_eq!(judge(&snapshot, NAME, 100), expect);
}

fn keeper(snapshot: &mut Snapshot, at: usize) -> &mut KeeperRow {
    &mut Arc::make_mut(&mut snapshot.keepers)[at]
}

fn reason(code: Code, severity: Verdict) -> Reason {
    Reason::new(code, severity, None, "GPU 0 is lost".into(), "Reboot.", 1.0)
}

#[test]
fn a_model_is_ready_under_each_of_its_names() {
    let snapshot = well();
    for name in [NAME, "LLaMA3:latest", "registry.ollama.ai/library/llama3", "library/llama3:latest"] {
        assert_eq!(judge(&snapshot, name, 100), [""; 0], "{name}");
        let found = of_model(&snapshot, &[], name, 100);
        assert_eq!((found.pulled, found.loaded, found.on_gpu_percent), (Some(true), Some(true), Some(100)));
    }
    let other = of_model(&snapshot, &[], "llama3:8b", 100);
    assert_eq!((other.pulled, other.loaded, other.on_gpu_percent), (Some(false), Some(false), None));
    assert_eq!(other.why, ["llama3:8b is not pulled into Ollama."]);
}

#[test]
fn where_the_model_is_counts() {
    #[track_caller]
    fn check(size: Option<u64>, vram: u64, gpu_percent: u8, expect: &str) {
        let mut snapshot = well();
        snapshot.ollama.models[0] = model("llama3:latest", size, vram);
        let expect: Vec<&str> = Some(expect).filter(|text| !text.is_empty()).into_iter().collect();
        assert_eq!(judge(&snapshot, NAME, gpu_percent), expect, "{size:?} {vram} {gpu_percent}");
    }
    check(Some(100), 100, 100, "");
    check(Some(1000), 999, 100, "Only 99 % of llama3 is on the GPU; 100 % is required.");
    check(Some(100), 60, 60, "");
    check(Some(100), 59, 60, "Only 59 % of llama3 is on the GPU; 60 % is required.");
    check(Some(100), 0, 1, "llama3 runs on the CPU; 1 % on the GPU is required.");
    check(Some(100), 0, 0, "");
    check(Some(0), 9, 1, "The share of llama3 on the GPU is unknown; 1 % is required.");
    check(None, 9, 100, "The share of llama3 on the GPU is unknown; 100 % is required.");
    check(None, 0, 0, "");
}

#[test]
fn a_model_that_is_not_loaded_or_elsewhere_is_never_ready() {
    for gpu_percent in [0, 100] {
        let mut snapshot = well();
        snapshot.ollama.models[0].loaded = None;
        assert_eq!(judge(&snapshot, NAME, gpu_percent), ["llama3 is pulled, but not loaded."]);
        snapshot.ollama.models[0].remote_host = Some("ollama.com".into());
        let cloud = "llama3 runs in Ollama's cloud (ollama.com), not on this machine's GPU.";
        assert_eq!(judge(&snapshot, NAME, gpu_percent), [cloud]);
        // An alias of a loaded model is loaded.
        snapshot = well();
        snapshot.ollama.models.push(Model { loaded: None, ..model("alias:1", None, 0) });
        assert_eq!(judge(&snapshot, "alias:1", gpu_percent), [""; 0]);
    }
}

#[test]
fn one_lost_poll_is_not_an_outage() {
    check(|s| s.ollama.reach = Reach::Pending, &[]);
    let refused = || Trouble::from("connection refused".to_owned());
    check(|s| s.ollama.list_error = Some(refused()), &[]);
    check(
        |s| {
            s.ollama.list_error = Some(refused());
            s.ollama.lists_known = false;
        },
        &["Ollama cannot list its models: connection refused."],
    );
    check(|s| s.ollama = OllamaState::PENDING, &["Ollama has not answered yet."]);
    check(
        |s| {
            s.ollama = OllamaState { reach: Reach::Down(refused()), ..OllamaState::PENDING };
            s.reasons = vec![reason(Code::OllamaDown, Verdict::Unhealthy)];
        },
        &["GPU 0 is lost."],
    );
    let mut unknown = well();
    unknown.ollama = OllamaState::PENDING;
    let found = of_model(&unknown, &[], NAME, 100);
    assert_eq!((found.pulled, found.loaded, found.on_gpu_percent), (None, None, None));
}

#[test]
fn unhealthy_reasons_count_except_those_about_models() {
    for code in
        [Code::GpuLost, Code::DriverStuck, Code::XidFatal, Code::EccUncorrected, Code::TempCritical, Code::OllamaDown]
    {
        check(|s| s.reasons = vec![reason(code, Verdict::Unhealthy)], &["GPU 0 is lost."]);
        check(|s| s.reasons = vec![reason(code, Verdict::Degraded), reason(code, Verdict::Unknown)], &[]);
    }
    for code in [Code::ModelHangs, Code::ModelStuck] {
        check(|s| s.reasons = vec![reason(code, Verdict::Unhealthy)], &[]);
    }
    let snapshot = well();
    let stale = |seconds| verdict::stale(Duration::from_secs(seconds), Duration::from_secs(5), 1000.0);
    let why = |seconds| of_model(&snapshot, &[&stale(seconds).unwrap()], NAME, 100).why;
    assert_eq!((why(299), why(301)), (vec![], vec!["Last GPU sample is 301 s old.".to_owned()]));
}

#[test]
fn its_own_probes_count_and_those_of_others_do_not() {
    const TWO: &str = "llama3 did not answer 2 probes in a row (no byte within 30 s).";
    let hangs = |row: &mut KeeperRow| {
        row.probes.unanswered = 2;
        row.probes.last = Some(probe(ProbeResult::Hangs, "no byte within 30 s"));
    };
    check(|s| hangs(keeper(s, 0)), &[TWO]);
    check(|s| hangs(keeper(s, 1)), &[]);
    check(|s| keeper(s, 0).probes.unanswered = 1, &[]);
    check(
        |s| {
            hangs(keeper(s, 0));
            keeper(s, 0).probes.last = Some(probe(ProbeResult::Skipped, "the GPU is busy"));
        },
        &["llama3 did not answer 2 probes in a row."],
    );
    let stuck = "Two requests in a row for llama3, which Ollama lists as loaded past its expiry, got no answer.";
    check(|s| keeper(s, 0).stuck = Some(Stuck::Certainly), &[stuck]);
    check(|s| keeper(s, 0).stuck = Some(Stuck::Perhaps), &[]);
    check(|s| keeper(s, 1).stuck = Some(Stuck::Certainly), &[]);
    check(|s| s.keepers = Arc::default(), &[]);
}

#[test]
fn a_gpu_that_never_works_does_not_hold_the_model() {
    let mut snapshot = well();
    keeper(&mut snapshot, 0).probes.idle_gpus = Some("GPU 0 stayed at 0 %".into());
    assert_eq!(
        judge(&snapshot, NAME, 1),
        ["Ollama reports llama3 on the GPU, but no GPU worked during two probes: GPU 0 stayed at 0 %."]
    );
    assert_eq!(judge(&snapshot, NAME, 0), [""; 0]);
    assert_eq!(judge(&snapshot, "b:1", 100), [""; 0]);
}
