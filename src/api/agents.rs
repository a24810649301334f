//! Agents that have sent jobs: a bounded table, by the name that they give themselves.

use std::collections::HashMap;

use crate::sys::order;
use serde::Serialize;

/// Most agents that are kept: a new one replaces the one whose last job is the oldest.
pub(crate) const MAX_AGENTS: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Agent {
    jobs: u64,
    /// Unix seconds of the first job.
    first_seen: f64,
    /// Unix seconds of the last job.
    last_seen: f64,
    /// Order of the last jobs: the clock may step.
    turn: u64,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Agents {
    all: HashMap<String, Agent>,
    turn: u64,
    forgotten: u64,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Agent"))]
pub(crate) struct AgentRow<'a> {
    agent_id: &'a str,
    jobs: u64,
    /// Unix seconds of the first job.
    first_seen: f64,
    /// Unix seconds of the last job.
    last_seen: f64,
}

impl Agents {
    /// One job of `id` at `now` (Unix seconds).
    pub(crate) fn see(&mut self, id: &str, now: f64) {
        self.turn += 1;
        let turn = self.turn;
        if let Some(agent) = self.all.get_mut(id) {
            *agent = Agent { jobs: agent.jobs + 1, last_seen: now, turn, ..*agent };
            return;
        }
        if self.all.len() >= MAX_AGENTS {
            let oldest = self.all.iter().min_by_key(|(_, agent)| agent.turn).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.all.remove(&id));
            self.forgotten += 1;
        }
        self.all.insert(id.to_owned(), Agent { jobs: 1, first_seen: now, last_seen: now, turn });
    }

    /// Those kept, the latest first.
    pub(crate) fn rows(&self) -> Vec<AgentRow<'_>> {
        let mut all: Vec<(&String, &Agent)> = self.all.iter().collect();
        order::sort_by_key(&mut all, |(_, agent)| std::cmp::Reverse(agent.turn));
        all.into_iter()
            .map(|(id, agent)| AgentRow {
                agent_id: id,
                jobs: agent.jobs,
                first_seen: agent.first_seen,
                last_seen: agent.last_seen,
            })
            .collect()
    }

    /// Agents that were dropped to make room for others.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[test]
fn the_table_is_bounded_and_forgets_the_most_silent() {
    let mut agents = Agents::default();
    for i in 0..MAX_AGENTS {
        agents.see(&format!("a{i}"), i as f64);
    }
    agents.see("a0", 5000.0);
    agents.see("new", 1.0);
    let rows = agents.rows();
    assert_eq!((rows.len(), agents.forgotten()), (MAX_AGENTS, 1));
    assert_eq!((rows[0].agent_id, rows[1].agent_id, rows[1].jobs), ("new", "a0", 2));
    assert!(!rows.iter().any(|row| row.agent_id == "a1"));
}
