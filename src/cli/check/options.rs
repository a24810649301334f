//! The options of `check`.

use std::time::Duration;

use pico_args::Arguments;

use crate::config;
use crate::config::url::HttpUrl;

/// Without persistence mode NVIDIA's driver takes up to 25 s to start.
const TIMEOUT: &str = "30s";
const INTERVAL: &str = "5s";

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) url: Option<HttpUrl>,
    pub(crate) form: Form,
    pub(crate) timeout: Duration,
    /// None: once.
    pub(crate) interval: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Lines,
    Json,
    Text,
}

/// Takes the options of `check` out of `args`.
///
/// # Errors
/// A sentence about an option that is not valid.
pub(crate) fn options(args: &mut Arguments) -> Result<Options, String> {
    let url: Option<String> = args.opt_value_from_str("--url").map_err(|why| why.to_string())?;
    let url = url.map(|text| HttpUrl::parse(&text).map_err(|why| format!("--url={text:?}: {why}"))).transpose()?;
    let form = match (args.contains("--json"), args.contains("--text")) {
        (true, true) => return Err("--json cannot be combined with --text".into()),
        (true, false) => Form::Json,
        (false, true) => Form::Text,
        (false, false) => Form::Lines,
    };
    let timeout = duration(args, "--timeout")?;
    let interval = duration(args, "--interval")?;
    let interval = match (args.contains("--watch"), interval) {
        (true, interval) => Some(interval.unwrap_or(parse(INTERVAL)?)),
        (false, None) => None,
        (false, Some(_)) => return Err("--interval requires --watch".into()),
    };
    Ok(Options { url, form, timeout: timeout.unwrap_or(parse(TIMEOUT)?), interval })
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
