//! What `doctor` finds: lines with pass, warn or fail, what was seen and how to fix it. Facts in, lines out.

use std::borrow::Cow;

use serde::Serialize;

use crate::config::limits::Limits;
use crate::gpu::host_facts::{Access, HostFacts, Node};
use crate::gpu::mig_instance::MigInstance;
use crate::gpu::place::Place;
use crate::gpu::sample::Gpu;
use crate::gpu::vendor::Vendor;
use crate::health::snapshot::Snapshot;
use crate::health::verdict::{Code, Reason, Verdict};
use crate::sys::text::{counted, one_line};

/// Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grade {
    Pass,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was checked, one word.
    pub(crate) check: &'static str,
    pub(crate) grade: Grade,
    pub(crate) detail: String,
    /// What to do; None for a pass.
    pub(crate) fix: Option<String>,
    /// The code of the reason that it repeats, if it is one.
    #[serde(skip)]
    code: Option<Code>,
}

impl Finding {
    pub(crate) fn pass(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, grade: Grade::Pass, detail: detail.into(), fix: None, code: None }
    }

    pub(crate) fn warn(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warn, detail: detail.into(), fix: Some(fix.into()), code: None }
    }

    pub(crate) fn fail(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, grade: Grade::Fail, detail: detail.into(), fix: Some(fix.into()), code: None }
    }
}

/// The worst of `findings`.
pub(crate) fn worst(findings: &[Finding]) -> Grade {
    findings.iter().map(|f| f.grade).max().unwrap_or(Grade::Pass)
}

/// One line for each finding, and one more for its fix.
pub(crate) fn text(findings: &[Finding], color: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let (word, code) = match finding.grade {
            Grade::Pass => ("pass", 32),
            Grade::Warn => ("warn", 33),
            Grade::Fail => ("FAIL", 31),
        };
        let word = if color { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() };
        // Text from drivers, models and servers must not look like another line, nor control the terminal.
        text.push_str(&format!("{word}  {:<12}  {}\n", finding.check, one_line(&finding.detail)));
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("{:20}-> {}\n", "", one_line(fix)));
        }
    }
    text
}

/// `{"status":"pass|warn|fail","checks":[…]}`
pub(crate) fn json(findings: &[Finding]) -> String {
    #[derive(Serialize)]
    struct Diagnosis<'a> {
        status: Grade,
        version: &'static str,
        checks: &'a [Finding],
    }
    crate::sys::json::json(&Diagnosis { status: worst(findings), version: env!("CARGO_PKG_VERSION"), checks: findings })
}

/// What the host shows of its GPUs without reading them.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) host: HostFacts,
    /// The text of /proc/driver/nvidia/version.
    pub(crate) driver: Option<String>,
    /// A Jetson or another Tegra board, by its model.
    pub(crate) board: Option<String>,
    pub(crate) wsl: bool,
    pub(crate) nodes: Vec<Node>,
}

/// Driver, device nodes, and whether they may be opened.
pub(crate) fn machine(machine: &Machine, limits: &Limits) -> Vec<Finding> {
    if let Some(board) = &machine.board {
        return vec![Finding::pass("driver", format!("{board}: GPU read from /sys, without NVML"))];
    }
    if machine.wsl {
        return vec![Finding::pass("driver", "WSL: Windows provides its GPU through /dev/dxg")];
    }
    let found = machine.driver.as_deref().map(driver_version);
    let host = &machine.host;
    let give_a_gpu = host.place.give_a_gpu();
    let on_bus = host.pci_gpus;
    let bus =
        on_bus.map_or_else(|| "the PCI bus cannot be read".into(), |n| counted(n, "NVIDIA GPU") + " on the PCI bus");
    let why = host.without_driver();
    let none_expected = limits.expected_gpus == Some(0);
    let mut all = Vec::new();
    if host.amd_gpus > 0 {
        all.push(Finding::pass("driver", format!("amdgpu, {}", counted(host.amd_gpus, "GPU"))));
        if found.is_none() && host.pci_gpus_for_nvidia == Some(0) {
            return all;
        }
    }
    let driver = match (found, on_bus) {
        (Some(version), _) => Finding::pass("driver", format!("kernel module {version}; {bus}{why}")),
        (None, _) if none_expected => Finding::pass("driver", "not loaded; EXPECTED_GPUS=0 expects no GPU"),
        (None, Some(0)) => {
            let detail = format!("no NVIDIA GPU on the PCI bus, and no NVIDIA driver loaded{why}");
            Finding::fail("driver", detail, host.give_a_gpu())
        }
        (None, Some(n)) => Finding::fail(
            "driver",
            format!("{} on the PCI bus, but no NVIDIA driver loaded{why}", counted(n, "NVIDIA GPU")),
            host.load_driver(),
        ),
        (None, None) => Finding::fail(
            "driver",
            "no NVIDIA driver loaded, and the PCI bus cannot be read",
            format!("{} Mount the host's /sys where HOST_ROOT points to.", host.load_driver()),
        ),
    };
    let without = driver.grade != Grade::Pass || none_expected;
    all.push(driver);
    if machine.nodes.is_empty() && !without {
        all.push(Finding::fail("devices", "no /dev/nvidia* device: the worker has no GPU", give_a_gpu));
    }
    let is_gpu = |node: &&Node| node.name != "nvidiactl" && !node.name.contains('-');
    // Nodes stay when the driver is unloaded, and cannot be opened then: the same cause.
    let counts = |node: &&Node| !without || !matches!(node.access, Access::Refused(_) | Access::Failed(_));
    // A container may have the nodes of GPUs that it was not given.
    let has_one = machine.nodes.iter().any(|node| is_gpu(&node) && node.access == Access::Open);
    let is_ours = |node: &&Node| !(host.in_container && has_one && is_gpu(node) && node.access == Access::Revoked);
    all.extend(node_findings(machine.nodes.iter().filter(counts).filter(is_ours), host.place));
    let gpus = machine.nodes.iter().filter(is_gpu).count();
    if gpus == 0 && !machine.nodes.is_empty() && !without {
        all.push(Finding::fail("devices", "no /dev/nvidia0 or other GPU among the devices", give_a_gpu));
    }
    all
}

/// One for each node that opens, and one for all that fail for the same reason.
fn node_findings<'a>(nodes: impl Iterator<Item = &'a Node>, place: Place) -> Vec<Finding> {
    let mut groups: Vec<Vec<&Node>> = Vec::new();
    for node in nodes {
        let alike = |of: &Node| of.access != Access::Open && (&of.access, of.gid) == (&node.access, node.gid);
        match groups.iter_mut().find(|group| alike(group[0])) {
            Some(group) => group.push(node),
            None => groups.push(vec![node]),
        }
    }
    groups.iter().map(|group| node_finding(group, place)).collect()
}

/// `nodes` have the same access and group.
fn node_finding(nodes: &[&Node], place: Place) -> Finding {
    let name = |n: &&Node| format!("/dev/{} (mode {:o}, owner {}:{})", n.name, n.mode & 0o7777, n.uid, n.gid);
    let who = nodes.iter().map(name).collect::<Vec<_>>().join(", ");
    let fail = |what: &str, fix: Cow<'static, str>| Finding::fail("devices", format!("{who}{what}"), fix);
    match &nodes[0].access {
        Access::Open => Finding::pass("devices", format!("{who} opens")),
        Access::Untested => fail(" disappeared during the check", place.give_a_gpu().into()),
        Access::Revoked => fail(": access was revoked (cgroup)", place.regain_access()),
        Access::Refused(why) => fail(&format!(" cannot be opened: {why}"), place.join_group(nodes[0].gid).into()),
        Access::Failed(why) => fail(&format!(" cannot be opened: {why}"), place.check_logs(Vendor::Nvidia).into()),
    }
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  …`: the version.
fn driver_version(text: &str) -> String {
    let words = text.lines().next().unwrap_or_default().split_whitespace();
    let mut numbers = words.filter(|w| w.contains('.') && w.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    numbers.next().unwrap_or("of an unknown version").to_owned()
}

/// `0 MIG 3g.40gb MIG-c7384736-…: 17 of 40448 MiB in use`
fn instance(gpu: &Gpu, one: &MigInstance) -> Finding {
    let name: String = [&one.profile, &one.uuid].into_iter().flatten().map(|part| format!(" {part}")).collect();
    let [used, total] = [one.vram_used_bytes, one.vram_total_bytes].map(mib);
    Finding::pass("gpu", format!("{} MIG{name}: {used} of {total} MiB in use", gpu.index))
}

/// `?` where it is unknown.
fn mib(bytes: Option<u64>) -> String {
    shown(bytes.map(|bytes| bytes >> 20))
}

fn shown(number: Option<u64>) -> String {
    number.map_or_else(|| "?".into(), |number| number.to_string())
}

/// What was read, each GPU, and the reasons about them.
pub(crate) fn gpus(snapshot: &Snapshot, place: Place) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some(sample) = snapshot.gpu.sample() {
        let version = |what: &str, v: &Option<String>| v.as_ref().map(|v| format!(", {what} {v}"));
        let versions = [
            version("driver", &sample.driver_version),
            version("NVML", &sample.nvml_version),
            version("CUDA", &sample.cuda_version),
        ];
        let amd = sample.gpus.iter().any(|gpu| gpu.vendor.is_amd());
        let others = if amd { "amdgpu" } else { "the board's /sys" };
        let from = match &sample.library {
            Some(library) if amd => format!("{library} and {others}"),
            library => library.clone().unwrap_or_else(|| others.into()),
        };
        let versions: String = versions.into_iter().flatten().collect();
        all.push(Finding::pass(
            "readings",
            format!(
                "{from}{versions}; {} read in {:.1} ms",
                counted(sample.gpus.len(), "GPU"),
                sample.read_us as f64 / 1000.0
            ),
        ));
    }
    for gpu in snapshot.gpu.usable() {
        all.push(Finding::pass(
            "gpu",
            format!(
                "{} {}: {}, {} of {} MiB in use",
                gpu.index,
                gpu.name.as_deref().unwrap_or("without a name"),
                if gpu.asleep { "asleep".into() } else { shown(gpu.temperature_c.map(u64::from)) + " °C" },
                mib(gpu.vram_used_bytes),
                mib(gpu.vram_total_bytes)
            ),
        ));
        all.extend(gpu.mig.iter().flatten().map(|one| instance(gpu, one)));
        if gpu.persistence_mode == Some(false) {
            all.push(Finding::warn(
                "gpu",
                format!("{}: persistence mode is off: the driver starts again for each program", gpu.index),
                format!("Run {}, or enable nvidia-persistenced.", place.smi(gpu, "-pm 1")),
            ));
        }
    }
    all.extend(snapshot.reasons.iter().filter(|r| r.code.of_gpus()).map(reason));
    all
}

fn reason(reason: &Reason) -> Finding {
    let grade = if reason.severity == Verdict::Degraded { Grade::Warn } else { Grade::Fail };
    let check = if reason.gpu.is_some() { "gpu" } else { "readings" };
    let detail = format!("{}: {}", reason.code, reason.message);
    Finding { check, grade, detail, fix: Some(reason.action.clone().into_owned()), code: Some(reason.code) }
}

/// Reasons that say again what a failed check of the host has found, by the name of the check.
const SAME_CAUSE: [(&str, &[Code]); 2] = [
    ("driver", &[Code::NoGpu, Code::NvmlLibMissing, Code::DriverNotLoaded]),
    ("devices", &[Code::NoGpu, Code::NvmlNoPermission, Code::GpuAccessLost, Code::NvmlInitUnknown]),
];

/// One failure for one cause: such a reason becomes part of the check's finding.
pub(crate) fn one_for_each_cause(mut all: Vec<Finding>) -> Vec<Finding> {
    for (check, codes) in SAME_CAUSE {
        let Some(first) = all.iter().position(|f| f.check == check && f.grade == Grade::Fail) else { continue };
        let repeats = |f: &Finding| f.code.is_some_and(|code| codes.contains(&code));
        if let Some(reason) = all.iter().find(|f| repeats(f)).map(|f| f.detail.clone()) {
            all[first].detail.push_str(&format!("; {reason}"));
        }
        all.retain(|f| !repeats(f));
    }
    all
}

/// An orchestrator's clock may differ by this many seconds.
const CLOCK_APART_S: f64 = 30.0;
/// 2025-01-01: an earlier clock is wrong.
const CLOCK_FLOOR: f64 = 1_735_689_600.0;

/// This clock, `now`, compared with others: whose, and their time. Unix seconds.
pub(crate) fn clock(now: f64, others: &[(String, f64)]) -> Vec<Finding> {
    const FIX: &str = "Set the clock and keep it synchronized: `systemctl enable --now systemd-timesyncd`, or chrony.";
    if now < CLOCK_FLOOR {
        return vec![Finding::fail("clock", format!("wrong by years: {now:.0} s since 1970"), FIX)];
    }
    if others.is_empty() {
        return vec![Finding::pass("clock", "looks right (no orchestrator to compare with)")];
    }
    let one = |(who, theirs): &(String, f64)| {
        let apart = now - theirs;
        if apart.abs() > CLOCK_APART_S {
            Finding::warn("clock", format!("differs by {:.0} s from the clock of {who}", apart.abs()), FIX)
        } else {
            Finding::pass("clock", format!("within {CLOCK_APART_S} s of the clock of {who}"))
        }
    };
    others.iter().map(one).collect()
}

/// The uptime file needs less than half of this.
const DISK_FLOOR: u64 = 1 << 20;

/// STATE_DIR: None when it is not set, else the free bytes, or why it is not writable.
pub(crate) fn disk(dir: Option<&str>, free: Result<u64, String>) -> Finding {
    match (dir, free) {
        (None, _) => Finding::warn(
            "disk",
            "STATE_DIR is not set: the uptime history is lost on restart",
            "Set STATE_DIR to a folder that is kept across restarts.",
        ),
        (Some(dir), Err(why)) => Finding::fail(
            "disk",
            format!("STATE_DIR={dir} is not writable: {why}"),
            "Make it and its files writable for the worker's user (65532 in the image; with kmsg.yaml root, see its first \
             lines), and check the free space of its disk.",
        ),
        (Some(dir), Ok(free)) if free < DISK_FLOOR => Finding::warn(
            "disk",
            format!("STATE_DIR={dir} has {free} bytes left"),
            "Free disk space: what cannot be written is kept in memory only.",
        ),
        (Some(dir), Ok(free)) => Finding::pass("disk", format!("STATE_DIR={dir} is writable; {} MiB free", free >> 20)),
    }
}

#[cfg(test)]
mod tests;
