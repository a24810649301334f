//! `serve`: starts everything in order, waits for a signal, stops everything in order.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;

use super::{control, ending, output, supervision, upgrade};
use crate::api::dispatcher::Dispatcher;
use crate::api::router::Router;
use crate::api::routes;
use crate::api::worker::{Sources, Worker};
use crate::config::settings::{self, Settings, Source};
use crate::config::url::HttpUrl;
use crate::config::{Config, PeersConfig, SETTINGS, Setting, TlsRule, WatchdogTest};
use crate::health::recorder::Recorder;
use crate::health::sampler;
use crate::health::snapshot_store::SnapshotStore;
use crate::health::uptime_file::OtherVersion;
use crate::http::refusal::error_body;
use crate::http::request;
use crate::http::rouille::Service;
use crate::http::{self, GateLimits, Port};
use crate::livepeer::kept_secrets::KeptSecrets;
use crate::livepeer::orchestrator::Orchestrator;
use crate::livepeer::registrar::Registrar;
use crate::livepeer::registrar::session::Offer;
use crate::livepeer::tickets::intake::TicketIntake;
use crate::notify::call::Caller;
use crate::notify::heartbeat_thread::Heartbeat;
use crate::notify::notifier::Notifier;
use crate::ollama::keeper_thread::{self, Keepers};
use crate::ollama::probe::prober::Prober;
use crate::ollama::probe::speeds_file::SpeedBook;
use crate::outgoing;
use crate::peers::watch::Peers;
use crate::sys::counters::Pulse;
use crate::sys::exit::Exit;
use crate::sys::logger::Background;
use crate::sys::signals::{self, Signal};
use crate::sys::systemd::Systemd;
use crate::sys::text::{counted, io_words};
use crate::sys::{limits, resolver, threads, version};

/// Most connections at a time, if the process may have that many files.
const MAX_CONNECTIONS: u64 = 1024;
const MIN_CONNECTIONS: u64 = 16;
/// Open files besides those of served connections: connections that are turned away or being closed, standard streams,
/// listeners, pipes, Ollama, orchestrators.
const OTHER_FILES: u64 = 96;
/// Bytes that a connection takes, 25 KiB of them in the kernel for its thread and its socket; the least and the most for large
/// requests and answers of all connections; and all else with many GPUs and models. Where the memory is limited, slow
/// clients with large requests must not end the worker.
const CONNECTION_MEMORY: u64 = 40 << 10;
const LARGE_MEMORY: u64 = 8 << 20;
const MOST_LARGE_MEMORY: u64 = 256 << 20;
const OTHER_MEMORY: u64 = 16 << 20;
/// POSTs that are answered at a time beyond CAPABILITY_CAPACITY: room for refusals while all jobs wait.
const SPARE_JOBS: usize = 64;

/// Everything that can fail before the first request.
type Started<T> = Result<T, (Exit, String)>;

pub(super) fn run(settings: &Settings) -> Exit {
    threads::panic_once(settings.config.faults.panic_thread.clone());
    let log = match Background::install(settings.config.log_level) {
        Ok(log) => log,
        Err(why) => {
            output::complain(&format!("cannot start: {why}"));
            return Exit::Failed;
        }
    };
    for Setting { name, .. } in SETTINGS.iter().filter(|setting| setting.secret) {
        if matches!(settings.set(name), Some((_, Source::Flag))) {
            log::warn!("{name} was given as a flag, which every user of this machine can read: use {name}_FILE");
        }
    }
    if matches!(settings.set("OLLAMA_URL"), Some((url, Source::Flag)) if url.contains('@')) {
        log::warn!(
            "OLLAMA_URL was given as a flag with a login, which every user of this machine can read: set the variable"
        );
    }
    match serve(&settings.config) {
        Ok(()) => Exit::Ok,
        Err((exit, why)) => {
            log.print(&format!("agent-net: {why}"));
            exit
        }
    }
}

fn serve(config: &Config) -> Started<()> {
    let failed = |why: std::io::Error| (Exit::Failed, format!("cannot start: {why}"));
    // First of all, since any file that this process opens could be taken for a passed socket.
    let inherited = http::inherited().map_err(failed)?;
    let signals = signals::watch().map_err(failed)?;
    let systemd = Arc::new(Systemd::from_env());
    resolver::start().map_err(failed)?;
    let orchestrators = orchestrators(config)?;
    ollama_tls(config)?;
    let caller = notify_tls(config)?;
    let limits = gate_limits(config)?;
    let (listeners, outlives) = listeners(inherited, config)?;
    let addr = listeners[0].local_addr().map_err(failed)?;

    let seen = observe(config, upgrade::changes_since_0_1(config, addr))?;
    let Sources { store, recorder, registrations, notifications, ticket_intake, heartbeats, .. } = seen.clone();
    let serves = Arc::new(AtomicBool::new(true));
    let worker = Arc::new(Worker::new(seen, config));
    let pulse = Pulse::default();
    let token = config.worker_token.as_ref().map(|token| token.expose().to_owned());
    let router = Router::new(&config.capability.names, config.capability.url.as_ref().map_or("", HttpUrl::path), token);
    let dispatcher = Dispatcher::new(router, Arc::clone(&worker));
    let service = Service::new(Box::new(move |request| dispatcher.answer(request)), routes::is_probe);
    let deaf = config.faults.watchdog == Some(WatchdogTest::Deaf);
    let port = http::start(listeners, service, limits, pulse.clone(), deaf).map_err(failed)?;
    log::info!("agent-net {}: listening on http://{addr}", version::full());
    if let Some(path) = &config.port_socket {
        port.accept_held(path.into()).map_err(failed)?;
    }
    supervision::watch_over(addr, port.clone(), config, &systemd, &serves).map_err(failed)?;
    listen_to_commands(&worker, config);

    let offer = offer(config, !orchestrators.is_empty(), addr.port());
    let kept = KeptSecrets::new(config.state_dir.as_deref(), &config.orchestrators.runner.id);
    let registrar = Registrar::start(orchestrators, offer, &pulse, &store, &registrations, &kept.take());
    let notifier = Notifier::start(config, caller.clone(), &store, &notifications).map_err(failed)?;
    let heartbeat = Heartbeat::start(config, caller, &store, &serves, &heartbeats).map_err(failed)?;
    systemd.ready();
    supervision::report_status(&systemd, &store, config.sample_interval).map_err(failed)?;
    let renew = || {
        systemd.reloading();
        registrar.renew();
        heartbeat.iter().for_each(|heartbeat| heartbeat.renew());
        notifier.iter().for_each(Notifier::renew);
        systemd.ready();
    };
    let signal = wait_for_stop(&signals, || drop(worker.acknowledge("SIGUSR1")), renew);
    systemd.stopping();
    log::info!("{signal}: stopping; {} in flight", counted(port.active(), "request"));
    let notified = notifier.as_ref().map(|notifier| (notifier, notifier.stop()));
    // The registrations stay only where orchestrators have been given the port that stays open.
    let jobs_come_there = config.capability.url.is_some() || config.orchestrators.urls.is_empty();
    let hands_over = signal == "SIGTERM" && (outlives || port.is_held() && jobs_come_there);
    end(&port, &worker, &registrar, ticket_intake.as_deref(), hands_over.then_some(&kept));
    recorder.flush();
    if let Some((notifier, end)) = notified {
        notifier.wait(end);
    }
    Ok(())
}

/// Ends the connections, then the registrations. With `kept` the port and the registrations stay for the next worker.
fn end(
    port: &Port,
    worker: &Worker,
    registrar: &Registrar,
    tickets: Option<&TicketIntake>,
    kept: Option<&KeptSecrets>,
) {
    if let Some(kept) = kept {
        log::info!(
            "the port stays open for the next worker, and so do the registrations; to end both, send SIGINT instead of SIGTERM"
        );
        ending::hand_over(port);
        registrar.keep(registrar.has_runners() && kept.is_possible());
    } else {
        port.drain();
        worker.drain();
        registrar.stop();
        ending::drain(port);
    }
    if let Some(tickets) = tickets {
        tickets.stop();
    }
    registrar.leave();
    if let Some(kept) = kept {
        kept.put(&registrar.secrets());
    }
}

/// The sockets of the public port; true: they outlive this process.
fn listeners(inherited: Vec<TcpListener>, config: &Config) -> Started<(Vec<TcpListener>, bool)> {
    if !inherited.is_empty() {
        return Ok((inherited, true));
    }
    let addr = SocketAddr::new(config.host, config.port);
    let listener = http::bind(addr, config.host_chosen).map_err(|why| {
        // The worker and hold-port read the same SERVER_PORT, with the same default.
        let hint = match why.kind() {
            ErrorKind::AddrInUse if config.port_socket.is_some() => {
                "; SERVER_PORT must differ from the port that agent-net hold-port holds"
            }
            ErrorKind::AddrInUse => "; stop the worker or other program that listens there, or set another SERVER_PORT",
            _ => "",
        };
        let why = io_words(&why);
        (Exit::Failed, format!("cannot listen on {addr} (SERVER_HOST, SERVER_PORT): {why}{hint}"))
    })?;
    Ok((vec![listener], false))
}

/// Starts everything that reads GPUs, Ollama and peers, and what takes tickets.
fn observe(config: &Config, changes: Vec<&'static str>) -> Started<Sources> {
    let failed = |why: std::io::Error| (Exit::Failed, format!("cannot start: {why}"));
    let keepers = Arc::new(Keepers::default());
    let store = Arc::new(SnapshotStore::new(config.limits, config.models.names.clone(), Arc::clone(&keepers)));
    let gpus = Arc::new(sampler::start(&store, config).map_err(failed)?);
    let other_version: OtherVersion = Box::new(move |last| upgrade::report(last, &changes));
    let dir = config.state_dir.as_deref().map(|dir| (dir, other_version));
    let recorder = Recorder::start(&store, dir, config.sample_interval).map_err(failed)?;
    let ticket_intake = ticket_intake(config)?;
    let probed = config.models.probe.interval.is_some() && !config.models.names.is_empty();
    let speeds = SpeedBook::start(config.state_dir.as_deref().filter(|_| probed)).map_err(failed)?;
    let prober = Arc::new(Prober::new(gpus, speeds));
    keeper_thread::start(config, &keepers, &prober).map_err(failed)?;
    Ok(Sources {
        store,
        recorder,
        registrations: Arc::default(),
        notifications: Arc::default(),
        keepers,
        peers: peers(config)?,
        ticket_intake,
        heartbeats: Arc::default(),
    })
}

/// Waits for a signal that ends the worker; its name.
fn wait_for_stop(signals: &Receiver<Signal>, acknowledge: impl Fn(), renew: impl Fn()) -> &'static str {
    loop {
        match signals.recv() {
            Ok(Signal::Renew) => {
                log::info!("SIGHUP: reading the files with secrets again and re-registering");
                renew();
            }
            Ok(Signal::Acknowledge) => acknowledge(),
            Ok(Signal::Stop(name)) => return name,
            // It never ends before this.
            Err(_) => return "no signal thread",
        }
    }
}

/// Lets `agent-net ack` reach this worker if STATE_DIR is set.
fn listen_to_commands(worker: &Arc<Worker>, config: &Config) {
    let Some(dir) = &config.state_dir else { return };
    let worker = Arc::clone(worker);
    let started = control::start(dir, move |command| match command {
        "ack" => worker.acknowledge("agent-net ack"),
        _ => error_body("bad_request", "unknown request; available: ack", limits::unix_now()),
    });
    if let Err(why) = started {
        log::warn!("cannot start a thread for agent-net ack: {why}; use SIGUSR1 instead");
    }
}

/// How much this process can do at a time.
fn gate_limits(config: &Config) -> Started<GateLimits> {
    let files = limits::raise_open_files();
    let wanted = OTHER_FILES + MIN_CONNECTIONS;
    if files < wanted {
        let why = format!("cannot start: {files} open files are allowed, {wanted} are required; raise ulimit -n");
        return Err((Exit::Failed, why));
    }
    let by_files = files - OTHER_FILES;
    let memory = limits::memory();
    let by_memory =
        memory.map_or(u64::MAX, |bytes| bytes.saturating_sub(OTHER_MEMORY + LARGE_MEMORY) / CONNECTION_MEMORY);
    let by_memory = by_memory.max(MIN_CONNECTIONS);
    let connections = by_files.min(by_memory).min(MAX_CONNECTIONS);
    if connections < MAX_CONNECTIONS {
        let limit = match memory.filter(|_| by_memory < by_files) {
            Some(bytes) => format!("{} MiB of memory", bytes >> 20),
            None => format!("{files} open files"),
        };
        log::info!("at most {connections} connections at the same time: this process is limited to {limit}");
    }
    let large = memory.map_or(MOST_LARGE_MEMORY, |bytes| {
        let left = bytes.saturating_sub(OTHER_MEMORY + connections * CONNECTION_MEMORY);
        left.clamp(LARGE_MEMORY, MOST_LARGE_MEMORY)
    });
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(GateLimits {
        connections: size(connections),
        jobs: config.capability.capacity as usize + SPARE_JOBS,
        body: request::MAX_BODY,
        memory: size(large),
    })
}

fn orchestrators(config: &Config) -> Started<Vec<Orchestrator>> {
    let settings = &config.orchestrators;
    let tls = outgoing::tls(&settings.tls).map_err(|why| (Exit::Config, format!("ORCH_TLS: {why}")))?;
    if settings.tls == TlsRule::Insecure && settings.urls.iter().any(|url| url.as_str().starts_with("https:")) {
        log::warn!(
            "ORCH_TLS=insecure: not verifying the orchestrator's certificate; the secret could be sent to an impostor"
        );
    }
    let one = |url: &HttpUrl| Orchestrator::new(url.clone(), settings.secret.clone(), tls.clone());
    Ok(settings.urls.iter().map(one).collect())
}

/// OLLAMA_TLS can be used.
fn ollama_tls(config: &Config) -> Started<()> {
    let ollama = &config.ollama;
    outgoing::tls(&ollama.tls).map_err(|why| (Exit::Config, format!("OLLAMA_TLS: {why}")))?;
    if ollama.tls == TlsRule::Insecure && ollama.url.as_str().starts_with("https:") {
        log::warn!("OLLAMA_TLS=insecure: not verifying Ollama's certificate; a login could be sent to an impostor");
    }
    Ok(())
}

/// Watches the workers of PEERS.
fn peers(config: &Config) -> Started<Arc<Peers>> {
    let PeersConfig { urls, tls } = &config.peers;
    let rule = outgoing::tls(tls).map_err(|why| (Exit::Config, format!("PEERS_TLS: {why}")))?;
    if *tls == TlsRule::Insecure && urls.iter().any(|url| url.expose().starts_with("https:")) {
        log::warn!("PEERS_TLS=insecure: not verifying certificates of peers; a token could be sent to an impostor");
    }
    let started = Peers::start(&config.peers, rule, config.faults.time_scale);
    started.map_err(|why| (Exit::Failed, format!("cannot start: {why}")))
}

/// NOTIFY_TLS can be used.
fn notify_tls(config: &Config) -> Started<Caller> {
    let settings = &config.notify;
    let tls = outgoing::tls(&settings.tls).map_err(|why| (Exit::Config, format!("NOTIFY_TLS: {why}")))?;
    let targets = settings.targets.iter().map(|target| ("NOTIFY_URL", &target.url));
    let urls = || targets.clone().chain(config.heartbeat.iter().map(|heartbeat| ("HEARTBEAT_URL", &heartbeat.url)));
    if settings.tls == TlsRule::Insecure && urls().any(|(_, url)| url.expose().starts_with("https:")) {
        log::warn!("NOTIFY_TLS=insecure: not verifying certificates; the secret URLs could be sent to an impostor");
    }
    for (name, url) in urls().filter(|(_, url)| url.is_exposed()) {
        log::warn!("{name}: {} is used without TLS: others can read the secret in it; use https", url.shown());
    }
    Ok(Caller::new(tls))
}

/// Takes tickets, where TICKET_SUBMIT_URL says what to do with them.
fn ticket_intake(config: &Config) -> Started<Option<Arc<TicketIntake>>> {
    let Some((url, dir)) = config.ticket_submit.as_ref().zip(config.state_dir.as_ref()) else { return Ok(None) };
    let tls = outgoing::tls(&config.orchestrators.tls).map_err(|why| (Exit::Config, format!("ORCH_TLS: {why}")))?;
    let to = Orchestrator::new(url.clone(), None, tls);
    let started = TicketIntake::start(dir, to, config.faults.time_scale);
    started.map(Some).map_err(|why| (Exit::Failed, format!("cannot start: {why}")))
}

fn offer(config: &Config, registers: bool, port: u16) -> Offer {
    let worker = settings::worker_url(config, port);
    if let Some(why) = worker.trouble().filter(|_| registers) {
        log::warn!("CAPABILITY_URL is {}: {why}; set it to this machine's public name or address", worker.as_str());
    }
    if registers && config.port_socket.is_some() && config.capability.url.is_none() {
        log::warn!(
            "CAPABILITY_URL is unset: jobs come to {}, which closes at a restart, and not to the port that PORT_SOCKET gives; set it to the address of that port",
            worker.as_str()
        );
    } else if registers && config.port_socket.is_some() && worker.origin().ends_with(&format!(":{port}")) {
        log::warn!(
            "CAPABILITY_URL is {}, which has the port of this worker alone: it closes at a restart; use the port that PORT_SOCKET gives",
            worker.as_str()
        );
    }
    if let Some((why, cure)) = config.price_trouble() {
        log::warn!("{why}; {cure}");
    }
    Offer {
        capability: config.capability.clone(),
        worker,
        token: config.worker_token.clone(),
        secret_file: config.orchestrators.secret_file.clone(),
        withdraw: config.orchestrators.withdraw,
        sample_interval: config.sample_interval,
        protocol: config.orchestrators.protocol,
        runner: config.orchestrators.runner.clone(),
        time_scale: config.faults.time_scale,
    }
}
