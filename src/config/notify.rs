//! NOTIFY_… and HEARTBEAT_…: who is notified of a change, and which monitor expects a regular sign of life. PEERS: other
//! workers whose verdicts the status page shows.

use std::time::Duration;

use crate::config::error::ConfigError;
use crate::config::secret_url::SecretUrl;
use crate::config::setting::{Kind, items};
use crate::config::tls::TlsRule;
use crate::config::values::Values;

/// The largest numbers of receivers and of peers.
pub(super) const MOST_TARGETS: usize = 8;
pub(super) const MOST_PEERS: usize = 64;

/// NOTIFY_FORMAT: what a receiver expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotifyFormat {
    Json,
    Text,
    Slack,
    Discord,
    Ntfy,
}

impl NotifyFormat {
    const WORDS: [(&'static str, Self); 5] = [
        ("json", Self::Json),
        ("text", Self::Text),
        ("slack", Self::Slack),
        ("discord", Self::Discord),
        ("ntfy", Self::Ntfy),
    ];

    fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, format)| *format)
    }
}

/// One receiver of notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotifyTarget {
    pub(crate) url: SecretUrl,
    pub(crate) format: NotifyFormat,
}

/// NOTIFY_…
#[derive(Debug, Clone)]
pub(crate) struct NotifyConfig {
    /// Empty: no notifications.
    pub(crate) targets: Vec<NotifyTarget>,
    /// How long a change must last.
    pub(crate) after: Duration,
    /// Of receivers and of the heartbeat.
    pub(crate) tls: TlsRule,
}

/// HEARTBEAT_…
#[derive(Debug, Clone)]
pub(crate) struct HeartbeatConfig {
    pub(crate) url: SecretUrl,
    pub(crate) interval: Duration,
}

/// PEERS.
#[derive(Debug, Clone)]
pub(crate) struct PeersConfig {
    /// Base URLs with their tokens; empty: none.
    pub(crate) urls: Vec<SecretUrl>,
    pub(crate) tls: TlsRule,
}

pub(super) const FORMATS: Kind =
    Kind::Other("json, text, slack, discord or ntfy: one for all URLs, or one for each, comma-separated", |text| {
        items(text).count() > 0 && items(text).all(|word| NotifyFormat::parse(word).is_some())
    });

pub(super) fn read_notify(values: &mut Values) -> NotifyConfig {
    let formats: Vec<NotifyFormat> = items(values.text("NOTIFY_FORMAT")).filter_map(NotifyFormat::parse).collect();
    let urls = urls(values, "NOTIFY_URL");
    if formats.len() > 1 && formats.len() != urls.len() && values.are_right(&["NOTIFY_URL"]) {
        let (words, found) = (formats.len(), urls.len());
        let message =
            format!("NOTIFY_FORMAT: must be one format, or one for each URL of NOTIFY_URL: {found}, not {words}");
        values.refuse(ConfigError::sentence("NOTIFY_FORMAT", message));
    }
    let format = |at: usize| formats.get(at).or(formats.first()).copied().unwrap_or(NotifyFormat::Json);
    NotifyConfig {
        targets: urls.into_iter().enumerate().map(|(at, url)| NotifyTarget { url, format: format(at) }).collect(),
        after: values.duration("NOTIFY_AFTER"),
        tls: TlsRule::parse(values.text("NOTIFY_TLS")).unwrap_or(TlsRule::Verify),
    }
}

pub(super) fn read_heartbeat(values: &Values) -> Option<HeartbeatConfig> {
    let url = urls(values, "HEARTBEAT_URL").into_iter().next()?;
    Some(HeartbeatConfig { url, interval: values.duration("HEARTBEAT_INTERVAL") })
}

pub(super) fn read_peers(values: &Values) -> PeersConfig {
    let tls = TlsRule::parse(values.text("PEERS_TLS")).unwrap_or(TlsRule::Verify);
    PeersConfig { urls: urls(values, "PEERS"), tls }
}

fn urls(values: &Values, name: &str) -> Vec<SecretUrl> {
    items(values.text(name)).filter_map(|text| SecretUrl::parse(text).ok()).collect()
}
