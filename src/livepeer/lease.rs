//! One name at one orchestrator's BYOC registry, as a lease: when it is asked for, renewed and given back. Events in,
//! what to do out; time is an argument (any clock that never goes back). The registry forgets without a word: at its
//! restart, after one failed connection; and it loses a slot at each job whose client hung up. Asking anew mends all.

use crate::sys::counters::Hint;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::sys::backoff::Backoff;

/// First and longest wait between tries.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A lease is renewed this often; more often could harm go-livepeer, which reads its registry without a lock.
const RENEW: Duration = Duration::from_secs(60);
/// After a job whose peer vanished, so that the registry has noticed as well.
const SOON: Duration = Duration::from_secs(1);
/// Whatever happens, renewals are this far apart: strangers can hang up, too.
const APART: Duration = Duration::from_secs(10);
/// Only one restart in this time is followed at once: a registry that forgets at each beat is not harmed more.
const RARE: Duration = Duration::from_secs(60);
/// Asking anew sets the registry's count of jobs to nothing: it waits for a quiet moment, but not forever.
const QUIET_PATIENCE: Duration = Duration::from_secs(120);

/// What stands in the registry, as far as anybody can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "RegistrationState"))]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Nobody has answered yet.
    Waiting,
    Registered,
    /// The last try failed.
    Failing,
    /// Taken out on purpose: the worker is unhealthy.
    Withdrawn,
    /// The orchestrator does not have this registry, and ORCH_PROTOCOL=auto uses the other one.
    Absent,
}

impl State {
    pub(crate) const ALL: [Self; 5] = [Self::Waiting, Self::Registered, Self::Failing, Self::Withdrawn, Self::Absent];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Registered => "registered",
            Self::Failing => "failing",
            Self::Withdrawn => "withdrawn",
            Self::Absent => "absent",
        }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask for it; `with_load`: tell how many jobs are in flight.
    Register {
        with_load: bool,
    },
    Unregister,
    /// Nothing for so long, if nothing happens.
    Wait(Duration),
}

/// One lease.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    state: State,
    due: Duration,
    asked: Option<Duration>,
    restarted: Option<Duration>,
    /// It was registered once, so jobs in flight may be this registry's.
    ever: bool,
    backoff: Backoff,
}

impl Lease {
    /// Due at once.
    pub(crate) fn new(now: Duration) -> Self {
        let backoff = Backoff::new(RETRY.0, RETRY.1);
        Self { state: State::Waiting, due: now, asked: None, restarted: None, ever: false, backoff }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Since when, or from when on, it is to be asked for.
    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// `busy`: jobs are in flight. `wanted`: false while the worker is to stay out of the registry.
    pub(crate) fn next(&self, now: Duration, busy: bool, wanted: bool) -> Action {
        match (wanted, self.state) {
            (false, State::Withdrawn) => return Action::Wait(RENEW),
            (false, State::Failing) if now < self.due => return Action::Wait(self.due - now),
            (false, _) => return Action::Unregister,
            (true, State::Withdrawn) => return Action::Register { with_load: false },
            (true, _) => {}
        }
        if now < self.due {
            return Action::Wait(self.due - now);
        }
        match (busy && self.ever, now - self.due >= QUIET_PATIENCE) {
            (true, false) => Action::Wait(SOON),
            (busy, _) => Action::Register { with_load: busy },
        }
    }

    /// Something happened at `now`.
    pub(crate) fn hint(&mut self, now: Duration, hint: Hint) {
        let earliest = self.asked.map_or(now, |asked| asked + APART);
        let due = match hint {
            Hint::Vanished => (now + SOON).max(earliest),
            Hint::Denied | Hint::Foreign => now.max(earliest),
            Hint::Restarted => match self.restarted.replace(now) {
                Some(before) if now - before < RARE => now.max(earliest),
                _ => now,
            },
            Hint::Asked => now,
        };
        // A registry that refuses is not asked more often for what strangers do.
        if self.state == State::Registered || matches!(hint, Hint::Asked | Hint::Restarted) {
            self.due = self.due.min(due);
        }
    }

    /// It was taken. `spread` in 0..1 keeps many workers apart.
    pub(crate) fn taken(&mut self, now: Duration, spread: f64) {
        self.backoff.success();
        (self.state, self.asked, self.ever) = (State::Registered, Some(now), true);
        // Whatever was lost is back within a minute.
        self.due = now + RENEW.mul_f64(0.85 + 0.15 * spread.clamp(0.0, 1.0));
    }

    /// It was not, or could not be given back; the wait until the next try.
    pub(crate) fn refused(&mut self, now: Duration, spread: f64) -> Duration {
        let wait = self.backoff.after_failure(spread);
        (self.state, self.asked, self.due) = (State::Failing, Some(now), now + wait);
        wait
    }

    /// It was given back.
    pub(crate) fn withdrawn(&mut self, now: Duration) {
        self.backoff.success();
        (self.state, self.asked, self.due) = (State::Withdrawn, Some(now), now);
    }
}

/// What operators see of one registration.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Registration"))]
pub(crate) struct Row {
    pub(crate) orchestrator: String,
    pub(crate) capability: String,
    /// byoc or live-runner.
    pub(crate) protocol: &'static str,
    pub(crate) state: State,
    /// Unix seconds at which it was last taken.
    pub(crate) last_success: Option<f64>,
    pub(crate) renewals: u64,
    /// Failed tries by kind.
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// Why the last try failed.
    pub(crate) error: Option<String>,
}

impl Row {
    pub(crate) const BYOC: &'static str = "byoc";
    pub(crate) const LIVE_RUNNER: &'static str = "live-runner";

    /// It stands for a registered name of BYOC.
    pub(crate) fn is_name(&self) -> bool {
        self.protocol == Self::BYOC && self.state == State::Registered
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.orchestrator, &self.capability, self.protocol)
            == (&other.orchestrator, &other.capability, other.protocol)
    }

    /// One that nothing has been tried for yet.
    pub(crate) fn new(orchestrator: &str, capability: &str, protocol: &'static str) -> Self {
        Self {
            orchestrator: orchestrator.to_owned(),
            capability: capability.to_owned(),
            protocol,
            state: State::Waiting,
            last_success: None,
            renewals: 0,
            failures: BTreeMap::new(),
            error: None,
        }
    }
}

/// Whether an unhealthy worker stays out of the registry: only what lasts counts, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Withdrawal {
    out: bool,
    /// Since when the verdict says the other thing.
    differs_since: Option<Duration>,
}

/// A verdict must last so long.
const LASTING: Duration = Duration::from_secs(15);

impl Withdrawal {
    /// True while the worker is to stay out.
    pub(crate) fn see(&mut self, now: Duration, unhealthy: bool) -> bool {
        if unhealthy == self.out {
            self.differs_since = None;
        } else if now - *self.differs_since.get_or_insert(now) >= LASTING {
            (self.out, self.differs_since) = (unhealthy, None);
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTER: Action = Action::Register { with_load: false };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn registered(at: u64) -> Lease {
        let mut lease = Lease::new(s(at));
        lease.taken(s(at), 1.0);
        lease
    }

    #[test]
    fn it_is_asked_for_at_once_and_renewed_each_minute_in_quiet_moments() {
        let mut lease = Lease::new(s(5));
        // Jobs in flight cannot be this registry's yet.
        assert_eq!((lease.next(s(5), false, true), lease.next(s(5), true, true)), (REGISTER, REGISTER));
        lease.taken(s(6), 1.0);
        assert_eq!(lease.next(s(6), false, true), Action::Wait(s(60)));
        assert_eq!(lease.next(s(66), true, true), Action::Wait(s(1)));
        assert_eq!(lease.next(s(66), false, true), REGISTER);
        assert_eq!(lease.next(s(185), true, true), Action::Wait(s(1)));
        assert_eq!(lease.next(s(186), true, true), Action::Register { with_load: true });
        lease.taken(s(186), 0.0);
        assert_eq!(lease.next(s(186), false, true), Action::Wait(s(51)));
    }

    #[test]
    fn failures_double_the_wait_and_a_success_ends_that() {
        let mut lease = Lease::new(s(0));
        let waits: Vec<u64> = (0..8).map(|_| lease.refused(s(0), 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!((lease.state(), lease.next(s(59), false, true)), (State::Failing, Action::Wait(s(1))));
        lease.taken(s(60), 0.5);
        assert_eq!(lease.refused(s(61), 0.0), s(1));
        // What was registered may be again, with its jobs.
        assert_eq!(lease.next(s(62), true, true), Action::Wait(s(1)));
    }

    #[test]
    fn hints_bring_a_renewal_forward_but_never_close_to_the_last() {
        #[track_caller]
        fn check(hint: Hint, at: u64, wait: u64) {
            let mut lease = registered(100);
            lease.hint(s(at), hint);
            let expect = if wait == 0 { REGISTER } else { Action::Wait(s(wait)) };
            assert_eq!(lease.next(s(at), false, true), expect, "{hint:?}");
        }
        check(Hint::Vanished, 130, 1);
        check(Hint::Vanished, 101, 9);
        check(Hint::Denied, 130, 0);
        check(Hint::Denied, 105, 5);
        check(Hint::Foreign, 105, 5);
        check(Hint::Asked, 101, 0);
        check(Hint::Restarted, 101, 0);
        // It is sooner already.
        check(Hint::Vanished, 160, 0);
        let mut failing = registered(100);
        failing.refused(s(101), 0.0);
        failing.refused(s(102), 0.0);
        failing.hint(s(102), Hint::Denied);
        assert_eq!(failing.next(s(102), false, true), Action::Wait(s(2)));
        failing.hint(s(102), Hint::Asked);
        assert_eq!(failing.next(s(102), false, true), REGISTER);
    }

    #[test]
    fn a_restart_ends_a_long_wait_but_restarts_at_each_beat_do_no_harm() {
        let mut lease = registered(100);
        for _ in 0..6 {
            lease.refused(s(100), 0.0);
        }
        lease.hint(s(103), Hint::Restarted);
        assert_eq!((lease.due(), lease.next(s(103), false, true)), (s(103), REGISTER));
        lease.taken(s(103), 1.0);
        let mut asked = Vec::new();
        for now in (104..160).step_by(5) {
            lease.hint(s(now), Hint::Restarted);
            if lease.next(s(now), false, true) == REGISTER {
                lease.taken(s(now), 1.0);
                asked.push(now);
            }
        }
        assert_eq!(asked, [114, 124, 134, 144, 154]);
    }

    #[test]
    fn what_is_not_wanted_is_taken_out_once() {
        let mut lease = registered(100);
        assert_eq!(lease.next(s(110), true, false), Action::Unregister);
        lease.withdrawn(s(110));
        assert_eq!((lease.state(), lease.next(s(111), false, false)), (State::Withdrawn, Action::Wait(s(60))));
        lease.hint(s(112), Hint::Vanished);
        assert_eq!(lease.next(s(113), false, false), Action::Wait(s(60)));
        assert_eq!(lease.next(s(114), true, true), REGISTER);
        // What is still there, because nobody answered, is tried again.
        let mut lease = registered(100);
        assert_eq!(lease.next(s(110), true, false), Action::Unregister);
        lease.refused(s(110), 0.0);
        assert_eq!(lease.next(s(110), true, false), Action::Wait(s(1)));
        assert_eq!((lease.next(s(111), true, false), lease.next(s(111), false, true)), (Action::Unregister, REGISTER));
    }

    #[test]
    fn only_a_verdict_that_lasts_moves_the_worker() {
        let mut withdrawal = Withdrawal::default();
        let mut row = |at: u64, unhealthy: bool, expect: bool| {
            assert_eq!(withdrawal.see(s(at), unhealthy), expect, "at {at}");
        };
        row(0, true, false);
        row(14, true, false);
        row(14, false, false);
        row(15, true, false);
        row(29, true, false);
        row(30, true, true);
        row(31, false, true);
        row(40, true, true);
        row(41, false, true);
        row(55, false, true);
        row(56, false, false);
    }
}
