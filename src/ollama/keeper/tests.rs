mod again;
mod probes;

use super::*;
use crate::ollama::models::Loaded;
use crate::ollama::pull::PullCause;

const MINUTE: Duration = Duration::from_secs(60);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const MISSING: ModelStatus = ModelStatus { pulled: false, loaded: None, digest: None, remote_host: None };
const PULLED: ModelStatus = ModelStatus { pulled: true, ..MISSING };

/// Loaded, and unloaded at this second of Ollama's clock.
fn loaded(expires_at: Option<i64>) -> ModelStatus {
    ModelStatus { loaded: Some(Loaded { expires_at, context_length: Some(4096), ..Loaded::default() }), ..PULLED }
}

fn renew(keep_alive: bool) -> Next {
    Next::Renew(Renewal { num_ctx: Some(4096), keep_alive })
}

/// Answered within milliseconds by the same runner.
const SAME: Result<Loading, LoadError> = Ok(Loading { took: Duration::from_millis(12), by_ollama: false });
/// A reload of the smallest model takes this long.
const RELOADED: Result<Loading, LoadError> = Ok(Loading { took: Duration::from_millis(258), by_ollama: true });

fn failure() -> Result<Loading, LoadError> {
    Err(LoadError { why: "no".into(), damaged: false, silent: false, died: false })
}

fn silence() -> Result<Loading, LoadError> {
    Err(LoadError { why: "timeout".into(), damaged: false, silent: true, died: false })
}

/// A keeper, with time in seconds.
struct Case(KeeperState);

impl Case {
    fn new(keep_alive: Option<Duration>) -> Self {
        Self(KeeperState::new(keep_alive))
    }

    #[track_caller]
    fn check(&mut self, at: u64, seen: &ModelStatus, state: ModelState, next: Next) {
        let clock = i64::try_from(at).unwrap();
        assert_eq!(self.0.next(Some(seen), clock, seconds(at)), (state, next), "at {at} s");
    }

    /// A pull has ended at this second, having come so far.
    fn pulled(&mut self, result: Result<(), &PullError>, far: &Progress, at: u64) -> String {
        self.0.pulled(result, far, "m:1", seconds(at)).unwrap_or_default()
    }

    fn pull_fails(&mut self, at: u64) {
        assert_eq!(self.pulled(Err(&PullError::other("no")), &Progress::default(), at), "no");
    }

    fn asked(&mut self, result: &Result<Loading, LoadError>, at: u64) -> bool {
        let began =
            Duration::from_secs(at).saturating_sub(result.as_ref().map_or(Duration::ZERO, |loading| loading.took));
        self.0.asked(result, began, seconds(at))
    }
}

#[test]
fn a_missing_model_is_pulled_then_loaded_then_kept() {
    let mut case = Case::new(Some(15 * MINUTE));
    assert_eq!(case.0.next(None, 0, seconds(0)), (ModelState::Waiting, Next::Wait));
    case.check(5, &MISSING, ModelState::Pulling, Next::Pull);
    case.pulled(Ok(()), &Progress::default(), 100);
    case.check(100, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&SAME, 110);
    case.check(110, &loaded(Some(1010)), ModelState::Loaded, Next::Wait);
    case.check(949, &loaded(Some(1010)), ModelState::Loaded, Next::Wait);
    case.check(950, &loaded(Some(1010)), ModelState::Loaded, renew(true));
    case.asked(&SAME, 951);
    case.check(951, &loaded(Some(1851)), ModelState::Loaded, Next::Wait);
    // A client used it with Ollama's own five minutes.
    case.check(1000, &loaded(Some(1300)), ModelState::Loaded, Next::Wait);
    case.check(1241, &loaded(Some(1300)), ModelState::Loaded, renew(true));
}

#[test]
fn times_that_ollama_does_not_report_are_estimated() {
    let mut case = Case::new(Some(15 * MINUTE));
    case.check(0, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&SAME, 10);
    case.check(459, &loaded(None), ModelState::Loaded, Next::Wait);
    case.check(460, &loaded(None), ModelState::Loaded, renew(true));
    case.asked(&SAME, 461);
    // It was asked for just now.
    case.check(465, &loaded(Some(470)), ModelState::Loaded, Next::Wait);
    case.check(466, &loaded(Some(470)), ModelState::Loaded, renew(true));
    let mut always = Case::new(None);
    always.check(5, &loaded(Some(11_018_768_523)), ModelState::Loaded, Next::Wait);
}

#[test]
fn a_client_that_moves_the_expiry_is_at_work() {
    let mut case = Case::new(Some(15 * MINUTE));
    // A client's thirty seconds begin again with each of its requests: nothing of ours is needed.
    case.check(0, &loaded(Some(25)), ModelState::Loaded, Next::Wait);
    for at in (5..300).step_by(5) {
        case.check(at, &loaded(Some(i64::try_from(at).unwrap() / 10 * 10 + 30)), ModelState::Loaded, Next::Wait);
    }
    // It is done.
    case.check(300, &loaded(Some(320)), ModelState::Loaded, Next::Wait);
    case.check(304, &loaded(Some(320)), ModelState::Loaded, Next::Wait);
    case.check(305, &loaded(Some(320)), ModelState::Loaded, renew(true));
    // A client that wants it for longer than we do keeps its time.
    let mut long = Case::new(Some(15 * MINUTE));
    long.check(0, &loaded(Some(3600)), ModelState::Loaded, Next::Wait);
    long.check(3541, &loaded(Some(3600)), ModelState::Loaded, renew(false));
}

#[test]
fn past_its_time_is_busy_until_a_request_gets_no_answer() {
    let mut found = Case::new(Some(15 * MINUTE));
    found.check(901, &loaded(Some(900)), ModelState::Loaded, Next::Wait);
    found.check(1199, &loaded(Some(900)), ModelState::Loaded, Next::Wait);
    found.check(1200, &loaded(Some(900)), ModelState::Loaded, renew(false));
    let mut case = Case::new(Some(15 * MINUTE));
    case.check(0, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&SAME, 1);
    case.check(1, &loaded(Some(900)), ModelState::Loaded, Next::Wait);
    case.check(901, &loaded(Some(900)), ModelState::Loaded, Next::Wait);
    case.check(959, &loaded(Some(900)), ModelState::Loaded, Next::Wait);
    case.check(960, &loaded(Some(900)), ModelState::Loaded, renew(false));
    // It answers beside the client's long stream.
    case.asked(&SAME, 961);
    case.check(1000, &loaded(Some(900)), ModelState::Loaded, Next::Wait);
    case.check(1021, &loaded(Some(900)), ModelState::Loaded, renew(false));
    case.asked(&silence(), 1141);
    case.check(1141, &loaded(Some(900)), ModelState::Failed, Next::Wait);
    // It may serve a long request: it is asked once more, soon.
    assert_eq!(case.0.stuck(1141), Some(Stuck::Perhaps));
    case.check(1146, &loaded(Some(900)), ModelState::Failed, renew(false));
    case.asked(&silence(), 1190);
    assert_eq!(case.0.stuck(1190), Some(Stuck::Certainly));
    case.check(1201, &loaded(Some(900)), ModelState::Failed, renew(false));
    // Another answer, or an expiry that moves, is an end to it.
    case.asked(&SAME, 1202);
    assert_eq!(case.0.stuck(1202), None);
    case.check(1202, &loaded(Some(900)), ModelState::Loaded, Next::Wait);
    case.check(1300, &loaded(Some(900)), ModelState::Loaded, renew(false));
    case.asked(&silence(), 1420);
    case.check(1420, &loaded(Some(900)), ModelState::Failed, Next::Wait);
    case.check(1425, &loaded(Some(2000)), ModelState::Loaded, Next::Wait);
    assert_eq!(case.0.stuck(1425), None, "its expiry moved");
    // A request without an answer alone is nothing: its time is not up.
    case.check(1990, &loaded(Some(2000)), ModelState::Loaded, renew(true));
    case.asked(&silence(), 1995);
    case.check(1995, &loaded(Some(2000)), ModelState::Loaded, Next::Wait);
    case.check(2001, &loaded(Some(2000)), ModelState::Failed, Next::Wait);
    assert_eq!(case.0.stuck(2001), Some(Stuck::Perhaps), "the one before its expiry moved does not count");
}

/// num_thread and its like are not listed: that our request reloaded the model shows only in the time that it took.
#[test]
fn what_a_client_loaded_its_own_way_is_reloaded_once_at_most() {
    let mut case = Case::new(Some(15 * MINUTE));
    case.check(0, &PULLED, ModelState::Loading, Next::Load);
    assert!(!case.asked(&RELOADED, 20), "a first load harms no client");
    case.check(20, &loaded(Some(920)), ModelState::Loaded, Next::Wait);
    case.check(30, &loaded(Some(330)), ModelState::Loaded, Next::Wait);
    case.check(271, &loaded(Some(330)), ModelState::Loaded, renew(true));
    assert!(case.asked(&RELOADED, 272), "it was the client's");
    case.check(272, &loaded(Some(1172)), ModelState::Loaded, Next::Wait);
    // The client loads it its own way again, and is left alone.
    case.check(400, &loaded(Some(700)), ModelState::Loaded, Next::Wait);
    case.check(660, &loaded(Some(700)), ModelState::Loaded, Next::Wait);
    case.check(699, &loaded(Some(700)), ModelState::Loaded, Next::Wait);
    case.check(701, &PULLED, ModelState::Waiting, Next::Wait);
    case.check(702, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&SAME, 710);
    // What we loaded ourselves is renewed.
    case.check(711, &loaded(Some(1610)), ModelState::Loaded, Next::Wait);
    case.check(1551, &loaded(Some(1610)), ModelState::Loaded, renew(true));
    case.asked(&SAME, 1552);
    case.check(1553, &loaded(Some(2452)), ModelState::Loaded, Next::Wait);
    // The same client again; then a day has passed, and then there are other weights.
    case.check(1600, &loaded(Some(1900)), ModelState::Loaded, Next::Wait);
    case.check(1890, &loaded(Some(1900)), ModelState::Loaded, Next::Wait);
    case.check(1895, &loaded(Some(86_700)), ModelState::Loaded, Next::Wait);
    case.check(86_671, &loaded(Some(86_700)), ModelState::Loaded, Next::Wait);
    case.check(86_672, &loaded(Some(86_700)), ModelState::Loaded, renew(false));
    assert!(case.asked(&RELOADED, 86_673));
    let other = |at| ModelStatus { digest: Some("e".into()), ..loaded(Some(at)) };
    case.check(86_700, &other(87_300), ModelState::Loaded, Next::Wait);
    case.check(86_710, &other(87_310), ModelState::Loaded, Next::Wait);
    case.check(87_251, &other(87_310), ModelState::Loaded, renew(true));
}

#[test]
fn an_ollama_that_does_not_report_the_context_keeps_what_clients_loaded() {
    let old = |at| {
        let loaded = loaded(Some(at)).loaded.map(|loaded| Loaded { context_length: None, ..loaded });
        ModelStatus { loaded, ..PULLED }
    };
    let mut case = Case::new(Some(15 * MINUTE));
    case.check(0, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&SAME, 20);
    case.check(20, &old(920), ModelState::Loaded, Next::Wait);
    case.check(861, &old(920), ModelState::Loaded, Next::Renew(Renewal { num_ctx: None, keep_alive: true }));
    case.asked(&SAME, 862);
    case.check(862, &old(1762), ModelState::Loaded, Next::Wait);
    case.check(900, &old(1200), ModelState::Loaded, Next::Wait);
    case.check(1195, &old(1200), ModelState::Loaded, Next::Wait);
}

#[test]
fn a_model_deleted_while_it_is_loaded_is_pulled_at_once() {
    let gone = |at| ModelStatus { pulled: false, ..loaded(Some(at)) };
    let mut case = Case::new(None);
    case.check(0, &loaded(Some(9000)), ModelState::Loaded, Next::Wait);
    case.check(5, &gone(9000), ModelState::Pulling, Next::Pull);
    case.pull_fails(10);
    case.check(14, &gone(9000), ModelState::Failed, Next::Wait);
    case.check(15, &gone(9000), ModelState::Pulling, Next::Pull);
    case.pulled(Ok(()), &Progress::default(), 20);
    case.check(20, &loaded(Some(9000)), ModelState::Loaded, Next::Wait);
}

#[test]
fn cloud_models_are_left_where_they_are() {
    let mut case = Case::new(None);
    let far = ModelStatus { remote_host: Some("https://ollama.com:443".into()), ..PULLED };
    case.check(0, &far, ModelState::Failed, Next::Wait);
    case.check(9000, &far, ModelState::Failed, Next::Wait);
}

#[test]
fn corrupted_downloads_are_tried_three_times_and_then_once_a_day() {
    let wrong = PullError { why: "the download is corrupted".into(), cause: PullCause::WrongBytes };
    let whole = Progress::default();
    let mut case = Case::new(None);
    let (mut at, mut pulls) = (0, Vec::new());
    while at < 3 * 86_400 {
        // Restarts of Ollama do not reset it.
        if at % 3600 == 0 {
            assert_eq!(case.0.next(None, 0, seconds(at)), (ModelState::Waiting, Next::Wait));
        }
        if case.0.next(Some(&MISSING), 0, seconds(at)).1 == Next::Pull {
            pulls.push(at);
            let why = case.pulled(Err(&wrong), &whole, at);
            let stopped = why.contains("corrupted each time") && why.contains("agent-net pull m:1");
            assert_eq!(stopped, pulls.len() >= 3, "{why}");
        }
        at += 5;
    }
    assert!(case.0.pull_rest(seconds(at)).is_some_and(|why| why.contains("agent-net pull m:1")));
    assert_eq!(pulls[..2], [0, 5]);
    assert_eq!(pulls.len(), 5, "{pulls:?}");
    // The operator has pulled it.
    case.check(at, &PULLED, ModelState::Loading, Next::Load);
    case.check(at, &MISSING, ModelState::Pulling, Next::Pull);
    assert!(case.pulled(Err(&wrong), &whole, at).ends_with("whole downloads so far: 1 of 3"));
    // Files that are listed and damaged: a load is tried instead.
    let mut case = Case::new(None);
    for at in [0, 100, 200] {
        case.asked(&Err(LoadError { why: "x".into(), damaged: true, silent: false, died: false }), at);
        case.check(at + 90, &PULLED, ModelState::Pulling, Next::Pull);
        case.pulled(Err(&wrong), &whole, at + 90);
    }
    case.check(5000, &PULLED, ModelState::Loading, Next::Load);
}

#[test]
fn a_transfer_that_always_ends_at_one_place_is_named() {
    let far = |completed| Progress { percent: 42, completed, total: 1000, ..Progress::default() };
    let mut case = Case::new(None);
    let cut = PullError { why: "cut".into(), cause: PullCause::Cut };
    for (completed, expect) in [(400, "cut"), (420, "cut"), (420, "cut"), (410, "interrupted 3 times at 42 %")] {
        assert!(case.pulled(Err(&cut), &far(completed), 0).starts_with(expect), "{completed}");
    }
    assert_eq!(case.pulled(Err(&cut), &far(500), 0), "cut", "it got on");
    for _ in 0..5 {
        assert_eq!(case.pulled(Err(&cut), &Progress::default(), 0), "cut", "nothing had begun");
    }
}

#[test]
fn models_that_displace_each_other_are_retried_with_growing_delays() {
    let mut case = Case::new(None);
    let mut at = 0;
    for wait in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        case.check(at, &loaded(Some(i64::MAX)), ModelState::Loaded, Next::Wait);
        case.check(at + 400, &PULLED, ModelState::Waiting, Next::Wait);
        assert_eq!(case.0.lost_since(), Some(seconds(at)));
        case.0.displaced(seconds(at + 400));
        case.check(at + 400 + wait - 1, &PULLED, ModelState::Waiting, Next::Wait);
        assert_eq!(case.0.lost_since(), None);
        at += 400 + wait;
        case.check(at, &PULLED, ModelState::Loading, Next::Load);
        case.asked(&SAME, at);
        assert!(case.0.is_displaced());
    }
    case.0.placed();
    assert!(!case.0.is_displaced());
    case.check(at, &loaded(None), ModelState::Loaded, Next::Wait);
    case.check(at + 1, &PULLED, ModelState::Waiting, Next::Wait);
    case.0.displaced(seconds(at + 1));
    // The wait after unloads is longer, and stays.
    case.check(at + 256, &PULLED, ModelState::Waiting, Next::Wait);
    case.check(at + 257, &PULLED, ModelState::Loading, Next::Load);
}

#[test]
fn failures_are_retried_with_growing_delays() {
    let mut case = Case::new(None);
    let mut at = 0;
    for wait in [5, 10, 20, 40, 80, 160, 300, 300] {
        case.check(at, &MISSING, ModelState::Pulling, Next::Pull);
        case.pull_fails(at);
        case.check(at + wait - 1, &MISSING, ModelState::Failed, Next::Wait);
        at += wait;
    }
    // A restarted Ollama.
    assert_eq!(case.0.next(None, 0, seconds(at)), (ModelState::Waiting, Next::Wait));
    case.pull_fails(at);
    case.check(at + 1, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&failure(), at + 1);
    case.check(at + 5, &PULLED, ModelState::Failed, Next::Wait);
    case.check(at + 6, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&SAME, at + 7);
    case.check(at + 7, &loaded(None), ModelState::Loaded, Next::Wait);
}

#[test]
fn what_was_pulled_and_is_not_listed_is_a_failure() {
    let mut case = Case::new(None);
    case.check(0, &MISSING, ModelState::Pulling, Next::Pull);
    case.pulled(Ok(()), &Progress::default(), 1);
    case.check(1, &MISSING, ModelState::Failed, Next::Wait);
    case.check(6, &MISSING, ModelState::Pulling, Next::Pull);
}

#[test]
fn incomplete_files_are_pulled_again() {
    let mut case = Case::new(None);
    case.check(0, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&Err(LoadError { why: "x".into(), damaged: true, silent: false, died: false }), 1);
    case.check(6, &PULLED, ModelState::Pulling, Next::Pull);
    case.pulled(Ok(()), &Progress::default(), 7);
    case.check(7, &PULLED, ModelState::Loading, Next::Load);
    // Another failure says nothing of the files.
    case.asked(&Err(LoadError { why: "x".into(), damaged: true, silent: false, died: false }), 8);
    case.asked(&failure(), 9);
    case.check(100, &PULLED, ModelState::Loading, Next::Load);
}

#[test]
fn reloads_do_not_compete_with_a_client_that_unloads_it() {
    let mut case = Case::new(None);
    let mut at = 1;
    // A client may be reloading it with other options: at least ten seconds.
    for wait in [10, 10, 10, 10, 16, 32] {
        case.check(at, &loaded(None), ModelState::Loaded, Next::Wait);
        case.check(at + 1, &PULLED, ModelState::Waiting, Next::Wait);
        case.check(at + wait, &PULLED, ModelState::Waiting, Next::Wait);
        case.check(at + 1 + wait, &PULLED, ModelState::Loading, Next::Load);
        at += 2 + wait;
        case.asked(&SAME, at);
    }
    // Loaded, but not listed: unloaded again.
    case.check(at, &PULLED, ModelState::Waiting, Next::Wait);
    case.check(at + 64, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&Ok(Loading { took: seconds(30), by_ollama: false }), at + 94);
    // Five minutes loaded reset the wait; after a long load the wait is twice its time.
    at += 94;
    case.check(at, &loaded(Some(i64::MAX)), ModelState::Loaded, Next::Wait);
    case.check(at + 300, &loaded(Some(i64::MAX)), ModelState::Loaded, Next::Wait);
    case.check(at + 301, &PULLED, ModelState::Waiting, Next::Wait);
    case.check(at + 360, &PULLED, ModelState::Waiting, Next::Wait);
    case.check(at + 361, &PULLED, ModelState::Loading, Next::Load);
    // It had expired: no client is reloading it.
    case.asked(&SAME, at + 361);
    let ends = i64::try_from(at + 700).unwrap();
    case.check(at + 362, &loaded(Some(ends)), ModelState::Loaded, Next::Wait);
    case.check(at + 662, &loaded(Some(ends)), ModelState::Loaded, renew(true));
    case.check(at + 701, &PULLED, ModelState::Waiting, Next::Wait);
    case.check(at + 702, &PULLED, ModelState::Loading, Next::Load);
}
