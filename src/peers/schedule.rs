//! When which peer is asked: those that failed never take all threads from the others.

use std::time::Duration;

/// While GET /peers is asked for, and otherwise.
const OFTEN: Duration = Duration::from_secs(15);
const RARELY: Duration = Duration::from_secs(60);
/// After a first failure: the peer may be starting, or one request was lost.
const SOON: Duration = Duration::from_secs(5);
/// How long GET /peers counts as asked for.
const WATCHED: Duration = Duration::from_secs(120);
/// Peers that are asked at a time, and how many of those may have failed before.
pub(super) const AT_ONCE: usize = 4;
const FAILED_AT_ONCE: usize = 2;

/// The requests to one peer. Times are since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    /// When the last request began.
    pub(super) began: Option<Duration>,
    pub(super) busy: bool,
    /// Requests in a row that got no report.
    pub(super) failures: u32,
}

impl Slot {
    fn failed(&self) -> bool {
        self.failures > 0
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask the peer of this slot.
    Ask(usize),
    /// Look again after this time, or when something changes.
    Wait(Duration),
}

/// What a free thread does `now`. `looked`: when GET /peers was last asked for.
pub(super) fn next(slots: &[Slot], looked: Option<Duration>, now: Duration) -> Next {
    let watched = looked.is_some_and(|looked| now.saturating_sub(looked) <= WATCHED);
    let interval = if watched { OFTEN } else { RARELY };
    let full = slots.iter().filter(|slot| slot.busy && slot.failed()).count() >= FAILED_AT_ONCE;
    let free = slots.iter().enumerate().filter(|(_, slot)| !(slot.busy || full && slot.failed()));
    let due = |slot: &Slot| {
        let wait = if slot.failures == 1 { SOON } else { interval };
        slot.began.map_or(Duration::ZERO, |began| began + wait)
    };
    let due_now = free.clone().filter(|(_, slot)| due(slot) <= now);
    match due_now.min_by_key(|(_, slot)| (slot.failed(), due(slot))) {
        Some((at, _)) => Next::Ask(at),
        None => Next::Wait(free.map(|(_, slot)| due(slot)).min().map_or(RARELY, |due| due.saturating_sub(now))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn asked(began: u64) -> Slot {
        Slot { began: Some(s(began)), ..Slot::default() }
    }

    fn failed(began: u64) -> Slot {
        Slot { failures: 2, ..asked(began) }
    }

    #[test]
    fn a_new_peer_is_due_and_those_who_look_make_it_more_often() {
        assert_eq!(next(&[asked(0), Slot::default()], None, s(1)), Next::Ask(1));
        assert_eq!(next(&[asked(0), asked(5)], None, s(20)), Next::Wait(s(40)));
        assert_eq!(next(&[asked(0), asked(5)], Some(s(20)), s(20)), Next::Ask(0));
        assert_eq!(next(&[asked(20), asked(5)], Some(s(10)), s(20)), Next::Ask(1));
        assert_eq!(next(&[asked(200), asked(210)], Some(s(90)), s(215)), Next::Wait(s(45)));
        assert_eq!(next(&[], None, s(0)), Next::Wait(RARELY));
    }

    #[test]
    fn one_that_has_just_failed_is_asked_again_soon_and_once() {
        let just = Slot { failures: 1, ..asked(100) };
        for looked in [None, Some(s(100))] {
            assert_eq!(next(&[just], looked, s(103)), Next::Wait(s(2)));
            assert_eq!(next(&[just], looked, s(105)), Next::Ask(0));
        }
        assert_eq!(next(&[failed(105)], None, s(110)), Next::Wait(s(55)));
    }

    #[test]
    fn failed_ones_come_last_and_never_take_all_threads() {
        let busy = |slot: Slot| Slot { busy: true, ..slot };
        assert_eq!(next(&[failed(0), asked(30)], None, s(100)), Next::Ask(1));
        assert_eq!(next(&[failed(0), asked(90)], None, s(100)), Next::Ask(0));
        let hanging = [busy(failed(60)), busy(failed(60)), failed(0), asked(90)];
        assert_eq!(next(&hanging, None, s(100)), Next::Wait(s(50)));
        assert_eq!(next(&hanging, None, s(150)), Next::Ask(3));
        assert_eq!(next(&[busy(failed(60)), busy(asked(60)), failed(0)], None, s(100)), Next::Ask(2));
        assert_eq!(next(&[busy(asked(0))], None, s(100)), Next::Wait(RARELY));
    }
}
