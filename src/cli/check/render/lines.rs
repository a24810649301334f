//! The lines below the first: GPUs and reasons.

use super::{Gpu, Reason};
use crate::health::verdict::Verdict;

/// NVML's names are shorter; a foreign worker's need not be.
const MAX_NAME: usize = 96;

/// `GPU 0 NVIDIA L40S: 41 °C, 63 W of 350 W, 7012 of 46068 MiB, 3 %`
pub(super) fn of_gpus(gpus: &[Gpu]) -> impl Iterator<Item = String> {
    gpus.iter().enumerate().map(|(at, gpu)| {
        let name =
            gpu.name.as_ref().map_or_else(String::new, |name| format!(" {}", crate::sys::text::start(name, MAX_NAME)));
        format!("{}{name}: {}", label(at, gpu), readings(gpu))
    })
}

fn label(at: usize, gpu: &Gpu) -> String {
    let index = gpu.index.unwrap_or_else(|| u64::try_from(at).unwrap_or(u64::MAX));
    format!("GPU {index}")
}

/// What is not known is left out, or a dash where its limit is known.
fn readings(gpu: &Gpu) -> String {
    if let Some(why) = &gpu.error {
        return format!("no readings: {why}");
    }
    let part = |value: Option<f64>, unit: &str| value.map(|value| format!("{value:.0}{unit}"));
    let of = |value: Option<f64>, limit: Option<f64>, unit: &str, between: &str, alone: &str| match (value, limit) {
        (None, None) => None,
        (Some(value), None) => Some(format!("{value:.0}{alone}")),
        (value, Some(limit)) => {
            let value = part(value, "").unwrap_or_else(|| "-".into());
            Some(format!("{value}{between} of {limit:.0}{unit}"))
        }
    };
    let all = [
        part(gpu.temperature_c, " °C"),
        of(gpu.power_w, gpu.power_limit_w, " W", " W", " W"),
        of(gpu.vram_used_mb, gpu.vram_total_mb, " MiB", "", " MiB in use"),
        part(gpu.utilization_percent, " %"),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() { "no readings".into() } else { all.join(", ") }
}

/// What one reason says of one GPU, or of the machine.
struct Said<'a> {
    reason: &'a Reason,
    /// `GPU 0`, else what the report calls it.
    gpu: Option<String>,
    /// The message with `each` for the GPU: what is the same of several.
    of_each: String,
}

/// Each code once, with all its GPUs: one line where the same is said of all of them, else one more for each.
pub(super) fn of_reasons(reasons: &[Reason], gpus: &[Gpu]) -> impl Iterator<Item = String> {
    let mut codes: Vec<(&str, Vec<Said<'_>>)> = Vec::new();
    for reason in reasons {
        let one = said(reason, gpus);
        match codes.iter_mut().find(|(code, _)| *code == reason.code) {
            Some((_, all)) => all.push(one),
            None => codes.push((&reason.code, vec![one])),
        }
    }
    codes.into_iter().flat_map(|(code, all)| of_code(code, &all))
}

fn said<'a>(reason: &'a Reason, gpus: &[Gpu]) -> Said<'a> {
    let gpu = reason.gpu.as_ref().map(|id| {
        let named = gpus.iter().enumerate().find(|(at, gpu)| match &gpu.uuid {
            Some(uuid) => uuid == id,
            None => label(*at, gpu) == id.replacen("gpu", "GPU ", 1),
        });
        named.map_or_else(|| id.clone(), |(at, gpu)| label(at, gpu))
    });
    let of_each = gpu.as_ref().map_or_else(|| reason.message.clone(), |gpu| replaced(&reason.message, gpu));
    Said { reason, gpu, of_each }
}

/// The text with `each` for `gpu`; GPU 1 is not in GPU 11.
fn replaced(text: &str, gpu: &str) -> String {
    let mut pieces = text.split(gpu);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push_str(if piece.starts_with(|c: char| c.is_ascii_alphanumeric()) { gpu } else { "each" });
        out.push_str(piece);
    }
    out
}

fn of_code(code: &str, all: &[Said<'_>]) -> Vec<String> {
    let named: Vec<&str> = all.iter().filter_map(|one| one.gpu.as_deref()).collect();
    let who = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
    let worst = all.iter().map(|one| one.reason.severity).max().unwrap_or(Verdict::Unknown);
    let head = format!("{worst} {code}{who}:");
    let Some((first, others)) = all.split_first() else { return Vec::new() };
    let same_action = others.iter().all(|one| one.reason.action == first.reason.action);
    let same_severity = others.iter().all(|one| one.reason.severity == first.reason.severity);
    let alike = |one: &Said<'_>, other: &Said<'_>| {
        let (a, b) = (one.reason, other.reason);
        one.of_each == other.of_each && a.action == b.action && a.severity == b.severity
    };
    if others.iter().all(|one| alike(one, first)) {
        let message = if others.is_empty() { &first.reason.message } else { &first.of_each };
        return vec![format!("{head} {message}; {}", first.reason.action)];
    }
    let mut groups: Vec<Vec<&Said<'_>>> = Vec::new();
    for one in all {
        match groups.iter_mut().find(|group| alike(group[0], one)) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    let line = |group: Vec<&Said<'_>>| {
        let one = group[0];
        let severity = if same_severity { String::new() } else { format!("{}: ", one.reason.severity) };
        let action = if same_action { String::new() } else { format!("; {}", one.reason.action) };
        let message = if group.len() == 1 {
            one.reason.message.clone()
        } else {
            let named: Vec<&str> = group.iter().filter_map(|one| one.gpu.as_deref()).collect();
            format!("{}: {}", named.join(", "), one.of_each)
        };
        format!("  {severity}{message}{action}")
    };
    let head = if same_action { format!("{head} {}", first.reason.action) } else { head };
    std::iter::once(head).chain(groups.into_iter().map(line)).collect()
}
