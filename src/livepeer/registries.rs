//! Which registries an orchestrator has and how the worker is listed there, as one message, logged at each change. A
//! missing answer changes nothing.

use super::pace::Registry;
use crate::config::{Protocol, RunnerConfig};

/// What is known about one registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegistryStatus {
    /// Not asked yet.
    Unknown,
    /// Asked, without a clear answer.
    Unclear,
    Absent,
    /// It is there and rejects the worker.
    Refused,
    Visible,
    /// ORCH_PROTOCOL or WORKER_TOKEN keeps the worker away from it.
    Off,
}

impl RegistryStatus {
    fn is_clear(self) -> bool {
        matches!(self, Self::Absent | Self::Refused | Self::Visible)
    }
}

/// What is known about the two registries of an orchestrator.
#[derive(Debug)]
pub(crate) struct KnownRegistries {
    found: [RegistryStatus; 2],
    logged: [RegistryStatus; 2],
}

impl KnownRegistries {
    pub(crate) fn new(protocol: Protocol, with_token: bool) -> Self {
        let on = |used: bool| if used { RegistryStatus::Unknown } else { RegistryStatus::Off };
        let found = [on(protocol != Protocol::LiveRunner), on(protocol.uses_runners(with_token))];
        Self { found, logged: found }
    }

    /// True when the other registry should be asked again: neither had given a clear answer, and now this one does. Only the
    /// first clear answer counts: otherwise the other registry's retries would never slow down.
    pub(crate) fn see(&mut self, registry: Registry, found: RegistryStatus) -> bool {
        let (own, other) = (registry as usize, registry.other() as usize);
        if found == RegistryStatus::Unclear && self.found[own] != RegistryStatus::Unknown {
            return false;
        }
        let before = std::mem::replace(&mut self.found[own], found);
        let again = found.is_clear() && !before.is_clear() && self.found[other] == RegistryStatus::Unclear;
        if again {
            self.found[other] = RegistryStatus::Unknown;
        }
        again
    }

    /// The registry is there, whether or not it accepts the worker.
    pub(crate) fn is_there(&self, registry: Registry) -> bool {
        matches!(self.found[registry as usize], RegistryStatus::Visible | RegistryStatus::Refused)
    }

    /// The message if it is due, and whether the worker is visible. `names`: the registered ones.
    pub(crate) fn news(&mut self, url: &str, names: &[String], runner: &RunnerConfig) -> Option<(bool, String)> {
        let settled = self.found.iter().all(|found| *found != RegistryStatus::Unknown);
        if !settled || !self.found.iter().any(|found| found.is_clear()) || self.logged == self.found {
            return None;
        }
        self.logged = self.found;
        let visible = self.found.contains(&RegistryStatus::Visible);
        Some((visible, self.sentence(url, names, runner)))
    }

    fn sentence(&self, url: &str, names: &[String], runner: &RunnerConfig) -> String {
        let [byoc, live] = self.found;
        let has = |what: &str, found: RegistryStatus| match found {
            RegistryStatus::Visible => Some(format!("has {what}")),
            RegistryStatus::Refused => Some(format!("has {what}, which rejects it")),
            RegistryStatus::Absent => Some(format!("has no {what}")),
            RegistryStatus::Unclear => Some(format!("may have {what} (no clear answer)")),
            RegistryStatus::Unknown | RegistryStatus::Off => None,
        };
        let has = [has("BYOC", byoc), has("Live Runner", live)];
        let has: Vec<String> = has.into_iter().flatten().collect();
        let mut places = Vec::new();
        // An unhealthy worker may have no name registered.
        if byoc == RegistryStatus::Visible && !names.is_empty() {
            places.push(format!("BYOC capability {}", names.join(", ")));
        }
        if live == RegistryStatus::Visible {
            places.push(format!("Live Runner {} of app {} (GET /discovery)", runner.id, runner.app));
        }
        let place = match places.is_empty() {
            true => "not visible".to_owned(),
            false => format!("visible as {}", places.join(" and as ")),
        };
        let why = match (byoc, live) {
            (RegistryStatus::Absent, RegistryStatus::Absent | RegistryStatus::Off) => {
                ". ORCH_URL must be an orchestrator's service address (404 to /capability/register)"
            }
            (RegistryStatus::Visible, RegistryStatus::Absent) => {
                ". For call_runner of Livepeer's SDK, start it with -useLiveRunners and -orchSecret"
            }
            _ => "",
        };
        let and = if byoc == RegistryStatus::Refused { ", and " } else { " and " };
        format!("{url} {}: this worker is {place}{why}", has.join(and))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner() -> RunnerConfig {
        RunnerConfig { id: "nyc".into(), app: "agent-net/gpu-check".into(), price: None, named: false }
    }

    fn news(known: &mut KnownRegistries) -> String {
        known.news("http://o", &["a".into(), "b".into()], &runner()).map_or_else(String::new, |(_, text)| text)
    }

    #[test]
    fn it_is_logged_once_both_have_answered_and_at_each_change() {
        let mut known = KnownRegistries::new(Protocol::Auto, false);
        assert!(!known.see(Registry::Byoc, RegistryStatus::Visible));
        assert_eq!(news(&mut known), "");
        known.see(Registry::Runner, RegistryStatus::Absent);
        let alone = news(&mut known);
        assert!(alone.starts_with(
            "http://o has BYOC and has no Live Runner: this worker is visible as BYOC capability a, b. For"
        ));
        assert!(alone.contains("-useLiveRunners"), "{alone}");
        // A missing answer changes nothing.
        for found in [RegistryStatus::Unclear, RegistryStatus::Absent] {
            known.see(Registry::Runner, found);
            assert_eq!(news(&mut known), "");
        }
        known.see(Registry::Runner, RegistryStatus::Visible);
        let both = "http://o has BYOC and has Live Runner: this worker is visible as BYOC capability a, b and as Live Runner nyc of app agent-net/gpu-check (GET /discovery)";
        assert_eq!(news(&mut known), both);
        known.see(Registry::Byoc, RegistryStatus::Refused);
        let refused = news(&mut known);
        assert!(
            refused
                .contains("has BYOC, which rejects it, and has Live Runner: this worker is visible as Live Runner nyc"),
            "{refused}"
        );
    }

    #[test]
    fn an_orchestrator_that_was_away_is_asked_for_both_again() {
        let mut known = KnownRegistries::new(Protocol::Auto, false);
        known.see(Registry::Byoc, RegistryStatus::Unclear);
        known.see(Registry::Runner, RegistryStatus::Unclear);
        assert_eq!(news(&mut known), "", "that was logged already");
        assert!(known.see(Registry::Byoc, RegistryStatus::Visible));
        assert_eq!((news(&mut known), known.found[1]), (String::new(), RegistryStatus::Unknown));
        known.see(Registry::Runner, RegistryStatus::Unclear);
        assert!(news(&mut known).contains("may have Live Runner (no clear answer)"));
        // One that never answers clearly keeps its own waits.
        for _ in 0..3 {
            assert!(!known.see(Registry::Byoc, RegistryStatus::Visible));
            known.see(Registry::Runner, RegistryStatus::Unclear);
        }
        known.see(Registry::Runner, RegistryStatus::Visible);
        assert!(news(&mut known).contains("visible as BYOC capability a, b and as Live Runner nyc"));
    }

    #[test]
    fn a_registry_that_is_off_is_not_mentioned() {
        let mut known = KnownRegistries::new(Protocol::Auto, true);
        known.see(Registry::Byoc, RegistryStatus::Absent);
        let (visible, text) = known.news("http://o", &[], &runner()).unwrap();
        assert!(!visible && text.starts_with("http://o has no BYOC: this worker is not visible. ORCH_URL"), "{text}");
        let mut known = KnownRegistries::new(Protocol::LiveRunner, false);
        known.see(Registry::Runner, RegistryStatus::Refused);
        assert_eq!(news(&mut known), "http://o has Live Runner, which rejects it: this worker is not visible");
    }
}
