//! Settings from flags, environment and secret files, each with where it came from.

use std::env;
use std::fmt;

use pico_args::Arguments;

use super::{Config, SETTINGS, Setting};
use crate::config::url::HttpUrl;
use crate::config::{self, NameCheck};
use crate::sys::{limits, secrets};

/// Why there are no settings.
#[derive(Debug)]
pub(crate) enum Error {
    Usage(String),
    Config(String),
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Flag,
    Environment,
    File,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
        })
    }
}

/// All settings of this run.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    values: Vec<(&'static str, String, Source)>,
}

impl Settings {
    /// What was set, and where; None: the default holds.
    pub(crate) fn set(&self, name: &str) -> Option<(&str, Source)> {
        self.values.iter().find(|(n, ..)| *n == name).map(|(_, value, source)| (value.as_str(), *source))
    }
}

/// `SERVER_PORT` as `--server-port`.
pub(crate) fn flag(name: &str) -> String {
    format!("--{}", name.to_lowercase().replace('_', "-"))
}

/// Takes the flags out of `args`, reads environment and secret files, and checks everything.
///
/// # Errors
/// The first flag or setting that cannot be used.
pub(crate) fn gather(args: &mut Arguments, name_problem: NameCheck) -> Result<Settings, Error> {
    let mut values = Vec::new();
    for setting in SETTINGS {
        if let Some((value, source)) = value(args, setting)? {
            values.push((setting.name, value, source));
        }
    }
    for setting in SETTINGS.iter().filter(|s| s.secret) {
        let file = format!("{}_FILE", setting.name);
        let Some((_, path, _)) = values.iter().find(|(name, ..)| *name == file) else { continue };
        if values.iter().any(|(name, ..)| *name == setting.name) {
            return Err(Error::Config(format!("{} and {file} are both set: keep one", setting.name)));
        }
        let secret = secrets::read(path).map_err(|why| Error::Config(format!("{file}={path:?}: {why}")))?;
        values.push((setting.name, secret, Source::File));
    }
    let lookup = |name: &str| values.iter().find(|(n, ..)| *n == name).map(|(_, value, _)| value.clone());
    let config = config::from(&lookup, name_problem).map_err(|why| Error::Config(why.to_string()))?;
    Ok(Settings { config, values })
}

/// The flag, else the variable; empty counts as unset.
fn value(args: &mut Arguments, setting: &Setting) -> Result<Option<(String, Source)>, Error> {
    let name = flag(setting.name);
    // A leaked name: a few bytes for each of a fixed table, once.
    let given: Vec<String> = args
        .values_from_str(Box::leak(name.clone().into_boxed_str()) as &'static str)
        .map_err(|why| Error::Usage(why.to_string()))?;
    if given.len() > 1 {
        return Err(Error::Usage(format!("{name} is given {} times", given.len())));
    }
    if let Some(value) = given.into_iter().next() {
        return Ok(Some((value, Source::Flag)).filter(|(v, _)| !v.trim().is_empty()));
    }
    let Some(value) = env::var_os(setting.name) else { return Ok(None) };
    let value = value.into_string().map_err(|_| Error::Config(format!("{}: the value is not UTF-8", setting.name)))?;
    Ok(Some((value, Source::Environment)).filter(|(v, _)| !v.trim().is_empty()))
}

/// Where jobs are to be sent: CAPABILITY_URL, else `http://HOSTNAME:port`. A name that fits in no URL leaves only this
/// machine.
pub(crate) fn worker_url(config: &Config, port: u16) -> HttpUrl {
    let own = || {
        let url = HttpUrl::parse(&format!("http://{}:{port}", limits::host_name()));
        url.or_else(|_| HttpUrl::parse(&format!("http://127.0.0.1:{port}")))
            .unwrap_or_else(|_| unreachable!("a literal URL"))
    };
    config.capability.url.clone().unwrap_or_else(own)
}
