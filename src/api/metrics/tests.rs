//! The table of metrics in src/reference.md, and the rules that their names follow.

use std::collections::BTreeSet;

use super::{all, keepers};
use crate::ollama::keeper::row::KeeperRow;
use crate::ollama::probe::row::{ProbeFacts, ProbeResult, ProbeRow};
use crate::sys::exposition::{Exposition, Family, Kind};
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

/// The samples of the probes of a model, without their common beginning.
#[track_caller]
fn check_probes(probes: ProbeFacts, expected: &[&str]) {
    let mut row = KeeperRow::new("m");
    row.probes = probes;
    let mut out = Exposition::new(false);
    keepers(&mut out, &[row]);
    let text = out.into_text();
    let names = ["agent_net_model_probe", "agent_net_model_heal"];
    let lines = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    let lines: Vec<String> =
        lines.map(|line| line.replace("agent_net_model_", "").replace("model=\"m\"", "")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn what_no_probe_has_measured_is_absent() {
    let counts = [
        "probes_total{,result=\"ok\"} 0",
        "probes_total{,result=\"slow\"} 0",
        "probes_total{,result=\"hangs\"} 0",
        "probes_total{,result=\"failed\"} 0",
        "probes_total{,result=\"skipped\"} 0",
        "probe_tokens_total{} 0",
        "probe_busy_seconds_total{} 0",
        "heals_total{,kind=\"reload\",result=\"ok\"} 0",
        "heals_total{,kind=\"reload\",result=\"failed\"} 0",
        "heals_total{,kind=\"runner\",result=\"ok\"} 0",
        "heals_total{,kind=\"runner\",result=\"failed\"} 0",
    ];
    check_probes(ProbeFacts::default(), &[&["probes_unanswered{} 0"], &counts[..]].concat());
    let nothing = ProbeRow { at: 9.0, result: ProbeResult::Hangs, ..ProbeRow::empty() };
    let hung = ProbeFacts { last: Some(nothing.clone()), unanswered: 3, ..ProbeFacts::default() };
    check_probes(hung, &[&["probes_unanswered{} 3"], &counts[..]].concat());
    let last = ProbeRow {
        answered_at: Some(1_700_000_000.5),
        tokens_per_second: Some(31.8),
        load_ms: Some(4),
        usual_tokens_per_second: Some(32.2),
        ..nothing
    };
    let (counts, heals) = ([1, 2, 3, 4, 5], [[6, 7], [8, 9]]);
    let all =
        ProbeFacts { last: Some(last), counts, tokens: 18, busy_ns: 1_500_000_000, heals, ..ProbeFacts::default() };
    check_probes(
        all,
        &[
            "probe_tokens_per_second{} 31.8",
            "probe_usual_tokens_per_second{} 32.2",
            "probe_load_seconds{} 0.004",
            "probe_last_answer_timestamp_seconds{} 1700000000.5",
            "probes_unanswered{} 0",
            "probes_total{,result=\"ok\"} 1",
            "probes_total{,result=\"slow\"} 2",
            "probes_total{,result=\"hangs\"} 3",
            "probes_total{,result=\"failed\"} 4",
            "probes_total{,result=\"skipped\"} 5",
            "probe_tokens_total{} 18",
            "probe_busy_seconds_total{} 1.5",
            "heals_total{,kind=\"reload\",result=\"ok\"} 6",
            "heals_total{,kind=\"reload\",result=\"failed\"} 7",
            "heals_total{,kind=\"runner\",result=\"ok\"} 8",
            "heals_total{,kind=\"runner\",result=\"failed\"} 9",
        ],
    );
}
