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

    /// As it is set.
    pub(crate) fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }
}

/// One receiver of notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotifyTarget {
    pub(crate) url: SecretUrl,
    pub(crate) format: NotifyFormat,
}

impl NotifyTarget {
    /// Its URL has all that its format needs.
    fn is_complete(&self) -> bool {
        self.format != NotifyFormat::Ntfy || self.url.ntfy_topic().is_some()
    }

    /// The targets with the URLs of a file that was read again. None: it does not have one for each, or not valid ones.
    pub(crate) fn renewed(targets: &[Self], text: &str) -> Option<Vec<Self>> {
        let urls: Vec<&str> = text.split_whitespace().flat_map(items).collect();
        if urls.len() != targets.len() {
            return None;
        }
        let renewed = targets.iter().zip(urls).map(|(target, url)| {
            let renewed = Self { url: SecretUrl::parse(url).ok()?, format: target.format };
            renewed.is_complete().then_some(renewed)
        });
        renewed.collect()
    }
}

/// NOTIFY_…
#[derive(Debug, Clone)]
pub(crate) struct NotifyConfig {
    /// Empty: no notifications.
    pub(crate) targets: Vec<NotifyTarget>,
    /// NOTIFY_URL_FILE, which may change.
    pub(crate) url_file: Option<String>,
    /// How long a change must last.
    pub(crate) after: Duration,
    /// Of receivers and of the heartbeat.
    pub(crate) tls: TlsRule,
}

/// HEARTBEAT_…
#[derive(Debug, Clone)]
pub(crate) struct HeartbeatConfig {
    pub(crate) url: SecretUrl,
    /// HEARTBEAT_URL_FILE, which is read again at SIGHUP.
    pub(crate) file: Option<String>,
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
    let targets: Vec<NotifyTarget> =
        urls.into_iter().enumerate().map(|(at, url)| NotifyTarget { url, format: format(at) }).collect();
    if let Some(at) = targets.iter().position(|target| !target.is_complete()) {
        let which = format!("URL {} of {}", at + 1, targets.len());
        let message = format!(
            "NOTIFY_URL: {which}: must end with a topic where NOTIFY_FORMAT is ntfy, such as https://ntfy.sh/TOPIC; the value is not shown"
        );
        values.refuse(ConfigError::sentence("NOTIFY_URL", message));
    }
    NotifyConfig {
        targets,
        url_file: values.optional("NOTIFY_URL_FILE").map(str::to_owned),
        after: values.duration("NOTIFY_AFTER"),
        tls: TlsRule::parse(values.text("NOTIFY_TLS")).unwrap_or(TlsRule::Verify),
    }
}

pub(super) fn read_heartbeat(values: &Values) -> Option<HeartbeatConfig> {
    let url = urls(values, "HEARTBEAT_URL").into_iter().next()?;
    let file = values.optional("HEARTBEAT_URL_FILE").map(str::to_owned);
    Some(HeartbeatConfig { url, file, interval: values.duration("HEARTBEAT_INTERVAL") })
}

pub(super) fn read_peers(values: &Values) -> PeersConfig {
    let tls = TlsRule::parse(values.text("PEERS_TLS")).unwrap_or(TlsRule::Verify);
    PeersConfig { urls: urls(values, "PEERS"), tls }
}

fn urls(values: &Values, name: &str) -> Vec<SecretUrl> {
    items(values.text(name)).filter_map(|text| SecretUrl::parse(text).ok()).collect()
}

#[test]
fn a_file_that_is_read_again_has_as_many_urls_as_before() {
    let targets = [NotifyFormat::Json, NotifyFormat::Ntfy]
        .map(|format| NotifyTarget { url: SecretUrl::parse("https://h/a").unwrap(), format });
    let renewed = |text| {
        NotifyTarget::renewed(&targets, text)
            .map(|all| all.iter().map(|t| t.url.expose().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(renewed("https://h/b,https://n/c\n"), Some(vec!["https://h/b".into(), "https://n/c".into()]));
    assert_eq!(renewed("https://h/b\nhttps://n/c"), renewed("https://h/b, https://n/c"));
    for wrong in ["", "https://h/b", "https://h/b https://n/c https://n/d", "https://h/b https://n/", "https://h/b n/c"]
    {
        assert_eq!(renewed(wrong), None, "{wrong}");
    }
}
