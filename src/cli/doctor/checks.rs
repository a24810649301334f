//! Runs all checks of `doctor` at once, each with its own deadline: a driver, a disk or a server that hangs costs only
//! its own line.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::diagnosis::{self, Finding, Machine};
use super::{heartbeat, notify, ollama, peers, probes};
use crate::cli::local::{self, NoAnswer};
use crate::config::url::HttpUrl;
use crate::config::{Config, OllamaConfig, Protocol};
use crate::gpu::amd_cards;
use crate::gpu::host;
use crate::gpu::kmsg::Kmsg;
use crate::gpu::tegra::Tegra;
use crate::health::uptime_file;
use crate::health::{once, source};
use crate::http;
use crate::livepeer::orchestrator::runner::Discovery;
use crate::livepeer::orchestrator::{Orchestrator, RegisterError};
use crate::livepeer::registrar::BYOC_ALONE;
use crate::ollama::fetch::Ollama;
use crate::ollama::state::{OllamaState, Reach};
use crate::outgoing;
use crate::sys::limits::unix_now;
use crate::sys::text::io_words;
use crate::sys::threads;

/// Name, deadline and function of a check.
type Check = (&'static str, Duration, fn(&Config) -> Vec<Finding>);

/// For the GPUs, whose driver takes up to 25 s to start. Their check has a little longer.
const READINGS: Duration = Duration::from_secs(30);

const CHECKS: &[Check] = &[
    ("driver", Duration::from_secs(3), machine),
    ("readings", Duration::from_secs(33), gpus),
    ("xids", Duration::from_secs(3), kernel_log),
    // Ollama may answer /api/ps only after 20 s.
    ("ollama", Duration::from_secs(30), ollama),
    ("orchestrator", Duration::from_secs(30), orchestrators),
    ("notify", Duration::from_secs(10), notify::findings),
    ("heartbeat", Duration::from_secs(12), heartbeat::findings),
    ("peers", Duration::from_secs(12), peers::findings),
    ("disk", Duration::from_secs(5), state),
    ("worker", Duration::from_secs(3), worker),
];

const FIX: &str = "Fix ORCH_URL, ORCH_SECRET or ORCH_TLS as the message says, or start the orchestrator.";

/// All findings, in the order of [`CHECKS`].
pub(crate) fn examine(config: &Config) -> Vec<Finding> {
    let start = Instant::now();
    let running: Vec<_> = CHECKS
        .iter()
        .map(|(name, deadline, check)| {
            let (sender, found) = mpsc::sync_channel(1);
            let (config, check) = (config.clone(), *check);
            // A check that never ends is left behind: the process ends without it.
            let started = threads::spawn(name, move || {
                let _ = sender.send(check(&config));
            });
            (*name, *deadline, started.map(|()| found))
        })
        .collect();
    let mut all = Vec::new();
    for (name, deadline, found) in running {
        let found = match found {
            Ok(found) => found.recv_timeout(deadline.saturating_sub(start.elapsed())),
            Err(why) => {
                all.push(Finding::fail(name, format!("cannot start a thread: {why}"), "Raise `ulimit -u`."));
                continue;
            }
        };
        all.extend(found.unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", deadline.as_secs());
            vec![Finding::fail(name, detail, "Check `dmesg`, the mount and the network: something hangs.")]
        }));
    }
    diagnosis::one_for_each_cause(all)
}

fn machine(config: &Config) -> Vec<Finding> {
    let root = Path::new(&config.host_root);
    let mut log = Kmsg::open(root).ok();
    // Its XIDs are found with the readings.
    log.as_mut().map(|log| log.read());
    let seen = Machine {
        host: source::host_facts(root, config.amd_gpus, log.as_ref()),
        driver: host::driver(root),
        board: Tegra::detect(root).map(|board| board.model().to_owned()),
        wsl: host::is_wsl(root),
        nodes: host::nodes(root),
    };
    diagnosis::machine(&seen, &config.limits)
}

fn gpus(config: &Config) -> Vec<Finding> {
    diagnosis::gpus(&once::once(config, OllamaState::PENDING, READINGS / config.faults.time_scale), *host::PLACE)
}

fn kernel_log(config: &Config) -> Vec<Finding> {
    let root = Path::new(&config.host_root);
    let amd = !amd_cards::cards(root, config.amd_gpus).is_empty();
    let nvidia = !amd || host::driver(root).is_some();
    let both = |nvidias, amds| {
        let parts = [nvidia.then_some(nvidias), amd.then_some(amds)];
        parts.into_iter().flatten().collect::<Vec<&str>>().join("; ")
    };
    let detail = match Kmsg::open(root) {
        Ok(_) => {
            let seen = both("all XID errors are visible", "hangs and resets of AMD GPUs are visible");
            format!("kernel log readable: {seen}")
        }
        Err(why) => {
            // NVML reads nothing of a board.
            let xids = match Tegra::detect(root) {
                Some(_) => "XID errors are not seen",
                None => "XID errors come from NVML, which misses some",
            };
            let lost = both(xids, "hangs and resets of AMD GPUs are not seen");
            format!("kernel log not readable ({}): {lost}. {}", io_words(&why), host::PLACE.let_it_read_the_log())
        }
    };
    vec![Finding::pass("xids", detail)]
}

fn ollama(config: &Config) -> Vec<Finding> {
    let state = ask_ollama(&config.ollama);
    let mut all = ollama::findings(config.ollama.url.as_str(), &state, &config.models.names);
    all.extend(probes::findings(&state, &config.models));
    all
}

/// Ollama's state; read twice when it does not answer: one lost answer is not an outage.
pub(crate) fn ask_ollama(config: &OllamaConfig) -> OllamaState {
    let mut ollama = Ollama::new(config);
    let state = ollama.read();
    if matches!(state.reach, Reach::Up { .. }) { state } else { ollama.read() }
}

/// Each orchestrator: whether it has BYOC and accepts the secret. And the clock, compared with theirs.
fn orchestrators(config: &Config) -> Vec<Finding> {
    let settings = &config.orchestrators;
    let mut all = Vec::new();
    let mut clocks = Vec::new();
    if settings.urls.is_empty() {
        all.push(Finding::pass("orchestrator", "ORCH_URL is not set: the worker does not register"));
    }
    match outgoing::tls(&settings.tls) {
        Err(why) => all.push(Finding::fail("orchestrator", format!("ORCH_TLS: {why}"), "Fix ORCH_TLS.")),
        Ok(tls) => {
            let one = |url: &HttpUrl| Orchestrator::new(url.clone(), settings.secret.clone(), tls.clone());
            let each: Vec<_> = settings.urls.iter().map(one).collect();
            // One that hangs does not delay the others.
            thread::scope(|scope| {
                let checks: Vec<_> =
                    each.iter().map(|one| (one, scope.spawn(move || registries(one, config)))).collect();
                for (one, check) in checks {
                    let Ok((found, clock)) = check.join() else { continue };
                    all.extend(found);
                    clocks.extend(clock.map(|theirs| (one.url().to_owned(), theirs)));
                }
            });
        }
    }
    let own = config.capability.url.as_ref().filter(|_| !settings.urls.is_empty());
    if let Some((url, why)) = own.and_then(|url| Some((url, url.trouble()?))) {
        let detail = format!("CAPABILITY_URL={}: {why}", url.as_str());
        all.push(Finding::warn("orchestrator", detail, "Set it to this machine's public name or address."));
    }
    if let Some((why, cure)) = config.price_trouble() {
        all.push(Finding::warn("orchestrator", why, cure));
    }
    if !settings.urls.is_empty() && settings.protocol == Protocol::Auto && config.worker_token.is_some() {
        all.push(Finding::pass("orchestrator", format!("ORCH_PROTOCOL=auto: {BYOC_ALONE}")));
    }
    all.extend(diagnosis::clock(unix_now(), &clocks));
    all
}

/// Which of the registries that ORCH_PROTOCOL asks for an orchestrator has, where the worker is visible there, and the
/// orchestrator's clock in Unix seconds.
fn registries(one: &Orchestrator, config: &Config) -> (Vec<Finding>, Option<f64>) {
    let settings = &config.orchestrators;
    let with_byoc = settings.protocol != Protocol::LiveRunner;
    let with_runners = settings.protocol.uses_runners(config.worker_token.is_some());
    let (byoc, runners) = thread::scope(|scope| {
        let byoc = with_byoc.then(|| scope.spawn(|| one.probe()));
        let runners = with_runners.then(|| one.discovery(&settings.runner.id));
        (byoc.and_then(|byoc| byoc.join().ok()), runners)
    });
    let clock = byoc.as_ref().and_then(|byoc| byoc.as_ref().ok().copied().flatten());
    let auto = settings.protocol == Protocol::Auto;
    // `auto` needs only one of them.
    let has_runners = matches!(runners, Some(Ok(Discovery::There { .. })));
    let has_byoc = byoc.as_ref().is_some_and(|byoc| !matches!(byoc, Err(RegisterError::NoByoc)));
    let mut all = Vec::new();
    if let Some(byoc) = byoc {
        let names = config.capability.names.join(", ");
        all.push(match byoc {
            Ok(_) => found(one, &format!("has BYOC and accepts the secret: a worker is visible there as {names}")),
            Err(RegisterError::NoByoc) if auto && has_runners => {
                found(one, "has no BYOC, which is optional with ORCH_PROTOCOL=auto")
            }
            Err(why) => Finding::fail("orchestrator", format!("{}: {why}", one.url()), FIX),
        });
    }
    all.extend(runners.map(|runners| live_runner(one, &settings.runner.id, runners, auto && has_byoc)));
    (all, clock)
}

fn found(one: &Orchestrator, what: &str) -> Finding {
    Finding::pass("orchestrator", format!("{} {what}", one.url()))
}

/// `optional`: BYOC alone is enough.
fn live_runner(one: &Orchestrator, id: &str, runners: Result<Discovery, RegisterError>, optional: bool) -> Finding {
    let url = one.url();
    match runners {
        Ok(Discovery::There { listed: Some(true) }) => {
            found(one, &format!("has a Live Runner registry, which lists {id} as ready: /apps/{id}/app/gpu-check"))
        }
        Ok(Discovery::There { listed }) => {
            let listed = if listed.is_some() { "does not list" } else { "may list" };
            found(
                one,
                &format!(
                    "has a Live Runner registry, which {listed} {id}; a worker's first heartbeat shows whether it accepts the secret"
                ),
            )
        }
        Ok(Discovery::Absent) if optional => found(
            one,
            "has no Live Runner registry (-useLiveRunners and -orchSecret): call_runner of Livepeer's SDK finds no worker there",
        ),
        Ok(Discovery::Absent) => Finding::fail(
            "orchestrator",
            format!("{url} has no Live Runner registry"),
            "Start it with -useLiveRunners and -orchSecret, or change ORCH_PROTOCOL.",
        ),
        Err(why) if optional && why.is_odd_answer() => Finding::warn(
            "orchestrator",
            format!("unknown whether {url} has a Live Runner registry: {why}"),
            "Allow GET /discovery, or set ORCH_PROTOCOL=both if it has one and byoc if not.",
        ),
        Err(why) => Finding::fail("orchestrator", format!("{url}: {why}"), FIX),
    }
}

fn state(config: &Config) -> Vec<Finding> {
    let dir = config.state_dir.as_deref();
    vec![diagnosis::disk(dir, dir.map_or(Ok(0), uptime_file::try_out))]
}

fn worker(config: &Config) -> Vec<Finding> {
    let addr = local::reachable(config.host, config.port);
    let own = match local::health(addr, local::HEALTH) {
        Ok(200) => Finding::pass("worker", format!("running at http://{addr}{}", host::PLACE.own_settings())),
        Ok(status) => Finding::warn(
            "worker",
            format!("http://{addr}/health answers {status}: another program"),
            "Free the port, or set SERVER_PORT.",
        ),
        Err(NoAnswer::Refused(_)) => Finding::pass("worker", format!("no worker on {addr}; port free")),
        Err(NoAnswer::Other(why)) => Finding::warn("worker", why, "Restart the worker, or check what listens there."),
    };
    let held = config.port_socket.as_deref().map(|path| match http::held_address(Path::new(path)) {
        Ok(addr) => Finding::pass("held port", format!("agent-net hold-port holds {addr}")),
        Err(why) => Finding::warn(
            "held port",
            format!("PORT_SOCKET={path}: {}", io_words(&why)),
            "Start agent-net hold-port as the same user, with the same folder. With kmsg.yaml see hold-port.yaml.",
        ),
    });
    [own].into_iter().chain(held).collect()
}
