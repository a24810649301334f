//! Settings from flags, environment and secret files, each with where it came from.

use std::env;
use std::fmt;

use pico_args::Arguments;

use crate::config::capability::NameCheck;
use crate::config::error::ConfigError;
use crate::config::fault::{self, Faults};
use crate::config::secret::Secret;
use crate::config::setting::{Kind, Setting};
use crate::config::table::{self, Config, SETTINGS};
use crate::config::tls::TlsRule;
use crate::config::url::HttpUrl;
use crate::sys::{limits, secrets};

/// Why there are no settings.
#[derive(Debug)]
pub(crate) enum Error {
    Usage(String),
    /// All that are wrong, at least one.
    Config(Vec<ConfigError>),
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
    /// What was set, and where; None: the default applies.
    pub(crate) fn set(&self, name: &str) -> Option<(&str, Source)> {
        self.values.iter().find(|(n, ..)| *n == name).map(|(_, value, source)| (value.as_str(), *source))
    }
}

/// Why the file of a `ca:` cannot be used.
pub(crate) type TlsCheck = fn(&TlsRule) -> Option<String>;

/// Takes the flags out of `args`, reads environment and secret files, and checks everything.
///
/// # Errors
/// The first flag that is not valid, else all settings that cannot be used.
pub(crate) fn gather(args: &mut Arguments, name_problem: NameCheck, tls_problem: TlsCheck) -> Result<Settings, Error> {
    let (mut values, mut wrong) = (Vec::new(), Vec::new());
    for setting in SETTINGS {
        let flag = given_flag(args, setting)?.map(|value| (value, Source::Flag));
        let found = match flag {
            Some(flag) => Some(flag),
            None => variable(setting.name, &mut wrong).map(|value| (value, Source::Environment)),
        };
        if let Some((value, source)) = found.filter(|(value, _)| !value.trim().is_empty()) {
            values.push((setting.name, value, source));
        }
    }
    read_secret_files(&mut values, &mut wrong);
    for (name, value, _) in values.iter().filter(|(name, ..)| name.ends_with("_TLS")) {
        if let Some(why) = TlsRule::parse(value.trim()).and_then(|rule| tls_problem(&rule)) {
            wrong.push(ConfigError::value(name, value, &why));
        }
    }
    let faults = Faults::parse(variable(fault::VARIABLE, &mut wrong).unwrap_or_default().trim());
    let faults = faults.unwrap_or_else(|error| {
        wrong.push(error);
        Faults::default()
    });
    let lookup = |name: &str| values.iter().find(|(n, ..)| *n == name).map(|(_, value, _)| value.clone());
    let config = table::read(&lookup, name_problem, faults, wrong).map_err(Error::Config)?;
    Ok(Settings { config, values })
}

/// Adds the secrets of the `_FILE` settings.
fn read_secret_files(values: &mut Vec<(&'static str, String, Source)>, wrong: &mut Vec<ConfigError>) {
    for secret in SETTINGS.iter().filter(|s| s.secret) {
        let file = values.iter().find(|(name, ..)| name.strip_suffix("_FILE") == Some(secret.name));
        let Some((file, path, _)) = file else { continue };
        if values.iter().any(|(name, ..)| *name == secret.name) {
            let message = format!("{} and {file} are both set: keep one", secret.name);
            wrong.push(ConfigError::sentence(secret.name, message));
            continue;
        }
        match secrets::read(path) {
            Ok(text) if matches!(secret.kind, Kind::SecretUrls(_)) => {
                // One in each line, or as in the variable.
                let urls: Vec<&str> = text.split_whitespace().collect();
                values.push((secret.name, urls.join(","), Source::File));
            }
            Ok(text) if !Secret::fits(&text) => {
                let why = format!("its content must be {}; it is not shown", secret.kind.valid());
                wrong.push(ConfigError::value(file, path, &why));
            }
            Ok(text) => values.push((secret.name, text, Source::File)),
            Err(why) => wrong.push(ConfigError::value(file, path, &why)),
        }
    }
}

fn given_flag(args: &mut Arguments, setting: &Setting) -> Result<Option<String>, Error> {
    let flag = setting.flag();
    // A leaked name: a few bytes for each of a fixed table, once.
    let given: Vec<String> = args
        .values_from_str(Box::leak(flag.clone().into_boxed_str()) as &'static str)
        .map_err(|why| Error::Usage(why.to_string()))?;
    if given.len() > 1 {
        return Err(Error::Usage(format!("{flag} is given {} times", given.len())));
    }
    Ok(given.into_iter().next())
}

fn variable(name: &'static str, wrong: &mut Vec<ConfigError>) -> Option<String> {
    let value = env::var_os(name)?.into_string();
    value.map_err(|_| wrong.push(ConfigError::sentence(name, format!("{name}: must be UTF-8")))).ok()
}

/// Where jobs are sent: CAPABILITY_URL, else `http://HOSTNAME:port`, or 127.0.0.1 if the host name is not valid in a URL.
pub(crate) fn worker_url(config: &Config, port: u16) -> HttpUrl {
    let own = || {
        let url = HttpUrl::parse(&format!("http://{}:{port}", limits::host_name()));
        url.or_else(|_| HttpUrl::parse(&format!("http://127.0.0.1:{port}")))
            .unwrap_or_else(|_| unreachable!("a literal URL"))
    };
    config.capability.url.clone().unwrap_or_else(own)
}
