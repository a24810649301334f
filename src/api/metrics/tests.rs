//! The table of metrics in src/reference.md, and the rules that their names follow.

use std::collections::BTreeSet;

use super::all;
use crate::sys::exposition::{Family, Kind};
use crate::tables;

#[test]
fn the_reference_lists_every_metric() {
    let text = all().map(|(heading, families)| {
        let rows = families.iter().map(|family| {
            let name = format!("`{}`", family.name);
            vec![name, family.kind.name().to_owned(), family.labels.join(", "), family.help.to_owned()]
        });
        format!("### {heading}\n\n{}", tables::markdown(&["metric", "type", "labels", "meaning"], rows))
    });
    tables::table("src/reference.md", "metrics", &text.join("\n\n"));
}

#[test]
fn names_follow_the_conventions_and_stand_once() {
    let families: Vec<Family> = all().into_iter().flat_map(|(_, families)| families).collect();
    let names: BTreeSet<&str> = families.iter().map(|family| family.name).collect();
    assert!(names.len() == families.len() && names.len() >= 70, "{names:?}");
    for family in families {
        let Family { name, kind, help, .. } = family;
        assert!(name.starts_with("agent_net_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_info"), kind == Kind::Info, "{name}");
        assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help:?}");
    }
}
