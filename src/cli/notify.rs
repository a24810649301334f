//! `notify --test`: sends one message to each receiver, now.

use std::thread;

use pico_args::Arguments;
use serde::Deserialize;
use serde_json::Value;

use super::{local, output};
use crate::config::settings::Settings;
use crate::config::{Config, NotifyTarget};
use crate::health::standing::Standing;
use crate::health::verdict::{Code, Reason, Verdict};
use crate::notify::call::Caller;
use crate::notify::delivery::Outcome;
use crate::notify::event::{Event, EventKind};
use crate::notify::notifier::worker_name;
use crate::notify::receiver;
use crate::outgoing;
use crate::peers::report;
use crate::sys::exit::Exit;
use crate::sys::limits::unix_now;
use crate::sys::logger;
use crate::sys::text::{one_line, sentence};

/// Takes `--test` out of `args`.
///
/// # Errors
/// It is missing: nothing is sent by mistake.
pub(super) fn options(args: &mut Arguments) -> Result<(), String> {
    if args.contains("--test") {
        Ok(())
    } else {
        Err("missing --test, which sends a message to each URL of NOTIFY_URL".into())
    }
}

pub(super) fn run(settings: &Settings) -> Exit {
    let config = &settings.config;
    let targets = &config.notify.targets;
    if targets.is_empty() {
        return output::refuse(&[
            "NOTIFY_URL is not set: set it to the URL of a webhook, such as https://ntfy.sh/TOPIC",
        ]);
    }
    let caller = match outgoing::tls(&config.notify.tls) {
        Ok(tls) => Caller::new(tls),
        Err(why) => return output::refuse(&[format!("NOTIFY_TLS: {why}")]),
    };
    logger::install(config.log_level.min(log::LevelFilter::Error));
    let event = Event::new(EventKind::Test, &worker_name(config), standing(config), unix_now());
    let outcomes = send(&caller, targets, &event);
    let mut all = Exit::Ok;
    let mut text = String::new();
    for (target, outcome) in targets.iter().zip(outcomes) {
        let (line, accepted) = line(target, &outcome);
        text.push_str(&(one_line(&line) + "\n"));
        if !accepted {
            all = Exit::Failed;
        }
    }
    match output::print(&text) {
        Exit::Ok => all,
        failed => failed,
    }
}

/// At the same time: one that hangs does not delay the others.
fn send(caller: &Caller, targets: &[NotifyTarget], event: &Event) -> Vec<Outcome> {
    thread::scope(|scope| {
        let each: Vec<_> =
            targets.iter().map(|target| scope.spawn(move || receiver::send_once(caller, target, event))).collect();
        let failed = |_| Outcome::Retry { why: "a defect of agent-net".into(), wait: None, unclear: true };
        each.into_iter().map(|one| one.join().unwrap_or_else(failed)).collect()
    })
}

/// The line of a receiver, and whether it accepted the message.
fn line(target: &NotifyTarget, outcome: &Outcome) -> (String, bool) {
    let to = format!("{} ({})", target.url.shown(), target.format.name());
    match outcome {
        Outcome::Accepted => (format!("{to}: accepted"), true),
        Outcome::Refused { why, fix, .. } => (format!("{to}: refused: {} {fix}", sentence(why)), false),
        Outcome::Retry { why, .. } => {
            let fix = "A worker would retry. Check the receiver, the network and NOTIFY_TLS.";
            (format!("{to}: failed: {} {fix}", sentence(why)), false)
        }
    }
}

/// The verdict of the worker on this machine, if there is one.
fn standing(config: &Config) -> Option<Standing> {
    let url = format!("http://{}", local::reachable(config.host, config.port));
    let token = config.worker_authorization();
    let json = local::report(&url, token.as_deref(), false, local::HEALTH).ok()?;
    let report = report::read(&json).ok()?;
    Some(Standing { verdict: report.verdict, reasons: reasons(&json), gpus: report.gpus_usable as usize })
}

/// The reasons of a report. Those that only a worker of another version knows are left out.
fn reasons(report: &str) -> Vec<Reason> {
    #[derive(Deserialize)]
    struct Report {
        health: Health,
    }
    #[derive(Deserialize)]
    struct Health {
        reasons: Vec<Value>,
    }
    #[derive(Deserialize)]
    struct Sent {
        code: Code,
        severity: Verdict,
        #[serde(default)]
        gpu: Option<String>,
        message: String,
        action: String,
        since: f64,
    }
    let reason = |sent| {
        let sent = Sent::deserialize(sent).ok()?;
        Some(Reason::new(sent.code, sent.severity, sent.gpu, sent.message, sent.action, sent.since))
    };
    let all =
        serde_json::from_slice(report.as_bytes()).map_or_else(|_| Vec::new(), |report: Report| report.health.reasons);
    all.into_iter().filter_map(reason).collect()
}
