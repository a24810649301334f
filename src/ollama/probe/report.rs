//! What the end of a probe changes in what is known of its model.

use super::answer::{Answered, LEAST_TOKENS, Outcome};
use super::row::{Heal, ProbeFacts, ProbeResult, ProbeRow, RECENT};
use super::speeds::Judgement;
use super::state::{Expiry, Order};
use super::witness::Witness;
use crate::sys::json::millis;
use crate::sys::text::counted;

/// Probes in a row without work on any GPU that are a finding.
const IDLE_PROBES: u32 = 2;

/// A probe that was sent, and what came of it.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) outcome: Outcome,
    pub(crate) witness: Witness,
    pub(crate) judgement: Judgement,
    /// Right after the answer; None: unknown.
    pub(crate) expiry: Option<Expiry>,
}

/// The end of a probe.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    /// Unix seconds.
    pub(crate) at: f64,
    pub(crate) order: &'a Order,
    pub(crate) sent: &'a Sent,
    /// Ollama reloaded for it what a client had loaded with other options.
    pub(crate) of_client: bool,
    /// Probes without an answer in a row, this one included.
    pub(crate) unanswered: u32,
}

impl ProbeFacts {
    pub(crate) fn ended(&mut self, probe: &Ended<'_>) {
        let result = match &probe.sent.outcome {
            Outcome::Answered(_) if probe.sent.judgement.slow.is_some() => ProbeResult::Slow,
            Outcome::Answered(_) => ProbeResult::Ok,
            Outcome::Silent => ProbeResult::Hangs,
            Outcome::Failed(_) => ProbeResult::Failed,
            Outcome::Unasked(_) => ProbeResult::Skipped,
        };
        let mut row = self.row(probe.at, result, why(probe));
        if let Outcome::Answered(answered) = &probe.sent.outcome {
            self.answered(answered, &mut row, probe);
        }
        self.count(result);
        self.unanswered = probe.unanswered;
        self.last = Some(row);
        self.count_heals(probe);
    }

    /// No probe was sent. True: that is new.
    pub(crate) fn skipped(&mut self, why: &str, at: f64) -> bool {
        let same = |row: &ProbeRow| row.result == ProbeResult::Skipped && row.why.as_deref() == Some(why);
        if self.last.as_ref().is_some_and(same) {
            return false;
        }
        // The reasons that change by the second are one.
        let was_skipped = self.last.as_ref().is_some_and(|row| row.result == ProbeResult::Skipped);
        self.last = Some(self.row(at, ProbeResult::Skipped, Some(why.to_owned())));
        if !was_skipped {
            self.count(ProbeResult::Skipped);
        }
        !was_skipped
    }

    /// It runs on other hardware now, or no longer: what GPUs did during its probes says nothing.
    pub(crate) fn reloaded(&mut self) {
        (self.idle_probes, self.idle_gpus) = (0, None);
    }

    /// Ollama no longer has the model: nothing that was found is current.
    pub(crate) fn forget(&mut self) {
        self.reloaded();
        (self.unanswered, self.slow) = (0, None);
    }

    /// What stays from the last answer.
    fn row(&self, at: f64, result: ProbeResult, why: Option<String>) -> ProbeRow {
        let row = self.last.clone().unwrap_or_else(ProbeRow::empty);
        ProbeRow { at: millis(at), result, why, ..row }
    }

    fn answered(&mut self, answered: &Answered, row: &mut ProbeRow, probe: &Ended<'_>) {
        let whole = |time: std::time::Duration| u64::try_from(time.as_millis()).ok();
        row.answered_at = Some(row.at);
        row.tokens_per_second = answered.tokens_per_second().map(tenths);
        row.load_ms = whole(answered.load);
        row.queue_ms = whole(answered.queue());
        row.gpu_utilization_percent = probe.sent.witness.percent();
        row.usual_tokens_per_second = probe.sent.judgement.usual.map(tenths);
        if let Some(speed) = row.tokens_per_second.filter(|_| answered.is_measured()) {
            self.recent.push(speed);
            let surplus = self.recent.len().saturating_sub(RECENT);
            self.recent.drain(..surplus);
        }
        self.slow = probe.sent.judgement.slow;
        self.tokens += answered.tokens_read + answered.tokens_written;
        let busy = u64::try_from(answered.busy().as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns = self.busy_ns.saturating_add(busy);
        if answered.reloaded() {
            self.reloaded();
        }
        match &probe.sent.witness {
            Witness::Worked { .. } => {
                self.reloaded();
                self.gpu_worked = true;
            }
            Witness::Idle { clause, .. } if probe.order.loaded.on_gpu => {
                self.idle_probes += 1;
                self.idle_gpus = (self.idle_probes >= IDLE_PROBES).then(|| clause.clone());
            }
            Witness::Idle { .. } | Witness::Unknown => {}
        }
    }

    fn count(&mut self, result: ProbeResult) {
        self.counts[result as usize] += 1;
    }

    fn count_heals(&mut self, probe: &Ended<'_>) {
        let healed = match &probe.sent.outcome {
            Outcome::Answered(answered) => (answered.reloaded() && !probe.of_client).then_some(true),
            _ => probe.order.patient.then_some(false),
        };
        if let Some(healed) = healed {
            self.heals[Heal::Runner as usize][usize::from(!healed)] += 1;
        }
    }
}

impl ProbeRow {
    pub(crate) fn empty() -> Self {
        Self {
            at: 0.0,
            result: ProbeResult::Skipped,
            why: None,
            answered_at: None,
            tokens_per_second: None,
            load_ms: None,
            queue_ms: None,
            gpu_utilization_percent: None,
            usual_tokens_per_second: None,
        }
    }
}

/// What the result alone does not say.
fn why(probe: &Ended<'_>) -> Option<String> {
    let answered = match &probe.sent.outcome {
        Outcome::Answered(answered) => answered,
        Outcome::Silent => return Some(format!("no answer within {} s", probe.order.timeout.as_secs())),
        Outcome::Failed(why) | Outcome::Unasked(why) => return Some(why.clone()),
    };
    let seconds = answered.load.as_secs_f64();
    if answered.reloaded() && probe.of_client {
        return Some(format!(
            "Ollama reloaded it for the probe ({seconds:.1} s): a client uses other options, or its runner had died. It is not probed for a day"
        ));
    }
    if answered.reloaded() {
        return Some(format!("its runner had died or hung: Ollama started another one in {seconds:.1} s"));
    }
    if let Some((median, best)) = probe.sent.judgement.slow {
        return Some(format!("the median of the last five is {median:.1} tokens/s, the best one {best:.1}"));
    }
    if answered.queued() {
        let queue = answered.queue().as_secs_f64();
        return Some(format!("it waited {queue:.1} s for other requests: its speed does not count"));
    }
    let few = !answered.embedding && answered.tokens_written < LEAST_TOKENS;
    few.then(|| {
        let tokens = counted(answered.tokens_written, "token");
        format!("an answer of {tokens} is too short to measure its speed")
    })
}

/// With one decimal.
pub(crate) fn tenths(speed: f64) -> f64 {
    (speed * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests;
