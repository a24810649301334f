//! The BYOC half: every name at one orchestrator, each a lease.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Heard, TICK, Tenure};
use crate::config::Protocol;
use crate::livepeer::lease::{Action, Lease, Row, State, Withdrawal};
use crate::livepeer::orchestrator::RegisterError;
use crate::livepeer::pace::Side;
use crate::livepeer::registries::Found;
use crate::sys::counters::Hint;
use crate::sys::json::millis;
use crate::sys::limits::unix_now;

/// One name and what was said of it last.
struct Name {
    name: String,
    row: usize,
    lease: Lease,
    told: Option<RegisterError>,
    /// What could not be done then.
    failed: &'static str,
}

/// What jobs with tokens of others have led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Foreign {
    None,
    /// The names are registered again, in case the orchestrator holds an old token.
    Renewing,
    Renewed,
    Told,
}

/// It is said once for the worker: nobody knows which orchestrator a job comes from.
static FOREIGN_SEEN: AtomicBool = AtomicBool::new(false);
static FOREIGN_STAYS: AtomicBool = AtomicBool::new(false);

impl Tenure {
    /// Does what is due until the worker ends.
    pub(super) fn keep_names(&self) {
        // A panic may have left it set.
        self.lock().registering = false;
        let mut names = self.names();
        let mut withdrawal = Withdrawal::default();
        let mut pulse = self.pulse.heard();
        let (mut heard, mut foreign) = (Heard::default(), Foreign::None);
        loop {
            let now = self.now();
            let calls = self.calls(Side::Byoc, &mut heard);
            if calls.leaving || calls.stopping {
                return;
            }
            if calls.renew {
                self.read_secret();
            }
            let mut hints = self.pulse.since(&mut pulse);
            hints.extend(calls.renew.then_some(Hint::Asked));
            hints.extend(calls.nudged.then_some(Hint::Restarted));
            for name in &mut names {
                hints.iter().for_each(|hint| name.lease.hint(now, *hint));
            }
            if hints.contains(&Hint::Foreign) {
                foreign = foreign_token(foreign);
            }
            let wanted = !withdrawal.see(now, self.offer.withdraw && self.is_unhealthy());
            let mut wait = TICK * self.offer.hurry;
            if let Some(acted) = self.act_on_one(&mut names, now, wanted, &mut wait) {
                wait = Duration::ZERO;
                self.show_what_is_found(&names);
                if acted && foreign == Foreign::Renewing {
                    foreign = Foreign::Renewed;
                }
            }
            self.rest(Side::Byoc, wait, heard);
        }
    }

    fn names(&self) -> Vec<Name> {
        let url = self.orchestrator().url().to_owned();
        let name = |name: &String| Name {
            name: name.clone(),
            row: self.registrations.put(Row::new(&url, name, Row::BYOC), Row::is_same),
            lease: Lease::new(self.now()),
            told: None,
            failed: "",
        };
        self.offer.capability.names.iter().map(name).collect()
    }

    /// Does what has been due for longest; Some(true): a name was registered. Else lowers `wait` to when something will be.
    fn act_on_one(&self, names: &mut [Name], now: Duration, wanted: bool, wait: &mut Duration) -> Option<bool> {
        let mut first: Option<(Action, &mut Name)> = None;
        for name in names {
            match name.lease.next(now, self.pulse.jobs() > 0, wanted) {
                Action::Wait(more) => *wait = (*wait).min(more),
                action if first.as_ref().is_none_or(|(_, first)| name.lease.due() < first.lease.due()) => {
                    first = Some((action, name));
                }
                _ => {}
            }
        }
        let (action, name) = first?;
        if let Err(more) = self.turn(Side::Byoc, name.lease.due()) {
            *wait = (*wait).min(more);
            return None;
        }
        self.act(action, name);
        Some(action != Action::Unregister && name.lease.state() == State::Registered)
    }

    fn act(&self, action: Action, name: &mut Name) {
        let orchestrator = self.orchestrator();
        let url = orchestrator.url();
        let Action::Register { with_load } = action else {
            match orchestrator.unregister(&name.name) {
                Ok(()) => {
                    log::warn!("took {} out of {url} while the worker is unhealthy", name.name);
                    self.is_out(name, None);
                }
                Err(why @ RegisterError::NoByoc) => self.is_out(name, Some(why)),
                Err(why) => self.was_refused(name, url, why, "take out"),
            }
            return;
        };
        {
            let mut state = self.lock();
            if state.stopping {
                return;
            }
            state.registering = true;
            if !state.sent.contains(&name.name) {
                state.sent.push(name.name.clone());
            }
        }
        let load = with_load.then(|| self.pulse.jobs());
        let offer = &self.offer;
        let answer = orchestrator.register(&name.name, &offer.worker, &offer.capability, offer.token.as_ref(), load);
        match answer {
            Ok(()) => self.was_taken(name, url),
            Err(why) => self.was_refused(name, url, why, "register"),
        }
        if self.lock().stopping && name.lease.state() == State::Registered {
            // The answer came after the worker had taken its names out.
            let _ = orchestrator.unregister(&name.name);
        }
        self.lock().registering = false;
        self.changed.notify_all();
    }

    /// Nothing of it stands in the registry, or there is none.
    fn is_out(&self, name: &mut Name, why: Option<RegisterError>) {
        name.lease.withdrawn(self.now());
        name.told = why;
        self.show(name, |row| row.error = None);
    }

    fn was_taken(&self, name: &mut Name, url: &str) {
        let renewal = name.lease.state() == State::Registered;
        name.lease.taken(self.now(), unix_now().fract());
        if renewal {
            log::debug!("renewed {} at {url}", name.name);
        } else {
            log::info!("registered {} at {url}: jobs come to {}", name.name, self.offer.worker.as_str());
        }
        if matches!(name.told.take(), Some(RegisterError::NoAnswer(_))) {
            // It was away: what else it knew may be lost.
            self.nudge(Side::Runner);
        }
        self.show(name, |row| {
            row.renewals += u64::from(row.last_success.is_some());
            row.last_success = Some(millis(unix_now()));
            row.error = None;
        });
    }

    /// `what` could not be done with it.
    fn was_refused(&self, name: &mut Name, url: &str, why: RegisterError, what: &'static str) {
        let wait = name.lease.refused(self.now(), unix_now().fract()).as_secs_f64();
        // The same complaint every minute would bury everything else; and what `auto` finds has a line of its own.
        let same = name.told.as_ref() == Some(&why) && name.failed == what;
        if same || self.is_optional(&why) {
            log::debug!("{} at {url}: {why}; next try in {wait:.1} s", name.name);
        } else {
            log::warn!("cannot {what} {} at {url}: {why}; trying again in {wait:.1} s and on", name.name);
        }
        let wrong_secret = matches!(why, RegisterError::WrongSecret { .. });
        let (kind, text) = (why.kind(), why.to_string());
        (name.told, name.failed) = (Some(why), what);
        self.show(name, |row| {
            *row.failures.entry(kind).or_default() += 1;
            row.error = Some(text);
        });
        if wrong_secret {
            self.read_secret();
        }
    }

    /// ORCH_PROTOCOL=auto does without BYOC where there is none.
    fn is_optional(&self, why: &RegisterError) -> bool {
        self.offer.protocol == Protocol::Auto && matches!(why, RegisterError::NoByoc)
    }

    fn show(&self, name: &Name, change: impl FnOnce(&mut Row)) {
        let state = match &name.told {
            Some(RegisterError::NoByoc) if self.does_without(Side::Byoc) => State::Absent,
            _ => name.lease.state(),
        };
        self.registrations.change(name.row, |row| {
            row.state = state;
            change(row);
        });
    }

    /// What the names together say of the registry.
    fn show_what_is_found(&self, names: &[Name]) {
        let any = |is: fn(&Name) -> bool| names.iter().any(is);
        self.found(
            Side::Byoc,
            if any(|name| name.lease.state() == State::Waiting) {
                return;
            } else if any(|name| name.told.is_none()) {
                Found::Visible
            } else if any(|name| matches!(name.told, Some(RegisterError::NoByoc))) {
                Found::Absent
            } else if any(|name| matches!(&name.told, Some(why) if why.is_answer())) {
                Found::Refused
            } else {
                Found::Unclear
            },
        );
    }
}

/// A job came with a token that is not ours. Says so once, and once more if that goes on.
fn foreign_token(before: Foreign) -> Foreign {
    match before {
        Foreign::None => {
            if !FOREIGN_SEEN.swap(true, Ordering::AcqRel) {
                log::warn!(
                    "a job came with a token that is not WORKER_TOKEN: registering again, in case the orchestrator holds an old one"
                );
            }
            Foreign::Renewing
        }
        Foreign::Renewed => {
            if !FOREIGN_STAYS.swap(true, Ordering::AcqRel) {
                log::warn!(
                    "jobs still come with a token that is not WORKER_TOKEN, although the names were registered again: another worker registers the same CAPABILITY_NAME with its own token, or a stranger sends them"
                );
            }
            Foreign::Told
        }
        other => other,
    }
}
