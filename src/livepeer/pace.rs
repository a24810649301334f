//! No orchestrator is asked more than once a second, although each of its two registries has a thread of its own. Of
//! two that wait, the one that has been due for longer goes first. Time is an argument.

use std::time::Duration;

/// Between the beginnings of two requests.
const APART: Duration = Duration::from_secs(1);
/// For the thread that is to go first: it wakes at the same moment.
const BEAT: Duration = Duration::from_millis(20);

/// A registry of an orchestrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Byoc,
    Runner,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Byoc => Self::Runner,
            Self::Runner => Self::Byoc,
        }
    }
}

/// When the next request may begin, and since when each side waits for that.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    free: Duration,
    waiting: [Option<Duration>; 2],
}

impl Pace {
    /// Takes the turn for what has been due since `due`.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub(crate) fn take(&mut self, side: Side, now: Duration, due: Duration) -> Result<(), Duration> {
        self.waiting[side as usize] = Some(due);
        if now < self.free {
            return Err(self.free - now);
        }
        // Whoever has not come by then does not wait any more.
        let first = self.waiting[side.other() as usize].filter(|_| now < self.free + APART);
        if first.is_some_and(|first| first < due) {
            return Err(BEAT);
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
        assert_eq!(pace.take(Side::Byoc, ms(5000), ms(5000)), Ok(()));
        assert_eq!(pace.take(Side::Runner, ms(5000), ms(5000)), Err(ms(1000)));
        assert_eq!(pace.take(Side::Byoc, ms(5900), ms(5900)), Err(ms(100)));
        assert_eq!(pace.take(Side::Runner, ms(6000), ms(5000)), Ok(()));
    }

    #[test]
    fn the_longest_due_goes_first_but_is_not_waited_for_without_end() {
        let mut pace = Pace::default();
        assert_eq!(pace.take(Side::Runner, ms(5000), ms(5000)), Ok(()));
        assert_eq!(pace.take(Side::Byoc, ms(5100), ms(5050)), Err(ms(900)));
        assert_eq!(pace.take(Side::Runner, ms(6000), ms(5900)), Err(BEAT));
        assert_eq!(pace.take(Side::Byoc, ms(6005), ms(5050)), Ok(()));
        assert_eq!(pace.take(Side::Byoc, ms(6100), ms(6100)), Err(ms(905)));
        assert_eq!(pace.take(Side::Runner, ms(7005), ms(6200)), Err(BEAT));
        // It has given up waiting without a word.
        assert_eq!(pace.take(Side::Runner, ms(8005), ms(6200)), Ok(()));
    }

    #[test]
    fn many_names_leave_turns_for_the_beats() {
        let (mut pace, mut turns) = (Pace::default(), Vec::new());
        let mut beat_due = ms(0);
        for step in 0..1000 {
            let now = ms(step * 20);
            // There is always a name that has just become due; a beat is due each 5 s.
            if now >= beat_due && pace.take(Side::Runner, now, beat_due).is_ok() {
                (beat_due, _) = (now + ms(5000), turns.push(now));
            }
            let _ = pace.take(Side::Byoc, now, now);
        }
        assert_eq!(turns.len(), 4, "{turns:?}");
    }
}
