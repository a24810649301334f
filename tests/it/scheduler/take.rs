//! How a request gets its runner: from those that are loaded, or in its turn by another load.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::Scheduler;
use super::client::Client;
use super::model::Model;
use super::request::Asked;
use super::runner::{DEFAULT_TIME, Fit, Process, Runner};
use crate::harness::lock;

/// On the same runner: 1 to 12 ms.
const SAME_RUNNER: Duration = Duration::from_millis(3);

#[derive(Debug)]
pub enum Taken {
    /// A runner, and how long it took to have it.
    Runner { id: u64, load: Duration },
    /// The client hung up.
    Gone,
    /// Too many are waiting.
    Refused,
}

#[derive(Debug, PartialEq, Eq)]
enum Pinged {
    Answered,
    Failed,
    Gone,
}

impl Scheduler {
    pub(super) fn take(&self, model: &Model, asked: &Asked, client: &Client<'_>) -> Taken {
        let started = Instant::now();
        let mut marked = None;
        let mut runners = lock(&self.runners);
        runners.expire();
        match runners.fit(model, asked) {
            Fit::Serves(id) => {
                runners.hold(id, asked.keep_alive);
                return Taken::Runner { id, load: self.about(SAME_RUNNER, 60) };
            }
            Fit::Ping(id) => {
                // Until the second ping: a list does not get in between.
                runners.mark(id);
                marked = Some(id);
                drop(runners);
                let pinged = self.ping(id, client);
                runners = lock(&self.runners);
                if pinged == Pinged::Gone {
                    runners.unmark(&mut marked);
                    return Taken::Gone;
                }
            }
            Fit::Replace(_) | Fit::NotLoaded => {}
        }
        if runners.pending.len() > self.most_pending {
            runners.unmark(&mut marked);
            return Taken::Refused;
        }
        let ticket = runners.next_id();
        runners.pending.push_back(ticket);
        drop(runners);
        let taken = self.in_turn(ticket, started, model, asked, client, &mut marked);
        let mut runners = lock(&self.runners);
        runners.unmark(&mut marked);
        runners.pending.retain(|waiting| *waiting != ticket);
        drop(runners);
        self.changed.notify_all();
        taken
    }

    /// One after the other: the first one changes what is loaded.
    fn in_turn(
        &self,
        ticket: u64,
        started: Instant,
        model: &Model,
        asked: &Asked,
        client: &Client<'_>,
        marked: &mut Option<u64>,
    ) -> Taken {
        let mut waited = false;
        let mut runners = lock(&self.runners);
        while runners.pending.front() != Some(&ticket) {
            waited = true;
            runners.unmark(marked);
            runners = self.wait(runners);
            if client.is_gone() {
                return Taken::Gone;
            }
        }
        loop {
            if client.is_gone() {
                return Taken::Gone;
            }
            runners.expire();
            let gone = match runners.fit(model, asked) {
                Fit::Serves(id) => {
                    runners.hold(id, asked.keep_alive);
                    let load = if waited { started.elapsed() * self.scale } else { SAME_RUNNER };
                    return Taken::Runner { id, load };
                }
                Fit::Ping(id) => {
                    waited = true;
                    drop(runners);
                    let pinged = self.ping(id, client);
                    runners = lock(&self.runners);
                    runners.unmark(marked);
                    match pinged {
                        Pinged::Gone => return Taken::Gone,
                        Pinged::Answered => true,
                        Pinged::Failed => runners.unload(id),
                    }
                }
                Fit::Replace(id) => runners.unload(id),
                Fit::NotLoaded if runners.loaded.len() < self.most_loaded.load(SeqCst) => break,
                Fit::NotLoaded => runners.to_evict().is_some_and(|id| runners.unload(id)),
            };
            // The users of the other one are waited for, even those that come after this request.
            if !gone {
                waited = true;
                runners = self.wait(runners);
            }
        }
        drop(runners);
        let before = if waited { started.elapsed() * self.scale } else { Duration::ZERO };
        Taken::Runner { id: self.load(model, asked), load: before + model.load }
    }

    /// A client that hangs up does not end it.
    fn load(&self, model: &Model, asked: &Asked) -> u64 {
        thread::sleep(model.load / self.scale);
        let mut runners = lock(&self.runners);
        let id = runners.next_id();
        runners.loaded.push(Runner {
            id,
            model: model.clone(),
            options: asked.options(model),
            stored: asked.keep_alive.unwrap_or(DEFAULT_TIME),
            expires_at: None,
            busy: 1,
            computing: 0,
            waiting: VecDeque::new(),
            pings: 0,
            on_cpu: model.stays_on_cpu || model.pretends,
            process: Process::Runs,
        });
        id
    }

    /// Whether the runner answers; /api/ps waits meanwhile.
    fn ping(&self, id: u64, client: &Client<'_>) -> Pinged {
        let end = Instant::now() + self.ping / self.scale;
        let mut runners = lock(&self.runners);
        runners.mark(id);
        let pinged = loop {
            let stopped = runners.get(id).is_some_and(|runner| runner.process == Process::Stopped);
            if !stopped {
                break Pinged::Answered;
            } else if client.is_gone() {
                break Pinged::Gone;
            } else if Instant::now() >= end {
                break Pinged::Failed;
            }
            runners = self.wait(runners);
        };
        runners.unmark(&mut Some(id));
        drop(runners);
        self.changed.notify_all();
        pinged
    }

    /// About as long, by chance up to this many percent more or less. The same in each run.
    pub(super) fn about(&self, time: Duration, percent: u64) -> Duration {
        let next = |n: u64| n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = self.chance.fetch_update(Relaxed, Relaxed, |n| Some(next(n))).unwrap_or_default();
        let per_mille = 1000 - 10 * percent + (before >> 33) % (20 * percent + 1);
        time.mul_f64(per_mille as f64 / 1000.0)
    }
}
