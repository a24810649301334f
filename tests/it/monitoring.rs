//! Alert rules and dashboard: they ask for metrics that exist, in queries that Prometheus takes, and the alerts fire
//! when they should and not before.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{folder, run, skip};
use crate::tidy::sources;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// The dashboard's queries, as Grafana would send them.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("compose/monitoring/grafana/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut all = Vec::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels with one id: {panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty());
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24 && place("h") > 0, "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("$instance"), "{query} is not of the chosen worker");
            all.push(query.replace("$__rate_interval", "5m").replace("$instance", ".*"));
        }
    }
    assert!(all.len() >= 25, "{all:#?}");
    all
}

/// The names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("agent_net_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn only_metrics_that_exist_are_asked_for() {
    let exposed: String = sources("src").into_iter().map(|(_, text)| text).collect();
    let asked = metrics(&(read("compose/monitoring/alerts.yaml") + &queries().join(" ")));
    assert!(asked.len() >= 30, "{asked:?}");
    for name in asked {
        let family = name.strip_suffix("_bucket").unwrap_or(&name);
        assert!(exposed.contains(&format!("\"{family}\"")), "nothing exposes {name}");
    }
}

#[test]
fn prometheus_takes_all_of_it_and_alerts_when_it_should() {
    let rules: Vec<Value> = queries()
        .iter()
        .enumerate()
        .map(|(at, query)| json!({"record": format!("query:{at}"), "expr": query}))
        .collect();
    let file = folder("monitoring").join("dashboard.json");
    fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    for args in [
        &["check", "rules", "compose/monitoring/alerts.yaml"][..],
        &["check", "rules", file.to_str().unwrap()],
        &["check", "config", "--syntax-only", "compose/monitoring/prometheus.yaml"],
        &["test", "rules", "tests/monitoring/alerts.yaml"],
    ] {
        let mut promtool = Command::new("promtool");
        promtool.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
        if promtool.output().is_err() {
            skip("promtool is missing");
            return;
        }
        let (status, out, err) = run(&mut promtool);
        assert!(status.success(), "promtool {args:?}: {out}{err}");
    }
}

/// Whoever wants to know what can be set looks there.
#[test]
fn every_variable_of_a_compose_file_stands_in_the_example() {
    let example = read("compose/.env.example");
    let mut seen = 0;
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("compose")).unwrap().flatten() {
        let Ok(text) = fs::read_to_string(file.path()) else { continue };
        for variable in text.split("${").skip(1).filter(|_| file.path().extension().is_some_and(|e| e == "yaml")) {
            let name = variable.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap();
            assert!(example.contains(&format!("\n#{name}=")), "{name} of {} is not there", file.path().display());
            seen += 1;
        }
    }
    assert!(seen >= 45, "{seen}");
}

#[test]
fn every_alert_is_tested() {
    let rules = read("compose/monitoring/alerts.yaml");
    let tests = read("tests/monitoring/alerts.yaml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        let fires = tests.split("alertname: ").any(|test| test.starts_with(&format!("{alert}\n        exp_alerts:")));
        assert!(fires, "no test shows {alert} firing");
    }
}
