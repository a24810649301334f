//! What `agent-net explain` says of a public name, as text and as JSON.

use serde_json::{Map, Value};

use super::json::json as to_json;

/// The names of one kind.
pub(crate) struct Names {
    /// In the singular: `reason code`.
    pub(crate) kind: &'static str,
    pub(crate) all: fn() -> Vec<&'static str>,
    /// In upper or lower case.
    pub(crate) find: fn(&str) -> Option<Explanation>,
}

/// What there is to say of one name.
#[derive(Debug)]
pub(crate) struct Explanation {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    /// Key and text, in the order in which they are shown. A key is one word.
    pub(crate) fields: Vec<(&'static str, String)>,
}

impl Explanation {
    /// Fields without a text are left out.
    pub(crate) fn new(
        kind: &Names,
        name: &'static str,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let fields = fields.into_iter().filter(|(_, text)| !text.is_empty()).collect();
        Self { name, kind: kind.kind, fields }
    }
}

/// `TEMP_HIGH: reason code`, and a paragraph for each field.
pub(crate) fn text(explained: &Explanation) -> String {
    let mut text = format!("{}: {}\n", explained.name, explained.kind);
    for (key, value) in &explained.fields {
        text.push_str(&format!("\n{key}:\n"));
        wrapped(value, &mut text);
    }
    text
}

const WIDTH: usize = 78;

/// Words in lines of at most 78 characters, indented.
fn wrapped(words: &str, out: &mut String) {
    let mut column = 0;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if column == 0 {
            out.push_str("  ");
            column = 2;
        } else if column + 1 + length > WIDTH {
            out.push_str("\n  ");
            column = 2;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

/// `{"name","kind",…}` with the fields by their keys.
pub(crate) fn json(explained: &Explanation) -> String {
    let mut object = Map::new();
    object.insert("name".into(), explained.name.into());
    object.insert("kind".into(), explained.kind.into());
    object.extend(explained.fields.iter().map(|(key, value)| ((*key).to_owned(), Value::from(value.as_str()))));
    to_json(&object)
}

#[test]
fn a_name_is_explained_in_both_forms() {
    let long = "Wait a few seconds. If it persists, the driver is not responding. ".repeat(3);
    let explained =
        Explanation { name: "A", kind: "reason code", fields: vec![("severity", "ok".into()), ("action", long)] };
    let text = text(&explained);
    assert!(text.starts_with("A: reason code\n\nseverity:\n  ok\n\naction:\n  Wait a few"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH) && text.ends_with(".\n"), "{text}");
    let json: Value = serde_json::from_str(&json(&explained)).unwrap();
    assert_eq!((&json["name"], &json["kind"], &json["severity"]), (&"A".into(), &"reason code".into(), &"ok".into()));
}
