//! Where and how to register.

use super::{ConfigError, Lookup, Parsed, Secret, TlsRule};
use crate::config::price::Price;
use crate::config::url::HttpUrl;

/// ORCH_PROTOCOL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// BYOC where the orchestrator has it, and Live Runner where GET /discovery says that it has that.
    Auto,
    Byoc,
    LiveRunner,
    Both,
}

impl Protocol {
    /// Whether the worker may stand in a Live Runner registry, whose proxy cannot send a WORKER_TOKEN.
    pub(crate) fn uses_runners(self, with_token: bool) -> bool {
        match self {
            Self::Auto => !with_token,
            Self::Byoc => false,
            Self::LiveRunner | Self::Both => true,
        }
    }
}

/// The entry in a Live Runner registry.
#[derive(Debug, Clone)]
pub(crate) struct RunnerConfig {
    pub(crate) id: String,
    pub(crate) app: String,
    pub(crate) price: Option<Price>,
    /// RUNNER_ID is set.
    pub(crate) named: bool,
}

/// Where and how to register.
#[derive(Debug, Clone)]
pub(crate) struct Orchestrators {
    /// Base URLs; empty: registration is off.
    pub(crate) urls: Vec<HttpUrl>,
    pub(crate) secret: Option<Secret>,
    /// ORCH_SECRET_FILE: it is read again when an orchestrator refuses the secret.
    pub(crate) secret_file: Option<String>,
    pub(crate) tls: TlsRule,
    pub(crate) protocol: Protocol,
    pub(crate) runner: RunnerConfig,
    /// WITHDRAW_WHEN_UNHEALTHY.
    pub(crate) withdraw: bool,
}

pub(super) fn parse(get: &Lookup<'_>) -> Parsed<Orchestrators> {
    let mut urls: Vec<HttpUrl> = Vec::new();
    for text in get.list("ORCH_URL") {
        let url = get.url("ORCH_URL", &text)?;
        // Registered twice at one orchestrator, a worker would be its own rival.
        if !urls.iter().any(|known| known.is_same(&url)) {
            urls.push(url);
        }
    }
    Ok(Orchestrators {
        urls,
        secret: get.secret("ORCH_SECRET")?,
        secret_file: get.optional("ORCH_SECRET_FILE"),
        withdraw: get.flag("WITHDRAW_WHEN_UNHEALTHY")?,
        protocol: match get.with_default("ORCH_PROTOCOL").as_str() {
            "auto" => Protocol::Auto,
            "byoc" => Protocol::Byoc,
            "live-runner" => Protocol::LiveRunner,
            "both" => Protocol::Both,
            other => {
                let accepted = "auto, byoc, live-runner or both is accepted";
                return Err(ConfigError::new("ORCH_PROTOCOL", other, accepted));
            }
        },
        runner: runner(get)?,
        tls: TlsRule::parse(get, "ORCH_TLS")?,
    })
}

fn runner(get: &Lookup<'_>) -> Parsed<RunnerConfig> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let derived = || {
        let name = get.list("CAPABILITY_NAME").into_iter().next().unwrap_or_else(|| "agent-net".into());
        name.chars().take(128).map(|c| if fits(c) { c } else { '-' }).collect()
    };
    let own = get.optional("RUNNER_ID");
    let named = own.is_some();
    let id = own.unwrap_or_else(derived);
    if id.len() > 128 || !id.chars().all(fits) {
        return Err(ConfigError::new("RUNNER_ID", &id, "1 to 128 letters, digits, _ and - are accepted"));
    }
    let app = get.with_default("RUNNER_APP");
    if app.len() > 128 || !app.bytes().all(|b| b.is_ascii_graphic()) {
        let accepted = "at most 128 visible ASCII characters without blanks are accepted, e.g. agent-net/gpu-check";
        return Err(ConfigError::new("RUNNER_APP", &app, accepted));
    }
    let price = get.optional("RUNNER_PRICE");
    let price = price.map(|text| {
        let accepted =
            "a price in dollars for a call or an hour is accepted: 0.0005usd/fixed, 1.2usd/hour or 0.1usd/720p";
        Price::parse(&text).ok_or_else(|| ConfigError::new("RUNNER_PRICE", &text, accepted))
    });
    Ok(RunnerConfig { id, app, price: price.transpose()?, named })
}
