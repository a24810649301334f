//! What is tried again, and when.

use super::*;

#[test]
fn a_server_that_is_away_now_and_then_is_not_asked_more_often_for_that() {
    let mut case = Case::new(None);
    let mut loads = 0;
    for at in (0..3600).step_by(10) {
        case.0.next(None, at, seconds(at.unsigned_abs()));
        if case.0.next(Some(&PULLED), at + 5, seconds(at.unsigned_abs() + 5)).1 == Next::Load {
            loads += 1;
            case.asked(&failure(), at.unsigned_abs() + 5);
        }
    }
    // Six for each fresh start; without a limit it were 360.
    assert!((12..=80).contains(&loads), "{loads}");
}

#[test]
fn a_model_that_loads_is_not_damaged_any_more() {
    let mut case = Case::new(None);
    case.check(0, &PULLED, State::Loading, Next::Load);
    case.asked(&Err(LoadError { why: "no".into(), damaged: true, silent: false }), 0);
    let wrong = PullError { why: "wrong bytes".into(), cause: Cause::WrongBytes };
    for at in [10, 30, 60] {
        case.check(at, &PULLED, State::Pulling, Next::Pull);
        case.pulled(Err(&wrong), &Progress::default(), at);
    }
    // For a day nothing is pulled. The operator repairs it by hand, and deletes it later.
    case.check(200, &PULLED, State::Loading, Next::Load);
    case.asked(&SAME, 201);
    case.check(205, &loaded(Some(100_000)), State::Loaded, Next::Look);
    case.check(900, &MISSING, State::Pulling, Next::Pull);
}
