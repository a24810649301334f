//! The BYOC half of a session: every capability name at one orchestrator, each as a lease.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::session::{LastSeen, Session, TICK};
use crate::config::Protocol;
use crate::livepeer::lease::{Action, Lease, RegistrationRow, RegistrationState, Withdrawal};
use crate::livepeer::orchestrator::RegisterError;
use crate::livepeer::pace::Registry;
use crate::livepeer::registries::RegistryStatus;
use crate::sys::backoff::jitter;
use crate::sys::counters::Hint;
use crate::sys::json::millis;
use crate::sys::limits::unix_now;

/// One capability name, and what was last logged about it.
struct NameLease {
    name: String,
    row: usize,
    lease: Lease,
    /// Why its last registration failed.
    error: Option<RegisterError>,
    /// What failed then.
    failed: &'static str,
}

/// The reaction to jobs with another token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Foreign {
    None,
    /// Registering again, in case the orchestrator holds an old token.
    Renewing,
    Renewed,
    Reported,
}

/// Logged once per worker: a job does not show which orchestrator sent it.
static FOREIGN_SEEN: AtomicBool = AtomicBool::new(false);
static FOREIGN_STAYS: AtomicBool = AtomicBool::new(false);

impl Session {
    /// Keeps all names registered until the worker stops.
    pub(super) fn keep_names(&self) {
        // A panic may have left it set.
        self.lock().registering = false;
        let mut names = self.names();
        let mut withdrawal = Withdrawal::default();
        let mut pulse = self.pulse.heard();
        let (mut last_seen, mut foreign) = (LastSeen::default(), Foreign::None);
        loop {
            let now = self.now();
            let changes = self.changes(Registry::Byoc, &mut last_seen);
            if changes.leaving || changes.stopping {
                return;
            }
            if changes.renew {
                self.read_secret();
            }
            let mut hints = self.pulse.since(&mut pulse);
            hints.extend(changes.renew.then_some(Hint::Asked));
            hints.extend(changes.nudged.then_some(Hint::Restarted));
            for name in &mut names {
                hints.iter().for_each(|hint| name.lease.hint(now, *hint));
            }
            if hints.contains(&Hint::Foreign) {
                foreign = foreign_token(foreign);
            }
            let wanted = !withdrawal.see(now, self.offer.withdraw && self.is_unhealthy());
            let mut wait = TICK * self.offer.time_scale;
            if let Some(acted) = self.act_on_one(&mut names, now, wanted, &mut wait) {
                wait = Duration::ZERO;
                self.show_what_is_found(&names);
                if acted && foreign == Foreign::Renewing {
                    foreign = Foreign::Renewed;
                }
            }
            self.rest(Registry::Byoc, wait, last_seen);
        }
    }

    fn names(&self) -> Vec<NameLease> {
        let url = self.orchestrator().url().to_owned();
        let name = |name: &String| NameLease {
            name: name.clone(),
            row: self
                .registrations
                .put(RegistrationRow::new(&url, name, RegistrationRow::BYOC), RegistrationRow::is_same),
            lease: Lease::new(self.now()),
            error: None,
            failed: "",
        };
        self.offer.capability.names.iter().map(name).collect()
    }

    /// Acts on the name that has been due longest; Some(true): it was registered. Otherwise lowers `wait` to the next due
    /// time.
    fn act_on_one(&self, names: &mut [NameLease], now: Duration, wanted: bool, wait: &mut Duration) -> Option<bool> {
        let mut first: Option<(Action, &mut NameLease)> = None;
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
        if let Err(more) = self.turn(Registry::Byoc, name.lease.due()) {
            *wait = (*wait).min(more);
            return None;
        }
        self.act(action, name);
        Some(action != Action::Unregister && name.lease.state() == RegistrationState::Registered)
    }

    fn act(&self, action: Action, name: &mut NameLease) {
        let orchestrator = self.orchestrator();
        let url = orchestrator.url();
        let Action::Register { with_load } = action else {
            match orchestrator.unregister(&name.name) {
                Ok(()) => {
                    log::warn!("unregistered {} at {url} while the worker is unhealthy", name.name);
                    self.is_out(name, None);
                }
                Err(why @ RegisterError::NoByoc) => self.is_out(name, Some(why)),
                Err(why) => self.was_refused(name, url, why, "unregister"),
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
        if self.lock().stopping && name.lease.state() == RegistrationState::Registered {
            // The answer came after the worker had unregistered its names.
            let _ = orchestrator.unregister(&name.name);
        }
        self.lock().registering = false;
        self.changed.notify_all();
    }

    /// The name is not registered, or there is no registry.
    fn is_out(&self, name: &mut NameLease, why: Option<RegisterError>) {
        name.lease.withdrawn(self.now());
        name.error = why;
        self.show(name, |row| row.error = None);
    }

    fn was_taken(&self, name: &mut NameLease, url: &str) {
        let renewal = name.lease.state() == RegistrationState::Registered;
        name.lease.taken(self.now(), jitter());
        if renewal {
            log::debug!("renewed {} at {url}", name.name);
        } else {
            log::info!("registered {} at {url}; jobs go to {}", name.name, self.offer.worker.as_str());
        }
        if matches!(name.error.take(), Some(RegisterError::NoAnswer(_) | RegisterError::NoByoc)) {
            // It was down, so its other registry may have lost the worker. A proxy in front of it answers 404 meanwhile.
            self.nudge(Registry::Runner);
        }
        self.show(name, |row| {
            row.renewals += u64::from(row.last_success.is_some());
            row.last_success = Some(millis(unix_now()));
            row.error = None;
        });
    }

    /// `what` has failed.
    fn was_refused(&self, name: &mut NameLease, url: &str, why: RegisterError, what: &'static str) {
        let wait = name.lease.refused(self.now(), jitter()).as_secs_f64().max(1.0);
        let same = name.error.as_ref() == Some(&why) && name.failed == what;
        if same || self.is_optional(&why) {
            log::debug!("{} at {url}: {}; retrying in {wait:.0} s", name.name, why.cause());
        } else {
            let action = why.action().map_or_else(String::new, |action| format!(". {action}"));
            log::warn!("cannot {what} {} at {url}: {}; retrying in {wait:.0} s{action}", name.name, why.cause());
        }
        let wrong_secret = matches!(why, RegisterError::WrongSecret { .. });
        let (kind, text) = (why.kind(), why.to_string());
        (name.error, name.failed) = (Some(why), what);
        self.show(name, |row| {
            *row.failures.entry(kind).or_default() += 1;
            row.error = Some(text);
        });
        if wrong_secret {
            self.read_secret();
        }
    }

    /// With ORCH_PROTOCOL=auto BYOC may be missing.
    fn is_optional(&self, why: &RegisterError) -> bool {
        self.offer.protocol == Protocol::Auto && matches!(why, RegisterError::NoByoc)
    }

    fn show(&self, name: &NameLease, change: impl FnOnce(&mut RegistrationRow)) {
        let state = match &name.error {
            Some(RegisterError::NoByoc) if self.does_without(Registry::Byoc) => RegistrationState::Absent,
            _ => name.lease.state(),
        };
        self.registrations.change(name.row, |row| {
            row.state = state;
            change(row);
        });
    }

    /// What the results of all names say about the registry.
    fn show_what_is_found(&self, names: &[NameLease]) {
        let any = |is: fn(&NameLease) -> bool| names.iter().any(is);
        self.found(
            Registry::Byoc,
            if any(|name| name.lease.state() == RegistrationState::Waiting) {
                return;
            } else if any(|name| name.error.is_none()) {
                RegistryStatus::Visible
            } else if any(|name| matches!(name.error, Some(RegisterError::NoByoc))) {
                RegistryStatus::Absent
            } else if any(|name| matches!(&name.error, Some(why) if why.is_answer())) {
                RegistryStatus::Refused
            } else {
                RegistryStatus::Unclear
            },
        );
    }
}

/// A job came with another token: logs that once, and once more if it continues.
fn foreign_token(before: Foreign) -> Foreign {
    match before {
        Foreign::None => {
            if !FOREIGN_SEEN.swap(true, Ordering::AcqRel) {
                log::warn!(
                    "a job came with a token other than WORKER_TOKEN: registering again, in case the orchestrator holds an old one"
                );
            }
            Foreign::Renewing
        }
        Foreign::Renewed => {
            if !FOREIGN_STAYS.swap(true, Ordering::AcqRel) {
                log::warn!(
                    "jobs still come with a token other than WORKER_TOKEN after registering again: another worker registers the same CAPABILITY_NAME with its own token, or another client sends them"
                );
            }
            Foreign::Reported
        }
        other => other,
    }
}
