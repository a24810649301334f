//! Settings in rows: what they are without a value, and what each says to a wrong one.

use std::time::Duration;

use crate::config::error::ConfigError;
use crate::config::fault::{Faults, VARIABLE, WatchdogTest};
use crate::config::setting::{Group, Kind};
use crate::config::table::{self, Config, SETTINGS};
use crate::config::tls::TlsRule;
use crate::sys::explanation;
use crate::tables::{markdown, table};

/// What is wrong with these settings, a line each; or the settings.
fn parse(pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let lookup = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    let read = table::read(&lookup, crate::api::capability_names::problem, Faults::default(), Vec::new());
    read.map_err(|wrong| wrong.iter().map(ConfigError::to_string).collect())
}

/// The one line about these settings.
#[track_caller]
fn line(pairs: &[(&str, &str)]) -> String {
    let lines = parse(pairs).unwrap_err();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.into_iter().next().unwrap()
}

#[test]
fn nothing_set_gives_the_defaults_of_the_table() {
    let config = parse(&[]).unwrap();
    assert_eq!((config.host.to_string().as_str(), config.host_chosen, config.port), ("::", false, 9876));
    assert!(parse(&[("SERVER_HOST", "::")]).unwrap().host_chosen);
    assert_eq!((config.ollama.url.as_str(), &config.ollama.tls), ("http://127.0.0.1:11434", &TlsRule::Verify));
    assert_eq!((config.capability.capacity, config.sample_interval), (10, Duration::from_secs(5)));
    assert!(config.orchestrators.urls.is_empty() && config.orchestrators.tls == TlsRule::Insecure);
    assert_eq!(parse(&[("SERVER_PORT", " "), ("EXPECTED_GPUS", "")]).unwrap().port, 9876);
}

#[test]
fn each_limit_has_its_setting_and_its_unit() {
    let limits = parse(&[
        ("EXPECTED_GPUS", "2"),
        ("GPU_MIN_VRAM_GB", "23.5"),
        ("GPU_MAX_TEMP_C", "80"),
        ("GPU_SHORT_TERM_UPTIME_THRESHOLD", "1"),
        ("GPU_MEDIUM_TERM_UPTIME_THRESHOLD", "2"),
        ("GPU_LONG_TERM_UPTIME_THRESHOLD", "3.5"),
    ])
    .unwrap()
    .limits;
    assert_eq!((limits.expected_gpus, limits.max_temp_c), (Some(2), Some(80)));
    assert_eq!((limits.min_vram_bytes, limits.uptime_percent), (Some(23_500_000_000), [1.0, 2.0, 3.5]));
}

#[test]
fn a_wrong_value_names_the_variable_the_value_and_what_is_valid() {
    #[track_caller]
    fn check(name: &str, value: &str, valid: &str) {
        let message = line(&[(name, value)]);
        assert!(message.starts_with(&format!("{name}={value:?}: ")), "{message}");
        assert!(message.contains(valid), "{message}");
    }
    check("SERVER_PORT", "65536", "0 to 65535");
    check("SERVER_HOST", "localhost", "IP address");
    check("SERVER_HOST", "[::1]", "without brackets");
    check("OLLAMA_URL", "ftp://x", "http://");
    check("ORCH_TLS", "ca:", "verify, insecure or ca:");
    check("OLLAMA_TLS", "true", "verify, insecure or ca:");
    check("CAPABILITY_CAPACITY", "0", "1 to 1000");
    check("CAPABILITY_CAPACITY", "10.0", "1 to 1000");
    check("CAPABILITY_PRICE_PER_UNIT", "-1", "0 to 9223372036854775807");
    check("CAPABILITY_PRICE_PER_UNIT", "9223372036854775808", "9223372036854775807");
    check("CAPABILITY_PRICE_SCALING", "0", "from 1 to");
    check("CAPABILITY_NAME", "a b", "visible ASCII");
    check("CAPABILITY_NAME", "metrics", "another route");
    check("CAPABILITY_NAME", "hardware/info", "another route");
    check("CAPABILITY_NAME", "a/../b", "between slashes");
    check("CAPABILITY_NAME", "a%2Fb", "?, # or %");
    check("CAPABILITY_URL", "http://h/p?k=v", "query");
    check("CAPABILITY_CURRENCY", "us d", "currency code");
    check("SAMPLE_INTERVAL", "5", "a duration with its unit, from 100ms");
    check("SAMPLE_INTERVAL", "99ms", "100ms to 5m");
    check("SLOW_SAMPLE_INTERVAL", "2h", "100ms to 1h");
    check("GPU_MIN_VRAM_GB", "24GB", "gigabytes");
    check("GPU_MAX_TEMP_C", "300", "1 to 150");
    check("GPU_LONG_TERM_UPTIME_THRESHOLD", "101", "0 to 100");
    check("GPU_SHORT_TERM_UPTIME_THRESHOLD", "NaN", "0 to 100");
    check("METRICS_COMPAT", "dcgm", "nvidia_smi");
    check("EXPECTED_GPUS", "-1", "a number of GPUs from 0");
    check("LOG_LEVEL", "loud", "error, warn");
    check("ORCH_PROTOCOL", "BYOC", "auto, byoc, live-runner or both");
    check("RUNNER_ID", "a/b", "letters, digits");
    check("RUNNER_APP", "a b", "visible ASCII");
    check("RUNNER_PRICE", "5", "0.0005usd/fixed");
    check("WITHDRAW_WHEN_UNHEALTHY", "yes", "true or false");
}

#[test]
fn secrets_are_checked_and_never_shown() {
    for value in ["a b", "a\nb", "é"] {
        let message = line(&[("ORCH_SECRET", value)]);
        assert!(message.starts_with("ORCH_SECRET: ") && !message.contains(value), "{message}");
    }
    let config = parse(&[("ORCH_SECRET", "hunter2"), ("WORKER_TOKEN", "hunter2")]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    for (name, url) in [
        ("ORCH_URL", "http://u:hunter2@h"),
        ("CAPABILITY_URL", "http://u:hunter2@h"),
        // Characters of a password that end the host's part, or are none of a URL.
        ("OLLAMA_URL", "http://u:hunter2/x@h"),
        ("OLLAMA_URL", "http://u:hunter2#@h"),
        ("OLLAMA_URL", "http://u:hunter2ü@h"),
        ("OLLAMA_URL", "http://u:hunter2%zz@h"),
        ("OLLAMA_URL", "http://:@h"),
        ("OLLAMA_URL", "ftp://u:hunter2@h"),
        // A comma of a password ends an item of a list.
        ("ORCH_URL", "http://u:hunter2,x@h"),
        ("ORCH_URL", "http://h,http://u:x,hunter2@h"),
    ] {
        let message = line(&[(name, url)]);
        assert!(!message.contains("hunter2") && message.starts_with(name), "{message}");
    }
}

#[test]
fn a_long_value_is_cut_and_what_is_valid_still_follows() {
    let long = "ü".repeat(100_000);
    for name in ["SERVER_PORT", "MODEL", "ORCH_URL"] {
        let message = line(&[(name, &long)]);
        assert!(message.chars().count() < 300 && message.contains("…") && message.contains("must be"), "{message}");
    }
}

#[test]
fn a_name_given_twice_counts_once() {
    let config = parse(&[("CAPABILITY_NAME", "b, a,b"), ("MODEL", "m:1,m:1")]).unwrap();
    assert_eq!((config.capability.names, config.models.names), (vec!["b".into(), "a".into()], vec!["m:1".into()]));
}

#[test]
fn a_login_for_ollama() {
    let login = |pairs: &[(&str, &str)]| {
        let config = parse(pairs).unwrap().ollama;
        (config.url.as_str().to_owned(), config.login.map(|login| login.header()))
    };
    let url = "https://h/base".to_owned();
    let basic = Some("Basic dTpwOi9AeA==".to_owned());
    assert_eq!(login(&[("OLLAMA_URL", "https://u:p%3A%2f%40x@h/base/")]), (url.clone(), basic));
    assert_eq!(login(&[("OLLAMA_URL", "https://token@h/base")]), (url.clone(), Some("Basic dG9rZW46".into())));
    let bearer = login(&[("OLLAMA_URL", "https://h/base"), ("OLLAMA_TOKEN", "t")]);
    assert_eq!(bearer, (url.clone(), Some("Bearer t".into())));
    assert_eq!(login(&[("OLLAMA_URL", "https://h/base")]), (url, None));
    let both = line(&[("OLLAMA_URL", "http://u:hunter2@h"), ("OLLAMA_TOKEN", "t")]);
    assert!(both.contains("remove one") && !both.contains("hunter2"), "{both}");
}

#[test]
fn registration_needs_a_name() {
    let message = line(&[("ORCH_URL", "https://o:8935/, http://p")]);
    assert!(message.contains("CAPABILITY_NAME"), "{message}");
    let config = parse(&[("ORCH_URL", "https://o:8935/, http://p"), ("CAPABILITY_NAME", "a,b")]).unwrap();
    assert_eq!(config.capability.names, ["a", "b"]);
    assert_eq!(config.orchestrators.urls[0].as_str(), "https://o:8935");
}

#[test]
fn all_that_is_wrong_is_reported_in_the_order_of_the_table() {
    let wrong = [
        ("LOG_LEVEL", "loud"),
        ("TICKET_SUBMIT_URL", "http://t"),
        ("CAPABILITY_NAME", "metrics"),
        ("ORCH_SECRET", "hunter2 x"),
        ("ORCH_URL", "http://o"),
        ("SERVER_PORT", "70000"),
    ];
    let lines = parse(&wrong).unwrap_err();
    assert_eq!(lines[0], "SERVER_PORT=\"70000\": must be a port from 0 to 65535");
    let names: Vec<&str> = lines.iter().map(|line| line.split([':', '=', ' ']).next().unwrap()).collect();
    assert_eq!(names, ["SERVER_PORT", "LOG_LEVEL", "ORCH_SECRET", "CAPABILITY_NAME", "TICKET_SUBMIT_URL"], "{lines:?}");
    assert!(!lines.concat().contains("hunter2"), "{lines:?}");
}

#[test]
fn a_conflict_is_judged_only_between_values_that_can_be_used() {
    let message = line(&[("ORCH_URL", "http://o"), ("CAPABILITY_NAME", "a b")]);
    assert!(message.starts_with("CAPABILITY_NAME=\"a b\": must be"), "{message}");
    let token = ("WORKER_TOKEN", "t");
    let all = [token, ("ORCH_URL", "http://o"), ("CAPABILITY_NAME", "a"), ("ORCH_PROTOCOL", "both")];
    assert!(line(&all).starts_with("WORKER_TOKEN cannot be combined"));
    assert!(line(&[token, ("ORCH_URL", "x"), ("ORCH_PROTOCOL", "both")]).starts_with("ORCH_URL=\"x\""));
}

#[test]
fn faults_for_tests() {
    let scaled = |time_scale| Faults { time_scale, ..Faults::default() };
    assert_eq!(Faults::parse("hurry:50"), Ok(scaled(50)));
    assert_eq!((Faults::parse(""), scaled(50).watchdog_scale()), (Ok(Faults::default()), 1));
    assert_eq!(Faults::parse("panic:a:b").unwrap().panic_agent.as_deref(), Some("a:b"));
    let deaf = Faults::parse("deaf").unwrap();
    assert_eq!((deaf.watchdog, deaf.watchdog_scale()), (Some(WatchdogTest::Deaf), 100));
    for unknown in ["hurry:0", "hurry:", "x", "deaf:", "deaf:1", "panic-thread"] {
        let error = Faults::parse(unknown).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{VARIABLE}={unknown:?}: must be panic:AGENT_ID")), "{error}");
    }
}

#[test]
fn the_table_is_sound() {
    for setting in SETTINGS {
        let (name, default) = (setting.name, setting.default);
        assert!(default.is_empty() || setting.kind.problem(name, default).is_none(), "{name}: its default is wrong");
        assert_eq!(setting.secret, matches!(setting.kind, Kind::Secret | Kind::SecretUrls(_)), "{name}");
        let file = SETTINGS.iter().any(|other| other.name == format!("{name}_FILE"));
        assert_eq!(file, setting.secret, "{name}: a secret has a _FILE, and nothing else");
        assert!(setting.meaning.len() <= 80 && !setting.meaning.contains('|'), "{name}: {}", setting.meaning.len());
    }
    assert_eq!((table::NAMES.all)().len(), SETTINGS.len());
    for name in ["SERVER_PORT", "server_port", "server-port"] {
        let port = explanation::text(&(table::NAMES.find)(name).unwrap());
        assert!(port.contains("--server-port") && port.contains("0 to 65535") && port.contains("9876"), "{port}");
    }
    assert!((table::NAMES.find)("AGENT_NET_FAULT").is_none());
}

#[test]
fn the_reference_has_all_settings() {
    let groups = Group::ALL.map(|group| {
        let rows = SETTINGS.iter().filter(|setting| setting.group == group).map(|setting| {
            let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
            vec![format!("`{}`", setting.name), default, setting.kind.brief(), setting.meaning.to_owned()]
        });
        let columns = ["variable", "default", "values", "meaning"];
        format!("### {}\n\n{}", group.title(), markdown(&columns, rows))
    });
    table("src/reference.md", "settings", &groups.join("\n\n"));
}

/// The variables of Compose that have a default of their own there.
const COMPOSE_DEFAULTS: [(&str, &str); 3] =
    [("OLLAMA_URL", "http://ollama:11434"), ("MODEL", "codellama:34b-instruct-q4_k_m"), ("STATE_DIR", "/state")];

#[test]
fn compose_passes_every_setting_on_and_its_example_names_them() {
    let read = |file: &str| std::fs::read_to_string(format!("{}/compose/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (compose, example) = (read("compose.yaml"), read(".env.example"));
    for setting in SETTINGS {
        let name = setting.name;
        let own = COMPOSE_DEFAULTS.iter().find(|(known, _)| *known == name).map(|(_, default)| *default);
        let dash = if name == "MODEL" { "-" } else { ":-" };
        let passed = format!("\n      {name}: ${{{name}{dash}{}}}\n", own.unwrap_or_default());
        assert!(compose.contains(&passed), "compose.yaml lacks {passed}");
        let default = own.unwrap_or(setting.default);
        let shown = example.lines().find_map(|line| line.strip_prefix(&format!("#{name}=")));
        let shown = shown.unwrap_or_else(|| panic!(".env.example lacks {name}"));
        // Without a default there may be an example.
        assert!(shown == default || default.is_empty(), "{name}={shown} is not the default {default}");
        assert!(shown.is_empty() || setting.kind.problem(name, shown).is_none(), "{name}={shown} is not valid");
    }
}
