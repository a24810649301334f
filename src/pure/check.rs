//! What `check` prints and answers of a report, be it a running worker's or its own, and `ack` of an answer.

use serde::Deserialize;

use super::verdict::Verdict;

/// What is looked at of a report.
#[derive(Deserialize)]
struct Report {
    gpu_count: u64,
    #[serde(default)]
    gpus: Vec<serde::de::IgnoredAny>,
    total_models: u64,
    #[serde(default)]
    model_name: String,
    health: Health,
    source: String,
}

#[derive(Deserialize)]
struct Health {
    verdict: Verdict,
    reasons: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    code: String,
    severity: Verdict,
    gpu: Option<String>,
    message: String,
    action: String,
}

/// The verdict of a report in JSON, and its lines for people: the first says it all, as Nagios wants it.
///
/// # Errors
/// One sentence when it is no report of this worker.
pub(crate) fn summary(json: &str) -> Result<(Verdict, String), String> {
    let report: Report = serde_json::from_str(json).map_err(|why| format!("this is no report of agent-net: {why}"))?;
    let Report { gpu_count, gpus, total_models, model_name, health, source } = report;
    let because = because(&health.reasons);
    let model = if model_name.is_empty() { String::new() } else { format!(", {model_name} loaded") };
    let listed = gpus.len().max(usize::try_from(gpu_count).unwrap_or(usize::MAX));
    let mut text = one_line(&format!(
        "agent-net {}{because}: {gpu_count} of {listed} GPUs usable, {total_models} models{model} [{source}]",
        health.verdict
    ));
    for reason in health.reasons {
        let gpu = reason.gpu.map_or_else(String::new, |gpu| format!(" {gpu}"));
        text.push_str(&one_line(&format!(
            "{} {}{gpu}: {}; {}",
            reason.severity, reason.code, reason.message, reason.action
        )));
    }
    Ok((health.verdict, text))
}

/// The line of `ack` for the answer of POST /ack.
///
/// # Errors
/// One sentence when it is no answer of this worker.
pub(crate) fn acknowledged(json: &str) -> Result<String, String> {
    let health: Health = serde_json::from_str(json).map_err(|why| format!("this is no answer of agent-net: {why}"))?;
    Ok(one_line(&format!("acknowledged; the verdict is {}{}", health.verdict, because(&health.reasons))))
}

/// The codes of reasons, in parentheses.
fn because(reasons: &[Reason]) -> String {
    let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
    if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) }
}

/// The verdict of a report in its text form, which begins with it.
///
/// # Errors
/// One sentence when it is no report of this worker.
pub(crate) fn verdict_of_text(text: &str) -> Result<Verdict, String> {
    let word = text.lines().next().and_then(|line| line.strip_prefix("verdict="));
    let known = word.and_then(|word| Verdict::ALL.into_iter().find(|v| v.name() == word));
    known.ok_or_else(|| "this is no report of agent-net: it does not begin with verdict=".into())
}

/// Nagios takes a | for the begin of its numbers, and whatever a model is called, a line is a line.
fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() || c == '|' { ' ' } else { c }).collect();
    clean + "\n"
}

#[test]
fn a_report_becomes_lines() {
    let json = r#"{"gpu_count":1,"gpus":[{},{}],"total_models":2,"model_name":"a|b\nc","source":"nvml+ollama","x":1,
        "health":{"verdict":"unhealthy","reasons":[{"code":"GPU_LOST","severity":"unhealthy","gpu":"GPU-1",
        "message":"gone","action":"reboot","since":1.5}]}}"#;
    let (verdict, text) = summary(json).unwrap();
    assert_eq!(verdict, Verdict::Unhealthy);
    assert_eq!(
        text,
        "agent-net unhealthy (GPU_LOST): 1 of 2 GPUs usable, 2 models, a b c loaded [nvml+ollama]\n\
         unhealthy GPU_LOST GPU-1: gone; reboot\n"
    );
    for junk in ["", "{}", "[]", "<html>", r#"{"status":"success"}"#] {
        assert!(summary(junk).is_err(), "{junk}");
    }
}

#[test]
fn what_was_acknowledged_is_a_line() {
    let reason = r#"{"code":"NO_GPU","severity":"unhealthy","message":"a","action":"b","since":1}"#;
    let check = |json: &str| acknowledged(json).ok();
    let line = |text: &str| Some(format!("acknowledged; the verdict is {text}\n"));
    assert_eq!(check(r#"{"status":"ready","verdict":"ok","reasons":[],"registrations":[]}"#), line("ok"));
    assert_eq!(check(&format!(r#"{{"verdict":"unhealthy","reasons":[{reason}]}}"#)), line("unhealthy (NO_GPU)"));
    assert_eq!(check("{}"), None);
}

#[test]
fn the_text_form_begins_with_its_verdict() {
    assert_eq!(verdict_of_text("verdict=degraded\nreasons='X'\n"), Ok(Verdict::Degraded));
    for junk in ["", "verdict=fine\n", "status=ok\nverdict=ok\n", "verdict='ok'\n"] {
        assert!(verdict_of_text(junk).is_err(), "{junk}");
    }
}
