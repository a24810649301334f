//! ORCH_… and RUNNER_…: where and how to register.

use crate::config::price::Price;
use crate::config::secret::Secret;
use crate::config::setting::Kind;
use crate::config::tls::TlsRule;
use crate::config::url::HttpUrl;
use crate::config::values::Values;

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
    /// Whether the worker may register at a Live Runner registry, whose proxy cannot send a WORKER_TOKEN.
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

pub(super) fn read(values: &Values) -> Orchestrators {
    let mut urls: Vec<HttpUrl> = Vec::new();
    for url in values.list("ORCH_URL").iter().filter_map(|text| HttpUrl::parse(text).ok()) {
        // Registered twice at one orchestrator, a worker would compete with itself.
        if !urls.iter().any(|known| known.is_same(&url)) {
            urls.push(url);
        }
    }
    Orchestrators {
        urls,
        secret: values.secret("ORCH_SECRET"),
        secret_file: values.optional("ORCH_SECRET_FILE").map(str::to_owned),
        withdraw: values.text("WITHDRAW_WHEN_UNHEALTHY") == "true",
        protocol: match values.text("ORCH_PROTOCOL") {
            "byoc" => Protocol::Byoc,
            "live-runner" => Protocol::LiveRunner,
            "both" => Protocol::Both,
            _ => Protocol::Auto,
        },
        runner: runner(values),
        tls: TlsRule::parse(values.text("ORCH_TLS")).unwrap_or(TlsRule::Insecure),
    }
}

fn runner(values: &Values) -> RunnerConfig {
    let derived = || {
        let name = values.list("CAPABILITY_NAME").into_iter().next().unwrap_or_else(|| "agent-net".into());
        name.chars().take(128).map(|c| if is_id_character(c) { c } else { '-' }).collect()
    };
    let own = values.optional("RUNNER_ID").map(str::to_owned);
    RunnerConfig {
        named: own.is_some(),
        id: own.unwrap_or_else(derived),
        app: values.text("RUNNER_APP").to_owned(),
        price: values.optional("RUNNER_PRICE").and_then(Price::parse),
    }
}

fn is_id_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

pub(super) const PROTOCOL: Kind = Kind::Choice(&["auto", "byoc", "live-runner", "both"]);

pub(super) const RUNNER_ID: Kind =
    Kind::Other("1 to 128 letters, digits, _ and -", |text| text.len() <= 128 && text.chars().all(is_id_character));

pub(super) const RUNNER_APP: Kind = Kind::Other("at most 128 visible ASCII characters without spaces", |text| {
    text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic())
});

pub(super) const RUNNER_PRICE: Kind =
    Kind::Other("a price in dollars, such as 0.0005usd/fixed for a call, 1.2usd/hour or 0.1usd/720p", |text| {
        Price::parse(text).is_some()
    });
