//! Every setting: its name, default and meaning in one table, its limits in one parser.
//! It reads a lookup function, never the process environment or a file.

pub(crate) mod go;
pub(crate) mod limits;
mod models;
mod ollama;
mod orchestrators;
pub(crate) mod price;
pub(crate) mod settings;
mod table;
mod tls;
pub(crate) mod url;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::limits::Limits;
use crate::config::url::{HttpUrl, UrlError};
use table::default_of;

pub(crate) use models::{KeepAlive, Models, name_problem};
pub(crate) use ollama::{Login, OllamaConfig};
pub(crate) use orchestrators::{Orchestrators, Protocol, RunnerConfig};
pub(crate) use table::{SETTINGS, Setting};
pub(crate) use tls::TlsRule;

/// A value that must not be seen: its Debug form is stars.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// None: it is no text that a header can carry.
    pub(crate) fn new(value: String) -> Option<Self> {
        let fits = !value.is_empty() && value.len() <= 4096 && value.bytes().all(|b| (0x21..0x7f).contains(&b));
        fits.then_some(Self(value))
    }

    /// The value itself, for the one header that carries it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What one registration says besides its name and URL.
#[derive(Debug, Clone)]
pub(crate) struct Capability {
    pub(crate) names: Vec<String>,
    pub(crate) description: String,
    pub(crate) url: Option<HttpUrl>,
    pub(crate) capacity: u32,
    pub(crate) price_per_unit: Option<i64>,
    pub(crate) price_scaling: Option<i64>,
    pub(crate) currency: Option<String>,
}

/// What a test wants the watchdog to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchdogTest {
    /// Nothing is accepted after the first connection.
    Deaf,
    /// /health is answered with 503.
    Sick,
    /// All is well.
    Nothing,
}

/// The effective settings of one run.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) host: IpAddr,
    /// SERVER_HOST is set: where it cannot be had the worker does not start.
    pub(crate) host_chosen: bool,
    pub(crate) port: u16,
    pub(crate) ollama: OllamaConfig,
    pub(crate) orchestrators: Orchestrators,
    pub(crate) capability: Capability,
    pub(crate) worker_token: Option<Secret>,
    pub(crate) models: Models,
    pub(crate) sample_interval: Duration,
    pub(crate) slow_interval: Duration,
    /// None: memory only.
    pub(crate) state_dir: Option<String>,
    /// TICKET_SUBMIT_URL; only with a state_dir.
    pub(crate) ticket_submit: Option<HttpUrl>,
    pub(crate) limits: Limits,
    /// METRICS_COMPAT=nvidia_smi.
    pub(crate) nvidia_smi_metrics: bool,
    /// `/`, or where the machine's own /dev, /proc and /sys are mounted.
    pub(crate) host_root: String,
    pub(crate) nvml_lib: Option<String>,
    pub(crate) nvml_helper: Option<String>,
    pub(crate) log_level: log::LevelFilter,
    /// Agent whose jobs panic (AGENT_NET_FAULT=panic:…), so that the panic path of a release binary can be tested.
    pub(crate) panic_agent: Option<String>,
    /// Thread that panics once when it starts (AGENT_NET_FAULT=panic-thread:…).
    pub(crate) panic_thread: Option<String>,
    /// Registrations, submissions and models are looked after so many times faster than life (AGENT_NET_FAULT=hurry:…).
    pub(crate) hurry: u32,
    /// What the watchdog is tested with; time goes a hundred times faster then.
    pub(crate) watchdog: Option<WatchdogTest>,
}

/// A setting that cannot be used; one line, names the variable, the value and what is accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ConfigError {
    /// `value` is quoted with escapes, so that the message stays one line.
    pub(crate) fn new(name: &str, value: &str, accepted: &str) -> Self {
        Self(format!("{name}={value:?}: {accepted}"))
    }

    pub(crate) fn plain(message: String) -> Self {
        Self(message)
    }
}

type Parsed<T> = Result<T, ConfigError>;

/// Settings by name; empty counts as unset, surrounding blanks do not count.
struct Lookup<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Lookup<'_> {
    fn optional(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    }

    fn with_default(&self, name: &str) -> String {
        self.optional(name).unwrap_or_else(|| default_of(name).to_owned())
    }

    fn number<T: std::str::FromStr>(&self, name: &str, accepted: &str) -> Parsed<Option<T>> {
        self.optional(name).map(|v| v.parse().map_err(|_| ConfigError::new(name, &v, accepted))).transpose()
    }

    fn duration(&self, name: &str, longest: Duration, accepted: &str) -> Parsed<Duration> {
        let text = self.with_default(name);
        duration(&text)
            .filter(|d| (Duration::from_millis(100)..=longest).contains(d))
            .ok_or_else(|| ConfigError::new(name, &text, &format!("a duration from 100ms to {accepted}, is accepted")))
    }

    /// A number that lies in `range`.
    fn within(&self, name: &str, range: std::ops::RangeInclusive<f64>, accepted: &str) -> Parsed<Option<f64>> {
        let Some(text) = self.optional(name).or_else(|| Some(default_of(name).to_owned()).filter(|d| !d.is_empty()))
        else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|n| range.contains(n));
        number.map(Some).ok_or_else(|| ConfigError::new(name, &text, accepted))
    }

    fn flag(&self, name: &str) -> Parsed<bool> {
        match self.with_default(name).as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(ConfigError::new(name, other, "true or false is accepted")),
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        let all = self.optional(name).unwrap_or_default();
        all.split(',').map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    }

    fn url(&self, name: &str, value: &str) -> Parsed<HttpUrl> {
        HttpUrl::parse(value).map_err(|why| self.url_error(name, value, &why))
    }

    /// What is wrong with a URL; one that may hold a password is not repeated.
    fn url_error(&self, name: &str, value: &str, why: &UrlError) -> ConfigError {
        ConfigError::new(name, if value.contains('@') { "…" } else { value }, &why.to_string())
    }

    fn secret(&self, name: &str) -> Parsed<Option<Secret>> {
        let Some(value) = self.optional(name) else { return Ok(None) };
        let secret = Secret::new(value).ok_or_else(|| {
            ConfigError::plain(format!(
                "{name}: a secret is at most 4096 visible ASCII characters without blanks, since it travels in a header; the value is not shown"
            ))
        })?;
        Ok(Some(secret))
    }
}

/// Why no job can reach a capability of this name; None: jobs can. The routes decide, which this room does not know.
pub(crate) type NameCheck = fn(&str) -> Option<String>;

/// Reads all settings through `lookup` (flag, else environment, else None).
///
/// # Errors
/// The first setting that cannot be used.
pub(crate) fn from(lookup: &dyn Fn(&str) -> Option<String>, name_problem: NameCheck) -> Parsed<Config> {
    let get = Lookup(lookup);
    let host = get.with_default("SERVER_HOST");
    let port = get.with_default("SERVER_PORT");
    let level = get.with_default("LOG_LEVEL");
    let fault = get.optional("AGENT_NET_FAULT");
    // A hundred times faster, since the watchdog waits long before it bites.
    let watchdog = match fault.as_deref() {
        Some("deaf") => Some(WatchdogTest::Deaf),
        Some("sick") => Some(WatchdogTest::Sick),
        Some("watched") => Some(WatchdogTest::Nothing),
        _ => None,
    };
    let hurry = fault.as_ref().and_then(|fault| fault.strip_prefix("hurry:")?.parse().ok()).filter(|n| *n > 0);
    let after = |prefix: &str| fault.as_ref().and_then(|fault| fault.strip_prefix(prefix)).map(str::to_owned);
    let (panic_agent, panic_thread) = (after("panic:"), after("panic-thread:"));
    let known = hurry.is_some() || watchdog.is_some() || panic_agent.is_some() || panic_thread.is_some();
    if let Some(fault) = fault.as_ref().filter(|_| !known) {
        let accepted = "panic:AGENT_ID, panic-thread:NAME, hurry:TIMES, deaf, sick or watched is accepted";
        return Err(ConfigError::new("AGENT_NET_FAULT", fault, accepted));
    }
    let config = Config {
        host: host.parse().map_err(|_| {
            let accepted = "an IP address without brackets is accepted, e.g. 127.0.0.1, 0.0.0.0 (IPv4) or :: (both)";
            ConfigError::new("SERVER_HOST", &host, accepted)
        })?,
        host_chosen: get.optional("SERVER_HOST").is_some(),
        port: port.parse().map_err(|_| ConfigError::new("SERVER_PORT", &port, "a port from 0 to 65535 is accepted"))?,
        ollama: ollama::parse(&get)?,
        orchestrators: orchestrators::parse(&get)?,
        capability: capability(&get, name_problem)?,
        worker_token: get.secret("WORKER_TOKEN")?,
        models: models::parse(&get)?,
        sample_interval: get.duration("SAMPLE_INTERVAL", Duration::from_secs(300), "5m, e.g. 5s")?,
        slow_interval: get.duration("SLOW_SAMPLE_INTERVAL", Duration::from_secs(3600), "1h, e.g. 30s")?,
        state_dir: get.optional("STATE_DIR"),
        ticket_submit: get.optional("TICKET_SUBMIT_URL").map(|url| get.url("TICKET_SUBMIT_URL", &url)).transpose()?,
        limits: limits(&get)?,
        nvidia_smi_metrics: match get.optional("METRICS_COMPAT").as_deref() {
            None => false,
            Some("nvidia_smi") => true,
            Some(other) => return Err(ConfigError::new("METRICS_COMPAT", other, "nvidia_smi is accepted")),
        },
        host_root: get.with_default("HOST_ROOT"),
        nvml_lib: get.optional("NVML_LIB"),
        nvml_helper: get.optional("NVML_HELPER"),
        log_level: level
            .parse()
            .map_err(|_| ConfigError::new("LOG_LEVEL", &level, "error, warn, info, debug, trace or off is accepted"))?,
        panic_agent,
        panic_thread,
        hurry: hurry.unwrap_or(if watchdog.is_some() { 100 } else { 1 }),
        watchdog,
    };
    agree(&config)?;
    Ok(config)
}

impl Config {
    /// What is wrong with the prices, and what to do; None: nothing is.
    pub(crate) fn price_trouble(&self) -> Option<(&'static str, &'static str)> {
        let orchestrators = &self.orchestrators;
        let byoc = !orchestrators.urls.is_empty() && orchestrators.protocol != Protocol::LiveRunner;
        let free = byoc && orchestrators.runner.price.is_some() && self.capability.price_per_unit.unwrap_or(0) == 0;
        free.then_some((
            "RUNNER_PRICE is set and CAPABILITY_PRICE_PER_UNIT is not: BYOC jobs are served for free",
            "set CAPABILITY_PRICE_PER_UNIT as well, or ORCH_PROTOCOL=live-runner",
        ))
    }
}

/// Settings that exclude or need each other.
fn agree(config: &Config) -> Parsed<()> {
    if config.ticket_submit.is_some() && config.state_dir.is_none() {
        return Err(ConfigError::plain(
            "STATE_DIR is not set: TICKET_SUBMIT_URL needs it, since tickets are written down before a job is answered"
                .into(),
        ));
    }
    let orchestrators = &config.orchestrators;
    let by_id = orchestrators.protocol == Protocol::LiveRunner && orchestrators.runner.named;
    if !orchestrators.urls.is_empty() && config.capability.names.is_empty() && !by_id {
        let also = if orchestrators.protocol == Protocol::LiveRunner { " (or set RUNNER_ID)" } else { "" };
        return Err(ConfigError::plain(format!(
            "CAPABILITY_NAME is not set: ORCH_URL needs the name to register, unique per orchestrator, e.g. agent-net-nyc{also}"
        )));
    }
    let runs = orchestrators.protocol.uses_runners(true);
    if runs && config.worker_token.is_some() && !orchestrators.urls.is_empty() {
        return Err(ConfigError::plain(
            "WORKER_TOKEN and ORCH_PROTOCOL=live-runner or both exclude each other: a Live Runner's proxy cannot send the token; unset one".into(),
        ));
    }
    Ok(())
}

fn limits(get: &Lookup<'_>) -> Parsed<Limits> {
    let percent = |name: &str| {
        let read = get.within(name, 0.0..=100.0, "percent from 0 (never) to 100 is accepted, e.g. 99.0")?;
        Ok(read.unwrap_or_default())
    };
    let gigabytes = get.within("GPU_MIN_VRAM_GB", 0.0..=100_000.0, "a number of gigabytes is accepted, e.g. 24")?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within the range above
    let bytes = |gb: f64| (gb * 1e9) as u64;
    let max_temp_c: Option<u32> = get.number("GPU_MAX_TEMP_C", "whole degrees Celsius are accepted, e.g. 85")?;
    if let Some(bad) = max_temp_c.filter(|c| !(1..=150).contains(c)) {
        return Err(ConfigError::new("GPU_MAX_TEMP_C", &bad.to_string(), "1 to 150 degrees Celsius are accepted"));
    }
    Ok(Limits {
        expected_gpus: get.number("EXPECTED_GPUS", "a whole number of GPUs is accepted, 0 for none")?,
        min_vram_bytes: gigabytes.map(bytes),
        max_temp_c,
        uptime_percent: [
            percent("GPU_SHORT_TERM_UPTIME_THRESHOLD")?,
            percent("GPU_MEDIUM_TERM_UPTIME_THRESHOLD")?,
            percent("GPU_LONG_TERM_UPTIME_THRESHOLD")?,
        ],
    })
}

fn capability(get: &Lookup<'_>, name_problem: NameCheck) -> Parsed<Capability> {
    let capacity = get.with_default("CAPABILITY_CAPACITY");
    let description = get.with_default("CAPABILITY_DESCRIPTION");
    if description.len() > 1024 {
        return Err(ConfigError::plain("CAPABILITY_DESCRIPTION is longer than the accepted 1024 bytes".into()));
    }
    let names = get.list("CAPABILITY_NAME");
    if let Some(bad) = names.iter().find(|n| n.len() > 128 || !n.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(ConfigError::new(
            "CAPABILITY_NAME",
            bad,
            "at most 128 visible ASCII characters without blanks are accepted",
        ));
    }
    if let Some((bad, why)) = names.iter().find_map(|name| Some((name, name_problem(name)?))) {
        return Err(ConfigError::new("CAPABILITY_NAME", bad, &why));
    }
    let scaling: Option<i64> = get.number("CAPABILITY_PRICE_SCALING", "a whole number from 1 is accepted")?;
    if let Some(bad) = scaling.filter(|s| *s < 1) {
        return Err(ConfigError::new(
            "CAPABILITY_PRICE_SCALING",
            &bad.to_string(),
            "a whole number from 1 is accepted",
        ));
    }
    let price: Option<i64> =
        get.number("CAPABILITY_PRICE_PER_UNIT", "a whole number from 0 to 9223372036854775807 is accepted")?;
    if let Some(bad) = price.filter(|p| *p < 0) {
        return Err(ConfigError::new(
            "CAPABILITY_PRICE_PER_UNIT",
            &bad.to_string(),
            "a price is not negative; 0 works for free",
        ));
    }
    let currency = get.optional("CAPABILITY_CURRENCY");
    if let Some(bad) = currency.iter().find(|c| c.len() > 16 || !c.bytes().all(|b| b.is_ascii_alphanumeric())) {
        return Err(ConfigError::new(
            "CAPABILITY_CURRENCY",
            bad,
            "wei, eth or a currency code such as usd is accepted",
        ));
    }
    Ok(Capability {
        names,
        description,
        url: get.optional("CAPABILITY_URL").map(|u| get.url("CAPABILITY_URL", &u)).transpose()?,
        capacity: capacity.parse().ok().filter(|c| (1..=1000).contains(c)).ok_or_else(|| {
            // 0 would be registered with an "ok" and never get a job.
            ConfigError::new("CAPABILITY_CAPACITY", &capacity, "a whole number from 1 to 1000 is accepted")
        })?,
        price_per_unit: price,
        price_scaling: scaling,
        currency,
    })
}

/// `500ms`, `5s`, `1m`, `2h`: a whole number and a unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests;
