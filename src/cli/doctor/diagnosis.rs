//! What `doctor` finds: lines that say pass, warn or fail, what was seen and how to mend it. Facts in, lines out.

use crate::gpu::surroundings::Node;
use serde::Serialize;

use crate::config::limits::Limits;
use crate::gpu::surroundings::{Access, Surroundings};
use crate::health::snapshot::Snapshot;
use crate::health::verdict::{Reason, Verdict};
use crate::ollama::models::{self, Model};
use crate::ollama::state::{OllamaState, Reach};
use crate::sys::text::one_line;

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
    /// What was looked at, one word.
    pub(crate) check: &'static str,
    pub(crate) grade: Grade,
    pub(crate) detail: String,
    /// What to do; None where nothing is wrong.
    pub(crate) mend: Option<String>,
}

impl Finding {
    pub(crate) fn pass(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, grade: Grade::Pass, detail: detail.into(), mend: None }
    }

    pub(crate) fn warn(check: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warn, detail: detail.into(), mend: Some(mend.into()) }
    }

    pub(crate) fn fail(check: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, grade: Grade::Fail, detail: detail.into(), mend: Some(mend.into()) }
    }
}

/// The worst of `findings`.
pub(crate) fn worst(findings: &[Finding]) -> Grade {
    findings.iter().map(|f| f.grade).max().unwrap_or(Grade::Pass)
}

/// One line for each finding, and one more for what mends it.
pub(crate) fn text(findings: &[Finding], colour: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let (word, code) = match finding.grade {
            Grade::Pass => ("pass", 32),
            Grade::Warn => ("warn", 33),
            Grade::Fail => ("FAIL", 31),
        };
        let word = if colour { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() };
        // What drivers, models and servers say cannot pretend to be another line, nor steer the terminal.
        text.push_str(&format!("{word}  {:<12}  {}\n", finding.check, one_line(&finding.detail)));
        if let Some(mend) = &finding.mend {
            text.push_str(&format!("{:20}-> {}\n", "", one_line(mend)));
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

/// What the machine shows of its GPUs without asking them.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) around: Surroundings,
    /// The text of /proc/driver/nvidia/version.
    pub(crate) driver: Option<String>,
    /// A Jetson or another Tegra board, by its model.
    pub(crate) board: Option<String>,
    pub(crate) wsl: bool,
    pub(crate) nodes: Vec<Node>,
}

const GIVE_A_GPU: &str = "start the container with a GPU: -f compose/gpu.yaml, or docker run --gpus all";

/// Driver, device nodes, and whether they may be opened.
pub(crate) fn machine(machine: &Machine, limits: &Limits) -> Vec<Finding> {
    if let Some(board) = &machine.board {
        return vec![Finding::pass("driver", format!("{board}: its GPU is read from /sys, without NVML"))];
    }
    if machine.wsl {
        return vec![Finding::pass("driver", "WSL: Windows lends its GPU through /dev/dxg")];
    }
    let found = machine.driver.as_deref().map(driver_version);
    let around = &machine.around;
    let on_bus = around.pci_gpus;
    let bus = on_bus.map_or_else(|| "the PCI bus cannot be seen".into(), |n| format!("{n} NVIDIA GPUs on the PCI bus"));
    let why = around.without_driver();
    let none_expected = limits.expected_gpus == Some(0);
    let driver = match (found, on_bus) {
        (Some(version), _) => Finding::pass("driver", format!("kernel module {version}; {bus}{why}")),
        (None, _) if none_expected => Finding::pass("driver", "none, and EXPECTED_GPUS=0 expects none"),
        (None, Some(0)) => Finding::fail(
            "driver",
            "no NVIDIA GPU on the PCI bus and no driver",
            "use a machine with an NVIDIA GPU, or set EXPECTED_GPUS=0 if none is meant to be here",
        ),
        (None, Some(n)) => Finding::fail(
            "driver",
            format!("{n} NVIDIA GPUs on the PCI bus, and no NVIDIA driver is loaded{why}"),
            around.load_driver(),
        ),
        (None, None) => Finding::fail(
            "driver",
            "no NVIDIA driver is loaded, and the PCI bus cannot be seen",
            "install NVIDIA's driver on the host; mount the host's /sys where HOST_ROOT says",
        ),
    };
    let without = driver.grade != Grade::Pass || none_expected;
    let mut all = vec![driver];
    if machine.nodes.is_empty() && !without {
        all.push(Finding::fail("devices", "there is no /dev/nvidia*: no GPU was given to this container", GIVE_A_GPU));
    }
    all.extend(machine.nodes.iter().map(node));
    let gpus = machine.nodes.iter().filter(|n| n.name != "nvidiactl" && !n.name.contains('-')).count();
    if gpus == 0 && !machine.nodes.is_empty() {
        all.push(Finding::fail("devices", "no /dev/nvidia0 or other GPU is among the devices", GIVE_A_GPU));
    }
    all
}

fn node(node: &Node) -> Finding {
    let who = format!("/dev/{} (mode {:o}, owner {}:{})", node.name, node.mode & 0o7777, node.uid, node.gid);
    match &node.access {
        Access::Open => Finding::pass("devices", format!("{who} can be opened")),
        Access::Untested => Finding::fail("devices", format!("{who} vanished while it was looked at"), GIVE_A_GPU),
        Access::Revoked => Finding::fail(
            "devices",
            format!("{who}: the container's right to it was taken away (cgroup)"),
            "restart the worker's and Ollama's containers; for good: native.cgroupdriver=cgroupfs, or nvidia-ctk system create-dev-char-symlinks",
        ),
        Access::Refused(why) => Finding::fail(
            "devices",
            format!("{who} cannot be opened: {why}"),
            format!("let this user in: add group {} (group_add in compose), or mend the mode on the host", node.gid),
        ),
    }
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  …`: the version.
fn driver_version(text: &str) -> String {
    let words = text.lines().next().unwrap_or_default().split_whitespace();
    let mut numbers = words.filter(|w| w.contains('.') && w.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    numbers.next().unwrap_or("of unknown version").to_owned()
}

/// NVML, each GPU, and what the rules say of them.
pub(crate) fn gpus(snapshot: &Snapshot) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some(sample) = snapshot.gpu.sample() {
        let version = |what: &str, v: &Option<String>| v.as_ref().map(|v| format!(", {what} {v}"));
        let versions = [
            version("driver", &sample.driver_version),
            version("NVML", &sample.nvml_version),
            version("CUDA", &sample.cuda_version),
        ];
        let from = sample.library.as_deref().unwrap_or("the board's /sys");
        let versions: String = versions.into_iter().flatten().collect();
        all.push(Finding::pass(
            "readings",
            format!("{from}{versions}; {} GPUs read in {:.1} ms", sample.gpus.len(), sample.read_us as f64 / 1000.0),
        ));
        for gpu in sample.gpus.iter().filter(|gpu| gpu.usable()) {
            let shown = |n: Option<u64>| n.map_or_else(|| "?".into(), |n| n.to_string());
            let (used, total) = (gpu.vram_used_bytes.map(|b| b >> 20), gpu.vram_total_bytes.map(|b| b >> 20));
            all.push(Finding::pass(
                "gpu",
                format!(
                    "{} {}: {} °C, {} of {} MiB in use",
                    gpu.index,
                    gpu.name.as_deref().unwrap_or("without a name"),
                    shown(gpu.temperature_c.map(u64::from)),
                    shown(used),
                    shown(total)
                ),
            ));
            if gpu.slow.persistence_mode == Some(false) {
                all.push(Finding::warn(
                    "gpu",
                    format!("{}: persistence mode is off: the driver is started anew for each program", gpu.index),
                    "nvidia-smi -pm 1 on the host, or enable nvidia-persistenced",
                ));
            }
        }
    }
    all.extend(snapshot.reasons.iter().filter(|r| r.code.of_gpus()).map(reason));
    all
}

fn reason(reason: &Reason) -> Finding {
    let grade = if reason.severity == Verdict::Degraded { Grade::Warn } else { Grade::Fail };
    let check = if reason.gpu.is_some() { "gpu" } else { "readings" };
    let detail = format!("{}: {}", reason.code.name(), reason.message);
    Finding { check, grade, detail, mend: Some(reason.action.to_owned()) }
}

/// Whether Ollama answers, whether its models are on the GPU, and whether those of MODEL, `wanted`, are there.
pub(crate) fn ollama(url: &str, state: &OllamaState, wanted: &[String]) -> Vec<Finding> {
    let version = match &state.reach {
        Reach::Up { version } => version,
        Reach::Down(trouble) => {
            let detail = format!("{url} does not answer: {}", trouble.why);
            return vec![Finding::fail("ollama", detail, trouble.cure())];
        }
        Reach::Pending => {
            return vec![Finding::fail(
                "ollama",
                format!("{url} does not answer"),
                "start Ollama, or check OLLAMA_URL",
            )];
        }
    };
    if let Some(trouble) = &state.list_error {
        let detail = format!("{url} is Ollama {version}, but does not list its models: {}", trouble.why);
        return vec![Finding::warn("ollama", detail, trouble.cure_of_lists())];
    }
    let pulled = state.models.iter().filter(|m| m.pulled).count();
    let mut all = vec![Finding::pass("ollama", format!("{url} is Ollama {version}; {pulled} models are pulled"))];
    let loaded: Vec<&Model> = state.models.iter().filter(|m| m.loaded.is_some()).collect();
    if loaded.is_empty() {
        all.push(Finding::pass("models", "none is loaded: whether Ollama uses the GPU cannot be told"));
    }
    for model in loaded {
        let share = model.loaded.and_then(|l| l.on_gpu_percent());
        all.push(match share {
            Some(0) => Finding::warn(
                "models",
                format!("{} is loaded into main memory, not onto the GPU", model.name),
                "see Ollama's log for why it found no GPU; restart it and load the model again",
            ),
            Some(percent) => Finding::pass("models", format!("{} is loaded, {percent} % of it on the GPU", model.name)),
            None => Finding::pass("models", format!("{} is loaded", model.name)),
        });
    }
    all.extend(wanted.iter().filter_map(|name| {
        let standing = models::standing(&state.models, name);
        match (standing.loaded, standing.pulled) {
            _ if standing.remote_host.is_some() => Some(Finding::warn(
                "models",
                format!("MODEL={name} runs in Ollama's cloud and uses no GPU of this machine"),
                "take it out of MODEL: a worker neither pulls nor loads it",
            )),
            (Some(_), _) => None,
            (None, true) => Some(Finding::warn(
                "models",
                format!("MODEL={name} is not loaded"),
                "a running worker loads it; its model_keeper (GET /gpu) says why it does not",
            )),
            (None, false) => Some(Finding::warn(
                "models",
                format!("MODEL={name} is not pulled"),
                "a running worker pulls it; or now: agent-net pull, with the same name",
            )),
        }
    }));
    all
}

/// An orchestrator's clock may be this far from ours, in seconds.
const CLOCK_APART_S: f64 = 30.0;
/// 2025-01-01: no honest clock is earlier.
const CLOCK_FLOOR: f64 = 1_735_689_600.0;

/// Our clock, `now`, beside others: who, and what their clock said. Unix seconds.
pub(crate) fn clock(now: f64, others: &[(String, f64)]) -> Vec<Finding> {
    const MEND: &str = "set the clock and keep it set (systemctl enable --now systemd-timesyncd, or chrony)";
    if now < CLOCK_FLOOR {
        return vec![Finding::fail("clock", format!("it says {now:.0} s since 1970, which is years ago"), MEND)];
    }
    if others.is_empty() {
        return vec![Finding::pass("clock", "plausible; there is no orchestrator to compare it with")];
    }
    let one = |(who, theirs): &(String, f64)| {
        let apart = now - theirs;
        if apart.abs() > CLOCK_APART_S {
            Finding::warn("clock", format!("{:.0} s apart from that of {who}", apart.abs()), MEND)
        } else {
            Finding::pass("clock", format!("within {CLOCK_APART_S} s of that of {who}"))
        }
    };
    others.iter().map(one).collect()
}

/// The uptime file needs less than half of this.
const DISK_FLOOR: u64 = 1 << 20;

/// STATE_DIR: None when it is unset, else the free bytes, or why it cannot be written.
pub(crate) fn disk(dir: Option<&str>, free: Result<u64, String>) -> Finding {
    match (dir, free) {
        (None, _) => Finding::warn(
            "disk",
            "STATE_DIR is unset: the uptime history is lost when the worker ends",
            "set STATE_DIR to a folder that outlives the worker (compose.yaml and agent-net.service do)",
        ),
        (Some(dir), Err(why)) => Finding::fail(
            "disk",
            format!("STATE_DIR={dir} cannot be written: {why}"),
            "give the folder to the user that the worker runs as (65532 in the image), and room on the disk",
        ),
        (Some(dir), Ok(free)) if free < DISK_FLOOR => Finding::warn(
            "disk",
            format!("STATE_DIR={dir} has {free} bytes left"),
            "make room: what cannot be written is kept in memory only",
        ),
        (Some(dir), Ok(free)) => {
            Finding::pass("disk", format!("STATE_DIR={dir} can be written; {} MiB are free", free >> 20))
        }
    }
}

#[cfg(test)]
mod tests;
