//! What a row of the table of settings holds, and which values a setting takes.

use std::time::Duration;

use crate::config::error::ConfigError;
use crate::config::secret::Secret;
use crate::config::secret_url::SecretUrl;
use crate::config::url::{HttpUrl, UrlError};

/// One setting. Its environment variable is `name`, its flag of `serve` the same in kebab-case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// A heading of the reference.
    pub(crate) group: Group,
    /// What applies when it is unset or empty; "" for nothing.
    pub(crate) default: &'static str,
    pub(crate) kind: Kind,
    /// One line for help and reference.
    pub(crate) meaning: &'static str,
    /// Its value is never shown.
    pub(crate) secret: bool,
}

impl Setting {
    /// `SERVER_PORT` as `--server-port`.
    pub(crate) fn flag(&self) -> String {
        format!("--{}", self.name.to_ascii_lowercase().replace('_', "-"))
    }
}

/// Settings that the reference lists together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Server,
    Models,
    Livepeer,
    Gpu,
    Notify,
}

impl Group {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 5] = [Self::Server, Self::Models, Self::Livepeer, Self::Gpu, Self::Notify];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::Models => "Ollama and models",
            Self::Livepeer => "Livepeer",
            Self::Gpu => "GPU",
            Self::Notify => "Notifications and peers",
        }
    }
}

/// The values that a setting takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Any text; its largest length in bytes.
    Text(usize),
    Secret,
    File,
    Folder,
    /// What is counted, the smallest and the largest number.
    Whole(&'static str, u64, u64),
    /// What is measured, the smallest and the largest number.
    Number(&'static str, f64, f64),
    /// The shortest and the longest one.
    Duration(Duration, Duration),
    Choice(&'static [&'static str]),
    /// LOG_LEVEL, in any case.
    Level,
    Url,
    /// It may have `user:password@` in front of the host.
    LoginUrl,
    /// Comma-separated.
    Urls,
    /// Comma-separated, never shown; the largest count.
    SecretUrls(usize),
    /// Comma-separated: the largest count, what they are, and why one of them cannot be used.
    Names(usize, &'static str, fn(&str) -> Option<&'static str>),
    /// What is valid, and whether a value is.
    Other(&'static str, fn(&str) -> bool),
}

pub(crate) const BOOLEAN: Kind = Kind::Choice(&["true", "false"]);

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];

impl Kind {
    /// The words to choose from; empty: it is not a choice.
    pub(crate) fn choices(self) -> &'static [&'static str] {
        match self {
            Self::Choice(words) => words,
            Self::Level => LEVELS,
            _ => &[],
        }
    }

    /// What is valid: `a port from 0 to 65535`. Empty for texts and paths.
    pub(crate) fn valid(self) -> String {
        match self {
            Self::Text(_) | Self::File | Self::Folder => String::new(),
            Self::Secret => "1 to 4096 visible ASCII characters without spaces".into(),
            Self::Whole(what, from, to) => format!("{what} from {from} to {to}"),
            Self::Number(what, from, to) => format!("{what} from {from} to {to}"),
            Self::Duration(from, to) => format!("a duration with its unit, from {} to {}", written(from), written(to)),
            Self::Choice(_) | Self::Level => alternatives(self.choices()),
            Self::Url => "a URL".into(),
            Self::LoginUrl => "a URL, which may hold user:password".into(),
            Self::Urls => "URLs, comma-separated".into(),
            Self::SecretUrls(1) => "a URL".into(),
            Self::SecretUrls(most) => format!("at most {most} URLs, comma-separated"),
            Self::Names(usize::MAX, what, _) => format!("{what}, comma-separated"),
            Self::Names(most, what, _) => format!("at most {most} {what}, comma-separated"),
            Self::Other(valid, _) => valid.into(),
        }
    }

    /// What is valid in a few words, for a table that has the meaning beside it.
    pub(crate) fn brief(self) -> String {
        match self {
            Self::Text(_) | Self::Secret | Self::File | Self::Folder | Self::Url | Self::LoginUrl => String::new(),
            Self::SecretUrls(1) => String::new(),
            Self::SecretUrls(most) => format!("comma-separated, at most {most}"),
            Self::Whole(_, from, to) if to >= u32::MAX.into() => format!("from {from}"),
            Self::Whole(_, from, to) => format!("{from} to {to}"),
            Self::Number(_, from, to) => format!("{from} to {to}"),
            Self::Duration(from, to) => format!("{} to {}", written(from), written(to)),
            Self::Urls | Self::Names(usize::MAX, ..) => "comma-separated".into(),
            Self::Names(most, ..) => format!("comma-separated, at most {most}"),
            Self::Choice(_) | Self::Level | Self::Other(..) => self.valid(),
        }
    }

    /// What is wrong with `value`; None: it can be used.
    pub(crate) fn problem(self, name: &'static str, value: &str) -> Option<ConfigError> {
        let fits = match self {
            Self::File | Self::Folder => true,
            Self::Text(most) => {
                let long = || format!("{name}: must be at most {most} bytes long, not {}", value.len());
                return (value.len() > most).then(|| ConfigError::sentence(name, long()));
            }
            Self::Secret => {
                let message = || format!("{name}: must be {}; the value is not shown", self.valid());
                return (!Secret::fits(value)).then(|| ConfigError::sentence(name, message()));
            }
            Self::Whole(_, from, to) => value.parse().is_ok_and(|number| (from..=to).contains(&number)),
            Self::Number(_, from, to) => value.parse().is_ok_and(|number| (from..=to).contains(&number)),
            Self::Duration(from, to) => duration(value).is_some_and(|time| (from..=to).contains(&time)),
            Self::Choice(words) => words.contains(&value),
            Self::Level => value.parse::<log::LevelFilter>().is_ok(),
            Self::Url => return HttpUrl::parse(value).err().map(|why| url_problem(name, value, &why)),
            Self::LoginUrl => return HttpUrl::parse_with_login(value).err().map(|why| url_problem(name, value, &why)),
            Self::Urls => {
                let shown = |url| if value.contains('@') { value } else { url };
                return items(value).find_map(|url| Some(url_problem(name, shown(url), &HttpUrl::parse(url).err()?)));
            }
            Self::SecretUrls(most) => return secret_urls_problem(name, value, most),
            Self::Names(most, what, problem) => {
                let count = items(value).count();
                if count > most {
                    let message = format!("{name}: must be at most {most} {what}, not {count}");
                    return Some(ConfigError::sentence(name, message));
                }
                return items(value).find_map(|item| Some(ConfigError::value(name, item, problem(item)?)));
            }
            Self::Other(_, fits) => fits(value),
        };
        (!fits).then(|| ConfigError::value(name, value, &format!("must be {}", self.valid())))
    }
}

/// A URL that may hold a password is not repeated.
fn url_problem(name: &'static str, value: &str, why: &UrlError) -> ConfigError {
    ConfigError::value(name, if value.contains('@') { "…" } else { value }, &why.to_string())
}

/// None of them is repeated.
fn secret_urls_problem(name: &'static str, value: &str, most: usize) -> Option<ConfigError> {
    let count = items(value).count();
    if count > most {
        let message = format!("{name}: must be {}, not {count}", Kind::SecretUrls(most).valid());
        return Some(ConfigError::sentence(name, message));
    }
    let (at, why) = items(value).enumerate().find_map(|(at, url)| Some((at, SecretUrl::parse(url).err()?)))?;
    let which = if count > 1 { format!(": URL {} of {count}", at + 1) } else { String::new() };
    Some(ConfigError::sentence(name, format!("{name}{which}: {why}; the value is not shown")))
}

/// The parts of a comma-separated list.
pub(crate) fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// `a, b or c`
fn alternatives(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        words => words.concat(),
    }
}

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `500ms`, `5s`, `1m`, `2h`: a whole number and a unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*millis).map(Duration::from_millis)
}

/// A duration in its largest whole unit, as a setting has it.
fn written(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (unit, size) = UNITS.into_iter().find(|(_, size)| millis >= *size && millis % size == 0).unwrap_or(("ms", 1));
    format!("{}{unit}", millis / size)
}
