//! Makes the list of the OpenAPI document.

use serde_json::Value;

use super::FIELDS;
use crate::gpu::readings;

/// What the schema says of its values, in words.
fn meaning(schema: &Value, all: &Value) -> String {
    let named = |value: &Value| value["$ref"].as_str().map(|path| all[path.rsplit('/').next().unwrap()].clone());
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    let of_variant = |one: &Value| one["const"].as_str().map_or_else(|| texts(&one["enum"]), |word| vec![word.into()]);
    let words = [texts(&schema["enum"]), variants.flat_map(of_variant).collect()].concat();
    // The codes are listed elsewhere.
    if (1..10).contains(&words.len()) {
        return format!("One of: {}.", words.join(", "));
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`.");
    }
    if let Some(text) = schema["description"].as_str() {
        return text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(target) = named(schema).or_else(|| named(&schema["anyOf"][0])).or_else(|| named(&schema["allOf"][0])) {
        return meaning(&target, all);
    }
    if let Some(keys) = schema["properties"].as_object() {
        return format!("Object: {}.", keys.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default();
    match kind {
        "array" => format!("List. Each: {}", meaning(&schema["items"], all)),
        "boolean" => "True or false.".into(),
        "integer" | "number" => "Number.".into(),
        "string" => "Text.".into(),
        _ => "Object.".into(),
    }
}

fn list(document: &Value) -> String {
    let all = &document["components"]["schemas"];
    let mut lines = Vec::new();
    for (schema, definition) in all.as_object().unwrap() {
        for (name, property) in definition["properties"].as_object().into_iter().flatten() {
            // `explain` finds readings in their own table.
            if schema != "Gpu" || readings::find(name).is_none() {
                lines.push(format!("{name}\t{schema}\t{}\n", meaning(property, all)));
            }
        }
    }
    lines.sort();
    lines.concat()
}

/// Fails unless the list is that of `document`. With AGENT_NET_WRITE=1 it is written.
pub(crate) fn check_list(document: &Value) {
    let text = list(document);
    if text != FIELDS && std::env::var("AGENT_NET_WRITE").as_deref() == Ok("1") {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/fields.txt"), text).unwrap();
        return;
    }
    assert!(text == FIELDS, "src/api/fields.txt is out of date: run the tests with AGENT_NET_WRITE=1");
}

#[test]
fn a_key_is_explained_wherever_it_is() {
    let of = |name: &str| super::find(name).map(|found| found.fields);
    assert!(of("failed").unwrap().iter().any(|(schema, text)| *schema == "Gpu" && text.contains("driver's error")));
    assert!(of("Asleep").unwrap()[0].1.contains("not woken"));
    assert_eq!(of("vendor"), Some(vec![("Gpu", "One of: nvidia, amd.".into())]));
    let health = of("health").unwrap();
    assert!(health[0].1.contains("verdict") && health[0].0 == "Report", "{health:?}");
    assert!(of("zzz").is_none() && of("").is_none());
    assert!((super::NAMES.all)().is_sorted());
}
