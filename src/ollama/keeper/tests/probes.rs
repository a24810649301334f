//! What a probe leaves behind: its own move of the expiry is not a client's, and a reload is repaired or respected.

use super::*;
use crate::ollama::probe::answer::Answered;

fn answered(load_ms: u64, queue_ms: u64) -> Outcome {
    let millis = Duration::from_millis;
    Outcome::Answered(Answered {
        total: millis(load_ms + queue_ms + 500),
        load: millis(load_ms),
        eval: millis(500),
        tokens_written: 16,
        ..Answered::default()
    })
}

impl Case {
    /// (Seconds since a client's use, whether it is left alone.)
    fn looks(&self, at: u64) -> (Option<u64>, bool) {
        let status = loaded(None);
        let look = self.0.look(&status, 0, seconds(at));
        (look.since_client.map(|since| since.as_secs()), look.left_alone)
    }
}

/// Loaded by us at 10 s, for 15 minutes.
fn ours() -> Case {
    let mut case = Case::new(Some(15 * MINUTE));
    case.check(0, &PULLED, ModelState::Loading, Next::Load);
    case.asked(&SAME, 10);
    case.check(10, &loaded(Some(910)), ModelState::Loaded, Next::Wait);
    case
}

#[test]
fn a_probe_moves_the_expiry_and_is_not_a_client() {
    let mut case = ours();
    assert_eq!(case.looks(30), (None, false));
    assert!(!case.0.probed(&answered(4, 0), None, seconds(30)));
    case.check(31, &loaded(Some(930)), ModelState::Loaded, Next::Wait);
    assert_eq!(case.looks(40), (None, false));
    case.check(60, &loaded(Some(960)), ModelState::Loaded, Next::Wait);
    assert_eq!(case.looks(65), (Some(5), false));
    // A model that was found loaded may be a client's.
    let mut found = Case::new(Some(15 * MINUTE));
    found.check(0, &loaded(Some(300)), ModelState::Loaded, Next::Wait);
    assert_eq!(found.looks(7), (Some(7), false));
}

/// The lists were read right after it: whoever moves the expiry from there on is a client, however soon.
#[test]
fn a_client_that_comes_right_after_a_probe_is_seen() {
    let mut case = ours();
    assert!(!case.0.probed(&answered(4, 0), Some(Expiry { at: 930, left: 900 }), seconds(30)));
    case.check(31, &loaded(Some(930)), ModelState::Loaded, Next::Wait);
    assert_eq!(case.looks(31), (None, false));
    case.check(32, &loaded(Some(932)), ModelState::Loaded, Next::Wait);
    assert_eq!(case.looks(33), (Some(1), false));
    // Its time is known, and it is renewed as before.
    case.check(871, &loaded(Some(932)), ModelState::Loaded, Next::Wait);
    case.check(872, &loaded(Some(932)), ModelState::Loaded, renew(true));
}

/// Ollama moves the expiry when a request ends, with or without an answer.
#[test]
fn a_probe_without_an_answer_is_not_a_client() {
    for outcome in [Outcome::Silent, Outcome::Failed("unexpected EOF".into())] {
        let mut case = ours();
        assert!(!case.0.probed(&outcome, None, seconds(30)));
        case.check(31, &loaded(Some(930)), ModelState::Loaded, Next::Wait);
        assert_eq!(case.looks(40), (None, false));
        assert!(!case.0.probed(&answered(258, 0), None, seconds(60)), "its runner had died");
    }
    // None was sent.
    let mut case = ours();
    assert!(!case.0.probed(&Outcome::Unasked("GPU 0 is in use: 87 %".into()), None, seconds(30)));
    case.check(31, &loaded(Some(930)), ModelState::Loaded, Next::Wait);
    assert_eq!(case.looks(40), (Some(9), false));
}

#[test]
fn a_probe_that_waited_has_met_a_client() {
    let mut case = ours();
    assert!(!case.0.probed(&answered(4, 99), None, seconds(30)));
    assert_eq!(case.looks(30), (None, false));
    assert!(!case.0.probed(&answered(4, 100), None, seconds(30)));
    assert_eq!(case.looks(33), (Some(3), false));
}

#[test]
fn the_keep_alive_is_restored_after_a_reload() {
    let mut case = ours();
    assert!(!case.0.probed(&answered(258, 0), None, seconds(30)), "its runner had died");
    // Ollama's own five minutes.
    case.check(31, &loaded(Some(331)), ModelState::Loaded, renew(true));
    case.asked(&failure(), 32);
    case.check(37, &loaded(Some(331)), ModelState::Loaded, renew(true));
    case.asked(&SAME, 38);
    case.check(39, &loaded(Some(938)), ModelState::Loaded, Next::Wait);
    assert_eq!(case.looks(50), (None, false));
}

#[test]
fn a_client_that_comes_before_the_keep_alive_is_restored_keeps_its_own() {
    let mut case = ours();
    case.0.probed(&answered(258, 0), None, seconds(30));
    case.check(31, &loaded(Some(331)), ModelState::Loaded, renew(true));
    case.asked(&failure(), 32);
    case.check(37, &loaded(Some(3637)), ModelState::Loaded, Next::Wait);
    case.check(3578, &loaded(Some(3637)), ModelState::Loaded, renew(false));
}

#[test]
fn a_clients_model_that_a_probe_reloaded_is_left_alone() {
    let mut case = ours();
    case.check(60, &loaded(Some(90)), ModelState::Loaded, Next::Wait);
    assert!(case.0.probed(&answered(258, 0), None, seconds(100)));
    case.check(101, &loaded(Some(401)), ModelState::Loaded, renew(true));
    case.asked(&SAME, 102);
    assert_eq!(case.looks(200), (Some(140), true));
    // Until another one comes in its place.
    let mut other = loaded(Some(1500));
    other.digest = Some("other".into());
    case.check(600, &other, ModelState::Loaded, Next::Wait);
    assert!(!case.looks(600).1);
}

#[test]
fn a_model_that_we_unloaded_is_loaded_at_once() {
    let mut case = ours();
    case.0.unloaded(seconds(40));
    case.check(40, &PULLED, ModelState::Loading, Next::Load);
}
