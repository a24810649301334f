//! When failed requests are tried again.

use super::*;

#[test]
fn an_intermittent_server_does_not_get_more_requests() {
    let mut case = Case::new(None);
    let mut loads = 0;
    for at in (0..3600).step_by(10) {
        case.0.next(None, at, seconds(at.unsigned_abs()));
        if case.0.next(Some(&PULLED), at + 5, seconds(at.unsigned_abs() + 5)).1 == Next::Load {
            loads += 1;
            case.asked(&failure(), at.unsigned_abs() + 5);
        }
    }
    // Six for each fresh start; 360 without a limit.
    assert!((12..=80).contains(&loads), "{loads}");
}

#[test]
fn a_model_that_loads_is_no_longer_damaged() {
    let mut case = Case::new(None);
    case.check(0, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&Err(LoadError { why: "no".into(), damaged: true, silent: false, died: false }), 0);
    let wrong = PullError { why: "wrong bytes".into(), cause: PullCause::WrongBytes };
    for at in [10, 30, 60] {
        case.check(at, &PULLED, ModelState::Pulling, Next::Pull);
        case.pulled(Err(&wrong), &Progress::default(), at);
    }
    // Pulls pause for a day. The operator repairs the model by hand, and deletes it later.
    case.check(200, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&SAME, 201);
    case.check(205, &loaded(Some(100_000)), ModelState::Loaded, Next::Wait);
    case.check(900, &MISSING, ModelState::Pulling, Next::Pull);
}

#[test]
fn a_success_ends_the_growing_delays() {
    let mut case = Case::new(None);
    for at in [0, 5] {
        case.check(at, &PULLED, ModelState::Loading, Next::Load);
        case.asked(&failure(), at);
    }
    case.check(15, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&SAME, 15);
    case.check(16, &MISSING, ModelState::Pulling, Next::Pull);
    case.pull_fails(16);
    case.check(20, &MISSING, ModelState::Failed, Next::Wait);
    case.check(21, &MISSING, ModelState::Pulling, Next::Pull);
}

#[test]
fn what_the_worker_unloaded_itself_is_loaded_at_once() {
    let mut case = Case::new(None);
    case.asked(&failure(), 0);
    case.0.unloaded(seconds(2));
    case.check(2, &PULLED, ModelState::Loading, Next::Load);
}

#[test]
fn what_a_client_could_load_has_not_failed() {
    let mut case = Case::new(None);
    case.asked(&failure(), 0);
    case.check(1, &PULLED, ModelState::Failed, Next::Wait);
    case.check(2, &loaded(Some(i64::MAX)), ModelState::Loaded, Next::Wait);
    case.check(3, &PULLED, ModelState::Waiting, Next::Wait);
}

#[test]
fn a_renewal_says_nothing_about_how_long_a_load_takes() {
    let mut case = Case::new(None);
    case.asked(&Ok(Loading { took: seconds(30), by_ollama: false }), 30);
    case.check(31, &loaded(Some(i64::MAX)), ModelState::Loaded, Next::Wait);
    case.asked(&SAME, 40);
    case.check(41, &loaded(Some(i64::MAX)), ModelState::Loaded, Next::Wait);
    case.check(42, &PULLED, ModelState::Waiting, Next::Wait);
    case.check(101, &PULLED, ModelState::Waiting, Next::Wait);
    case.check(102, &PULLED, ModelState::Loading, Next::Load);
}
