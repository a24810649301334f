//! At most one request per second to an orchestrator, although each of its two registries has its own thread. Of two that
//! wait, the one that has been due longer goes first. Time is an argument.

use std::time::Duration;

/// Between the starts of two requests.
const APART: Duration = Duration::from_secs(1);
/// Time for the thread that goes first, which wakes at the same moment.
const MOMENT: Duration = Duration::from_millis(20);

/// One of an orchestrator's registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registry {
    Byoc,
    Runner,
}

impl Registry {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Byoc => Self::Runner,
            Self::Runner => Self::Byoc,
        }
    }
}

/// When the next request may start, and since when each registry waits for it.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    free: Duration,
    waiting: [Option<Duration>; 2],
}

impl Pace {
    /// Takes the turn for a request due since `due`.
    ///
    /// # Errors
    /// How long to wait.
    pub(crate) fn take(&mut self, registry: Registry, now: Duration, due: Duration) -> Result<(), Duration> {
        self.waiting[registry as usize] = Some(due);
        if now < self.free {
            return Err(self.free - now);
        }
        let first = self.waiting[registry.other() as usize].filter(|_| now < self.free + APART);
        if first.is_some_and(|first| first < due) {
            return Err(MOMENT);
        }
        self.waiting = [None; 2];
        self.free = now + APART;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn requests_are_a_second_apart_whoever_makes_them() {
        let mut pace = Pace::default();
        assert_eq!(pace.take(Registry::Byoc, ms(5000), ms(5000)), Ok(()));
        assert_eq!(pace.take(Registry::Runner, ms(5000), ms(5000)), Err(ms(1000)));
        assert_eq!(pace.take(Registry::Byoc, ms(5900), ms(5900)), Err(ms(100)));
        assert_eq!(pace.take(Registry::Runner, ms(6000), ms(5000)), Ok(()));
    }

    #[test]
    fn the_longest_due_goes_first_but_is_not_waited_for_indefinitely() {
        let mut pace = Pace::default();
        assert_eq!(pace.take(Registry::Runner, ms(5000), ms(5000)), Ok(()));
        assert_eq!(pace.take(Registry::Byoc, ms(5100), ms(5050)), Err(ms(900)));
        assert_eq!(pace.take(Registry::Runner, ms(6000), ms(5900)), Err(MOMENT));
        assert_eq!(pace.take(Registry::Byoc, ms(6005), ms(5050)), Ok(()));
        assert_eq!(pace.take(Registry::Byoc, ms(6100), ms(6100)), Err(ms(905)));
        assert_eq!(pace.take(Registry::Runner, ms(7005), ms(6200)), Err(MOMENT));
        // It no longer waits.
        assert_eq!(pace.take(Registry::Runner, ms(8005), ms(6200)), Ok(()));
    }

    #[test]
    fn many_names_leave_turns_for_the_beats() {
        let (mut pace, mut turns) = (Pace::default(), Vec::new());
        let mut beat_due = ms(0);
        for step in 0..1000 {
            let now = ms(step * 20);
            // There is always a name that has just become due; a beat is due each 5 s.
            if now >= beat_due && pace.take(Registry::Runner, now, beat_due).is_ok() {
                (beat_due, _) = (now + ms(5000), turns.push(now));
            }
            let _ = pace.take(Registry::Byoc, now, now);
        }
        assert_eq!(turns.len(), 4, "{turns:?}");
    }
}
