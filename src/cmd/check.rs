//! `check`: the verdict once, as Nagios and Icinga ask for it: of a running worker, else of this machine.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pico_args::Arguments;

use super::settings::Settings;
use crate::doctor;
use crate::edge::limits::unix_now;
use crate::edge::logger;
use crate::edge::probe::{self, NoAnswer};
use crate::exit::Exit;
use crate::pure::report::Moment;
use crate::pure::url::HttpUrl;
use crate::pure::{check, contract};
use crate::sampler;

/// For Ollama, which may take 15 s for a list, and for the GPUs after it.
const DEADLINE: Duration = Duration::from_secs(30);

/// What `check` is told beyond the settings.
#[derive(Debug)]
pub(super) struct Options {
    url: Option<HttpUrl>,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    Json,
    Text,
}

/// Takes `--url`, `--json` and `--text` out of `args`.
///
/// # Errors
/// One sentence about what is not understood.
pub(super) fn options(args: &mut Arguments) -> Result<Options, String> {
    let url: Option<String> = args.opt_value_from_str("--url").map_err(|why| why.to_string())?;
    let url = url.map(|text| HttpUrl::parse(&text).map_err(|why| format!("--url {text:?}: {why}"))).transpose()?;
    let form = match (args.contains("--json"), args.contains("--text")) {
        (true, true) => return Err("--json and --text exclude each other".into()),
        (true, false) => Form::Json,
        (false, true) => Form::Text,
        (false, false) => Form::Lines,
    };
    Ok(Options { url, form })
}

pub(super) fn run(settings: &Settings, options: &Options) -> Exit {
    logger::install(settings.config.log_level.min(log::LevelFilter::Error));
    let text = options.form == Form::Text;
    let body = match ask(settings, options, text) {
        Ok(body) => body,
        Err(why) => {
            // Nagios shows what is on stdout.
            let _ = super::print(&format!("agent-net unknown: {why}\n"));
            return Exit::Unknown;
        }
    };
    let judged = match options.form {
        Form::Lines => check::summary(&body),
        Form::Json => check::summary(&body).map(|(verdict, _)| (verdict, body + "\n")),
        Form::Text => check::verdict_of_text(&body).map(|verdict| (verdict, body)),
    };
    match judged {
        Ok((verdict, shown)) => match super::print(&shown) {
            Exit::Ok => verdict.into(),
            failed => failed,
        },
        Err(why) => {
            super::complain(&why);
            Exit::Unknown
        }
    }
}

/// The report of the worker that was named, else of this machine's, else one that is made now.
fn ask(settings: &Settings, options: &Options, text: bool) -> Result<String, NoAnswer> {
    let config = &settings.config;
    let token = config.worker_token.as_ref();
    if let Some(url) = &options.url {
        return probe::report(url.as_str(), token, text);
    }
    let own = format!("http://{}", probe::reachable(config.host, config.port));
    match probe::report(&own, token, text) {
        Err(NoAnswer::Nobody(_)) => {
            let (sender, sampled) = mpsc::sync_channel(1);
            let settings = config.clone();
            // A driver that hangs keeps the thread, not the command.
            thread::spawn(move || sender.send(sampler::once(&settings, doctor::ask_ollama(&settings.ollama))));
            let late = |_| NoAnswer::Other(format!("nothing could be read within {} s", DEADLINE.as_secs()));
            let latest = sampled.recv_timeout(DEADLINE).map_err(late)?;
            let at = Moment {
                now: unix_now(),
                sample_age_ms: 0,
                process_seconds: 0,
                stale: None,
                registrations: &[],
                keepers: &[],
            };
            Ok(if text { latest.text(&at) } else { contract::json(&latest.report(None, &at)) })
        }
        answer => answer,
    }
}
