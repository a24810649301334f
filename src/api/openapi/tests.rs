//! Makes the document: paths of the table of routes, schemas of the structs, the rest of `tests/parts.json`.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::api::answers::{AgentsAnswer, JobsAnswer, PeersAnswer, UptimeAnswer};
use crate::api::codes_answer::CodesAnswer;
use crate::api::hardware::{Capabilities, Hardware, HardwareStats, Version};
use crate::api::parameters::Accepts;
use crate::api::ready::Ready;
use crate::api::report::{Catalogue, Report};
use crate::api::routes::{ANYWHERE, Access, Answer, Route, listed};
use crate::config::{MAX_MODEL_NAME, is_model_name};
use crate::health::recent;
use crate::health::uptime::WINDOWS;
use crate::http::refusal::ErrorBody;
use crate::sys::error_codes::{ERRORS, ErrorCode};

const DOCUMENT: &str = include_str!("../openapi.json");

/// What no table and no struct has: texts, security, examples by route, status and content type.
const PARTS: &str = include_str!("tests/parts.json");
/// What [`is_model_name`] accepts.
const MODEL_NAME: &str = "^[A-Za-z0-9._][A-Za-z0-9._-]*([/:][A-Za-z0-9._-]+)*$";

/// An object with a value of this kind for each window.
pub(crate) fn by_window<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let value = generator.subschema_for::<T>();
    let names = WINDOWS.map(|(name, _)| name);
    let properties: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), value.clone().into())).collect();
    json_schema!({ "type": "object", "properties": properties, "required": names })
}

fn schemas() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut generator = settings.with(|s| s.definitions_path = "/components/schemas".into()).into_generator();
    generator.subschema_for::<Report<'static>>();
    generator.subschema_for::<Catalogue<'static>>();
    generator.subschema_for::<Ready<'static>>();
    generator.subschema_for::<UptimeAnswer<'static>>();
    generator.subschema_for::<AgentsAnswer<'static>>();
    generator.subschema_for::<JobsAnswer>();
    generator.subschema_for::<PeersAnswer>();
    generator.subschema_for::<CodesAnswer>();
    generator.subschema_for::<recent::HistoryAnswer<'static>>();
    generator.subschema_for::<Version<'static>>();
    generator.subschema_for::<Hardware<'static>>();
    generator.subschema_for::<HardwareStats<'static>>();
    generator.subschema_for::<Capabilities<'static>>();
    generator.subschema_for::<ErrorBody<'static>>();
    generator.take_definitions(true)
}

/// `gpuCheck` for /gpu-check; a path that has two routes gets the tag in front.
fn operation_id(route: &Route) -> String {
    let words = route.path.trim_end_matches(".json").split(['/', '-']).filter(|word| !word.is_empty());
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    let id: String =
        words.enumerate().map(|(at, word)| if at == 0 { word.to_owned() } else { capital(word) }).collect();
    match (id.as_str(), route.access) {
        ("", Access::Jobs) => "rootJob".into(),
        ("", _) => "page".into(),
        _ => id,
    }
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// `code: meaning` for each of them.
fn meanings<'a>(codes: impl Iterator<Item = &'a ErrorCode>) -> String {
    let text = |code: &ErrorCode| format!("{}: {} {}", code.row().name, code.row().meaning, code.row().action);
    codes.map(text).collect::<Vec<_>>().join(" ")
}

/// The errors of one status; those with Retry-After have a response of their own.
fn refused(codes: &[&ErrorCode]) -> Value {
    let kind = if codes.iter().all(|code| code.row().retry_after.is_some()) { "TryAgain" } else { "Refused" };
    let mut response = reference("responses", kind);
    response["description"] = meanings(codes.iter().copied()).into();
    response
}

fn content(answer: &Answer, examples: &Value) -> Value {
    let schema = match answer.schema {
        "" => json!({ "type": "string" }),
        name => reference("schemas", name),
    };
    let mut media = json!({ "schema": schema });
    if let Some(example) = examples.get(format!("{} {}", answer.status, answer.content_type)) {
        media["example"] = example.clone();
    }
    media
}

fn responses(route: &Route, examples: &Value) -> Value {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for answer in route.answers {
        let response = all.entry(answer.status.to_string()).or_insert_with(|| json!({ "description": answer.meaning }));
        if !answer.content_type.is_empty() {
            response["content"][answer.content_type] = content(answer, examples);
        }
        if route.access == Access::Jobs {
            response["headers"]["X-Metadata"] = reference("headers", "X-Metadata");
        }
    }
    let mut errors: BTreeMap<String, Vec<&ErrorCode>> = BTreeMap::new();
    let unauthorized = (route.access != Access::Open).then_some(&ErrorCode::Unauthorized);
    for code in route.errors.iter().chain(unauthorized) {
        errors.entry(code.row().status.to_string()).or_default().push(code);
    }
    for (status, codes) in errors {
        match all.get_mut(&status) {
            // An answer of its own has this status as well.
            Some(response) => {
                let text = format!("{}. {}", response["description"].as_str().unwrap(), meanings(codes.into_iter()));
                response["description"] = text.into();
                let schema = &mut response["content"]["application/json"]["schema"];
                *schema = json!({ "anyOf": [schema.take(), reference("schemas", "Error")] });
            }
            None if status == "401" => drop(all.insert(status, reference("responses", "Unauthorized"))),
            None => drop(all.insert(status, refused(&codes))),
        }
    }
    all.insert("default".into(), reference("responses", "Refused"));
    json!(all)
}

fn operation(route: &Route, examples: &Value) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [route.tag],
        "summary": route.summary,
        "responses": responses(route, examples),
    });
    if !route.details.is_empty() {
        operation["description"] = route.details.into();
    }
    if route.access == Access::Jobs {
        operation["requestBody"] = reference("requestBodies", "Job");
    }
    if route.access == Access::Open {
        operation["security"] = json!([]);
    }
    let parameters = route.parameters.iter().map(|parameter| {
        let schema = match parameter.accepts {
            Accepts::Words(words) => json!({ "enum": words }),
            Accepts::WordsOrFirst(words) => json!({ "enum": words, "default": words[0] }),
            Accepts::Model => json!({ "type": "string", "pattern": MODEL_NAME, "maxLength": MAX_MODEL_NAME }),
            Accepts::Percent => json!({ "type": "integer", "minimum": 0, "maximum": 100, "default": 100 }),
        };
        json!({ "name": parameter.name, "in": "query", "description": parameter.meaning, "schema": schema })
    });
    let parameters: Vec<Value> = parameters.collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

fn components(parts: &Value) -> Value {
    let error = |description: &str, header: Option<&str>| {
        let media = json!({ "schema": reference("schemas", "Error") });
        let mut response = json!({ "description": description, "content": { "application/json": media } });
        if let Some(header) = header {
            response["headers"][header] = reference("headers", header);
        }
        response
    };
    let anywhere = format!("A code for programs, a sentence for people. {}", meanings(ANYWHERE.iter()));
    let mut everywhere = error(&anywhere, None);
    everywhere["content"]["application/json"]["example"] = parts["error"].clone();
    let mut all = schemas();
    for (name, schema) in parts["schemas"].as_object().unwrap() {
        assert!(all.insert(name.clone(), schema.clone()).is_none(), "{name} is the name of a struct");
    }
    json!({
        "securitySchemes": parts["securitySchemes"],
        "requestBodies": parts["requestBodies"],
        "headers": parts["headers"],
        "responses": {
            "Refused": everywhere,
            "TryAgain": error("Retry after Retry-After", Some("Retry-After")),
            "Unauthorized": error(&meanings([ErrorCode::Unauthorized].iter()), Some("WWW-Authenticate")),
        },
        "schemas": all,
    })
}

/// One line for each path, schema and so on: small, and changes can be read.
fn written(document: &Value) -> String {
    let lines = |value: &Value| {
        let all: Vec<String> =
            value.as_object().unwrap().iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!("{{\n{}\n}}", all.join(",\n"))
    };
    let part = |(name, value): (&String, &Value)| match name.as_str() {
        "paths" => format!("{name:?}:{}", lines(value)),
        "components" => {
            let all: Vec<String> =
                value.as_object().unwrap().iter().map(|(name, value)| format!("{name:?}:{}", lines(value))).collect();
            format!("{name:?}:{{\n{}\n}}", all.join(",\n"))
        }
        _ => format!("{name:?}:{value}"),
    };
    let all: Vec<String> = document.as_object().unwrap().iter().map(part).collect();
    format!("{{\n{}\n}}\n", all.join(",\n"))
}

#[test]
fn the_document_is_that_of_the_tables_and_structs() {
    let parts: Value = serde_json::from_str(PARTS).unwrap();
    let mut document = json!({ "components": components(&parts) });
    for name in ["openapi", "info", "servers", "security", "tags"] {
        document[name] = parts[name].clone();
    }
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for route in listed() {
        let examples = &parts["examples"][format!("{} {}", route.method, route.path)];
        document["paths"][route.path][route.method.to_lowercase()] = operation(route, examples);
    }
    for name in parts["examples"].as_object().unwrap().keys() {
        assert!(listed().any(|route| *name == format!("{} {}", route.method, route.path)), "{name} is not a route");
    }
    crate::api::fields::tests::check_list(&document);
    let text = written(&document);
    if text != DOCUMENT && std::env::var("AGENT_NET_WRITE").as_deref() == Ok("1") {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/openapi.json"), text).unwrap();
        return;
    }
    assert!(text == DOCUMENT, "src/api/openapi.json is out of date: run the tests with AGENT_NET_WRITE=1");
}

#[test]
fn the_pattern_is_that_of_model_names() {
    let validator = jsonschema::validator_for(&json!({ "pattern": MODEL_NAME })).unwrap();
    for name in
        ["a", "hf.co/org/repo:Q4_K_M", "_a-", ".", "", "-a", "a:", "/a", "a//b", "a:-b", "a b", "ä", "a\n", "http://a"]
    {
        assert_eq!(validator.is_valid(&json!(name)), is_model_name(name), "{name:?}");
    }
}

#[test]
fn every_error_is_one_of_a_route_or_of_all() {
    let of_routes = listed().flat_map(|route| route.errors);
    let all: Vec<ErrorCode> = of_routes.chain(ANYWHERE).chain([&ErrorCode::Unauthorized]).copied().collect();
    for (at, row) in ERRORS.iter().enumerate() {
        assert!(all.iter().any(|code| *code as usize == at), "{}: no route answers with it", row.name);
    }
}
