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
        if look.as_ref().is_none_or(|look| look.status.loaded.is_none()) {
            self.probes(ProbeFacts::reloaded);
        }
        let tended = look.as_ref().filter(|_| self.probe.interval.is_some());
        if tended.is_some_and(|look| self.must_heal(&mut tending.heal, look)) {
            self.heal(keeper, &mut tending.heal);
            return true;
        }
        match tending.probes.next(look.as_ref(), || self.prober.gpus().busy(), self.now()) {
            ProbeNext::Wait => false,
            ProbeNext::Skip(why) => {
                if self.probes(|probes| probes.skipped(&why, unix_now())) {
                    log::debug!("{}: not probed: {why}", self.model);
                }
                false
            }
            ProbeNext::Send(order) => self.send(keeper, &mut tending.probes, &order),
        }
    }

    /// False: another model is being probed.
    fn send(&self, keeper: &mut KeeperState, probes: &mut ProbeState, order: &Order) -> bool {
        let Some(sent) = self.prober.send(&self.client, &self.model, order) else { return false };
        let now = self.now();
        let of_client = match &sent.outcome {
            Outcome::Answered(answered) => keeper.probed(answered, now),
            _ => false,
        };
        let before = probes.unanswered();
        probes.ended(&sent.outcome, now);
        let unanswered = probes.unanswered();
        let ended = Ended { at: unix_now(), order, sent: &sent, of_client, unanswered };
        let row = self.probes(|facts| {
            facts.ended(&ended);
            facts.last.clone()
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
        true
    }

    fn must_heal(&self, heal: &mut HealState, look: &Look<'_>) -> bool {
        let fell = self.probes(|probes| probes.fell());
        let room = heal.due(look, fell, self.now());
        room.is_some_and(|bytes| self.prober.gpus().has_room(bytes))
    }

    /// Unloads the model and loads it again.
    fn heal(&self, keeper: &mut KeeperState, heal: &mut HealState) {
        log::warn!("{}: it runs on the CPU although a GPU has room for it: unloading it to load it again", self.model);
        heal.tried(self.now());
        let healed = self.reload(keeper);
        match &healed {
            Ok(()) => log::warn!("{}: it runs on a GPU again", self.model),
            Err(why) => log::warn!("{}: unloading it and loading it again did not help: {why}", self.model),
        }
        self.probes(|probes| {
            probes.reloaded();
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

    fn probes<T>(&self, change: impl FnOnce(&mut ProbeFacts) -> T) -> T
    where
        T: Default,
    {
        let mut result = T::default();
        self.change(|row| result = change(&mut row.probes));
        result
    }
}
