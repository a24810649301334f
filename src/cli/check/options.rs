//! The options of `check`.

use std::time::Duration;

use pico_args::Arguments;

use crate::config::url::HttpUrl;
use crate::config::{self, SecretUrl};
use crate::health::verdict::Verdict;

/// Without persistence mode NVIDIA's driver takes up to 25 s to start.
const TIMEOUT: &str = "30s";
/// node-problem-detector stops a plugin after 5 s.
const NPD_TIMEOUT: &str = "4s";
const INTERVAL: &str = "5s";

#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The workers to ask; empty: that of this machine.
    pub(crate) workers: Vec<NamedWorker>,
    pub(crate) form: Form,
    pub(crate) timeout: Duration,
    /// None: once.
    pub(crate) interval: Option<Duration>,
}

/// A worker of --url.
#[derive(Debug, Clone)]
pub(crate) struct NamedWorker {
    /// Without the login.
    pub(crate) url: HttpUrl,
    secret: SecretUrl,
}

impl NamedWorker {
    /// # Errors
    /// A sentence that repeats `text` only where it has no login.
    fn parse(text: &str) -> Result<Self, String> {
        let parsed = SecretUrl::parse(text).and_then(|secret| Ok((HttpUrl::parse(secret.expose())?, secret)));
        match parsed {
            Ok((url, secret)) => Ok(Self { url, secret }),
            Err(why) if text.contains('@') => Err(format!("--url: {why}; the value is not shown")),
            Err(why) => Err(format!("--url={text:?}: {why}")),
        }
    }

    /// The Authorization header of its login.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.secret.authorization()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Lines,
    Json,
    Text,
    /// One short line and the exit codes of node-problem-detector: a problem from this verdict on.
    Npd(Verdict),
}

/// Takes the options of `check` out of `args`.
///
/// # Errors
/// A sentence about an option that is not valid.
pub(crate) fn options(args: &mut Arguments) -> Result<Options, String> {
    let urls: Vec<String> = args.values_from_str("--url").map_err(|why| why.to_string())?;
    let workers = urls.iter().map(|text| NamedWorker::parse(text)).collect::<Result<Vec<_>, String>>()?;
    let form = form(args)?;
    let npd = matches!(form, Form::Npd(_));
    if npd && workers.len() > 1 {
        return Err("--npd takes one --url: node-problem-detector watches one machine".into());
    }
    let timeout = duration(args, "--timeout")?;
    let interval = duration(args, "--interval")?;
    let interval = match (args.contains("--watch"), interval) {
        (true, _) if npd => return Err("--npd cannot be combined with --watch".into()),
        (true, interval) => Some(interval.unwrap_or(parse(INTERVAL)?)),
        (false, None) => None,
        (false, Some(_)) => return Err("--interval requires --watch".into()),
    };
    Ok(Options { workers, form, timeout: timeout.unwrap_or(parse(if npd { NPD_TIMEOUT } else { TIMEOUT })?), interval })
}

fn form(args: &mut Arguments) -> Result<Form, String> {
    let given = ["--json", "--text", "--npd"].map(|name| (name, args.contains(name)));
    let names: Vec<&str> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    let degraded = args.contains("--degraded");
    match names[..] {
        ["--npd"] => Ok(Form::Npd(if degraded { Verdict::Degraded } else { Verdict::Unhealthy })),
        [first, second, ..] => Err(format!("{first} cannot be combined with {second}")),
        _ if degraded => Err("--degraded requires --npd".into()),
        ["--json"] => Ok(Form::Json),
        ["--text"] => Ok(Form::Text),
        _ => Ok(Form::Lines),
    }
}

fn duration(args: &mut Arguments, name: &'static str) -> Result<Option<Duration>, String> {
    let given: Option<String> = args.opt_value_from_str(name).map_err(|why| why.to_string())?;
    given.map(|text| parse(&text).map_err(|why| format!("{name}={text:?}: {why}"))).transpose()
}

/// A duration as settings have it, or a number of seconds.
fn parse(text: &str) -> Result<Duration, &'static str> {
    let time = config::duration(text).or_else(|| config::duration(&format!("{text}s")));
    time.filter(|time| (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(time))
        .ok_or("must be a number of seconds or a duration from 100ms to 1h, such as 30, 30s, 500ms or 1m")
}
