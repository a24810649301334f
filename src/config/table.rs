//! The table of all settings: what the operator reads.

/// One setting as the operator sees it. The flag of `serve` is the name in kebab-case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Environment variable.
    pub(crate) name: &'static str,
    /// What holds when it is unset or empty; "" where unset means "off".
    pub(crate) default: &'static str,
    /// One line for `--help`.
    pub(crate) meaning: &'static str,
    /// Its value is shown nowhere.
    pub(crate) secret: bool,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning, secret: false }
}

const fn secret(name: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default: "", meaning, secret: true }
}

/// All settings, in the order of the README.
pub(crate) const SETTINGS: &[Setting] = &[
    setting("SERVER_HOST", "::", "address to listen on; :: takes IPv4 and IPv6, or IPv4 where IPv6 is off"),
    setting("SERVER_PORT", "9876", "port to listen on; 0 picks a free one"),
    setting(
        "OLLAMA_URL",
        "http://127.0.0.1:11434",
        "Ollama's base URL; user:password@ before the host is sent as Basic",
    ),
    secret("OLLAMA_TOKEN", "token that a proxy before Ollama asks for, sent as Bearer"),
    setting("OLLAMA_TOKEN_FILE", "", "file that holds it, instead of OLLAMA_TOKEN; read again when it is refused"),
    setting("OLLAMA_TLS", "verify", "for an https OLLAMA_URL: verify, insecure or ca:/path.pem"),
    setting("ORCH_URL", "", "orchestrator base URLs, comma-separated; unset: do not register"),
    secret("ORCH_SECRET", "the orchestrator's -orchSecret"),
    setting("ORCH_SECRET_FILE", "", "file that holds it, instead of ORCH_SECRET"),
    setting("ORCH_TLS", "insecure", "verify, insecure or ca:/path.pem"),
    setting("ORCH_PROTOCOL", "auto", "byoc, live-runner, both, or auto: what the orchestrator has of the two"),
    setting("RUNNER_ID", "", "id in a Live Runner registry; default: made from CAPABILITY_NAME"),
    setting("RUNNER_APP", "agent-net/gpu-check", "app in a Live Runner registry"),
    setting("RUNNER_PRICE", "", "price in a Live Runner registry, e.g. 0.0005usd/fixed; unset: left out"),
    setting("WITHDRAW_WHEN_UNHEALTHY", "false", "true: leave the orchestrators while the verdict is unhealthy"),
    setting(
        "CAPABILITY_NAME",
        "",
        "names to register, comma-separated; required with ORCH_URL, but for live-runner with RUNNER_ID",
    ),
    setting("CAPABILITY_DESCRIPTION", "GPU uptime monitoring (BYOC)", "sent at registration"),
    setting("CAPABILITY_URL", "", "where the orchestrator sends jobs; default http://HOSTNAME:SERVER_PORT"),
    setting("CAPABILITY_CAPACITY", "10", "jobs served at the same time, 1 to 1000"),
    setting("CAPABILITY_PRICE_PER_UNIT", "", "price of one second; unset: left out"),
    setting("CAPABILITY_PRICE_SCALING", "", "divisor of the price; unset: left out"),
    setting("CAPABILITY_CURRENCY", "", "wei, eth or one the orchestrator has a price feed for"),
    secret("WORKER_TOKEN", "token that every route but /health asks for"),
    setting("WORKER_TOKEN_FILE", "", "file that holds it, instead of WORKER_TOKEN"),
    setting("MODEL", "", "models to pull where they are missing and to keep loaded, comma-separated; unset: none"),
    setting("MODEL_KEEP_ALIVE", "15m", "how long Ollama keeps them after a request: 15m, seconds, or -1 for ever"),
    setting("SAMPLE_INTERVAL", "5s", "how often GPU and Ollama are read, 100ms to 5m"),
    setting("SLOW_SAMPLE_INTERVAL", "30s", "how often fans, PCIe, ECC and processes are read, 100ms to 1h"),
    setting("STATE_DIR", "", "folder for uptime history, ticket ledger and the socket of ack; unset: memory only"),
    setting("TICKET_SUBMIT_URL", "", "where tickets that come with jobs are handed in; unset: they are ignored"),
    setting("EXPECTED_GPUS", "", "fewer usable GPUs are unhealthy; 0: no GPU is expected"),
    setting("GPU_MIN_VRAM_GB", "", "a GPU with less memory (in units of 10^9 bytes) is unhealthy"),
    setting("GPU_MAX_TEMP_C", "", "a GPU above this temperature is degraded"),
    setting("GPU_SHORT_TERM_UPTIME_THRESHOLD", "99.0", "percent of the last hour; less is degraded"),
    setting("GPU_MEDIUM_TERM_UPTIME_THRESHOLD", "99.0", "percent of the last 24 hours; less is degraded"),
    setting("GPU_LONG_TERM_UPTIME_THRESHOLD", "99.0", "percent of the last 30 days; less is degraded"),
    setting("METRICS_COMPAT", "", "nvidia_smi: also show the metric names of nvidia_gpu_exporter"),
    setting("NVML_LIB", "", "path of libnvidia-ml.so.1; default: found by search"),
    setting("NVML_HELPER", "", "path of agent-net-nvml; default: beside agent-net, then PATH"),
    setting("HOST_ROOT", "/", "where /dev, /proc and /sys of the machine are found"),
    setting("LOG_LEVEL", "info", "error, warn, info, debug, trace or off"),
    setting(
        "AGENT_NET_FAULT",
        "",
        "for tests only: panic:AGENT_ID makes that agent's jobs panic, hurry:N registers, hands in, looks after models and stops waiting for a helper N times faster; the watchdog looks 100 times as often with deaf, which accepts one connection, sick, which answers /health with 503, and watched",
    ),
];

pub(super) fn default_of(name: &str) -> &'static str {
    SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.default)
}
