//! JSON as `key=value` lines, safe to `eval` in a POSIX shell whatever the name of a model or GPU. Null is left out.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::sys::text::{disturbs_a_line, one_line};

#[derive(Debug, Default)]
pub(crate) struct Lines(String);

impl Lines {
    pub(crate) fn done(self) -> String {
        self.0
    }

    /// A word, a number or a boolean that needs no quotes.
    pub(crate) fn word(&mut self, key: &str, word: &str) {
        self.0.push_str(&format!("{key}={word}\n"));
    }

    /// Text from outside: in single quotes, one line.
    pub(crate) fn quote(&mut self, key: &str, text: &str) {
        self.word(key, &quoted(text));
    }

    /// The fields of an object, each under its own name.
    pub(crate) fn object<T: Serialize>(&mut self, object: &T) {
        if let Ok(Value::Object(fields)) = serde_json::to_value(object) {
            fields.iter().for_each(|(key, value)| self.value(key, value));
        }
    }

    /// The objects of a list: `name0_field`, `name1_field` and so on.
    pub(crate) fn list(&mut self, name: &str, list: &RawValue) {
        let all: Vec<Value> = serde_json::from_slice(list.get().as_bytes()).unwrap_or_default();
        all.iter().enumerate().for_each(|(i, value)| self.value(&format!("{name}{i}"), value));
    }

    fn value(&mut self, key: &str, value: &Value) {
        // A key that is not a shell name would run as a command.
        if !key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            return;
        }
        match value {
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) => self.word(key, &value.to_string()),
            Value::String(word) if key.ends_with("verdict") && word.bytes().all(|b| b.is_ascii_lowercase()) => {
                self.word(key, word);
            }
            Value::String(text) => self.quote(key, text),
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| self.value(&format!("{key}_{name}"), value));
            }
            Value::Array(all) if all.iter().any(Value::is_object) => {
                all.iter().enumerate().for_each(|(i, value)| self.value(&format!("{key}{i}"), value));
            }
            Value::Array(all) => {
                let words: Vec<String> =
                    all.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
                self.quote(key, &words.join(" "));
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", one_line(text).replace('\'', r"'\''"))
}

/// Whether a line that another program has written is one of these: a shell does nothing with it but set a variable.
pub(crate) fn is_line(line: &str) -> bool {
    let Some((key, value)) = line.split_once('=') else { return false };
    let is_key = key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let is_word = || value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+'));
    let inner = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let is_quoted = inner.is_some_and(|inner| !inner.replace(r"'\''", "").contains('\''));
    is_key && !value.contains(disturbs_a_line) && (is_word() || is_quoted)
}

#[test]
fn quoting_is_safe_in_a_shell() {
    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(quoted(text), expect);
        assert!(is_line(&format!("a_1={expect}")), "{expect}");
    }
    check("codellama:34b", "'codellama:34b'");
    check("$(reboot) `x` \"y\" \\", "'$(reboot) `x` \"y\" \\'");
    check("it's", r"'it'\''s'");
    check("a\nrm=1\0\r", "'a rm=1  '");
    check("'", r"''\'''");
}

#[test]
fn what_a_shell_would_run_is_not_a_line() {
    for line in ["a=", "a=ok", "a=-1.5e-7", "a=true", "a=''", "a='$(x) `x` ;'", r"a='it'\''s'"] {
        assert!(is_line(line), "{line}");
    }
    let commands = ["a=1 b", "a=$(b)", "a=`b`", "a=1;b", "a=1&b", "a=''; b #'", "a=' '$(b)' '", r"a='x'\'$(b)'"];
    let broken = ["", "b", "a='", "a=\"\"", "a='''", r"a='\''", "PATH=x", "1a=x", "a b=x", "a='\u{1b}[2J'", "a='x'\r"];
    for line in commands.iter().chain(&broken) {
        assert!(!is_line(line), "{line}");
    }
}

#[test]
fn json_becomes_lines() {
    let mut lines = Lines::default();
    let value = serde_json::json!({
        "a": 1, "b": null, "c": {"d": "x y", "e": [1, 2], "f": []}, "g": [{"h": true}, {"h": false}], "verdict": "ok",
        "no key": 1, "i;reboot": 2, "1h": 99.5
    });
    lines.object(&value);
    let mut all: Vec<&str> = lines.0.lines().collect();
    all.sort_unstable();
    assert_eq!(all, ["1h=99.5", "a=1", "c_d='x y'", "c_e='1 2'", "c_f=''", "g0_h=true", "g1_h=false", "verdict=ok"]);
}
