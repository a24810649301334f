//! How the registrations at the orchestrators stand.

use crate::livepeer::lease::{RegistrationRow, RegistrationState};
use crate::sys::exposition::{Exposition, Kind};

/// A sample of one row: one more label, and a value.
type Sample = (Option<(&'static str, &'static str)>, f64);

/// Writes all rows; nothing where nobody registers.
pub(crate) fn write(out: &mut Exposition, rows: &[RegistrationRow]) {
    type Family = (&'static str, Kind, &'static str, fn(&RegistrationRow) -> Vec<Sample>);
    let families: [Family; 5] = [
        (
            "agent_net_registration",
            Kind::Gauge,
            "1 while the orchestrator has taken the registration, as far as anybody can know.",
            // A registry that is not missed is nothing to alert on.
            |row| match row.state {
                RegistrationState::Absent => Vec::new(),
                state => vec![(None, flag(state == RegistrationState::Registered))],
            },
        ),
        ("agent_net_registration_state", Kind::Gauge, "1 for the state that holds.", |row| {
            RegistrationState::ALL
                .iter()
                .map(|state| (Some(("state", state.name())), flag(row.state == *state)))
                .collect()
        }),
        (
            "agent_net_registration_last_success_timestamp_seconds",
            Kind::Gauge,
            "Unix time at which it was last taken.",
            |row| row.last_success.map(|at| (None, at)).into_iter().collect(),
        ),
        ("agent_net_registration_renewals_total", Kind::Counter, "Times that it was taken again.", |row| {
            vec![(None, row.renewals as f64)]
        }),
        ("agent_net_registration_failures_total", Kind::Counter, "Failed tries, by kind.", |row| {
            row.failures.iter().map(|(kind, n)| (Some(("kind", *kind)), *n as f64)).collect()
        }),
    ];
    for (name, kind, help, read) in families {
        let samples = rows.iter().flat_map(|row| {
            let base = [
                ("orchestrator", row.orchestrator.as_str()),
                ("capability", &row.capability),
                ("protocol", row.protocol),
            ];
            read(row).into_iter().map(move |(more, value)| (base.into_iter().chain(more).collect(), Some(value)))
        });
        super::family(out, name, kind, help, samples);
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}
