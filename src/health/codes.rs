//! The reason codes: one table, from which the JSON enum, metric labels, `explain`, GET /codes, `check`, doctor and the
//! reference are made.

pub(crate) mod advice;
mod entry;
mod names;
mod table;

use crate::sys::explanation::{Explanation, Names};
pub(crate) use entry::{Entry, Group, N, ORDER};
pub(crate) use table::{Code, TABLE};

/// The codes of a group, in the table's order.
pub(crate) fn of_group(group: Group) -> impl Iterator<Item = &'static Entry> {
    TABLE.iter().filter(move |entry| entry.is_of(group))
}

/// For `agent-net explain`.
pub(crate) const NAMES: Names =
    Names { kind: "reason code", all: || TABLE.iter().map(|entry| entry.name).collect(), find };

fn find(name: &str) -> Option<Explanation> {
    let entry = TABLE.iter().find(|entry| entry.name.eq_ignore_ascii_case(name))?;
    let fields = [
        ("severity", entry.severities()),
        ("vendors", entry.vendors()),
        ("group", entry.group_name().into()),
        ("meaning", entry.meaning.into()),
        ("clears", entry.clears.into()),
        ("action", entry.action.into()),
    ];
    Some(Explanation::new(&NAMES, entry.name, fields))
}

#[cfg(test)]
mod tests;
