//! Writing JSON, and reading an object of it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1024 * 1024;

/// As shares and rates are shown.
pub(crate) fn one_decimal(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// JSON text with a \u escape for every character outside visible ASCII. Such characters occur only in strings.
pub(crate) fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if (' '..='~').contains(&c) {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// A value as compact JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    // Structs of strings and finite numbers always serialize.
    serde_json::to_string(value).unwrap_or_default()
}

/// The value in a JSON object. serde alone would also take a list of its fields.
///
/// # Errors
/// What is wrong, in a few words.
pub(crate) fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    let value = serde_json::from_slice(json).map_err(|why| why.to_string())?;
    if json.trim_ascii_start().starts_with(b"{") { Ok(value) } else { Err("a list".into()) }
}

/// Unix seconds with three decimals.
pub(crate) fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[test]
fn nothing_breaks_out_of_a_header() {
    #[track_caller]
    fn check(text: &str, expect: &str) {
        let header = ascii(&json(&text));
        assert_eq!(header, expect);
        assert_eq!(serde_json::from_str::<String>(&header).unwrap(), text);
    }
    check("a\r\nX: y", r#""a\r\nX: y""#);
    check("é\u{7f}\u{2028}", "\"\\u00e9\\u007f\\u2028\"");
    check("😀\"\\", r#""\ud83d\ude00\"\\""#);
}
