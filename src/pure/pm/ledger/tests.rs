use num_bigint::BigInt;

use super::*;
use crate::pure::pm::ticket::hex;

fn received(id: u32, at: f64) -> Received {
    let hash = |n: u32| hex(&uint256(&n.into()));
    Received {
        id: hash(id),
        at,
        sender: "0x".into(),
        face_value: "10".into(),
        ev: "7/2".into(),
        round: 1,
        tickets: vec![hash(id), hash(id + 1)],
        payment: "p".repeat(100),
        job: "j".repeat(50),
    }
}

fn ended(id: u32, result: Outcome) -> Entry {
    Entry::Result(Ended { id: received(id, 0.0).id, at: 2.0, result, status: Some(200), message: "ok".into() })
}

fn lines(entries: &[Entry]) -> String {
    entries.iter().map(Entry::line).collect()
}

#[test]
fn what_is_written_is_known_again() {
    let id = |n| received(n, 0.0).id;
    let text = lines(&[
        Entry::Payment(received(10, 1.0)),
        Entry::Payment(received(20, 1.0)),
        Entry::Payment(received(30, 1.0)),
        Entry::Sent { id: id(10), at: 1.5 },
        ended(10, Outcome::Accepted),
        Entry::Void { id: id(30) },
        Entry::Payment(received(20, 9.0)),
    ]);
    let half = &text[..text.len() - 20];
    let (ledger, damaged) = Ledger::replay(format!("{half}\n{{\"x\":{{}}}}\n\n").lines());
    assert_eq!((damaged, ledger.pending(), ledger.pending_bytes), (2, 1, 150));
    assert_eq!(ledger.may_take(&received(11, 0.0)), Err(NotTaken::Reused), "one of its two tickets is known");
    assert_eq!(ledger.may_take(&received(30, 0.0)), Ok(()), "its job was refused");
    let (number, next) = ledger.next_pending(None, &|_| true).unwrap();
    assert_eq!((next.received.id.clone(), next.tries), (id(20), 0));
    assert_eq!(ledger.next_pending(Some(number), &|_| true).unwrap().0, number, "around to itself");
    let totals = ledger.totals();
    let sum = |name: &str| totals.by_result[name].clone();
    assert_eq!((sum("accepted").payments, sum("accepted").tickets, sum("accepted").ev.to_string()), (1, 2, "7".into()));
    assert_eq!((sum(PENDING).payments, sum(PENDING).ev_floor()), (1, BigInt::from(7)));
}

#[test]
fn old_results_become_sums() {
    let entries = [Entry::Payment(received(10, 1.0)), ended(10, Outcome::Refused), Entry::Payment(received(20, 1.0))];
    let (mut ledger, _) = Ledger::replay(lines(&entries).lines());
    let before = ledger.totals().clone();
    let kept = lines(&ledger.compact(LIFETIME + 1.5));
    assert!(!kept.contains(&received(10, 0.0).id) && kept.contains(&received(20, 0.0).id), "{kept}");
    let (again, damaged) = Ledger::replay(kept.lines());
    assert_eq!((again.totals(), damaged, again.pending()), (&before, 0, 1));
    assert_eq!(ledger.totals(), &before);
    // What ended lately stays ended, and its headers are gone.
    let (mut ledger, _) = Ledger::replay(lines(&entries).lines());
    let kept = lines(&ledger.compact(3.0));
    assert_eq!(kept.matches(&received(20, 0.0).payment).count(), 1, "{kept}");
    let (again, _) = Ledger::replay(kept.lines());
    assert_eq!((again.totals(), again.pending()), (&before, 1));
    let ended = again.kept(&received(10, 0.0).id).unwrap();
    assert_eq!(ended.ended.as_ref().map(|ended| ended.result), Some(Outcome::Refused));
    // A second time nothing is counted twice.
    let (mut ledger, _) = Ledger::replay(lines(&entries).lines());
    ledger.compact(LIFETIME + 1.5);
    let (again, _) = Ledger::replay(lines(&ledger.compact(LIFETIME + 1.5)).lines());
    assert_eq!(again.totals(), &before);
}

#[test]
fn a_full_ledger_takes_no_more() {
    let mut ledger = Ledger::default();
    for n in 0..u32::try_from(MAX_PENDING).unwrap() {
        ledger.apply(Entry::Payment(received(n * 2, 1.0)));
    }
    assert_eq!(ledger.may_take(&received(1_000_000, 1.0)), Err(NotTaken::Full));
    ledger.apply(ended(0, Outcome::Accepted));
    assert_eq!(ledger.may_take(&received(1_000_000, 1.0)), Ok(()));
    let large = Received { payment: "p".repeat(MAX_PENDING_BYTES), ..received(1_000_000, 1.0) };
    assert_eq!(ledger.may_take(&large), Err(NotTaken::Full));
}

#[test]
fn a_try_without_answer_may_have_arrived() {
    let id = received(10, 0.0).id;
    let sent = || Entry::Sent { id: id.clone(), at: 1.0 };
    let failed = |arrived| Entry::Failed { id: id.clone(), at: 1.0, tries: 3, arrived };
    for (more, arrived) in [
        (vec![sent()], false),
        (vec![sent(), failed(false), sent()], false),
        (vec![sent(), failed(true), sent(), failed(false)], true),
        (vec![sent(), sent()], true),
    ] {
        let entries = [vec![Entry::Payment(received(10, 1.0))], more.clone()].concat();
        let (mut ledger, _) = Ledger::replay(lines(&entries).lines());
        assert_eq!(ledger.next_pending(None, &|_| true).unwrap().1.arrived, arrived, "{more:?}");
        // After a compaction nothing is known of a try that was under way but that it may have arrived.
        let (again, _) = Ledger::replay(lines(&ledger.compact(2.0)).lines());
        let under_way = matches!(more.last(), Some(Entry::Sent { .. }));
        assert_eq!(again.next_pending(None, &|_| true).unwrap().1.arrived, arrived || under_way, "{more:?}");
    }
}

#[test]
fn answers_that_end_a_payment() {
    for (status, result) in [
        (200, Some(Outcome::Accepted)),
        (204, Some(Outcome::Accepted)),
        (299, Some(Outcome::Accepted)),
        (301, None),
        (400, Some(Outcome::Refused)),
        (401, None),
        (402, Some(Outcome::Refused)),
        (404, None),
        (409, Some(Outcome::Refused)),
        (410, Some(Outcome::Refused)),
        (422, Some(Outcome::Refused)),
        (429, None),
        (500, None),
        (503, None),
    ] {
        assert_eq!(judge(status), result, "{status}");
    }
}
