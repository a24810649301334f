//! The last answers of name look-ups. Time is an argument.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// More than the settings of one worker name; the least recently used one makes room.
const MOST_NAMES: usize = 64;
/// ureq has room for this many addresses of a name.
const MOST_ADDRESSES: usize = 16;
/// How long a caller waits that could use the addresses of an earlier look-up.
pub(super) const WITH_ADDRESSES: Duration = Duration::from_secs(1);
/// A look-up that takes longer may never return: the next caller starts another.
const SLOW: Duration = Duration::from_secs(2);

/// Look-ups of one name under way: a name whose DNS server is dead leaves room for the others.
const MOST_OF_ONE: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Cache {
    /// Least recently used first.
    entries: Vec<Entry>,
    /// The number of the next look-up, over all names.
    next: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// `host:port`.
    name: String,
    /// Those that the newest look-up with a result returned.
    addresses: Vec<SocketAddr>,
    /// Which look-up that was.
    from: u64,
    /// The newest look-up under way, and when it began.
    asked: Option<(u64, Instant)>,
    /// Look-ups that have not returned.
    under_way: usize,
    /// Look-ups that have returned.
    heard: u64,
    /// Why the last of them failed.
    failure: Option<String>,
    failure_logged: bool,
}

impl Cache {
    fn entry(&mut self, name: &str) -> &mut Entry {
        let entry = match self.entries.iter().position(|entry| entry.name == name) {
            Some(at) => self.entries.remove(at),
            None => {
                if self.entries.len() >= MOST_NAMES {
                    self.entries.remove(0);
                }
                Entry { name: name.to_owned(), ..Entry::default() }
            }
        };
        self.entries.push(entry);
        let last = self.entries.len() - 1;
        &mut self.entries[last]
    }

    /// How many look-ups of the name have returned, and the last addresses.
    pub(super) fn heard(&mut self, name: &str) -> (u64, Vec<SocketAddr>) {
        let entry = self.entry(name);
        (entry.heard, entry.addresses.clone())
    }

    /// Why the last look-up that returned failed.
    pub(super) fn failure(&mut self, name: &str) -> Option<String> {
        self.entry(name).failure.clone()
    }

    /// The number of the look-up to make now; None: one is under way.
    pub(super) fn ask(&mut self, name: &str, now: Instant) -> Option<u64> {
        let next = self.next;
        let entry = self.entry(name);
        let recent = entry.asked.is_some_and(|(_, begun)| now.saturating_duration_since(begun) < SLOW);
        if recent || entry.under_way >= MOST_OF_ONE {
            return None;
        }
        entry.under_way += 1;
        entry.asked = Some((next, now));
        self.next += 1;
        Some(next)
    }

    /// Look-up `number` has returned. True: it ends a failure that was logged; a late answer does not.
    pub(super) fn answer(
        &mut self,
        name: &str,
        number: u64,
        answer: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) -> bool {
        let entry = self.entry(name);
        entry.heard += 1;
        // A forgotten name has a new entry.
        entry.under_way = entry.under_way.saturating_sub(1);
        let in_time = entry.asked.is_some_and(|(asked, begun)| asked == number && now < begun + WITH_ADDRESSES);
        entry.asked = entry.asked.filter(|(asked, _)| *asked != number);
        match answer {
            Ok(mut addresses) => {
                if entry.addresses.is_empty() || number >= entry.from {
                    addresses.truncate(MOST_ADDRESSES);
                    (entry.addresses, entry.from) = (addresses, number);
                }
                entry.failure = None;
                in_time && std::mem::take(&mut entry.failure_logged)
            }
            Err(why) => {
                entry.failure = Some(why);
                false
            }
        }
    }

    /// Whether a failure is to be logged: the first one since a look-up succeeded.
    pub(super) fn log_failure(&mut self, name: &str) -> bool {
        !std::mem::replace(&mut self.entry(name).failure_logged, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([10, 0, 0, last], 11434))]
    }

    #[test]
    fn one_look_up_at_a_time_until_it_is_slow() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let first = cache.ask("a:1", now).unwrap();
        assert_eq!(cache.ask("a:1", now + Duration::from_secs(1)), None);
        assert!(cache.ask("b:1", now).is_some(), "each name has its own");
        let second = cache.ask("a:1", now + SLOW).unwrap();
        // The first of them is late, and does not put back what the second found.
        cache.answer("a:1", second, Ok(at(2)), now);
        cache.answer("a:1", first, Ok(at(1)), now);
        assert_eq!(cache.heard("a:1"), (2, at(2)));
        assert!(cache.ask("a:1", now + SLOW).is_some(), "nothing is under way");
    }

    #[test]
    fn a_name_that_never_answers_leaves_room_for_others() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let asked: Vec<u64> = (0..10).filter_map(|n| cache.ask("a:1", now + SLOW * n)).collect();
        assert_eq!(asked.len(), MOST_OF_ONE);
        cache.answer("a:1", asked[0], Err("late".into()), now);
        assert!(cache.ask("a:1", now + SLOW * 20).is_some() && cache.ask("a:1", now + SLOW * 30).is_none());
    }

    #[test]
    fn addresses_outlive_failures_and_follow_the_name() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let answer = |cache: &mut Cache, answer| {
            let number = cache.ask("a:1", now).unwrap();
            cache.answer("a:1", number, answer, now)
        };
        assert!(!answer(&mut cache, Ok(at(1))));
        assert!(!answer(&mut cache, Err("no".into())));
        assert_eq!((cache.failure("a:1").as_deref(), cache.heard("a:1").1), (Some("no"), at(1)));
        assert!(cache.log_failure("a:1") && !cache.log_failure("a:1"), "once for each outage");
        assert!(answer(&mut cache, Ok(at(2))), "the outage that was logged has ended");
        assert_eq!((cache.failure("a:1"), cache.heard("a:1").1), (None, at(2)));
        assert!(!answer(&mut cache, Ok(at(2))));
        // An answer that is late each time is not worth two lines each time.
        assert!(cache.log_failure("a:1"));
        let number = cache.ask("a:1", now).unwrap();
        assert!(!cache.answer("a:1", number, Ok(at(3)), now + WITH_ADDRESSES) && !cache.log_failure("a:1"));
        assert_eq!(cache.heard("a:1").1, at(3));
    }

    #[test]
    fn it_is_bounded() {
        let mut cache = Cache::default();
        let now = Instant::now();
        for name in (0..1000).map(|n| format!("n{n}:1")) {
            let number = cache.ask(&name, now).unwrap();
            cache.answer(&name, number, Ok(at(1).repeat(100)), now);
            assert_eq!(cache.heard("n0:1").1.len(), MOST_ADDRESSES, "what is in use stays");
        }
        assert_eq!(cache.entries.len(), MOST_NAMES);
    }
}
