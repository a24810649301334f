//! The keys of the answers beside the readings, for `agent-net explain`. Their list is made of the OpenAPI document, by
//! the test that makes that.

use crate::sys::explanation::{Explanation, Names};

/// A line for each place of each key: key, schema and meaning, with tabs between them. Sorted.
const FIELDS: &str = include_str!("fields.txt");

pub(crate) const NAMES: Names = Names { kind: "JSON field", all: names, find };

fn rows() -> impl Iterator<Item = [&'static str; 3]> {
    FIELDS.lines().filter_map(|line| line.splitn(3, '\t').collect::<Vec<_>>().try_into().ok())
}

fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = rows().map(|[name, ..]| name).collect();
    names.dedup();
    names
}

/// A field for each schema that has the key.
fn find(wanted: &str) -> Option<Explanation> {
    let found: Vec<_> = rows().filter(|[name, ..]| name.eq_ignore_ascii_case(wanted)).collect();
    let [name, ..] = *found.first()?;
    let places = found.into_iter().map(|[_, schema, meaning]| (schema, meaning.to_owned()));
    Some(Explanation::new(&NAMES, name, places))
}

#[cfg(test)]
pub(super) mod tests;
