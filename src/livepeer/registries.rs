//! Which registries an orchestrator has, and where the worker can be found there: one sentence, said once and again when
//! it changes. An answer that does not come changes nothing, since nobody knows what it would have been.

use super::pace::Side;
use crate::config::{Protocol, RunnerConfig};

/// What is known of one registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Not asked yet.
    Unknown,
    /// Asked, without an answer that says anything.
    Unclear,
    Absent,
    /// It is there and does not take the worker.
    Refused,
    Visible,
    /// ORCH_PROTOCOL or WORKER_TOKEN keeps the worker away from it.
    Off,
}

impl Found {
    fn is_clear(self) -> bool {
        matches!(self, Self::Absent | Self::Refused | Self::Visible)
    }
}

/// What is known of the two registries of an orchestrator.
#[derive(Debug)]
pub(crate) struct Sight {
    found: [Found; 2],
    said: [Found; 2],
}

impl Sight {
    pub(crate) fn new(protocol: Protocol, with_token: bool) -> Self {
        let on = |used: bool| if used { Found::Unknown } else { Found::Off };
        let found = [on(protocol != Protocol::LiveRunner), on(protocol.uses_runners(with_token))];
        Self { found, said: found }
    }

    /// True when the other side is to be asked again: neither gave a clear answer before, and now this one does. Later
    /// answers do not count: the other one would never wait longer between its tries.
    pub(crate) fn see(&mut self, side: Side, found: Found) -> bool {
        let (own, other) = (side as usize, side.other() as usize);
        if found == Found::Unclear && self.found[own] != Found::Unknown {
            return false;
        }
        let before = std::mem::replace(&mut self.found[own], found);
        let again = found.is_clear() && !before.is_clear() && self.found[other] == Found::Unclear;
        if again {
            self.found[other] = Found::Unknown;
        }
        again
    }

    /// The registry is there, whether or not it takes the worker.
    pub(crate) fn is_there(&self, side: Side) -> bool {
        matches!(self.found[side as usize], Found::Visible | Found::Refused)
    }

    /// The sentence, if it is due. `names`: the registered ones.
    pub(crate) fn news(&mut self, url: &str, names: &[String], runner: &RunnerConfig) -> Option<(bool, String)> {
        let settled = self.found.iter().all(|found| *found != Found::Unknown);
        if !settled || !self.found.iter().any(|found| found.is_clear()) || self.said == self.found {
            return None;
        }
        self.said = self.found;
        let visible = self.found.contains(&Found::Visible);
        Some((visible, self.sentence(url, names, runner)))
    }

    fn sentence(&self, url: &str, names: &[String], runner: &RunnerConfig) -> String {
        let [byoc, live] = self.found;
        let has = |what: &str, found: Found| match found {
            Found::Visible => Some(format!("has {what}")),
            Found::Refused => Some(format!("has {what}, which refuses it")),
            Found::Absent => Some(format!("has no {what}")),
            Found::Unclear => Some(format!("does not say whether it has {what}")),
            Found::Unknown | Found::Off => None,
        };
        let has = [has("BYOC", byoc), has("Live Runner", live)];
        let has: Vec<String> = has.into_iter().flatten().collect();
        let mut places = Vec::new();
        // None is registered while an unhealthy worker stays out.
        if byoc == Found::Visible && !names.is_empty() {
            places.push(format!("BYOC capability {}", names.join(", ")));
        }
        if live == Found::Visible {
            places.push(format!("Live Runner {} of app {} (GET /discovery)", runner.id, runner.app));
        }
        let place = match places.is_empty() {
            true => "visible nowhere".to_owned(),
            false => format!("visible as {}", places.join(" and as ")),
        };
        let why = match (byoc, live) {
            (Found::Absent, Found::Absent | Found::Off) => {
                "; ORCH_URL must name an orchestrator's service address (404 to /capability/register)"
            }
            (Found::Visible, Found::Absent) => {
                "; call_runner of Livepeer's SDK needs -useLiveRunners and -orchSecret there"
            }
            _ => "",
        };
        format!("{url} {}: this worker is {place}{why}", has.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner() -> RunnerConfig {
        RunnerConfig { id: "nyc".into(), app: "agent-net/gpu-check".into(), price: None, named: false }
    }

    fn news(sight: &mut Sight) -> String {
        sight.news("http://o", &["a".into(), "b".into()], &runner()).map_or_else(String::new, |(_, text)| text)
    }

    #[test]
    fn it_is_said_once_both_have_answered_and_when_that_changes() {
        let mut sight = Sight::new(Protocol::Auto, false);
        assert!(!sight.see(Side::Byoc, Found::Visible));
        assert_eq!(news(&mut sight), "");
        sight.see(Side::Runner, Found::Absent);
        let alone = news(&mut sight);
        assert!(
            alone.starts_with(
                "http://o has BYOC and has no Live Runner: this worker is visible as BYOC capability a, b;"
            )
        );
        assert!(alone.contains("-useLiveRunners"), "{alone}");
        // What does not answer is as it was.
        for found in [Found::Unclear, Found::Absent] {
            sight.see(Side::Runner, found);
            assert_eq!(news(&mut sight), "");
        }
        sight.see(Side::Runner, Found::Visible);
        let both = "http://o has BYOC and has Live Runner: this worker is visible as BYOC capability a, b and as Live Runner nyc of app agent-net/gpu-check (GET /discovery)";
        assert_eq!(news(&mut sight), both);
        sight.see(Side::Byoc, Found::Refused);
        assert!(news(&mut sight).contains("visible as Live Runner nyc"));
    }

    #[test]
    fn an_orchestrator_that_was_away_is_asked_for_both_again() {
        let mut sight = Sight::new(Protocol::Auto, false);
        sight.see(Side::Byoc, Found::Unclear);
        sight.see(Side::Runner, Found::Unclear);
        assert_eq!(news(&mut sight), "", "that is in the log already");
        assert!(sight.see(Side::Byoc, Found::Visible));
        assert_eq!((news(&mut sight), sight.found[1]), (String::new(), Found::Unknown));
        sight.see(Side::Runner, Found::Unclear);
        assert!(news(&mut sight).contains("does not say whether it has Live Runner"));
        // One that never answers clearly is left to its own waits.
        for _ in 0..3 {
            assert!(!sight.see(Side::Byoc, Found::Visible));
            sight.see(Side::Runner, Found::Unclear);
        }
        sight.see(Side::Runner, Found::Visible);
        assert!(news(&mut sight).contains("visible as BYOC capability a, b and as Live Runner nyc"));
    }

    #[test]
    fn what_is_off_is_not_spoken_of() {
        let mut sight = Sight::new(Protocol::Auto, true);
        sight.see(Side::Byoc, Found::Absent);
        let (visible, text) = sight.news("http://o", &[], &runner()).unwrap();
        assert!(
            !visible && text.starts_with("http://o has no BYOC: this worker is visible nowhere; ORCH_URL"),
            "{text}"
        );
        let mut sight = Sight::new(Protocol::LiveRunner, false);
        sight.see(Side::Runner, Found::Refused);
        assert_eq!(news(&mut sight), "http://o has Live Runner, which refuses it: this worker is visible nowhere");
    }
}
