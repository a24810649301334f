//! The lines and the exit code that `check` makes of a report, and the line that `ack` makes of an answer.

mod lines;
mod npd;
mod report;

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

pub(crate) use npd::{npd, npd_unknown};
use report::{Health, Reason, Report};

use crate::api::text;
use crate::health::verdict::Verdict;
use crate::sys::text::counted;

/// The verdict of a report in JSON, and its lines for people: a Nagios status line, then one for each GPU, then each code
/// with what to do.
///
/// # Errors
/// One sentence when it is not a report of this worker.
pub(crate) fn summary(json: &str) -> Result<(Verdict, String), String> {
    let report = Report::read(json)?;
    let mut text = one_line(&head("agent-net", &report));
    for line in lines::of_gpus(&report.gpus).chain(lines::of_reasons(&report.health.reasons, &report.gpus)) {
        text.push_str(&one_line(&line));
    }
    Ok((report.health.verdict, text))
}

/// The verdict of one of several workers, and its line.
///
/// # Errors
/// One sentence when it is not a report of this worker.
pub(crate) fn line_of(url: &str, json: &str) -> Result<(Verdict, String), String> {
    let report = Report::read(json)?;
    Ok((report.health.verdict, one_line(&head(url, &report))))
}

/// The Nagios status line of the worker of this name.
fn head(name: &str, report: &Report) -> String {
    let Report { gpu_count, gpus, total_models, model_name, health, source } = report;
    let because = because(&health.reasons);
    let model = if model_name.is_empty() { String::new() } else { format!(", {model_name} loaded") };
    let read = source.split('+').any(|part| !matches!(part, "ollama" | "none"));
    // Without a reading the number comes from Ollama alone.
    let usable = match (read, gpus.len()) {
        (true, listed) => format!("{gpu_count} of {listed} GPUs usable"),
        (false, 0) if health.verdict == Verdict::Ok => "no GPU".into(),
        (false, 0) => "no GPU could be read".into(),
        (false, listed) => format!("none of {listed} GPUs could be read"),
    };
    format!("{name} {}{because}: {usable}, {}{model} [{source}]", health.verdict, counted(*total_models, "model"))
}

/// The line for people without a report: Nagios shows stdout.
pub(crate) fn unknown(why: &str) -> String {
    one_line(&format!("agent-net unknown: {why}"))
}

/// The line of one of several workers without a report. `why` may begin with the URL that was asked.
pub(crate) fn unknown_of(url: &str, why: &str) -> String {
    let why = why.strip_prefix(url).and_then(|why| why.split_once(' ')).map_or(why, |(_, why)| why);
    one_line(&format!("{url} unknown: {why}"))
}

/// `key=value` lines without a report.
pub(crate) fn unknown_text(why: &str) -> String {
    let mut lines = text::Lines::default();
    lines.word("verdict", Verdict::Unknown.name());
    lines.quote("error", why);
    lines.done()
}

/// A report in JSON as one line: JSON strings hold no line ends.
pub(crate) fn json_line(json: &str) -> String {
    json.trim().replace(['\r', '\n'], " ") + "\n"
}

/// The verdict of one of several workers, and its report in JSON.
///
/// # Errors
/// One sentence when it is not a report of this worker.
pub(crate) fn json_report_of(url: &str, json: &str) -> Result<(Verdict, String), String> {
    let (verdict, _) = summary(json)?;
    // Of two keys with one name most programs take the second one: a worker must not pass for another one.
    let keys: BTreeMap<String, IgnoredAny> = crate::sys::json::object(json.as_bytes())?;
    if keys.contains_key("url") {
        return Err("not a report of agent-net: it has a key \"url\"".into());
    }
    Ok((verdict, json_of(url, json)))
}

/// A JSON object of one of several workers, with its URL as the first key.
pub(crate) fn json_of(url: &str, json: &str) -> String {
    let line = json_line(json);
    let url = crate::sys::json::json(&url);
    line.trim_end().strip_prefix('{').map_or_else(String::new, |rest| format!("{{\"url\":{url},{rest}"))
}

/// The `key=value` lines of one of several workers, with its URL as the first.
pub(crate) fn text_of(url: &str, text: &str) -> String {
    let mut lines = text::Lines::default();
    lines.quote("url", url);
    lines.done() + text
}

/// The line of `ack` for the answer of a worker.
///
/// # Errors
/// One sentence when it is not an answer of this worker.
pub(crate) fn acknowledged(json: &str) -> Result<String, String> {
    let health: Health =
        serde_json::from_slice(json.as_bytes()).map_err(|why| format!("not an answer of agent-net: {why}"))?;
    let not_kept =
        health.not_kept.map(|why| format!("; it ends with a restart of the worker: {why}")).unwrap_or_default();
    Ok(one_line(&format!("acknowledged; the verdict is {}{}{not_kept}", health.verdict, because(&health.reasons))))
}

/// The codes of reasons, each once, in parentheses.
fn because(reasons: &[Reason]) -> String {
    let mut codes: Vec<&str> = Vec::new();
    for reason in reasons {
        if !codes.contains(&reason.code.as_str()) {
            codes.push(&reason.code);
        }
    }
    if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) }
}

/// The verdict of a report in its text form, which begins with it. It is printed for a shell: each line must be one of a
/// worker's, whatever has answered.
///
/// # Errors
/// One sentence when it is not a report of this worker.
pub(crate) fn verdict_of_text(text: &str) -> Result<Verdict, String> {
    if let Some(at) = text.split_terminator('\n').position(|line| !text::is_line(line)) {
        return Err(format!("not a report of agent-net: line {} is not key=value as a shell reads it", at + 1));
    }
    let word = text.lines().next().and_then(|line| line.strip_prefix("verdict="));
    let known = word.and_then(|word| Verdict::ALL.into_iter().find(|v| v.name() == word));
    known.ok_or_else(|| "not a report of agent-net: it does not begin with verdict=".into())
}

/// One line whatever a model is called: Unicode has its own line ends and marks that reverse text, and Nagios takes a |
/// for the start of performance data.
fn one_line(text: &str) -> String {
    let other = |c| matches!(c, '|' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    crate::sys::text::one_line(text).replace(other, " ") + "\n"
}

#[cfg(test)]
mod tests;
