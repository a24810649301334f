use num_bigint::BigInt;

use super::compaction::CompactedLine;
use super::entry::{Ended, Entry, LIFETIME, outcome_of};
use super::lines::{Lines, Piece};
use super::replay::{Findings, Tail, replay};
use super::*;
use crate::livepeer::payments::ticket::{hex, uint256};

const SOON: Duration = Duration::from_secs(1);
/// A date, in Unix seconds.
const SET: f64 = 1.8e9;

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

/// A file in memory.
struct Text {
    bytes: Vec<u8>,
    at: usize,
}

impl Text {
    fn end(&self) -> usize {
        self.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    }
}

impl Lines for Text {
    fn next(&mut self) -> Result<Option<Piece<'_>>, String> {
        let left = &self.bytes[self.at..self.end()];
        if left.is_empty() {
            return Ok(None);
        }
        let newline = left.iter().position(|byte| *byte == b'\n');
        let (text, length) = newline.map_or((left, left.len()), |at| (&left[..at], at + 1));
        let place = Place { offset: self.at as u64, length: length as u64 };
        self.at += length;
        Ok(Some(Piece { place, bytes: Some(text), whole: newline.is_some() }))
    }

    fn again(&mut self, place: Place) -> Result<Vec<u8>, String> {
        let start = usize::try_from(place.offset).unwrap();
        Ok(self.bytes[start..start + usize::try_from(place.length).unwrap()].to_vec())
    }

    fn ends(&self) -> (u64, u64) {
        (self.end() as u64, self.bytes.len() as u64)
    }
}

fn read(text: impl AsRef<[u8]>) -> (Ledger, Findings) {
    replay(&mut Text { bytes: text.as_ref().to_vec(), at: 0 }, true).unwrap()
}

/// The text of a compaction, and the ledger after it. `tail`: lines that come while it is under way.
fn compact(text: &str, now: f64, tail: &[Entry]) -> (String, Ledger) {
    let (mut ledger, _) = read(text);
    let mut plan = ledger.plan_compaction(SOON, now, text.len() as u64);
    let mut lines_of_it = Text { bytes: text.as_bytes().to_vec(), at: 0 };
    let (mut new, mut old) = (String::new(), text.to_owned());
    for entry in tail {
        let place = Place { offset: old.len() as u64, length: entry.line().len() as u64 };
        old.push_str(&entry.line());
        ledger.apply(entry.clone(), place);
    }
    while let Some(piece) = lines_of_it.next().unwrap() {
        let compacted = ledger.compact_line(&mut plan, &piece, new.len() as u64);
        if compacted.kept {
            new.push_str(std::str::from_utf8(piece.bytes.unwrap()).unwrap());
            new.push('\n');
        }
        new.push_str(&compacted.more);
    }
    new.push_str(&plan.summary());
    let base = new.len() as u64;
    new.push_str(&old[text.len()..]);
    ledger.compacted(plan, base);
    (new, ledger)
}

/// What waits, and the ids on the lines that their places name.
fn waiting(ledger: &Ledger, text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut last = None;
    while let Some(due) = ledger.next_due(last).filter(|due| last.is_none_or(|last| due.number > last)) {
        let start = usize::try_from(due.place.offset).unwrap();
        let line = &text[start..start + usize::try_from(due.place.length).unwrap()];
        let Ok(Entry::Payment(received)) = serde_json::from_str(line) else { panic!("{line} is not a payment") };
        assert_eq!((received.id.clone(), received.payment.len()), (hex(&due.id), 100));
        all.push(received.id);
        last = Some(due.number);
    }
    all
}

fn keys_of(id: u32) -> Vec<Key> {
    received(id, 0.0).keys().collect()
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
    let text = format!("{half}\n{{\"x\":{{}}}}\n\n");
    let (ledger, findings) = read(&text);
    assert_eq!((findings.damaged, findings.tail, ledger.pending()), (2, Tail::Fine, 1));
    assert_eq!(ledger.pending_bytes, Entry::Payment(received(20, 1.0)).line().len() as u64);
    assert_eq!(ledger.may_take(&keys_of(11), 0), Err(NotTaken::Reused), "one of its two tickets is known");
    assert_eq!(ledger.may_take(&keys_of(30), 0), Ok(()), "its job was refused");
    assert_eq!(waiting(&ledger, &text), [id(20)]);
    let due = ledger.next_due(None).unwrap();
    assert_eq!(due.tries, 0);
    assert_eq!(ledger.next_due(Some(due.number)).unwrap().number, due.number, "around to itself");
    let sum = |name: &str| ledger.totals().by_result[name].clone();
    assert_eq!((sum("accepted").payments, sum("accepted").tickets), (1, 2));
    assert_eq!(sum("accepted").ev.exact().to_string(), "7");
    assert_eq!((sum(PENDING).payments, sum(PENDING).ev.floor()), (1, BigInt::from(7)));
}

#[test]
fn the_end_of_a_file_that_was_cut_short() {
    let (one, two) = (lines(&[Entry::Payment(received(10, 1.0))]), lines(&[Entry::Payment(received(20, 1.0))]));
    let end = one.len() as u64;
    let unended = format!("{one}{}", two.trim_end());
    for (text, damaged, pending, tail) in [
        (one.clone(), 0, 1, Tail::Fine),
        // Torn at any place.
        (format!("{one}{}", &two[..1]), 0, 1, Tail::Torn(end)),
        (format!("{one}{}", &two[..2]), 0, 1, Tail::Torn(end)),
        (format!("{one}{}", &two[..two.len() / 2]), 0, 1, Tail::Torn(end)),
        (two[..two.len() - 2].to_owned(), 0, 0, Tail::Torn(0)),
        // Whole but for its newline.
        (unended.clone(), 0, 2, Tail::Unfinished(unended.len() as u64)),
        // Longer than what was written.
        (format!("{one}\0\0\0\0"), 0, 1, Tail::Torn(end)),
        (format!("{one}{}\0\0\0", &two[..40]), 0, 1, Tail::Torn(end)),
        (format!("{one}\0\0{}", &two[40..60]), 0, 1, Tail::Torn(end)),
        (format!("{unended}\0\0"), 0, 2, Tail::Unfinished(unended.len() as u64)),
        ("\0\0\0".into(), 0, 0, Tail::Torn(0)),
        (String::new(), 0, 0, Tail::Fine),
        // Not a beginning of ours, or behind something that is in question itself.
        (format!("{one}half a word"), 1, 1, Tail::Fine),
        ("a text file".into(), 1, 0, Tail::Fine),
        ("{\"a\":1}".into(), 1, 0, Tail::Fine),
        (format!("{one}not ours\n{}", &two[..40]), 2, 1, Tail::Fine),
        (format!("{one}not ours\n\0\0"), 1, 1, Tail::Fine),
    ] {
        let (ledger, found) = read(&text);
        assert_eq!((found.damaged, ledger.pending(), found.tail), (damaged, pending, tail), "{text:?}");
    }
}

#[test]
fn old_results_become_sums() {
    let entries =
        [Entry::Payment(received(10, SET + 1.0)), ended(10, Outcome::Refused), Entry::Payment(received(20, SET + 1.0))];
    let text = lines(&entries);
    let before = read(&text).0.totals().clone();
    let (kept, ledger) = compact(&text, SET + LIFETIME.as_secs_f64() + 1.5, &[]);
    assert!(!kept.contains(&received(10, 0.0).id) && kept.contains(&received(20, 0.0).id), "{kept}");
    assert_eq!((ledger.totals(), ledger.may_take(&keys_of(10), 0)), (&before, Ok(())));
    let sums = ledger.plan_compaction(SOON, SET + LIFETIME.as_secs_f64() + 1.5, 0).summary();
    assert!(kept.contains(&sums), "the next compaction of this run begins with them: {sums}");
    let (again, found) = read(&kept);
    assert_eq!((again.totals(), found.damaged, again.pending()), (&before, 0, 1));
    // A second time nothing is counted twice.
    let (twice, _) = compact(&kept, SET + LIFETIME.as_secs_f64() + 1.5, &[]);
    assert_eq!(twice.lines().count(), kept.lines().count());
    assert_eq!(read(&twice).0.totals(), &before);
    // What ended lately stays ended, and its headers are gone.
    let (kept, _) = compact(&text, SET + 3.0, &[]);
    assert_eq!(kept.matches(&received(20, 0.0).payment).count(), 1, "{kept}");
    let (again, _) = read(&kept);
    assert_eq!((again.totals(), again.pending()), (&before, 1));
    assert_eq!(again.ended[&key_of(&hash_of(&received(10, 0.0).id).unwrap())].result, Outcome::Refused);
    assert_eq!(again.may_take(&keys_of(10), 0), Err(NotTaken::Reused));
}

#[test]
fn a_compaction_loses_nothing_that_comes_meanwhile() {
    let id = |n| received(n, 0.0).id;
    let text = lines(&[
        Entry::Payment(received(10, 1.0)),
        Entry::Payment(received(20, 1.0)),
        // Its job was refused, and its tickets came once more.
        Entry::Payment(received(30, 1.0)),
        Entry::Void { id: id(30) },
        Entry::Payment(received(40, 1.0)),
        Entry::Payment(received(30, 2.0)),
        Entry::Failed { id: id(40), at: 2.0, tries: 2, arrived: false },
    ]) + "a note by hand\n";
    let tail = [
        Entry::Payment(received(50, 3.0)),
        ended(10, Outcome::Accepted),
        Entry::Void { id: id(20) },
        Entry::Failed { id: id(40), at: 3.0, tries: 3, arrived: true },
        Entry::Payment(received(60, 3.0)),
    ];
    let (new, ledger) = compact(&text, 4.0, &tail);
    let expect = [40, 30, 50, 60].map(id);
    assert_eq!(waiting(&ledger, &new), expect);
    let (again, found) = read(&new);
    assert_eq!((waiting(&again, &new), found.damaged), (expect.to_vec(), 1), "{new}");
    assert_eq!(again.totals(), ledger.totals());
    assert!(new.contains("a note by hand"), "it is kept");
    assert_eq!((again.next_due(None).unwrap().tries, again.next_due(None).unwrap().arrived), (3, true));
    // Another one finds every payment where it is now.
    let (third, ledger) = compact(&new, 5.0, &[]);
    assert_eq!(waiting(&ledger, &third), expect);
}

#[test]
fn a_result_that_the_disk_did_not_take_is_written_by_a_compaction() {
    let text = lines(&[Entry::Payment(received(10, 1.0)), Entry::Payment(received(20, 1.0))]);
    let (mut ledger, _) = read(&text);
    let ids = [10, 20].map(|n| hash_of(&received(n, 0.0).id).unwrap());
    // One was refused by the disk; the other is being written at this moment.
    ids.iter().for_each(|id| ledger.end(id, Outcome::Accepted, None));
    ledger.mark_unwritten(&ids[0]);
    let mut plan = ledger.plan_compaction(SOON, 2.0, text.len() as u64);
    let mut old = Text { bytes: text.into_bytes(), at: 0 };
    let first = ledger.compact_line(&mut plan, &old.next().unwrap().unwrap(), 0);
    assert!(!first.kept && first.more.contains("\"result\":\"accepted\""), "{first:?}");
    let second = ledger.compact_line(&mut plan, &old.next().unwrap().unwrap(), 0);
    assert_eq!(second, CompactedLine { kept: true, more: String::new() });
}

#[test]
fn with_too_many_payments_the_oldest_are_forgotten_early() {
    let mut ledger = Ledger::new(true);
    let count = u32::try_from(MAX_ENDED).unwrap() + 1;
    for n in 0..count {
        let payment = Received { tickets: vec![received(n, 1.0).id], ..received(n, 1.0) };
        ledger.insert(&payment, 100, Some(Place { offset: 0, length: 100 }), SOON);
        ledger.end(&hash_of(&payment.id).unwrap(), Outcome::Accepted, Some(Place { offset: 1, length: 1 }));
        assert_eq!(ledger.is_over(), n + 1 == count);
    }
    let mut plan = ledger.plan_compaction(SOON, 2.0, 0);
    let mut sift = |n: u32| {
        let line = Entry::Payment(received(n, 1.0)).line();
        let place = Place { offset: 0, length: line.len() as u64 };
        ledger.compact_line(&mut plan, &Piece { place, bytes: Some(line.as_bytes()), whole: true }, 0)
    };
    let early = count - u32::try_from(MAX_ENDED).unwrap() / 4 * 3;
    assert!((0..early).all(|n| sift(n) == CompactedLine::default()), "they are summed up");
    assert!(sift(early).more.contains("payment"), "there is room for the rest");
    ledger.compacted(plan, 0);
    assert_eq!((ledger.ended.len(), ledger.is_over()), (MAX_ENDED / 4 * 3, false));
    assert_eq!(ledger.totals().by_result["accepted"].payments, i64::from(count));
    assert_eq!(ledger.older.by_result["accepted"].payments, i64::from(early));
}

#[test]
fn a_full_ledger_takes_no_more() {
    let mut ledger = Ledger::new(true);
    for n in 0..u32::try_from(MAX_PENDING).unwrap() {
        ledger.insert(&received(n * 2, 1.0), 100, Some(Place { offset: 0, length: 100 }), SOON);
    }
    assert_eq!(ledger.may_take(&keys_of(1_000_000), 100), Err(NotTaken::Full));
    ledger.end(&hash_of(&received(0, 0.0).id).unwrap(), Outcome::Accepted, None);
    assert_eq!(ledger.may_take(&keys_of(1_000_000), 100), Ok(()));
    assert_eq!(ledger.may_take(&keys_of(1_000_000), MAX_PENDING_BYTES), Err(NotTaken::Full));
}

#[test]
fn an_ended_payment_is_not_taken_again_and_a_voided_one_is() {
    let mut ledger = Ledger::new(true);
    let insert = |ledger: &mut Ledger, payment: &Received| {
        ledger.insert(payment, 100, Some(Place { offset: 0, length: 100 }), SOON).is_some()
    };
    let id = |n| hash_of(&received(n, 0.0).id).unwrap();
    assert!(insert(&mut ledger, &received(10, 1.0)));
    ledger.end(&id(10), Outcome::Accepted, None);
    assert!(!insert(&mut ledger, &received(10, 2.0)), "it would be submitted twice");
    assert!(insert(&mut ledger, &received(20, 1.0)));
    assert!(ledger.void(&id(20), &keys_of(20)).is_some());
    assert_eq!(ledger.may_take(&keys_of(20), 100), Ok(()), "its job was refused, and its sender may send it again");
    assert!(insert(&mut ledger, &received(20, 2.0)));
    // The next payment's tickets are worth something else.
    assert!(insert(&mut ledger, &Received { ev: "9".into(), ..received(30, 1.0) }));
    assert_eq!(ledger.totals().by_result[PENDING].ev.floor(), BigInt::from(7 + 18));
}

#[test]
fn a_try_without_answer_may_have_arrived() {
    let id = received(10, 0.0).id;
    let sent = || Entry::Sent { id: id.clone(), at: 1.0 };
    let failed = |arrived| Entry::Failed { id: id.clone(), at: 1.0, tries: 3, arrived };
    for (more, arrived) in [
        (vec![], false),
        (vec![sent()], true),
        (vec![sent(), failed(false)], false),
        (vec![sent(), failed(true), sent(), failed(false)], true),
        (vec![sent(), sent()], true),
        (vec![sent(), sent(), failed(false)], true),
    ] {
        let entries = [vec![Entry::Payment(received(10, 1.0))], more.clone()].concat();
        let text = lines(&entries);
        assert_eq!(read(&text).0.next_due(None).unwrap().arrived, arrived, "{more:?}");
        let (new, _) = compact(&text, 2.0, &[]);
        assert_eq!(read(&new).0.next_due(None).unwrap().arrived, arrived, "{more:?}");
    }
}

#[test]
fn the_age_of_a_payment_counts_from_when_this_worker_has_it() {
    let since = |ledger: &Ledger| {
        let first = ledger.next_due(None).unwrap();
        (first.since, ledger.next_due(Some(first.number)).unwrap().since)
    };
    let second = Place { offset: 900, length: 100 };
    // Received in 1970, now and in 2099.
    for came in [5.0, SET, 4.1e9] {
        let (mut ledger, _) = read(lines(&[Entry::Payment(received(10, came))]));
        ledger.opened(SOON, SET);
        ledger.insert(&received(20, came), 100, Some(second), SOON * 2);
        assert_eq!(since(&ledger), (SOON, SOON * 2), "{came}");
        ledger.failed(&hash_of(&received(10, 0.0).id).unwrap(), 1, false);
        assert_eq!(since(&ledger), (SOON, SOON * 2), "{came}");
    }
}

/// With a clock of 2099, or of payments from 1970, used tickets would be accepted again.
#[test]
fn no_clock_makes_what_ended_lately_old() {
    let old = SET + LIFETIME.as_secs_f64() + 2.0;
    for (came, opened, now, known) in [
        (SET, None, old, false),
        (SET, Some((SOON, SET)), old, true),
        (SET, Some((SOON, old)), old, false),
        (SET, Some((SOON, SET)), SET, true),
        (SET, Some((SOON, 5.0)), old, true),
        (5.0, None, old, true),
        (4.1e9, None, old, true),
    ] {
        let text = lines(&[Entry::Payment(received(10, came)), ended(10, Outcome::Accepted)]);
        let (mut ledger, _) = read(&text);
        if let Some((since, date)) = opened {
            ledger.opened(since, date);
        }
        let mut plan = ledger.plan_compaction(SOON * 2, now, text.len() as u64);
        let mut old = Text { bytes: text.into_bytes(), at: 0 };
        let line = ledger.compact_line(&mut plan, &old.next().unwrap().unwrap(), 0);
        assert_eq!(line.more.contains("payment"), known, "{came} {opened:?} {now}");
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
        assert_eq!(outcome_of(status, "no"), result, "{status}");
        assert_eq!(outcome_of(status, "\r\n<html>"), None, "{status}");
    }
}
