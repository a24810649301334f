use super::*;
use crate::pure::models::Loaded;

const MINUTE: Duration = Duration::from_secs(60);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const MISSING: Standing = Standing { pulled: false, loaded: None };
const PULLED: Standing = Standing { pulled: true, loaded: None };

/// Loaded, and unloaded at this second of Ollama's clock.
fn loaded(expires_at: Option<i64>) -> Standing {
    Standing { pulled: true, loaded: Some(Loaded { size_bytes: None, vram_bytes: 0, expires_at }) }
}

fn failure() -> Result<(), LoadError> {
    Err(LoadError { why: "no".into(), damaged: false })
}

/// A keeper, and what it does in seconds and as the clock goes.
struct Case(Keeper);

impl Case {
    fn new(keep_alive: Option<Duration>) -> Self {
        Self(Keeper::new(keep_alive))
    }

    #[track_caller]
    fn check(&mut self, at: u64, seen: &Standing, state: State, next: Next) {
        let clock = i64::try_from(at).unwrap();
        assert_eq!(self.0.next(Some(seen), clock, seconds(at)), (state, next), "at {at} s");
    }
}

#[test]
fn a_missing_model_is_pulled_then_loaded_then_kept() {
    let mut case = Case::new(Some(15 * MINUTE));
    assert_eq!(case.0.next(None, 0, seconds(0)), (State::Waiting, Next::Look));
    case.check(5, &MISSING, State::Pulling, Next::Pull);
    case.0.pulled(true, seconds(100));
    case.check(100, &PULLED, State::Loading, Next::Load);
    case.0.asked(&Ok(()), seconds(110));
    case.check(110, &loaded(Some(1010)), State::Loaded, Next::Look);
    case.check(949, &loaded(Some(1010)), State::Loaded, Next::Look);
    case.check(950, &loaded(Some(1010)), State::Loaded, Next::Load);
    case.0.asked(&Ok(()), seconds(951));
    case.check(951, &loaded(Some(1851)), State::Loaded, Next::Look);
    // A client used it with Ollama's own five minutes.
    case.check(1000, &loaded(Some(1300)), State::Loaded, Next::Look);
    case.check(1241, &loaded(Some(1300)), State::Loaded, Next::Load);
}

#[test]
fn times_that_ollama_does_not_tell_are_guessed() {
    let mut case = Case::new(Some(15 * MINUTE));
    case.check(0, &PULLED, State::Loading, Next::Load);
    case.0.asked(&Ok(()), seconds(10));
    case.check(459, &loaded(None), State::Loaded, Next::Look);
    case.check(460, &loaded(None), State::Loaded, Next::Load);
    // It was asked for just now.
    case.0.asked(&Ok(()), seconds(461));
    case.check(465, &loaded(Some(470)), State::Loaded, Next::Look);
    case.check(466, &loaded(Some(470)), State::Loaded, Next::Load);
    let mut short = Case::new(Some(seconds(30)));
    short.check(5, &loaded(Some(21)), State::Loaded, Next::Look);
    short.check(6, &loaded(Some(21)), State::Loaded, Next::Load);
    let mut always = Case::new(None);
    always.check(5, &loaded(Some(11_018_768_523)), State::Loaded, Next::Look);
    always.check(5, &loaded(Some(i64::MIN)), State::Loaded, Next::Load);
}

#[test]
fn failures_are_tried_again_ever_more_rarely() {
    let mut case = Case::new(None);
    let mut at = 0;
    for wait in [5, 10, 20, 40, 80, 160, 300, 300] {
        case.check(at, &MISSING, State::Pulling, Next::Pull);
        case.0.pulled(false, seconds(at));
        case.check(at + wait - 1, &MISSING, State::Failed, Next::Look);
        at += wait;
    }
    // An Ollama that was started anew is another one.
    assert_eq!(case.0.next(None, 0, seconds(at)), (State::Waiting, Next::Look));
    case.0.pulled(false, seconds(at));
    case.check(at + 1, &PULLED, State::Loading, Next::Load);
    case.0.asked(&failure(), seconds(at + 1));
    case.check(at + 5, &PULLED, State::Failed, Next::Look);
    case.check(at + 6, &PULLED, State::Loading, Next::Load);
    case.0.asked(&Ok(()), seconds(at + 7));
    case.check(at + 7, &loaded(None), State::Loaded, Next::Look);
}

#[test]
fn what_was_pulled_and_is_not_listed_is_a_failure() {
    let mut case = Case::new(None);
    case.check(0, &MISSING, State::Pulling, Next::Pull);
    case.0.pulled(true, seconds(1));
    case.check(1, &MISSING, State::Failed, Next::Look);
    case.check(6, &MISSING, State::Pulling, Next::Pull);
}

#[test]
fn files_that_are_not_whole_are_pulled_again() {
    let mut case = Case::new(None);
    case.check(0, &PULLED, State::Loading, Next::Load);
    case.0.asked(&Err(LoadError { why: "x".into(), damaged: true }), seconds(1));
    case.check(6, &PULLED, State::Pulling, Next::Pull);
    case.0.pulled(true, seconds(7));
    case.check(7, &PULLED, State::Loading, Next::Load);
}

#[test]
fn nobody_quarrels_with_who_unloads_it() {
    let mut case = Case::new(None);
    let mut at = 1;
    for wait in [1, 2, 4, 8, 16] {
        case.check(at, &loaded(None), State::Loaded, Next::Look);
        case.check(at + 1, &PULLED, State::Waiting, Next::Look);
        case.check(at + wait, &PULLED, State::Waiting, Next::Look);
        case.check(at + 1 + wait, &PULLED, State::Loading, Next::Load);
        at += 2 + wait;
        case.0.asked(&Ok(()), seconds(at));
    }
    // Ollama says that it is loaded and does not list it: gone again.
    case.check(at, &PULLED, State::Waiting, Next::Look);
    case.check(at + 32, &PULLED, State::Loading, Next::Load);
    case.0.asked(&Ok(()), seconds(at + 32));
    // After five minutes of peace the next time is the first.
    case.check(at + 32, &loaded(Some(i64::MAX)), State::Loaded, Next::Look);
    case.check(at + 332, &loaded(Some(i64::MAX)), State::Loaded, Next::Look);
    case.check(at + 333, &PULLED, State::Waiting, Next::Look);
    case.check(at + 334, &PULLED, State::Loading, Next::Load);
}
