use std::time::Duration;

use super::*;
use crate::ollama::probe::state::LoadedAs;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn order() -> Order {
    let loaded = LoadedAs { digest: "d".into(), num_ctx: 4096, on_gpu: true };
    Order { loaded, expires_at: 1000, timeout: Duration::from_secs(30), patient: false, urgent: false }
}

/// 16 tokens in half a second.
fn answered() -> Answered {
    let (total, load, prompt, eval) = (millis(520), millis(4), millis(10), millis(500));
    Answered { total, load, prompt, eval, tokens_read: 9, tokens_written: 16, embedding: false }
}

fn sent(outcome: Outcome) -> Sent {
    let judgement = Judgement { usual: Some(32.24), slow: None };
    Sent { outcome, witness: Witness::Unknown, judgement, expiry: None }
}

fn end(facts: &mut ProbeFacts, sent: &Sent, unanswered: u32) {
    facts.ended(&Ended { at: 7.0, order: &order(), sent, of_client: false, unanswered });
}

#[test]
fn an_answer_is_shown_and_counted() {
    let mut facts = ProbeFacts::default();
    end(&mut facts, &sent(Outcome::Answered(answered())), 0);
    let row = facts.last.clone().unwrap();
    assert_eq!((row.at, row.result, row.why, row.answered_at), (7.0, ProbeResult::Ok, None, Some(7.0)));
    assert_eq!((row.tokens_per_second, row.usual_tokens_per_second), (Some(32.0), Some(32.2)));
    assert_eq!((row.load_ms, row.queue_ms, &facts.recent[..]), (Some(4), Some(6), &[32.0][..]));
    assert_eq!((facts.tokens, facts.busy_ns, facts.counts), (25, 510_000_000, [1, 0, 0, 0, 0]));
    assert_eq!((facts.heals, facts.hangs()), ([[0; 2]; 2], false));
}

#[test]
fn a_probe_without_an_answer_keeps_the_last_one() {
    let mut facts = ProbeFacts::default();
    end(&mut facts, &sent(Outcome::Answered(answered())), 0);
    end(&mut facts, &sent(Outcome::Silent), 1);
    assert!(!facts.hangs());
    end(&mut facts, &sent(Outcome::Failed("its runner ended".into())), 2);
    assert!(facts.hangs());
    let row = facts.last.clone().unwrap();
    assert_eq!((row.result, row.why.as_deref()), (ProbeResult::Failed, Some("its runner ended")));
    assert_eq!((row.answered_at, row.tokens_per_second), (Some(7.0), Some(32.0)));
    assert_eq!(facts.counts, [1, 0, 1, 1, 0]);
    end(&mut facts, &sent(Outcome::Answered(answered())), 0);
    assert!(!facts.hangs());
}

#[test]
fn what_an_answer_says_beside_its_speed() {
    #[track_caller]
    fn check(answered: Answered, of_client: bool, slow: Option<(f64, f64)>, expect: (&str, usize)) {
        let mut facts = ProbeFacts::default();
        let judgement = Judgement { usual: None, slow };
        let sent = Sent { outcome: Outcome::Answered(answered), witness: Witness::Unknown, judgement, expiry: None };
        facts.ended(&Ended { at: 7.0, order: &order(), sent: &sent, of_client, unanswered: 0 });
        let row = facts.last.clone().unwrap();
        let why = row.why.unwrap_or_default();
        assert!(why.contains(expect.0) && why.is_empty() == expect.0.is_empty(), "{why}");
        assert_eq!((facts.recent.len(), facts.slow), (expect.1, slow));
        let healed = answered.reloaded() && !of_client;
        assert_eq!(facts.heals[Heal::Runner as usize], [u64::from(healed), 0]);
    }
    let reloaded = Answered { total: millis(20_500), load: millis(20_000), ..answered() };
    check(answered(), false, None, ("", 1));
    check(reloaded, false, None, ("another one in 20.0 s", 0));
    check(reloaded, true, None, ("a client uses other options, or its runner had died", 0));
    check(Answered { total: millis(3_520), ..answered() }, false, None, ("waited 3.0 s", 0));
    check(Answered { tokens_written: 7, ..answered() }, false, None, ("an answer of 7 tokens is too short", 0));
    check(Answered { tokens_written: 1, ..answered() }, false, None, ("an answer of 1 token is too short", 0));
    check(answered(), false, Some((14.0, 32.0)), ("median of the last five is 14.0 tokens/s, the best one 32.0", 1));
    check(Answered { tokens_written: 0, embedding: true, ..answered() }, false, None, ("", 0));
}

#[test]
fn gpus_that_do_not_work_are_a_finding_at_the_second_probe() {
    let idle = || Witness::Idle { percent: 3, clause: "no GPU worked".into() };
    let mut facts = ProbeFacts::default();
    let probe = |facts: &mut ProbeFacts, witness: Witness, on_gpu: bool| {
        let sent = Sent { witness, ..sent(Outcome::Answered(answered())) };
        let mut order = order();
        order.loaded.on_gpu = on_gpu;
        facts.ended(&Ended { at: 7.0, order: &order, sent: &sent, of_client: false, unanswered: 0 });
        facts.idle_gpus.clone()
    };
    assert_eq!(probe(&mut facts, idle(), true), None);
    assert_eq!(probe(&mut facts, Witness::Worked { percent: 97 }, true), None);
    assert_eq!(facts.last.as_ref().unwrap().gpu_utilization_percent, Some(97));
    assert_eq!(probe(&mut facts, idle(), true), None);
    assert_eq!(probe(&mut facts, Witness::Unknown, true), None);
    assert_eq!(probe(&mut facts, idle(), true).as_deref(), Some("no GPU worked"));
    assert!(probe(&mut facts, Witness::Unknown, true).is_some(), "unknown is not a proof");
    assert_eq!(probe(&mut facts, Witness::Worked { percent: 97 }, true), None);
    // Ollama started another runner, which may compute elsewhere.
    (0..2).for_each(|_| drop(probe(&mut facts, idle(), true)));
    assert!(facts.fell());
    let reloaded = Answered { total: millis(20_500), load: millis(20_000), ..answered() };
    end(&mut facts, &sent(Outcome::Answered(reloaded)), 0);
    assert_eq!((facts.idle_gpus.clone(), facts.idle_probes, facts.fell()), (None, 0, false));
    // No GPU has worked here at all: Ollama may run on another machine.
    let mut elsewhere = ProbeFacts::default();
    (0..2).for_each(|_| drop(probe(&mut elsewhere, idle(), true)));
    assert_eq!((elsewhere.idle_gpus.is_some(), elsewhere.fell()), (true, false));
    // Ollama lists it on the CPU, which is known without a probe.
    for _ in 0..3 {
        assert_eq!(probe(&mut facts, idle(), false), None);
    }
}

#[test]
fn a_skip_is_counted_once_until_a_probe_is_sent() {
    let mut facts = ProbeFacts::default();
    assert!(facts.skipped("it is not loaded", 5.0));
    assert!(!facts.skipped("it is not loaded", 10.0));
    assert!(!facts.skipped("GPU 0 is in use: 87 %", 15.0));
    let row = facts.last.as_ref().unwrap();
    assert_eq!((row.at, row.result, row.why.as_deref()), (15.0, ProbeResult::Skipped, Some("GPU 0 is in use: 87 %")));
    end(&mut facts, &sent(Outcome::Answered(answered())), 0);
    assert!(facts.skipped("it is not loaded", 20.0));
    assert_eq!((facts.counts, facts.last.as_ref().unwrap().tokens_per_second), ([1, 0, 0, 0, 2], Some(32.0)));
}

#[test]
fn the_curve_has_an_end() {
    let mut facts = ProbeFacts::default();
    for _ in 0..RECENT + 5 {
        end(&mut facts, &sent(Outcome::Answered(answered())), 0);
    }
    assert_eq!(facts.recent.len(), RECENT);
}

#[test]
fn only_a_probe_that_waited_for_a_new_runner_counts_as_healing() {
    #[track_caller]
    fn check(outcome: Outcome, patient: bool, expect: [u64; 2]) {
        let mut facts = ProbeFacts::default();
        let order = Order { patient, ..order() };
        facts.ended(&Ended { at: 7.0, order: &order, sent: &sent(outcome), of_client: false, unanswered: 0 });
        assert_eq!(facts.heals[Heal::Runner as usize], expect);
    }
    let reloaded = Answered { total: millis(20_500), load: millis(20_000), ..answered() };
    check(Outcome::Answered(reloaded), true, [1, 0]);
    check(Outcome::Answered(reloaded), false, [1, 0]);
    check(Outcome::Answered(answered()), true, [0, 0]);
    check(Outcome::Silent, true, [0, 1]);
    check(Outcome::Silent, false, [0, 0]);
}
