//! Alert rules, recording rules and dashboards: they ask for metrics that exist, in queries that Prometheus takes, and
//! the alerts fire when they should and not before. What the real programs do with them: `fleet`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::fleet_programs::{PROMTOOL, checked, uncommented};
use crate::harness::{Worker, folder};
use crate::tidy::sources;

const ALERTS: &str = "compose/monitoring/alerts.yaml";
const FLEET: &str = "compose/monitoring/fleet-rules.yaml";

/// The dashboards, the variable that each query must name, and a floor for the number of its queries.
const DASHBOARDS: &[(&str, &str, usize)] = &[
    ("compose/monitoring/grafana/dashboard.json", "$instance", 25),
    ("compose/monitoring/grafana/fleet.json", "$site", 15),
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// The dashboards' queries, as Grafana would send them.
fn queries() -> Vec<String> {
    DASHBOARDS.iter().flat_map(|(path, variable, floor)| dashboard(path, variable, *floor)).collect()
}

fn dashboard(path: &str, variable: &str, floor: usize) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read(path)).expect("JSON");
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
            assert!(query.contains(variable), "{query} ignores the variable {variable}");
            all.push(query.replace("$__rate_interval", "5m").replace(variable, ".*"));
        }
    }
    assert!(all.len() >= floor, "{all:#?}");
    all
}

#[test]
fn dashboards_link_to_one_another_and_are_provisioned() {
    let stack = read("compose/monitoring.yaml");
    let uid = |path: &str| serde_json::from_str::<Value>(&read(path)).unwrap()["uid"].as_str().unwrap().to_owned();
    let uids: BTreeSet<String> = DASHBOARDS.iter().map(|(path, ..)| uid(path)).collect();
    assert_eq!(uids.len(), DASHBOARDS.len());
    for (path, ..) in DASHBOARDS {
        assert!(stack.contains(path.trim_start_matches("compose/")), "Grafana does not get {path}");
        for link in read(path).split("\"/d/").skip(1) {
            let to = link.split(['"', '?']).next().unwrap();
            assert!(uids.contains(to), "{path} links to {to}");
        }
    }
}

/// The names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("agent_net_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// The names in a text that rules record.
fn recorded(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.matches(':').count() == 2).map(str::to_owned).collect()
}

#[test]
fn only_metrics_that_exist_are_asked_for() {
    let exposed: String = sources("src").into_iter().map(|(_, text)| text).collect();
    let asked = metrics(&(read(ALERTS) + &read(FLEET) + &queries().join(" ")));
    assert!(asked.len() >= 30, "{asked:?}");
    for name in asked {
        let family = name.strip_suffix("_bucket").unwrap_or(&name);
        assert!(exposed.contains(&format!("\"{family}\"")), "nothing exposes {name}");
    }
    let asked = recorded(&queries().join(" "));
    assert!(asked.len() >= 10, "{asked:?}");
    for name in asked {
        assert!(read(FLEET).contains(&format!("- record: {name}\n")), "no rule records {name}");
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
    let config = ["check", "config", "--syntax-only"];
    for args in [
        &["check", "rules", ALERTS, FLEET][..],
        &["check", "rules", file.to_str().unwrap()],
        &[&config[..], &["compose/monitoring/prometheus.yaml"]].concat(),
        &[&config[..], &["compose/monitoring/fleet.prometheus.yaml"]].concat(),
        &[&config[..], &["--agent", "compose/monitoring/agent.yaml"]].concat(),
        &["test", "rules", "tests/monitoring/alerts.yaml", "tests/monitoring/fleet-rules.yaml"],
    ] {
        checked(Command::new(PROMTOOL.name).args(args), &PROMTOOL);
    }
}

/// What a user may switch on by removing a `#` is valid too, and with the example of targets.
#[test]
fn what_is_commented_out_is_valid() {
    let folder = folder("monitoring-uncommented");
    for (file, more) in [("prometheus.yaml", None), ("fleet.prometheus.yaml", None), ("agent.yaml", Some("--agent"))] {
        let text = uncommented(&read(&format!("compose/monitoring/{file}")));
        assert!(text.contains("credentials_file"), "{text}");
        fs::write(folder.join(file), text).unwrap();
        let path = folder.join(file);
        let mut promtool = Command::new(PROMTOOL.name);
        promtool.args(["check", "config", "--syntax-only"]).args(more).arg(path);
        checked(&mut promtool, &PROMTOOL);
    }
    let machines = uncommented(&read("compose/monitoring/targets/machines.yaml"));
    fs::write(folder.join("machines.yaml"), machines).unwrap();
    let config = "scrape_configs: [{job_name: agent-net, file_sd_configs: [{files: [machines.yaml]}]}]";
    fs::write(folder.join("files.yaml"), config).unwrap();
    let mut promtool = Command::new(PROMTOOL.name);
    checked(promtool.args(["check", "config"]).arg(folder.join("files.yaml")), &PROMTOOL);
    let found = Command::new(PROMTOOL.name)
        .args(["check", "service-discovery"])
        .arg(folder.join("files.yaml"))
        .arg("agent-net")
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    for part in ["192.0.2.11:9876", "gpu-1.example.net:9876", "basement", "bob"] {
        assert!(found.contains(part), "{part} in {found}");
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
fn every_rule_is_tested_and_every_alert_says_what_to_do() {
    for (rules, tests) in [(ALERTS, "tests/monitoring/alerts.yaml"), (FLEET, "tests/monitoring/fleet-rules.yaml")] {
        let (rules, tests) = (read(rules), read(tests));
        for rule in rules.split("\n      - ").skip(1) {
            let (kind, name) = rule.lines().next().unwrap().split_once(": ").unwrap();
            if kind == "record" {
                assert!(tests.contains(&format!("- expr: {name}")), "no test shows {name}");
                continue;
            }
            let fires =
                tests.split("alertname: ").any(|test| test.starts_with(&format!("{name}\n        exp_alerts:")));
            assert!(fires, "no test shows {name} firing");
            for part in ["summary: ", "description: ", "severity: "] {
                assert!(rule.contains(part), "{name} has no {part}");
            }
        }
    }
}

/// What a code means and what to do, which an alert carries to whoever has only the alert.
#[test]
fn alerts_explain_each_code_as_the_worker_does() {
    let codes = Worker::start(&[]).get("/codes").json();
    let line = |code: &Value| {
        let part = |name: &str| code[name].as_str().unwrap().to_owned();
        let (name, meaning, action) = (part("code"), part("meaning"), part("action"));
        assert!(!format!("{meaning}{action}").contains("{{"), "{name} would be a template");
        format!("            {{{{- if eq $labels.code \"{name}\" }}}}{meaning} Fix: {action}{{{{ end }}}}\n")
    };
    let lines: String = codes["codes"].as_array().unwrap().iter().map(line).collect();
    let text = read(ALERTS);
    let (before, rest) = text.split_once("description: &by-code >-\n").expect("the anchor");
    let after = rest.find("            For details").expect("the last line");
    let right = format!("{before}description: &by-code >-\n{lines}{}", &rest[after..]);
    if right != text && std::env::var("AGENT_NET_WRITE").as_deref() == Ok("1") {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(ALERTS), &right).unwrap();
        return;
    }
    assert!(right == text, "{ALERTS} is out of date: run the tests with AGENT_NET_WRITE=1");
}
