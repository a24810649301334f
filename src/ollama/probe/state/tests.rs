use super::*;
use crate::ollama::models::Loaded;

const INTERVAL: Duration = Duration::from_secs(300);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn state() -> ProbeState {
    ProbeState::new(ProbeSettings { interval: Some(INTERVAL), timeout: seconds(30) }, 0)
}

/// Loaded on a GPU until 1000 s later.
fn status() -> ModelStatus {
    let (size_bytes, expires_at, context_length) = (Some(9), Some(1000), Some(4096));
    let loaded = Loaded { size_bytes, expires_at, context_length, vram_bytes: 9, ..Loaded::default() };
    ModelStatus { pulled: true, loaded: Some(loaded), digest: Some("d".into()), remote_host: None }
}

fn with(change: impl FnOnce(&mut Loaded)) -> ModelStatus {
    let mut status = status();
    change(status.loaded.as_mut().unwrap());
    status
}

fn look(status: &ModelStatus) -> Look<'_> {
    Look { status, clock: 0, since_client: None, left_alone: false }
}

fn idle() -> Option<String> {
    None
}

fn answered(busy_ms: u64) -> Outcome {
    let eval = Duration::from_millis(busy_ms);
    Outcome::Answered(Answered { total: eval, eval, tokens_written: 16, ..Answered::default() })
}

#[track_caller]
fn sent(state: &mut ProbeState, at: u64) -> Order {
    match state.next(Some(&look(&status())), idle, seconds(at)) {
        ProbeNext::Send(order) => order,
        other => panic!("{other:?} at {at} s"),
    }
}

#[track_caller]
fn waits(state: &mut ProbeState, at: u64) {
    assert_eq!(state.next(Some(&look(&status())), idle, seconds(at)), ProbeNext::Wait, "at {at} s");
}

#[test]
fn a_loaded_model_is_probed_soon_and_then_at_the_interval() {
    let mut state = state();
    waits(&mut state, 0);
    waits(&mut state, 19);
    let order = sent(&mut state, 20);
    assert_eq!(order.loaded, LoadedAs { digest: "d".into(), num_ctx: 4096, on_gpu: true });
    assert_eq!((order.timeout, order.patient), (seconds(30), false));
    state.ended(&answered(190), seconds(21));
    waits(&mut state, 320);
    sent(&mut state, 321);
}

#[test]
fn a_model_that_was_just_loaded_again_is_left_to_settle() {
    let mut state = state();
    waits(&mut state, 0);
    state.ended(&answered(1), seconds(0));
    let other = with(|loaded| loaded.context_length = Some(8192));
    assert_eq!(state.next(Some(&look(&other)), idle, seconds(299)), ProbeNext::Wait);
    assert_eq!(state.next(Some(&look(&other)), idle, seconds(318)), ProbeNext::Wait);
    assert!(matches!(state.next(Some(&look(&other)), idle, seconds(319)), ProbeNext::Send(_)));
}

#[test]
fn what_speaks_against_a_probe() {
    #[track_caller]
    fn check(look: &Look<'_>, busy: Option<&str>, expect: &str) {
        let mut state = state();
        state.next(Some(look), idle, seconds(0));
        let busy = || busy.map(str::to_owned);
        assert_eq!(state.next(Some(look), busy, seconds(49)), ProbeNext::Wait, "a short time is not worth a word");
        match state.next(Some(look), busy, seconds(50)) {
            ProbeNext::Skip(why) => assert!(why.contains(expect), "{why}"),
            other => panic!("{expect}: {other:?}"),
        }
    }
    let status = status();
    check(&Look { left_alone: true, ..look(&status) }, None, "options that Ollama does not list");
    check(&Look { since_client: Some(seconds(29)), ..look(&status) }, None, "a client used it less than 30 s ago");
    check(&Look { clock: 1001, ..look(&status) }, None, "serves a request");
    check(&Look { clock: 996, ..look(&status) }, None, "about to expire");
    check(&look(&status), Some("GPU 0 is in use: 87 %"), "GPU 0 is in use: 87 %");
    check(&look(&with(|loaded| loaded.expires_at = None)), None, "does not list when it expires");
    check(&look(&with(|loaded| loaded.context_length = None)), None, "does not list its context length");
    check(&look(&with(|loaded| loaded.outdated = true)), None, "the next request reloads it");
    check(&look(&ModelStatus { digest: None, ..status.clone() }), None, "digest");
    check(&look(&ModelStatus { loaded: None, ..status.clone() }), None, "not loaded");
    check(&look(&ModelStatus { remote_host: Some("h".into()), ..status.clone() }), None, "cloud");
    let mut away = state();
    assert_eq!(away.next(None, idle, seconds(50)), ProbeNext::Skip("Ollama does not respond".into()));
}

#[test]
fn quiet_clients_do_not_speak_against_it() {
    let status = status();
    for look in [Look { since_client: Some(seconds(30)), ..look(&status) }, Look { clock: 995, ..look(&status) }] {
        let mut state = state();
        state.next(Some(&look), idle, seconds(0));
        assert!(matches!(state.next(Some(&look), idle, seconds(20)), ProbeNext::Send(_)), "{look:?}");
    }
}

#[test]
fn no_probe_where_it_is_off() {
    let mut state = ProbeState::new(ProbeSettings { interval: None, timeout: seconds(30) }, 0);
    for at in [0, 20, 100_000] {
        waits(&mut state, at);
    }
}

/// Where no GPU shows it, a client's long answer looks like a runner that hangs: the second probe waits longer, which is
/// also what heals.
#[test]
fn a_second_probe_follows_soon_waits_longer_and_decides() {
    let mut state = state();
    waits(&mut state, 0);
    assert_eq!(sent(&mut state, 20).timeout, seconds(30));
    state.ended(&Outcome::Silent, seconds(50));
    assert_eq!(state.unanswered(), 1);
    waits(&mut state, 79);
    // Whoever uses GPU and model now waits for the same runner.
    let used = status();
    let used = Look { since_client: Some(seconds(1)), left_alone: true, ..look(&used) };
    let ProbeNext::Send(order) = state.next(Some(&used), || Some("busy".into()), seconds(80)) else { panic!() };
    assert_eq!((order.timeout, order.patient, order.urgent), (seconds(120), true, true));
    state.ended(&Outcome::Silent, seconds(200));
    assert_eq!(state.unanswered(), 2);
    waits(&mut state, 499);
    let order = sent(&mut state, 500);
    assert_eq!((order.timeout, order.patient, order.urgent), (seconds(30), false, true));
    state.ended(&answered(1), seconds(510));
    assert_eq!(state.unanswered(), 0);
    assert!(!sent(&mut state, 810).urgent);
}

/// The operator has restarted Ollama: the finding does not stay for the rest of the interval.
#[test]
fn a_model_that_did_not_answer_is_probed_soon_after_its_next_load() {
    let mut state = state();
    waits(&mut state, 0);
    for at in [20, 80] {
        sent(&mut state, at);
        state.ended(&Outcome::Silent, seconds(at + 30));
    }
    let unloaded = ModelStatus { loaded: None, ..status() };
    assert_eq!(state.next(Some(&look(&unloaded)), idle, seconds(180)), ProbeNext::Wait);
    waits(&mut state, 190);
    waits(&mut state, 209);
    sent(&mut state, 210);
}

/// As after a panic of its thread.
#[test]
fn what_is_known_already_counts() {
    let mut state = ProbeState::new(ProbeSettings { interval: Some(INTERVAL), timeout: seconds(30) }, 2);
    waits(&mut state, 0);
    assert!(sent(&mut state, 20).urgent);
    state.ended(&Outcome::Unasked("503".into()), seconds(21));
    assert_eq!(state.unanswered(), 2);
}

#[test]
fn a_model_that_fails_gets_no_patient_probe() {
    let mut state = state();
    waits(&mut state, 0);
    for (at, unanswered) in [(20, 1), (60, 2), (400, 3)] {
        assert!(!sent(&mut state, at).patient);
        state.ended(&Outcome::Failed("no".into()), seconds(at + 1));
        assert_eq!(state.unanswered(), unanswered);
    }
}

#[test]
fn an_earlier_silence_makes_no_patient_probe_after_a_failure() {
    let mut state = state();
    waits(&mut state, 0);
    sent(&mut state, 20);
    state.ended(&Outcome::Silent, seconds(50));
    assert!(sent(&mut state, 80).patient);
    state.ended(&answered(1), seconds(81));
    sent(&mut state, 400);
    state.ended(&Outcome::Failed("no".into()), seconds(401));
    assert!(!sent(&mut state, 440).patient);
}

#[test]
fn a_reload_brings_no_probe_forward() {
    let mut state = state();
    waits(&mut state, 0);
    state.ended(&answered(1), seconds(0));
    let other = with(|loaded| loaded.context_length = Some(8192));
    for at in [100, 120, 299] {
        assert_eq!(state.next(Some(&look(&other)), idle, seconds(at)), ProbeNext::Wait, "at {at} s");
    }
    assert!(matches!(state.next(Some(&look(&other)), idle, seconds(300)), ProbeNext::Send(_)));
}

#[test]
fn a_retry_comes_no_later_than_the_interval() {
    let mut state = ProbeState::new(ProbeSettings { interval: Some(seconds(10)), timeout: seconds(30) }, 0);
    waits(&mut state, 0);
    sent(&mut state, 20);
    state.ended(&Outcome::Silent, seconds(50));
    waits(&mut state, 59);
    sent(&mut state, 60);
}

#[test]
fn what_reached_no_model_decides_nothing_and_is_repeated_soon() {
    let mut state = state();
    waits(&mut state, 0);
    sent(&mut state, 20);
    state.ended(&Outcome::Silent, seconds(50));
    sent(&mut state, 80);
    state.ended(&Outcome::Unasked("503".into()), seconds(81));
    assert_eq!(state.unanswered(), 1);
    sent(&mut state, 111);
}

/// At the default interval a thousandth of the GPU's time.
#[test]
fn the_interval_grows_with_the_cost() {
    #[track_caller]
    fn check(busy_ms: u64, expect: u64) {
        let mut state = state();
        waits(&mut state, 0);
        sent(&mut state, 20);
        state.ended(&answered(busy_ms), seconds(1000));
        waits(&mut state, 1000 + expect - 1);
        sent(&mut state, 1000 + expect);
    }
    check(0, 300);
    check(300, 300);
    check(600, 600);
    check(1600, 1600);
    check(60_000, 3600);
}

#[test]
fn an_interval_of_hours_grows_for_no_probe_that_it_can_afford() {
    let of = |interval: u64, busy_ms: u64| {
        let Outcome::Answered(answered) = answered(busy_ms) else { unreachable!("it answered") };
        seconds(interval).mul_f64(stretch(&answered, seconds(interval))).as_secs()
    };
    assert_eq!((of(30, 300), of(30, 600), of(30, 60_000)), (30, 60, 360));
    assert_eq!((of(600, 600), of(600, 1200), of(600, 60_000)), (600, 1200, 3600));
    assert_eq!((of(3600, 60_000), of(86_400, 600), of(86_400, 60_000)), (3600, 86_400, 86_400));
}

#[test]
fn only_a_model_that_is_entirely_on_gpus_keeps_them_busy() {
    let on_gpu = |change: &dyn Fn(&mut Loaded)| loaded_as(&with(change)).unwrap().on_gpu;
    assert!(on_gpu(&|_| {}));
    assert!(on_gpu(&|loaded| loaded.vram_bytes = 10));
    assert!(!on_gpu(&|loaded| loaded.vram_bytes = 8));
    assert!(!on_gpu(&|loaded| loaded.size_bytes = None));
    assert!(!on_gpu(&|loaded| (loaded.size_bytes, loaded.vram_bytes) = (Some(0), 0)));
}
