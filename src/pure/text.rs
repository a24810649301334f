//! The report as `key=value` lines, safe to `eval` in a POSIX shell whatever a model or GPU is called.

use std::fmt::Display;

use super::contract::Report;

/// One `key=value` a line; what is not known is left out.
pub(crate) fn render(report: &Report<'_>) -> String {
    let mut out = Lines(String::new());
    out.put("verdict", Some(report.health.verdict));
    let codes: Vec<String> =
        report.health.reasons.iter().map(|r| super::contract::json(&r.code).trim_matches('"').to_owned()).collect();
    out.quote("reasons", Some(&codes.join(" ")));
    out.quote("model_name", Some(report.model_name));
    out.put("vram_usage_mb", Some(report.vram_usage_mb));
    out.put("total_models", Some(report.total_models));
    out.put("timestamp", Some(report.timestamp));
    out.put("gpu_count", Some(report.gpu_count));
    for (i, gpu) in report.gpus.iter().enumerate() {
        let key = |name: &str| format!("gpu{i}_{name}");
        out.put(&key("index"), Some(gpu.index));
        out.quote(&key("uuid"), gpu.uuid);
        out.quote(&key("name"), gpu.name);
        out.put(&key("verdict"), Some(gpu.verdict));
        out.put(&key("vram_total_mb"), gpu.vram_total_mb);
        out.put(&key("vram_used_mb"), gpu.vram_used_mb);
        out.put(&key("vram_free_mb"), gpu.vram_free_mb);
        out.put(&key("temperature_c"), gpu.temperature_c);
        out.put(&key("power_w"), gpu.power_w);
        out.put(&key("power_limit_w"), gpu.power_limit_w);
        out.put(&key("utilization_percent"), gpu.utilization_percent);
        out.put(&key("memory_utilization_percent"), gpu.memory_utilization_percent);
        out.quote(&key("error"), gpu.error);
    }
    for (i, model) in report.models.iter().enumerate() {
        let key = |name: &str| format!("model{i}_{name}");
        out.quote(&key("name"), Some(model.name));
        out.put(&key("size_mb"), model.size_mb);
        out.put(&key("pulled"), Some(model.pulled));
        out.put(&key("loaded"), Some(model.loaded));
        out.put(&key("vram_mb"), Some(model.vram_mb));
        out.put(&key("on_gpu_percent"), model.on_gpu_percent);
    }
    out.put("ollama_reachable", report.ollama.reachable);
    out.quote("ollama_version", report.ollama.version);
    out.quote("driver_version", report.driver_version);
    out.put("process_seconds", Some(report.uptime.process_seconds));
    out.put("sample_age_ms", Some(report.sample_age_ms));
    out.quote("source", Some(report.source));
    out.quote("version", Some(report.version));
    out.0
}

struct Lines(String);

impl Lines {
    /// A number, a boolean or a word of our own.
    fn put(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.0.push_str(&format!("{key}={value}\n"));
        }
    }

    /// Text from outside: in single quotes, one line.
    fn quote(&mut self, key: &str, value: Option<&str>) {
        self.put(key, value.map(quoted));
    }
}

fn quoted(text: &str) -> String {
    let one_line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("'{}'", one_line.replace('\'', r"'\''"))
}

#[test]
fn quoting_is_safe_in_a_shell() {
    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(quoted(text), expect);
    }
    check("codellama:34b", "'codellama:34b'");
    check("$(reboot) `x` \"y\" \\", "'$(reboot) `x` \"y\" \\'");
    check("it's", r"'it'\''s'");
    check("a\nrm=1\0\r", "'a rm=1  '");
}
