//! The lines below the first: GPUs and reasons.

use super::report::{Gpu, MigInstance, Reason};
use crate::health::verdict::Verdict;

/// NVML's names are shorter; those of another worker may not be.
const MAX_NAME: usize = 96;
/// No GPU has more.
const MAX_INSTANCES: usize = 64;

/// `GPU 0 NVIDIA L40S: 41 °C, 63 W of 350 W, 7012 of 46068 MiB, 3 %`. Below it its MIG instances, each as
/// `  MIG 3g.40gb MIG-c7384736-…: 17 of 40448 MiB`.
pub(super) fn of_gpus(gpus: &[Gpu]) -> impl Iterator<Item = String> {
    let short = |text: &Option<String>| {
        text.as_ref().map_or_else(String::new, |text| format!(" {}", crate::sys::text::start(text, MAX_NAME)))
    };
    let instance = move |one: &MigInstance| {
        let memory = of(one.vram_used_mb, one.vram_total_mb, " MiB", "", " MiB in use");
        let memory = memory.unwrap_or_else(|| "no readings".into());
        format!("  MIG{}{}: {memory}", short(&one.profile), short(&one.uuid))
    };
    gpus.iter().enumerate().flat_map(move |(at, gpu)| {
        let mut lines = vec![format!("{}{}: {}", label(at, gpu), short(&gpu.name), readings(gpu))];
        lines.extend(gpu.mig.iter().flatten().take(MAX_INSTANCES).map(instance));
        lines
    })
}

fn label(at: usize, gpu: &Gpu) -> String {
    let index = gpu.index.unwrap_or_else(|| u64::try_from(at).unwrap_or(u64::MAX));
    format!("GPU {index}")
}

/// Unknown readings are left out, or are a dash where their limit is known.
fn readings(gpu: &Gpu) -> String {
    if let Some(why) = &gpu.error {
        return format!("no readings: {why}");
    }
    let all = [
        gpu.asleep.then(|| "asleep".into()),
        part(gpu.temperature_c, " °C"),
        of(gpu.power_w, gpu.power_limit_w, " W", " W", " W"),
        of(gpu.vram_used_mb, gpu.vram_total_mb, " MiB", "", " MiB in use"),
        part(gpu.utilization_percent, " %"),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() { "no readings".into() } else { all.join(", ") }
}

fn part(value: Option<f64>, unit: &str) -> Option<String> {
    value.map(|value| format!("{value:.0}{unit}"))
}

fn of(value: Option<f64>, limit: Option<f64>, unit: &str, between: &str, alone: &str) -> Option<String> {
    match (value, limit) {
        (None, None) => None,
        (Some(value), None) => Some(format!("{value:.0}{alone}")),
        (value, Some(limit)) => {
            let value = part(value, "").unwrap_or_else(|| "-".into());
            Some(format!("{value}{between} of {limit:.0}{unit}"))
        }
    }
}

/// One reason, and its GPU as people see it.
struct OfGpu<'a> {
    severity: Verdict,
    /// `GPU 0`, else what the report calls it; None: the machine.
    gpu: Option<String>,
    /// Without the GPU in front: what may be the same for several.
    message: &'a str,
    /// With N for what names its GPU: `nvidia-smi -i N -r`.
    action: String,
    /// What N stands for: an index, or a PCI bus ID.
    device: Option<&'a str>,
}

/// Each code once, with all its GPUs: one line where all have the same message, else one more for each message. Below
/// it what to do.
pub(super) fn of_reasons(reasons: &[Reason], gpus: &[Gpu]) -> impl Iterator<Item = String> {
    let mut codes: Vec<(&str, Vec<OfGpu<'_>>)> = Vec::new();
    for reason in reasons {
        let one = of_gpu(reason, gpus);
        match codes.iter_mut().find(|(code, _)| *code == reason.code) {
            Some((_, all)) => all.push(one),
            None => codes.push((&reason.code, vec![one])),
        }
    }
    codes.into_iter().flat_map(|(code, all)| of_code(code, &all))
}

fn of_gpu<'a>(reason: &'a Reason, gpus: &[Gpu]) -> OfGpu<'a> {
    let gpu = reason.gpu.as_ref().map(|id| {
        let named = gpus.iter().enumerate().find(|(at, gpu)| match &gpu.uuid {
            Some(uuid) => uuid == id,
            None => label(*at, gpu) == id.replacen("gpu", "GPU ", 1),
        });
        named.map_or_else(|| id.clone(), |(at, gpu)| label(at, gpu))
    });
    let prefix = gpu.as_ref().map(|gpu| format!("{gpu}: "));
    let message = prefix.and_then(|prefix| reason.message.strip_prefix(&prefix)).unwrap_or(&reason.message);
    let device = device(&reason.action).filter(|_| gpu.is_some());
    let action = match device {
        Some(device) => reason.action.replace(&format!("{OPTION}{device} "), &format!("{OPTION}{ANY} ")),
        None => reason.action.clone(),
    };
    OfGpu { severity: reason.severity, gpu, message, action, device }
}

/// The GPUs of these reasons, as people see them.
pub(super) fn gpu_names(reasons: &[&Reason], gpus: &[Gpu]) -> Vec<String> {
    reasons.iter().filter_map(|reason| of_gpu(reason, gpus).gpu).collect()
}

/// `nvidia-smi` takes several GPUs at once: `-i 0,3`.
const OPTION: &str = "nvidia-smi -i ";
const ANY: &str = "N";

/// What `nvidia-smi -i` names in an action.
fn device(action: &str) -> Option<&str> {
    let (device, _) = action.split_once(OPTION)?.1.split_once(' ')?;
    Some(device).filter(|device| !device.is_empty())
}

/// `GPU 0, GPU 3`
fn names(all: &[&OfGpu<'_>]) -> String {
    all.iter().filter_map(|one| one.gpu.as_deref()).collect::<Vec<_>>().join(", ")
}

/// What to do about these, which have the same action.
fn action(all: &[&OfGpu<'_>], indent: &str) -> String {
    let devices: Vec<&str> = all.iter().filter_map(|one| one.device).collect();
    let action = all.first().map_or("", |one| &one.action);
    format!("{indent}-> {}", action.replace(&format!("{OPTION}{ANY} "), &format!("{OPTION}{} ", devices.join(","))))
}

fn of_code(code: &str, all: &[OfGpu<'_>]) -> Vec<String> {
    let all: Vec<&OfGpu<'_>> = all.iter().collect();
    let Some(first) = all.first() else { return Vec::new() };
    let who = names(&all);
    let who = if who.is_empty() { who } else { format!(" ({who})") };
    let worst = all.iter().map(|one| one.severity).max().unwrap_or(Verdict::Unknown);
    let head = format!("{worst} {code}{who}:");
    let same_action = all.iter().all(|one| one.action == first.action);
    let same_severity = all.iter().all(|one| one.severity == first.severity);
    if same_action && same_severity && all.iter().all(|one| one.message == first.message) {
        return vec![format!("{head} {}", first.message), action(&all, "  ")];
    }
    let alike = |a: &OfGpu<'_>, b: &OfGpu<'_>| (a.message, &a.action, a.severity) == (b.message, &b.action, b.severity);
    let mut groups: Vec<Vec<&OfGpu<'_>>> = Vec::new();
    for one in &all {
        match groups.iter_mut().find(|group| alike(group[0], one)) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    let mut lines = vec![head];
    for group in groups {
        let severity = if same_severity { String::new() } else { format!("{}: ", group[0].severity) };
        let who = names(&group);
        let who = if who.is_empty() { who } else { format!("{who}: ") };
        lines.push(format!("  {severity}{who}{}", group[0].message));
        lines.extend((!same_action).then(|| action(&group, "    ")));
    }
    lines.extend(same_action.then(|| action(&all, "  ")));
    lines
}
