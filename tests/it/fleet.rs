//! The shipped files of a fleet in the real Prometheus and Alertmanager: from a lost GPU to the text that is delivered,
//! and back; who is inhibited; and an agent behind NAT whose receiver was away.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::fleet_programs::{AMTOOL, Files, Program, Receiver, checked, replaced, shipped, switched_on, uncommented};
use crate::gpus::start;
use crate::harness::{wait_for, wait_until};
use crate::nvml::FakeNvml;

const TOKEN: &str = "s3cret-token";
/// Nothing listens there.
const DOWN: &str = "127.0.0.1:9";

/// The shipped alertmanager.yaml with short times and this receiver.
fn alertmanager(receiver: &Receiver) -> String {
    let text = replaced(&shipped("alertmanager.yaml"), "group_wait: 30s", "group_wait: 1s");
    let text = replaced(&text, "group_interval: 5m", "group_interval: 1s");
    replaced(&text, "receiver.example.net:8080", &receiver.addr.to_string())
}

/// The annotations of the alerts in a webhook's body with this name.
fn annotations<'a>(body: &'a Value, alert: &str) -> Vec<&'a Value> {
    let alerts = body["alerts"].as_array().expect("a list");
    alerts.iter().filter(|one| one["labels"]["alertname"] == alert).map(|one| &one["annotations"]).collect()
}

/// Alertmanager and Prometheus with the shipped files, all of a fleet of two: this worker, and a machine that is down.
fn fleet(files: &Files, receiver: &Receiver, worker: &str) -> (Program, Program) {
    let config = switched_on(&alertmanager(receiver), "slack_configs:");
    let slack = files.write("slack", &format!("http://{}/slack", receiver.addr));
    let alertmanager = files.alertmanager(&replaced(&config, "/run/secrets/slack_url", &slack));
    let machines = uncommented(&shipped("targets/machines.yaml"));
    let machines = replaced(&machines, r#""192.0.2.11:9876", "192.0.2.12:9876""#, &format!("\"{worker}\""));
    files.write("targets/machines.yaml", &replaced(&machines, "gpu-1.example.net:9876", DOWN));
    let config = switched_on(&files.fleet(alertmanager.addr), "authorization:");
    let token = files.write("token", TOKEN);
    let config = replaced(&config, "/run/secrets/worker_token", &token);
    (alertmanager, files.prometheus("fleet", &config, "127.0.0.1:0", &[]))
}

/// Title and text of the first message to Slack whose text has `part`.
fn slack(receiver: &Receiver, part: &str) -> (String, String) {
    let of = |body: &Value, name: &str| body["attachments"][0][name].as_str().unwrap_or_default().to_owned();
    let body = receiver.wait(part, "/slack", |body| of(body, "text").contains(part));
    let (title, text) = (of(&body, "title"), of(&body, "text"));
    println!("delivered to Slack:\n{title}\n{text}");
    (title, text)
}

#[track_caller]
fn has_all(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in {text}"));
}

#[test]
fn a_lost_gpu_is_delivered_with_cause_and_fix_and_so_is_its_return() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = start(&ollama, &nvml, &[("WORKER_TOKEN", TOKEN)]);
    let at = worker.addr.to_string();
    let (files, receiver) = (Files::new("fleet"), Receiver::new());
    let (_alertmanager, prometheus) = fleet(&files, &receiver, &at);

    let severity = format!("instance:severity:max{{instance=\"{at}\"}}");
    let labels = prometheus.query_when(&severity, 0.0);
    assert_eq!((&labels["site"], &labels["owner"]), (&json!("basement"), &json!("alice")));
    prometheus.query_when(&format!("instance:severity:max{{instance=\"{DOWN}\"}}"), 4.0);
    let is_down =
        |body: &Value| !annotations(body, "AgentNetDown").is_empty() && body["groupLabels"]["instance"] == DOWN;
    let down = receiver.wait("the machine that is down", "/alerts", is_down);
    assert_eq!(down["commonLabels"]["owner"], "bob");

    nvml.set("gpus=2\ngpu1.handle=15");
    let is_lost = |body: &Value| !annotations(body, "AgentNetGpuUnhealthy").is_empty();
    let fired = receiver.wait("the lost GPU", "/alerts", |body| body["status"] == "firing" && is_lost(body));
    assert_eq!(fired["receiver"], "critical");
    assert_eq!(fired["groupLabels"], json!({"instance": at}), "one message for a machine");
    let text = annotations(&fired, "AgentNetGpuUnhealthy")[0];
    println!("delivered to the webhook:\n{text:#}");
    has_all(text["summary"].as_str().unwrap(), &[&format!("of {at} is unhealthy: GPU_LOST")]);
    let check = format!("agent-net check --url http://{at}");
    has_all(text["description"].as_str().unwrap(), &["fell off the bus", "Fix: Reboot", "its power cables", &check]);
    assert_eq!(text["runbook_url"], format!("http://{at}/codes#GPU_LOST"));
    let (title, text) = slack(&receiver, "GPU_LOST");
    has_all(&title, &[&format!(" firing: {at} at basement, owner alice")]);
    has_all(&text, &["critical: GPU ", "fell off the bus", "Fix: Reboot", "/codes#GPU_LOST"]);
    prometheus.query_when(&severity, 3.0);
    prometheus.query_when("sum(site:gpus_expected:sum) - sum(site:gpus_usable:sum)", 1.0);

    nvml.set("gpus=2");
    receiver.wait("its return", "/alerts", |body| body["status"] == "resolved" && is_lost(body));
    let (title, _) = slack(&receiver, "Resolved: GPU ");
    has_all(&title, &[&format!(": {at} at basement, owner alice")]);
    prometheus.query_when(&severity, 0.0);
    all_rules_work(&prometheus);
}

/// No rule failed when it was last evaluated.
fn all_rules_work(prometheus: &Program) {
    let rules = prometheus.get("/api/v1/rules")["data"]["groups"].as_array().unwrap().clone();
    let rules: Vec<&Value> = rules.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() >= 35, "{rules:#?}");
    for rule in rules {
        assert_eq!((&rule["health"], &rule["lastError"]), (&json!("ok"), &Value::Null), "{rule:#}");
    }
}

#[test]
fn what_follows_from_another_alert_is_inhibited() {
    let (files, receiver) = (Files::new("inhibited"), Receiver::new());
    let alertmanager = files.alertmanager(&alertmanager(&receiver));
    let alert = |name: &str, machine: &str| json!({"labels": {"alertname": name, "instance": machine}});
    let all = [
        alert("AgentNetDown", "a:1"),
        alert("AgentNetGpuUnhealthy", "a:1"),
        alert("AgentNetGpuUnhealthy", "b:1"),
        alert("AgentNetGpuDegraded", "b:1"),
        alert("AgentNetOllamaDown", "c:1"),
        alert("AgentNetModelNotLoaded", "c:1"),
        alert("AgentNetGpuDegraded", "c:1"),
        alert("AgentNetSilent", "d:1"),
        alert("AgentNetOllamaDown", "d:1"),
    ];
    alertmanager.post("/api/v2/alerts", &json!(all).to_string());
    let suppressed = || {
        let alerts = alertmanager.get("/api/v2/alerts");
        let alerts = alerts.as_array().unwrap().clone();
        let of = |one: &Value| format!("{} {}", one["labels"]["alertname"], one["labels"]["instance"]).replace('"', "");
        let mut found: Vec<_> = alerts.iter().filter(|one| one["status"]["state"] == "suppressed").map(of).collect();
        found.sort();
        (alerts.len() == all.len()).then_some(found)
    };
    let wanted =
        ["AgentNetGpuDegraded b:1", "AgentNetGpuUnhealthy a:1", "AgentNetModelNotLoaded c:1", "AgentNetOllamaDown d:1"];
    let mut last = None;
    let found = wait_until(|| {
        last = suppressed();
        last.as_deref().is_some_and(|found| found == wanted).then_some(())
    });
    assert!(found.is_some(), "{last:?}");
}

#[test]
fn alertmanagers_configuration_is_valid_and_routes_by_severity() {
    let files = Files::new("amtool");
    files.write("agent-net.tmpl", &shipped("agent-net.tmpl"));
    let local = |text: &str| replaced(text, "/etc/alertmanager/", &files.path(""));
    let shipped = local(&shipped("alertmanager.yaml"));
    for (name, text) in [("shipped.yaml", shipped.clone()), ("all.yaml", uncommented(&shipped))] {
        let path = files.write(name, &text);
        checked(Command::new(AMTOOL.name).args(["check-config", &path]), &AMTOOL);
        for severity in ["critical", "warning"] {
            let mut amtool = Command::new(AMTOOL.name);
            amtool.args(["config", "routes", "test", "--config.file", &path]).arg(format!("severity={severity}"));
            assert_eq!(checked(&mut amtool, &AMTOOL).trim(), severity);
        }
    }
}

#[test]
fn an_agent_behind_nat_sends_what_its_receiver_missed() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = start(&ollama, &nvml, &[]);
    let files = Files::new("nat");
    // Nothing is scraped there, and no alert is sent.
    let fleet = files.fleet(DOWN.parse().unwrap());
    let receives = ["--web.enable-remote-write-receiver"];
    // An address of its own: no other test takes the port while the receiver is away.
    let central = files.prometheus("central", &fleet, "127.0.0.77:0", &receives);
    let listen = central.addr.to_string();
    let config = replaced(&shipped("agent.yaml"), "interval: 15s", "interval: 1s");
    let config = replaced(&config, "agent-net:9876", &worker.addr.to_string());
    let config = replaced(&config, "https://fleet.example.net", &format!("http://{listen}"));
    let agent = files.prometheus("agent", &config, "127.0.0.1:0", &["--enable-feature=agent"]);

    let machine = r#"{job="agent-net",instance="basement-1",site="basement",owner="alice"}"#;
    central.query_when(&format!("agent_net_gpus{machine}"), 2.0);
    central.query_when(&format!("up{machine}"), 1.0);
    central.query_when("instance:severity:max", 0.0);

    drop(central);
    // Three GPUs are there only while the receiver is not.
    nvml.set("gpus=3");
    worker.report_when("three GPUs", |report| report["gpu_count"] == 3);
    scrapes_more(&agent, 2);
    nvml.set("gpus=2");
    worker.report_when("two GPUs", |report| report["gpu_count"] == 2);
    scrapes_more(&agent, 2);
    let central = files.prometheus("central", &fleet, &listen, &receives);
    central.query_when(&format!("agent_net_gpus{machine}"), 2.0);
    central.query_when(&format!("max_over_time(agent_net_gpus{machine}[10m])"), 3.0);
}

/// Waits until the agent has scraped the worker this many times more.
fn scrapes_more(agent: &Program, times: usize) {
    let mut seen = BTreeSet::new();
    wait_for("further scrapes", || {
        let targets = agent.get("/api/v1/targets");
        let target = &targets["data"]["activeTargets"][0];
        seen.insert(target["lastScrape"].as_str().unwrap_or_default().to_owned());
        (seen.len() > times).then_some(())
    });
}
