//! Settings in rows: what they are without a value, and what each says to a wrong one.

use super::*;

fn parse(pairs: &[(&str, &str)]) -> Parsed<Config> {
    from(&|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()), crate::api::route::name_problem)
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
fn a_wrong_value_names_the_variable_the_value_and_what_is_accepted() {
    #[track_caller]
    fn check(name: &str, value: &str, accepted: &str) {
        let message = parse(&[(name, value)]).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{name}={value:?}: ")), "{message}");
        assert!(message.contains(accepted), "{message}");
    }
    check("SERVER_PORT", "65536", "0 to 65535");
    check("SERVER_HOST", "localhost", "IP address");
    check("SERVER_HOST", "[::1]", "without brackets");
    check("OLLAMA_URL", "ftp://x", "http://");
    check("ORCH_TLS", "ca:", "verify, insecure or ca:");
    check("OLLAMA_TLS", "true", "verify, insecure or ca:");
    check("CAPABILITY_CAPACITY", "0", "1 to 1000");
    check("CAPABILITY_CAPACITY", "10.0", "1 to 1000");
    check("CAPABILITY_PRICE_PER_UNIT", "-1", "not negative");
    check("CAPABILITY_PRICE_PER_UNIT", "9223372036854775808", "9223372036854775807");
    check("CAPABILITY_PRICE_SCALING", "0", "from 1");
    check("CAPABILITY_NAME", "a b", "visible ASCII");
    check("CAPABILITY_NAME", "metrics", "another route");
    check("CAPABILITY_NAME", "hardware/info", "another route");
    check("CAPABILITY_NAME", "a/../b", "between slashes");
    check("CAPABILITY_NAME", "a%2Fb", "?, # or %");
    check("CAPABILITY_URL", "http://h/p?k=v", "query");
    check("CAPABILITY_CURRENCY", "us d", "currency code");
    check("SAMPLE_INTERVAL", "5", "e.g. 5s");
    check("SAMPLE_INTERVAL", "99ms", "100ms to 5m");
    check("SLOW_SAMPLE_INTERVAL", "2h", "100ms to 1h");
    check("GPU_MIN_VRAM_GB", "24GB", "gigabytes");
    check("GPU_MAX_TEMP_C", "300", "1 to 150");
    check("GPU_LONG_TERM_UPTIME_THRESHOLD", "101", "0 (never) to 100");
    check("GPU_SHORT_TERM_UPTIME_THRESHOLD", "NaN", "0 (never) to 100");
    check("METRICS_COMPAT", "dcgm", "nvidia_smi");
    check("EXPECTED_GPUS", "-1", "whole number");
    check("LOG_LEVEL", "loud", "error, warn");
    check("ORCH_PROTOCOL", "BYOC", "auto, byoc, live-runner or both");
    check("RUNNER_ID", "a/b", "letters, digits");
    check("RUNNER_APP", "a b", "visible ASCII");
    check("RUNNER_PRICE", "5", "0.0005usd/fixed");
    check("WITHDRAW_WHEN_UNHEALTHY", "yes", "true or false");
    check("AGENT_NET_FAULT", "hurry:0", "hurry:TIMES");
    check("AGENT_NET_FAULT", "x", "panic:");
}

#[test]
fn secrets_are_checked_and_never_shown() {
    for value in ["a b", "a\nb", "é"] {
        let message = parse(&[("ORCH_SECRET", value)]).unwrap_err().to_string();
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
    ] {
        let message = parse(&[(name, url)]).unwrap_err().to_string();
        assert!(!message.contains("hunter2") && message.starts_with(name), "{message}");
    }
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
    let both = parse(&[("OLLAMA_URL", "http://u:hunter2@h"), ("OLLAMA_TOKEN", "t")]).unwrap_err().to_string();
    assert!(both.contains("keep one") && !both.contains("hunter2"), "{both}");
}

#[test]
fn registration_needs_a_name() {
    let message = parse(&[("ORCH_URL", "https://o:8935/, http://p")]).unwrap_err().to_string();
    assert!(message.contains("CAPABILITY_NAME"), "{message}");
    let config = parse(&[("ORCH_URL", "https://o:8935/, http://p"), ("CAPABILITY_NAME", "a,b")]).unwrap();
    assert_eq!(config.capability.names, ["a", "b"]);
    assert_eq!(config.orchestrators.urls[0].as_str(), "https://o:8935");
}
