//! The line of `check --npd`: ASCII, at most 80 bytes, the same as long as the reasons are the same.

use super::lines;
use super::report::{Reason, Report};
use crate::health::verdict::Verdict;

/// What node-problem-detector keeps (max_output_length), in bytes.
const MOST: usize = 80;
/// More GPUs than this are counted, not listed.
const LISTED: usize = 3;

/// The verdict of a report in JSON, and its line: the worst code, its GPUs, and the first thing to do.
///
/// # Errors
/// One sentence when it is not a report of this worker.
pub(crate) fn npd(json: &str) -> Result<(Verdict, String), String> {
    let report = Report::read(json)?;
    let verdict = report.health.verdict;
    let line = match worst(&report.health.reasons) {
        Some(reason) if verdict == Verdict::Unhealthy => about(reason, &report),
        Some(reason) => format!("{verdict}: {}", about(reason, &report)),
        None => format!("{verdict}: {} of {} GPUs usable", report.gpu_count, report.gpus.len()),
    };
    Ok((verdict, short(&line)))
}

/// The line without a report.
pub(crate) fn npd_unknown(why: &str) -> String {
    short(&format!("unknown: {why}"))
}

/// The first of the worst.
fn worst(reasons: &[Reason]) -> Option<&Reason> {
    reasons.iter().min_by_key(|reason| std::cmp::Reverse(reason.severity))
}

/// `GPU_LOST (GPU 1), 1 more: Reboot the host.` No measured value: each change of the line is an update of the node.
fn about(worst: &Reason, report: &Report) -> String {
    let reasons = &report.health.reasons;
    let of_code: Vec<&Reason> = reasons.iter().filter(|reason| reason.code == worst.code).collect();
    let gpus = lines::gpu_names(&of_code, &report.gpus);
    let who = match gpus.len() {
        0 => String::new(),
        count if count > LISTED => format!(" ({count} GPUs)"),
        _ => format!(" ({})", gpus.join(", ")),
    };
    let more = match reasons.len() - of_code.len() {
        0 => String::new(),
        more => format!(", {more} more"),
    };
    let action = worst.action.split_inclusive(". ").next().unwrap_or_default().trim();
    format!("{}{who}{more}: {action}", worst.code)
}

/// One line of ASCII that fits, cut between two words.
fn short(line: &str) -> String {
    let plain = crate::sys::text::one_line(line).replace('°', "").replace('…', "...").replace('–', "-");
    let plain: String = plain.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.len() <= MOST {
        return words + "\n";
    }
    let start = &words[..MOST - 3];
    let start = start.rsplit_once(' ').map_or(start, |(start, _)| start);
    format!("{}...\n", start.trim_end_matches(['.', ',', ':']))
}

#[test]
fn the_line_is_ascii_and_fits() {
    #[track_caller]
    fn check(line: &str, shown: &str) {
        assert_eq!(short(line), format!("{shown}\n"));
        assert!(shown.is_ascii() && shown.len() <= MOST);
    }
    check("93 °C\nGPU – x…", "93 C GPU - x...");
    check("模型", "??");
    check(&"x".repeat(80), &"x".repeat(80));
    check(&"x".repeat(81), &format!("{}...", "x".repeat(77)));
    check(&format!("{}, ä {}", "x".repeat(70), "y".repeat(20)), &format!("{}, ?...", "x".repeat(70)));
}
