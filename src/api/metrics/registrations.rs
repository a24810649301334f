//! The registrations at the orchestrators.

use crate::livepeer::lease::{RegistrationRow, RegistrationState};
use crate::sys::exposition::{Exposition, Family, counter, flag, gauge, metrics};

metrics! {
    REGISTRATION = gauge(
        "agent_net_registration", &["orchestrator", "capability", "protocol"],
        "1 while the orchestrator accepts the registration, as far as known."
    );
    STATE = gauge(
        "agent_net_registration_state", &["orchestrator", "capability", "protocol", "state"], "1 for the current state."
    );
    LAST_SUCCESS = gauge(
        "agent_net_registration_last_success_timestamp_seconds", &["orchestrator", "capability", "protocol"],
        "Unix time of the last accepted registration."
    );
    RENEWALS = counter(
        "agent_net_registration_renewals_total", &["orchestrator", "capability", "protocol"], "Accepted renewals."
    );
    FAILURES = counter(
        "agent_net_registration_failures_total", &["orchestrator", "capability", "protocol", "kind"],
        "Failed attempts by kind."
    );
}

/// A sample of one row: the value of one more label, and the number.
type Sample = (Option<&'static str>, f64);

/// Writes all rows; nothing where nothing is registered.
pub(crate) fn write(out: &mut Exposition, rows: &[RegistrationRow]) {
    type Read = fn(&RegistrationRow) -> Vec<Sample>;
    let families: [(&Family, Read); 5] = [
        // A registry that is not missed is nothing to alert on.
        (&REGISTRATION, |row| match row.state {
            RegistrationState::Absent => Vec::new(),
            state => vec![(None, flag(state == RegistrationState::Registered))],
        }),
        (&STATE, |row| {
            RegistrationState::ALL.iter().map(|state| (Some(state.name()), flag(row.state == *state))).collect()
        }),
        (&LAST_SUCCESS, |row| row.last_success.map(|at| (None, at)).into_iter().collect()),
        (&RENEWALS, |row| vec![(None, row.renewals as f64)]),
        (&FAILURES, |row| row.failures.iter().map(|(kind, n)| (Some(*kind), *n as f64)).collect()),
    ];
    for (family, read) in families {
        let samples = rows.iter().flat_map(|row| {
            let base = [row.orchestrator.as_str(), row.capability.as_str(), row.protocol];
            read(row).into_iter().map(move |(more, value)| (base.into_iter().chain(more).collect(), Some(value)))
        });
        out.samples(family, samples);
    }
}
