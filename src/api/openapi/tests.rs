//! The schemas, made from the structs.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use super::SCHEMAS;
use crate::api::answers::{AgentsAnswer, UptimeAnswer};
use crate::api::codes_answer::CodesAnswer;
use crate::api::contract::ErrorBody;
use crate::api::hardware::{Capabilities, Hardware, HardwareStats, Version};
use crate::api::report::{Catalogue, Ready, Report};
use crate::health::history;
use crate::health::uptime::WINDOWS;

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
    generator.subschema_for::<CodesAnswer>();
    generator.subschema_for::<history::HistoryAnswer<'static>>();
    generator.subschema_for::<Version<'static>>();
    generator.subschema_for::<Hardware<'static>>();
    generator.subschema_for::<HardwareStats<'static>>();
    generator.subschema_for::<Capabilities<'static>>();
    generator.subschema_for::<ErrorBody<'static>>();
    generator.take_definitions(true)
}

#[test]
fn the_schemas_are_those_of_the_structs() {
    let lines: Vec<String> = schemas().iter().map(|(name, schema)| format!("{name:?}: {schema}")).collect();
    let text = format!("{{\n{}\n}}\n", lines.join(",\n"));
    if text != SCHEMAS {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/openapi/schemas.json"), text).unwrap();
        panic!("src/api/openapi/schemas.json was out of date and has been written: check it and run the test again");
    }
}
