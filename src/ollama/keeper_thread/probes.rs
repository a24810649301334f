//! What a keeper does for a model that is loaded: probes, and a new load of one that fell to the CPU.

use std::thread;
use std::time::Duration;

use super::ModelKeeper;
use crate::ollama::keeper::KeeperState;
use crate::ollama::models::ModelStatus;
use crate::ollama::probe::answer::Outcome;
use crate::ollama::probe::heal::HealState;
use crate::ollama::probe::report::Ended;
use crate::ollama::probe::row::{Heal, ProbeFacts};
use crate::ollama::probe::state::{Look, Order, ProbeNext, ProbeState};
use crate::ollama::probe::tending::Tending;
use crate::ollama::runner;
use crate::sys::limits::unix_now;

/// How long an unloaded model may still be listed, and how often that is looked at.
const UNLOADED: u32 = 30;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

impl ModelKeeper {
    /// Probes or heals the model where that is due. `status`: None while Ollama does not answer. True: it took time, and the
    /// lists are old.
    pub(super) fn tend(
        &self,
        keeper: &mut KeeperState,
        tending: &mut Tending,
        status: Option<&ModelStatus>,
        clock: i64,
    ) -> bool {
        let look = status.map(|status| keeper.look(status, clock, self.now()));
        // While Ollama does not list its models, what is known of this one stays.
        if look.as_ref().is_some_and(|look| look.status.loaded.is_none()) {
            self.probes(ProbeFacts::reloaded);
        }
        let tended = look.as_ref().filter(|_| self.probe.interval.is_some());
        if let Some(look) = tended.filter(|look| self.must_heal(&mut tending.heal, look)) {
            return self.heal_unless_used(keeper, tending, look);
        }
        match tending.probes.next(look.as_ref(), || self.prober.gpus().busy(), self.now()) {
            ProbeNext::Wait => false,
            ProbeNext::Skip(why) => {
                if self.probes(|probes| probes.skipped(&why, unix_now())) {
                    log::debug!("{}: not probed: {why}", self.model);
                }
                false
            }
            ProbeNext::Send(order) => self.send(keeper, &mut tending.probes, &order).is_some(),
        }
    }

    /// A model that was deleted hangs no more, however long its next pull takes.
    pub(super) fn forget_deleted(&self, tending: &mut Tending, status: &ModelStatus) {
        if !status.pulled && status.loaded.is_none() {
            tending.probes.forget();
            self.change(|row| {
                row.probes.forget();
                row.deaths.forget();
            });
        }
    }

    /// Whether it was answered and met no client; None: it was not sent, because another model is being probed.
    fn send(&self, keeper: &mut KeeperState, probes: &mut ProbeState, order: &Order) -> Option<bool> {
        let sent = self.prober.send(&self.client, &self.model, order)?;
        let now = self.now();
        let of_client = keeper.probed(&sent.outcome, sent.expiry, now);
        let before = probes.unanswered();
        probes.ended(&sent.outcome, now);
        let unanswered = probes.unanswered();
        let ended = Ended { at: unix_now(), order, sent: &sent, of_client, unanswered };
        let mut row = None;
        self.change(|keeper| {
            keeper.probes.ended(&ended);
            match &sent.outcome {
                Outcome::Answered(_) => keeper.deaths.answered(),
                Outcome::Failed(why) if runner::died(why) => keeper.deaths.add(why, now),
                _ => {}
            }
            row = keeper.probes.last.clone();
        });
        let (result, why) = row.map_or(("", None), |row| (row.result.name(), row.why));
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        match &sent.outcome {
            Outcome::Answered(answered) if before > 0 || answered.reloaded() => {
                log::warn!("{}: it answers a probe{why}", self.model);
            }
            Outcome::Answered(_) | Outcome::Unasked(_) => log::debug!("{}: probe {result}{why}", self.model),
            Outcome::Silent | Outcome::Failed(_) => log::warn!("{}: probe {result}{why}", self.model),
        }
        Some(matches!(&sent.outcome, Outcome::Answered(answered) if !answered.queued()))
    }

    fn must_heal(&self, heal: &mut HealState, look: &Look<'_>) -> bool {
        let fell = self.known(ProbeFacts::fell);
        let room = heal.due(look, fell, self.now());
        room.is_some_and(|bytes| self.prober.gpus().has_room(bytes))
    }

    /// A probe shows first whether a client uses the model: its long answer moves no expiry. False: nothing was done.
    fn heal_unless_used(&self, keeper: &mut KeeperState, tending: &mut Tending, look: &Look<'_>) -> bool {
        let order = tending.probes.order_at_once(look);
        let Some(free) = order.and_then(|order| self.send(keeper, &mut tending.probes, &order)) else { return false };
        let fell = look.status.loaded.is_some_and(|loaded| loaded.vram_bytes > 0);
        // A GPU may have worked for this probe.
        if free && (!fell || self.known(ProbeFacts::fell)) {
            self.heal(keeper, &mut tending.heal, fell);
        } else {
            tending.heal.postponed(self.now());
        }
        true
    }

    /// Unloads the model and loads it again. `fell`: Ollama lists it on a GPU, and none works for it.
    fn heal(&self, keeper: &mut KeeperState, heal: &mut HealState, fell: bool) {
        let found = if fell { "no GPU worked during its probes" } else { "it runs on the CPU" };
        log::warn!("{}: {found} although a GPU has room for it: unloading it to load it again", self.model);
        heal.tried(self.now());
        let healed = self.reload(keeper);
        match &healed {
            Ok(()) => log::warn!("{}: Ollama lists it on a GPU now", self.model),
            Err(why) => log::warn!("{}: unloading it and loading it again did not help: {why}", self.model),
        }
        self.probes(|probes| {
            if healed.is_ok() {
                probes.reloaded();
            }
            probes.gpu_worked = false;
            probes.heals[Heal::Reload as usize][usize::from(healed.is_err())] += 1;
        });
    }

    fn reload(&self, keeper: &mut KeeperState) -> Result<(), String> {
        self.client.unload(&self.model)?;
        let loaded = || Ok::<_, String>(self.client.lists()?.status_of(&self.model).loaded);
        let mut looks = 0;
        while loaded()?.is_some() {
            looks += 1;
            if looks >= UNLOADED {
                return Err("Ollama goes on listing it".into());
            }
            thread::sleep(BETWEEN_LOOKS / self.time_scale);
        }
        keeper.unloaded(self.now());
        self.load(keeper, None);
        match loaded()? {
            Some(loaded) if loaded.vram_bytes > 0 => Ok(()),
            Some(_) => Err("Ollama loaded it on the CPU again".into()),
            None => Err("Ollama did not load it".into()),
        }
    }

    /// What is known of its probes; reading changes no row that others hold.
    pub(super) fn known<T: Default>(&self, read: impl FnOnce(&ProbeFacts) -> T) -> T {
        self.keepers.rows().get(self.at).map(|row| read(&row.probes)).unwrap_or_default()
    }

    fn probes<T>(&self, change: impl FnOnce(&mut ProbeFacts) -> T) -> T
    where
        T: Default,
    {
        let mut result = T::default();
        self.change(|row| result = change(&mut row.probes));
        result
    }
}
