//! One capability name at one orchestrator's BYOC registry, as a lease: when to register, renew and unregister it. Events
//! in, actions out; time is an argument (any monotonic clock). The registry drops a name when it restarts or after one
//! failed connection, and leaks a slot whenever a client disconnects. Registering again fixes all of that.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::sys::backoff::Backoff;
use crate::sys::counters::Hint;
use crate::sys::status_table::StatusTable;

/// First and longest wait between retries.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often a lease is renewed: more often could harm go-livepeer, which reads its registry without a lock.
const RENEW: Duration = Duration::from_secs(60);
/// After a job whose client disconnected, so that the registry has noticed too.
const SOON: Duration = Duration::from_secs(1);
/// The least time between renewals: any client can disconnect.
const APART: Duration = Duration::from_secs(10);
/// Only one restart in this time is followed immediately, in case a registry drops names at each beat.
const RARE: Duration = Duration::from_secs(60);
/// Registering resets the registry's count of jobs: it waits for a moment without jobs, at most this long.
const QUIET_LIMIT: Duration = Duration::from_secs(120);

/// The state of one registration, as far as the worker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum RegistrationState {
    /// No answer yet.
    Waiting,
    Registered,
    /// The last try failed.
    Failing,
    /// Unregistered on purpose: the worker is unhealthy.
    Withdrawn,
    /// The orchestrator does not have this registry, and ORCH_PROTOCOL=auto uses the other one.
    Absent,
}

impl RegistrationState {
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

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// `with_load`: report how many jobs are in flight.
    Register {
        with_load: bool,
    },
    Unregister,
    /// Nothing for this long, unless something happens.
    Wait(Duration),
}

/// One lease.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    state: RegistrationState,
    due: Duration,
    asked: Option<Duration>,
    restarted: Option<Duration>,
    /// It has been registered, so jobs in flight may be this registry's.
    ever: bool,
    backoff: Backoff,
}

impl Lease {
    /// Due immediately.
    pub(crate) fn new(now: Duration) -> Self {
        let backoff = Backoff::new(RETRY.0, RETRY.1);
        Self { state: RegistrationState::Waiting, due: now, asked: None, restarted: None, ever: false, backoff }
    }

    pub(crate) fn state(&self) -> RegistrationState {
        self.state
    }

    /// When the next registration is or was due.
    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// `busy`: jobs are in flight. `wanted`: false while the worker must stay out of the registry.
    pub(crate) fn next(&self, now: Duration, busy: bool, wanted: bool) -> Action {
        match (wanted, self.state) {
            (false, RegistrationState::Withdrawn) => return Action::Wait(RENEW),
            (false, RegistrationState::Failing) if now < self.due => return Action::Wait(self.due - now),
            (false, _) => return Action::Unregister,
            (true, RegistrationState::Withdrawn) => return Action::Register { with_load: false },
            (true, _) => {}
        }
        if now < self.due {
            return Action::Wait(self.due - now);
        }
        match (busy && self.ever, now - self.due >= QUIET_LIMIT) {
            (true, false) => Action::Wait(SOON),
            (busy, _) => Action::Register { with_load: busy },
        }
    }

    /// Takes an event at `now`.
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
        // What clients do causes no extra requests to a registry that rejects us.
        if self.state == RegistrationState::Registered || matches!(hint, Hint::Asked | Hint::Restarted) {
            self.due = self.due.min(due);
        }
    }

    /// It was registered. `jitter` in 0..1 spreads many workers.
    pub(crate) fn taken(&mut self, now: Duration, jitter: f64) {
        self.backoff.success();
        (self.state, self.asked, self.ever) = (RegistrationState::Registered, Some(now), true);
        // A lost registration is back within a minute.
        self.due = now + RENEW.mul_f64(0.85 + 0.15 * jitter.clamp(0.0, 1.0));
    }

    /// Registering or unregistering failed; returns the wait until the next try.
    pub(crate) fn refused(&mut self, now: Duration, jitter: f64) -> Duration {
        let wait = self.backoff.after_failure(jitter);
        (self.state, self.asked, self.due) = (RegistrationState::Failing, Some(now), now + wait);
        wait
    }

    /// It was unregistered.
    pub(crate) fn withdrawn(&mut self, now: Duration) {
        self.backoff.success();
        (self.state, self.asked, self.due) = (RegistrationState::Withdrawn, Some(now), now);
    }
}

/// The status of one registration, for operators.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Registration"))]
pub(crate) struct RegistrationRow {
    pub(crate) orchestrator: String,
    pub(crate) capability: String,
    /// byoc or live-runner.
    pub(crate) protocol: &'static str,
    pub(crate) state: RegistrationState,
    /// Unix seconds of the last success.
    pub(crate) last_success: Option<f64>,
    pub(crate) renewals: u64,
    /// Failed tries by kind.
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// Why the last try failed, and what to do; null if it succeeded.
    pub(crate) error: Option<String>,
}

impl RegistrationRow {
    pub(crate) const BYOC: &'static str = "byoc";
    pub(crate) const LIVE_RUNNER: &'static str = "live-runner";

    /// A BYOC name that is registered.
    pub(crate) fn is_name(&self) -> bool {
        self.protocol == Self::BYOC && self.state == RegistrationState::Registered
    }

    /// It is about the same entry of the same registry.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.orchestrator, &self.capability, self.protocol)
            == (&other.orchestrator, &other.capability, other.protocol)
    }

    /// A row before the first try.
    pub(crate) fn new(orchestrator: &str, capability: &str, protocol: &'static str) -> Self {
        Self {
            orchestrator: orchestrator.to_owned(),
            capability: capability.to_owned(),
            protocol,
            state: RegistrationState::Waiting,
            last_success: None,
            renewals: 0,
            failures: BTreeMap::new(),
            error: None,
        }
    }
}

/// The status of all registrations.
pub(crate) type Registrations = StatusTable<RegistrationRow>;

/// Whether an unhealthy worker stays out of the registry: only a lasting verdict counts, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Withdrawal {
    out: bool,
    /// Since when the verdict says the opposite.
    differs_since: Option<Duration>,
}

/// How long a verdict must last.
const LASTING: Duration = Duration::from_secs(15);

impl Withdrawal {
    /// True while the worker must stay out.
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
    fn it_is_registered_immediately_and_renewed_each_minute_while_no_job_runs() {
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
        assert_eq!((lease.state(), lease.next(s(59), false, true)), (RegistrationState::Failing, Action::Wait(s(1))));
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
        // Nor where each try is refused.
        let mut lease = registered(100);
        for _ in 0..6 {
            lease.refused(s(200), 0.0);
        }
        lease.hint(s(201), Hint::Restarted);
        lease.refused(s(201), 0.0);
        lease.hint(s(203), Hint::Restarted);
        assert_eq!(lease.due(), s(211));
    }

    #[test]
    fn an_unwanted_name_is_unregistered_once() {
        let mut lease = registered(100);
        assert_eq!(lease.next(s(110), true, false), Action::Unregister);
        lease.withdrawn(s(110));
        assert_eq!(
            (lease.state(), lease.next(s(111), false, false)),
            (RegistrationState::Withdrawn, Action::Wait(s(60)))
        );
        lease.hint(s(112), Hint::Vanished);
        assert_eq!(lease.next(s(113), false, false), Action::Wait(s(60)));
        assert_eq!(lease.next(s(114), true, true), REGISTER);
        // Without an answer it is still there: unregistering is tried again.
        let mut lease = registered(100);
        assert_eq!(lease.next(s(110), true, false), Action::Unregister);
        lease.refused(s(110), 0.0);
        assert_eq!(lease.next(s(110), true, false), Action::Wait(s(1)));
        assert_eq!((lease.next(s(111), true, false), lease.next(s(111), false, true)), (Action::Unregister, REGISTER));
        // Once it is gone, a later failure is a first one.
        lease.refused(s(111), 0.0);
        lease.withdrawn(s(113));
        assert_eq!(lease.refused(s(120), 0.0), s(1));
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
