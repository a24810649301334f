//! The table of all settings, and what a run reads from them. A new setting is a row here, a field of [`Config`], and the
//! file that uses it.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::config::amd_gpus::AmdGpus;
use crate::config::capability::{self, Capability, NameCheck};
use crate::config::conflicts;
use crate::config::error::ConfigError;
use crate::config::fault::Faults;
use crate::config::limits::{self, Limits};
use crate::config::login::Login;
use crate::config::models::{self, Models};
use crate::config::notify::{self, HeartbeatConfig, NotifyConfig, PeersConfig};
use crate::config::ollama::{self, OllamaConfig};
use crate::config::orchestrators::{self, Orchestrators};
use crate::config::secret::Secret;
use crate::config::setting::Group::{self, Gpu, Livepeer, Models as Model, Notify, Server};
use crate::config::setting::Kind::{self, Choice, File, Folder, Level, LoginUrl, Number, Text, Url, Urls, Whole};
use crate::config::setting::{BOOLEAN, Setting};
use crate::config::tls::TlsRule;
use crate::config::url::HttpUrl;
use crate::config::values::Values;
use crate::sys::explanation::{Explanation, Names};

const fn setting(
    name: &'static str,
    group: Group,
    default: &'static str,
    kind: Kind,
    meaning: &'static str,
) -> Setting {
    Setting { name, group, default, kind, meaning, secret: false }
}

const fn secret(name: &'static str, group: Group, meaning: &'static str) -> Setting {
    Setting { name, group, default: "", kind: Kind::Secret, meaning, secret: true }
}

const fn secret_urls(name: &'static str, most: usize, meaning: &'static str) -> Setting {
    Setting { name, group: Notify, default: "", kind: Kind::SecretUrls(most), meaning, secret: true }
}

const ADDRESS: Kind =
    Kind::Other("an IP address without brackets, such as 127.0.0.1 or ::", |text| text.parse::<IpAddr>().is_ok());
const PRICE: Kind = Whole("a whole number", 0, i64::MAX as u64);
const PERCENT: Kind = Number("a percentage", 0.0, 100.0);
const SHORTEST: Duration = Duration::from_millis(100);
const SAMPLES: Kind = Kind::Duration(SHORTEST, Duration::from_secs(300));
const HOLD: Kind = Kind::Duration(Duration::ZERO, Duration::from_secs(86_400));
const HEARTBEAT: Kind = Kind::Duration(Duration::from_secs(10), Duration::from_secs(86_400));
const SLOW_SAMPLES: Kind = Kind::Duration(SHORTEST, Duration::from_secs(3600));

/// All settings, in the order of help and reference.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[Setting] = &[
    setting("SERVER_HOST", Server, "::", ADDRESS, "address to listen on; :: is IPv4 and IPv6, or IPv4 only if IPv6 is off"),
    setting("SERVER_PORT", Server, "9876", Whole("a port", 0, 65535), "port to listen on; 0 picks a free one, which the log shows"),
    setting("PORT_SOCKET", Server, "", File, "Unix socket of agent-net hold-port, whose port is served as well; unset: none"),
    secret("WORKER_TOKEN", Server, "token required on every route except /health"),
    setting("WORKER_TOKEN_FILE", Server, "", File, "file with that token, instead of WORKER_TOKEN"),
    setting("CAPABILITY_CAPACITY", Server, "10", Whole("a whole number", 1, 1000), "concurrent jobs; further jobs get 503"),
    setting("STATE_DIR", Server, "", Folder, "folder for uptime, speeds, tickets and the socket of ack; unset: memory only"),
    setting("LOG_LEVEL", Server, "info", Level, "what is logged to stderr"),
    setting("METRICS_COMPAT", Server, "", Choice(&["nvidia_smi"]), "also show the metric names of nvidia_gpu_exporter"),
    setting("OLLAMA_URL", Model, "http://127.0.0.1:11434", LoginUrl, "Ollama's base URL; user:password@ in front of the host is sent as Basic"),
    secret("OLLAMA_TOKEN", Model, "token that a proxy in front of Ollama requires, sent as Bearer"),
    setting("OLLAMA_TOKEN_FILE", Model, "", File, "file with that token, instead of OLLAMA_TOKEN; read again when it is refused"),
    setting("OLLAMA_TLS", Model, "verify", TlsRule::KIND, "how the certificate of an https OLLAMA_URL is verified"),
    setting("MODEL", Model, "", models::MODEL, "models to pull if missing and to keep loaded; unset: none"),
    setting("MODEL_KEEP_ALIVE", Model, "15m", models::KEEP_ALIVE, "how long Ollama keeps a model after a request"),
    setting("PROBE_INTERVAL", Model, "5m", models::PROBE_INTERVAL, "how often a loaded model of MODEL is asked for a few tokens"),
    setting("PROBE_TIMEOUT", Model, "30s", models::PROBE_TIMEOUT, "how long a probe waits; Ollama needs 20 s to replace a runner that hangs"),
    setting("ORCH_URL", Livepeer, "", Urls, "base URLs of orchestrators; unset: do not register"),
    secret("ORCH_SECRET", Livepeer, "the orchestrator's -orchSecret"),
    setting("ORCH_SECRET_FILE", Livepeer, "", File, "file with that secret, instead of ORCH_SECRET; read again when it is refused"),
    setting("ORCH_TLS", Livepeer, "insecure", TlsRule::KIND, "how the orchestrator's certificate is verified; go-livepeer signs its own"),
    setting("ORCH_PROTOCOL", Livepeer, "auto", orchestrators::PROTOCOL, "how to register; auto: what the orchestrator has, only byoc with WORKER_TOKEN"),
    setting("CAPABILITY_NAME", Livepeer, "", capability::NAMES, "names to register; required with ORCH_URL, except live-runner with RUNNER_ID"),
    setting("CAPABILITY_DESCRIPTION", Livepeer, "GPU uptime monitoring (BYOC)", Text(1024), "description sent at registration"),
    setting("CAPABILITY_URL", Livepeer, "", Url, "where the orchestrator sends jobs; default: http://HOSTNAME:SERVER_PORT"),
    setting("CAPABILITY_PRICE_PER_UNIT", Livepeer, "", PRICE, "price of one second; unset: not sent; 0: free"),
    setting("CAPABILITY_PRICE_SCALING", Livepeer, "", Whole("a whole number", 1, i64::MAX as u64), "divisor of the price; unset: not sent"),
    setting("CAPABILITY_CURRENCY", Livepeer, "", capability::CURRENCY, "currency of the price; the orchestrator needs a price feed for it"),
    setting("RUNNER_ID", Livepeer, "", orchestrators::RUNNER_ID, "id in a Live Runner registry; default: made from CAPABILITY_NAME"),
    setting("RUNNER_APP", Livepeer, "agent-net/gpu-check", orchestrators::RUNNER_APP, "app in a Live Runner registry"),
    setting("RUNNER_PRICE", Livepeer, "", orchestrators::RUNNER_PRICE, "price in a Live Runner registry; unset: not sent"),
    setting("WITHDRAW_WHEN_UNHEALTHY", Livepeer, "false", BOOLEAN, "true: leave the orchestrators while the verdict is unhealthy"),
    setting("TICKET_SUBMIT_URL", Livepeer, "", Url, "where tickets of jobs are submitted; requires STATE_DIR; unset: nowhere"),
    setting("SAMPLE_INTERVAL", Gpu, "5s", SAMPLES, "interval between samples of GPUs and Ollama"),
    setting("SLOW_SAMPLE_INTERVAL", Gpu, "30s", SLOW_SAMPLES, "interval between readings of fans, PCIe, ECC and processes"),
    setting("EXPECTED_GPUS", Gpu, "", Whole("a number of GPUs", 0, u32::MAX as u64), "fewer usable GPUs are unhealthy; 0: no GPU is expected"),
    setting("GPU_MIN_VRAM_GB", Gpu, "", Number("a number of gigabytes (10^9 bytes)", 0.0, 100_000.0), "a GPU with less memory is unhealthy"),
    setting("GPU_MAX_TEMP_C", Gpu, "", Whole("whole degrees Celsius", 1, 150), "a GPU above this temperature is degraded"),
    setting("GPU_SHORT_TERM_UPTIME_THRESHOLD", Gpu, "99.0", PERCENT, "uptime of the last hour; less is degraded, 0: never"),
    setting("GPU_MEDIUM_TERM_UPTIME_THRESHOLD", Gpu, "99.0", PERCENT, "uptime of the last 24 hours; less is degraded, 0: never"),
    setting("GPU_LONG_TERM_UPTIME_THRESHOLD", Gpu, "99.0", PERCENT, "uptime of the last 30 days; less is degraded, 0: never"),
    setting("AMD_GPUS", Gpu, "auto", Choice(AmdGpus::NAMES), "which AMD GPUs are read; auto: one in a processor only if there is no other GPU"),
    setting("NVML_LIB", Gpu, "", File, "path of libnvidia-ml.so.1; default: found by search"),
    setting("NVML_HELPER", Gpu, "", File, "path of agent-net-nvml; default: next to agent-net, then PATH"),
    setting("HOST_ROOT", Gpu, "/", Folder, "folder with the machine's /dev, /proc and /sys"),
    secret_urls("NOTIFY_URL", notify::MOST_TARGETS, "webhooks that are notified when the verdict or its reasons change; unset: none"),
    setting("NOTIFY_URL_FILE", Notify, "", File, "file with those URLs, instead of NOTIFY_URL"),
    setting("NOTIFY_FORMAT", Notify, "json", notify::FORMATS, "what the webhooks expect"),
    setting("NOTIFY_AFTER", Notify, "60s", HOLD, "how long a change must last before it is sent"),
    setting("NOTIFY_TLS", Notify, "verify", TlsRule::KIND, "how the certificates of NOTIFY_URL and HEARTBEAT_URL are verified"),
    secret_urls("HEARTBEAT_URL", 1, "push monitor that is called while ok or degraded; may hold {status}, {message}"),
    setting("HEARTBEAT_URL_FILE", Notify, "", File, "file with that URL, instead of HEARTBEAT_URL"),
    setting("HEARTBEAT_INTERVAL", Notify, "60s", HEARTBEAT, "how often it is called"),
    secret_urls("PEERS", notify::MOST_PEERS, "workers that the status page shows; :WORKER_TOKEN@ goes before the host"),
    setting("PEERS_FILE", Notify, "", File, "file with those URLs, instead of PEERS"),
    setting("PEERS_TLS", Notify, "verify", TlsRule::KIND, "how the certificates of peers are verified"),
];

/// The effective settings of one run.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) host: IpAddr,
    /// SERVER_HOST is set: the worker does not start unless it can listen there.
    pub(crate) host_chosen: bool,
    pub(crate) port: u16,
    /// Unix socket of `agent-net hold-port`.
    pub(crate) port_socket: Option<String>,
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
    pub(crate) amd_gpus: AmdGpus,
    pub(crate) nvml_lib: Option<String>,
    pub(crate) nvml_helper: Option<String>,
    pub(crate) notify: NotifyConfig,
    /// None: no push monitor.
    pub(crate) heartbeat: Option<HeartbeatConfig>,
    pub(crate) peers: PeersConfig,
    pub(crate) log_level: log::LevelFilter,
    pub(crate) faults: Faults,
}

impl Config {
    /// The Authorization header that a worker with this WORKER_TOKEN wants.
    pub(crate) fn worker_authorization(&self) -> Option<String> {
        self.worker_token.clone().map(|token| Login::Token(token).header())
    }

    /// What is wrong with the prices, and what to do; None: nothing.
    pub(crate) fn price_trouble(&self) -> Option<(&'static str, &'static str)> {
        conflicts::price_trouble(&self.orchestrators, &self.capability)
    }
}

/// Reads all settings through `lookup` (flag, else environment, else None). `wrong`: what is known to be wrong already.
///
/// # Errors
/// All settings that cannot be used, in the order of the table.
pub(crate) fn read(
    lookup: &dyn Fn(&str) -> Option<String>,
    name_problem: NameCheck,
    faults: Faults,
    wrong: Vec<ConfigError>,
) -> Result<Config, Vec<ConfigError>> {
    let mut values = Values::new(SETTINGS, lookup, wrong);
    let owned = |name: &str, values: &Values| values.optional(name).map(str::to_owned);
    let config = Config {
        host: values.parsed("SERVER_HOST").unwrap_or(Ipv6Addr::UNSPECIFIED.into()),
        host_chosen: values.optional("SERVER_HOST").is_some(),
        port: values.parsed("SERVER_PORT").unwrap_or_default(),
        port_socket: owned("PORT_SOCKET", &values),
        ollama: ollama::read(&mut values),
        orchestrators: orchestrators::read(&values),
        capability: capability::read(&mut values, name_problem),
        worker_token: values.secret("WORKER_TOKEN"),
        models: models::read(&values),
        sample_interval: values.duration("SAMPLE_INTERVAL"),
        slow_interval: values.duration("SLOW_SAMPLE_INTERVAL"),
        state_dir: owned("STATE_DIR", &values),
        ticket_submit: values.url("TICKET_SUBMIT_URL"),
        limits: limits::read(&values),
        nvidia_smi_metrics: values.optional("METRICS_COMPAT").is_some(),
        host_root: values.text("HOST_ROOT").to_owned(),
        amd_gpus: AmdGpus::parse(values.text("AMD_GPUS")).unwrap_or_default(),
        nvml_lib: owned("NVML_LIB", &values),
        nvml_helper: owned("NVML_HELPER", &values),
        notify: notify::read_notify(&mut values),
        heartbeat: notify::read_heartbeat(&values),
        peers: notify::read_peers(&values),
        log_level: values.parsed("LOG_LEVEL").unwrap_or(log::LevelFilter::Info),
        faults,
    };
    conflicts::find(&mut values, &config.orchestrators, &config.capability);
    let wrong = values.into_wrong();
    if wrong.is_empty() { Ok(config) } else { Err(wrong) }
}

/// For `agent-net explain`.
pub(crate) const NAMES: Names =
    Names { kind: "setting", all: || SETTINGS.iter().map(|setting| setting.name).collect(), find };

fn find(name: &str) -> Option<Explanation> {
    let is_it = |setting: &&Setting| {
        setting.name.eq_ignore_ascii_case(name) || setting.flag().trim_start_matches("--").eq_ignore_ascii_case(name)
    };
    let setting = SETTINGS.iter().find(is_it)?;
    let fields = [
        ("meaning", setting.meaning.to_owned()),
        ("flag", setting.flag()),
        ("values", setting.kind.valid()),
        ("default", setting.default.to_owned()),
    ];
    Some(Explanation::new(&NAMES, setting.name, fields))
}
