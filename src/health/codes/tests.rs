use super::*;
use crate::tables::{markdown, table};

/// `src/reference.md`: a heading for each group.
#[test]
fn the_reference_has_the_codes() {
    let mut text = format!("{ORDER} {N}\n");
    for group in Group::ALL {
        let rows = of_group(group).map(|entry| {
            let name = format!("<a id=\"{0}\"></a>`{0}`", entry.name);
            vec![name, entry.severities(), entry.vendors(), entry.meaning.to_owned()]
        });
        let rows = markdown(&["code", "severity", "GPUs of", "meaning"], rows);
        text.push_str(&format!("\n### {}\n\n{rows}\n\n", group.name()));
        for entry in of_group(group) {
            text.push_str(&format!("- `{}`. Clears: {} To do: {}\n", entry.name, entry.clears, entry.action));
        }
    }
    table("src/reference.md", "codes", &text);
}

#[test]
fn every_row_is_complete() {
    for (at, entry) in TABLE.iter().enumerate() {
        let name = entry.name;
        assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        assert!(!TABLE[..at].iter().any(|other| other.name == name), "{name} is there twice");
        for text in [entry.meaning, entry.clears, entry.action] {
            let first = text.chars().next().unwrap();
            assert!(
                text.ends_with('.') && !first.is_lowercase()
                    || text.starts_with("lib")
                    || text.starts_with("agent-net"),
                "{name}: {text:?}"
            );
            assert!(text.matches('`').count().is_multiple_of(2) && !text.contains("  "), "{name}: {text:?}");
        }
        assert!(!entry.action.contains("nvidia-smi -r"), "{name} would reset all GPUs");
    }
}

#[test]
fn a_code_has_its_public_name_everywhere() {
    for (code, name) in
        [(Code::NoSample, "NO_SAMPLE"), (Code::DrainP2p, "DRAIN_P2P"), (Code::UptimeLowLong, "UPTIME_LOW_LONG")]
    {
        assert_eq!((code.name(), code.help()), (name, format!("/codes#{name}").as_str()));
        assert_eq!(serde_json::to_value(code).unwrap(), name);
    }
    assert_eq!(Code::UptimeLowLong as usize, TABLE.len() - 1);
    assert!(Code::VramBelowMin.of_gpus() && !Code::ModelOnCpu.of_gpus() && !Code::UptimeLowLong.of_gpus());
}
