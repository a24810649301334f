//! `agent-net explain`: finds what a public name means, whatever kind of name it is.

use crate::api::{fields, metrics, routes};
use crate::config::table;
use crate::gpu::readings;
use crate::health::codes;
use crate::sys::error_codes;
use crate::sys::explanation::{Explanation, Names};
use crate::sys::order;

/// All kinds of names; another kind is another row.
const NAMES: &[Names] =
    &[codes::NAMES, table::NAMES, readings::NAMES, metrics::NAMES, error_codes::NAMES, routes::NAMES, fields::NAMES];

/// The first kind that has the name wins.
pub(crate) fn find(name: &str) -> Option<Explanation> {
    NAMES.iter().find_map(|names| (names.find)(name))
}

/// All names, by kind.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    NAMES.iter().map(|names| (names.kind, (names.all)()))
}

/// At most five names that are like `name`, the most similar first.
pub(crate) fn closest(name: &str) -> Vec<&'static str> {
    let wanted: Vec<char> = name.chars().take(100).map(|letter| letter.to_ascii_uppercase()).collect();
    let mut near_by: Vec<(usize, &str)> =
        all().flat_map(|(_, names)| names).map(|n| (distance(&wanted, n), n)).collect();
    order::sort(&mut near_by);
    let near = |(distance, name): &(usize, &str)| *distance <= name.len() / 2;
    near_by.into_iter().filter(near).take(5).map(|(_, name)| name).collect()
}

/// Letters to insert, remove or replace (Levenshtein). A name that contains the wanted one is near, and one
/// that is the greater part of it.
fn distance(wanted: &[char], name: &str) -> usize {
    let name: Vec<char> = name.chars().map(|letter| letter.to_ascii_uppercase()).collect();
    let within = |short: &[char], long: &[char]| short.len() > 2 && long.windows(short.len()).any(|part| part == short);
    if within(wanted, &name) || (name.len() * 2 > wanted.len() && within(&name, wanted)) {
        return 1;
    }
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (at, letter) in wanted.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, other) in name.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[test]
fn a_wrong_name_has_near_ones() {
    assert_eq!(closest("TEMP_HIHG")[0], "TEMP_HIGH");
    assert_eq!(closest("temphigh")[0], "TEMP_HIGH");
    assert!(closest("temp").contains(&"TEMP_HIGH") && closest("TEMP").len() == 5);
    assert_eq!(closest("GPU_GONE")[0], "GPU_LOST");
    for junk in ["", "zzzzzzzzzzzzzzzzzzzz", "🦀"] {
        assert_eq!(closest(junk), [""; 0], "{junk}");
    }
}
