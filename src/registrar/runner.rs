//! The Live Runner half: one entry at one orchestrator, kept by beats.

use std::time::Duration;

use super::Tenure;
use crate::edge::limits::unix_now;
use crate::pure::contract::millis;
use crate::pure::lease;
use crate::pure::runner::{self, Beat, MODE, News, Runner, Status};

/// The entry, and what was sent and said of it last.
pub(super) struct Entry {
    runner: Runner,
    row: usize,
    status: Status,
    told: Option<String>,
}

impl Entry {
    pub(super) fn new(tenure: &Tenure) -> Self {
        let id = &tenure.offer.runner.id;
        let row = tenure.registrations.add(lease::Row::new(tenure.orchestrator().url(), id, "live-runner"));
        Self { runner: Runner::new(tenure.now()), row, status: Status::Ready, told: None }
    }

    /// How long nothing is to be sent. `status`: what the registry should show.
    pub(super) fn wait(&mut self, now: Duration, status: Status) -> Duration {
        if status != self.status && self.runner.secret().is_some() {
            self.runner.hasten(now);
        }
        self.status = status;
        self.runner.due().saturating_sub(now)
    }

    pub(super) fn hasten(&mut self, now: Duration) {
        self.runner.hasten(now);
    }

    /// There is something to take out at the end.
    pub(super) fn is_live(&self) -> bool {
        self.runner.secret().is_some()
    }
}

impl Tenure {
    /// Sends the whole entry and takes the answer in.
    pub(super) fn beat(&self, entry: &mut Entry) {
        let (orchestrator, offer) = (self.orchestrator(), &self.offer);
        let (latest, url) = (self.board.latest(), orchestrator.url());
        let snapshot = latest.as_ref().map(|latest| &latest.snapshot);
        let beat = Beat {
            runner_id: &offer.runner.id,
            runner_url: offer.worker.as_str(),
            app: &offer.runner.app,
            mode: MODE,
            capacity: offer.capability.capacity,
            status: entry.status,
            version: env!("CARGO_PKG_VERSION"),
            metadata: runner::metadata(snapshot),
            gpu: snapshot.and_then(runner::card),
            price_info: offer.runner.price.as_ref(),
        };
        let patience = (entry.runner.patience() / offer.hurry).max(Duration::from_millis(500));
        let answer = orchestrator.beat(&beat, entry.runner.secret(), patience);
        let news = entry.runner.answered(self.now(), answer, unix_now().fract());
        let id = &offer.runner.id;
        let mut failed = None;
        match news {
            News::Registered => {
                entry.told = None;
                log::info!("registered {id} as a live runner at {url}: jobs come to {}", offer.worker.as_str());
            }
            News::Same => {}
            News::Lost => log::info!("{url} has lost the live runner {id}: registering it anew"),
            News::Failed { kind, message } => {
                // The same complaint at each beat would bury everything else.
                if entry.told.as_ref() == Some(&message) {
                    log::debug!("live runner {id} at {url}: {message}");
                } else {
                    log::warn!("cannot register {id} as a live runner at {url}: {message}; trying on");
                }
                entry.told = Some(message.clone());
                failed = Some((kind, message));
            }
        }
        let taken = failed.is_none() && entry.is_live();
        self.registrations.change(entry.row, |row| {
            row.state = match entry.runner.shown() {
                lease::State::Registered if entry.status != Status::Ready => lease::State::Withdrawn,
                state => state,
            };
            if taken {
                row.renewals += u64::from(row.last_success.is_some());
                row.last_success = Some(millis(unix_now()));
                row.error = None;
            }
            if let Some((kind, message)) = &failed {
                *row.failures.entry(kind).or_default() += 1;
                row.error = Some(message.clone());
            }
        });
        if failed.is_some_and(|(kind, _)| kind == "wrong_secret") {
            self.read_secret();
        }
    }

    /// Takes the entry out, if it is there.
    pub(super) fn leave(&self, entry: &Entry) {
        let orchestrator = self.orchestrator();
        let (id, url) = (&self.offer.runner.id, orchestrator.url());
        if let Some(secret) = entry.runner.secret() {
            match orchestrator.leave(id, secret) {
                Ok(()) => log::info!("unregistered the live runner {id} at {url}"),
                Err(why) => log::warn!("cannot unregister the live runner {id} at {url}: {why}"),
            }
        }
    }
}
