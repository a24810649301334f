//! The table of readings: consistent in itself, and the same as the schema, the wire and the reference.

use std::borrow::Cow;
use std::collections::BTreeSet;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{Gpu, READINGS, Reading, Shown, families, find};
use crate::gpu::reading::Kind;
use crate::tables;

impl JsonSchema for Shown<'_> {
    fn schema_name() -> Cow<'static, str> {
        "Readings".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let properties: Map<String, Value> =
            READINGS.iter().map(|reading| (reading.name.to_owned(), property(reading, generator).into())).collect();
        let names: Vec<&str> = READINGS.iter().map(|reading| reading.name).collect();
        schemars::json_schema!({ "type": "object", "properties": properties, "required": names })
    }
}

fn property(reading: &Reading, generator: &mut SchemaGenerator) -> Schema {
    let mut schema = (reading.schema)(generator);
    let unit = reading.unit.shown_in();
    let unit = if unit.is_empty() { String::new() } else { format!(" Unit: {unit}.") };
    schema.insert("description".into(), json!(format!("{}{unit}", reading.doc)));
    schema
}

#[test]
fn the_reference_lists_every_reading() {
    let rows = READINGS.iter().map(|reading| {
        let read = match reading.kind {
            Kind::Fast => "each sample",
            Kind::Slow => "slow",
            Kind::Fixed => "once",
        };
        let metrics: Vec<String> = reading.metrics().map(|m| format!("`{}`", m.family.name)).collect();
        let range = reading.range.map(|(least, greatest)| format!("{least} to {greatest} {}", reading.unit.word()));
        vec![
            format!("`{}`", reading.name),
            read.to_owned(),
            reading.unit.shown_in().to_owned(),
            reading.doc.to_owned(),
            range.unwrap_or_default(),
            metrics.join(" "),
        ]
    });
    let columns = ["reading", "read", "unit", "meaning", "plausible, in the driver's unit", "metric"];
    tables::table("src/reference.md", "readings", &tables::markdown(&columns, rows));
}

#[test]
fn names_say_their_units_and_stand_once() {
    let names: BTreeSet<&str> = READINGS.iter().map(|reading| reading.name).collect();
    assert_eq!(names.len(), READINGS.len());
    for reading in READINGS {
        let suffix = match reading.unit.shown_in() {
            "MiB" => "_mb",
            "°C" => "_c",
            "W" => "_w",
            "J" => "_j",
            "%" => "_percent",
            "MHz" => "_mhz",
            "MiB/s" => "_mib_per_second",
            "s" => "_seconds",
            _ => "",
        };
        assert!(reading.name.ends_with(suffix), "{}", reading.name);
        assert!(reading.doc.len() > 5 && reading.doc.ends_with('.'), "{}: {:?}", reading.name, reading.doc);
        assert!(find(reading.name).is_some_and(|found| found.name == reading.name));
    }
}

#[test]
fn every_metric_of_a_reading_has_as_many_labels_as_its_family() {
    let mut gpu: Gpu = serde_json::from_value(everything()).unwrap();
    let families = families();
    let names: BTreeSet<&str> = families.iter().map(|(family, _)| family.name).collect();
    assert!(names.len() == families.len() && names.len() >= 25, "{names:?}");
    for (family, series) in families {
        let samples: Vec<_> = series.iter().flat_map(|(reading, metric)| metric.samples(reading, &gpu)).collect();
        assert!(!samples.is_empty(), "{}", family.name);
        let labels: BTreeSet<_> = samples.iter().map(|(labels, _)| labels).collect();
        assert_eq!(labels.len(), samples.len(), "{}: a series stands twice", family.name);
        assert!(labels.iter().all(|labels| labels.len() + 1 == family.labels.len()), "{labels:?} {family:?}");
    }
    READINGS.iter().for_each(|reading| (reading.clear)(&mut gpu));
    assert_eq!(gpu, gpu.identity());
    assert!(READINGS.iter().all(|reading| (reading.shown)(&gpu).is_none()));
}

const FLAGS: [&str; 9] = [
    "power_alarm",
    "ecc_enabled",
    "inforom_corrupt",
    "persistence_mode",
    "mig_mode",
    "sram_threshold_exceeded",
    "channel_repair_pending",
    "tpc_repair_pending",
    "unrepairable_memory",
];

/// A GPU of which every reading is known.
fn everything() -> Value {
    let Value::Object(fields) = serde_json::to_value(Gpu::default()).unwrap() else { unreachable!() };
    let own = [
        "vendor",
        "index",
        "uuid",
        "name",
        "pci_bus_id",
        "unified_memory",
        "asleep",
        "gaps",
        "slow_gaps",
        "fixed_gaps",
        "read_us",
    ];
    let known = |(field, value): (String, Value)| {
        let value = match field.as_str() {
            "vbios_version" | "addressing_mode" | "fabric_state" | "fabric_status" | "fabric_health" => json!("95.02"),
            "spare_rows" => json!({"max": 1, "high": 2, "partial": 3, "low": 4, "none": 5}),
            "compute_capability" => json!([8, 9]),
            "throttle_ns" => json!({"hw": 1_500_000_000}),
            "fan_percent" => json!([30, 40]),
            "remapped_rows" => json!({"correctable": 1, "uncorrectable": 2, "pending": true, "failed": false}),
            "retired_pages" => json!({"single_bit": 1, "double_bit": 2, "pending": true}),
            "processes" => json!([{"pid": 1, "vram_bytes": null}]),
            "mig" => json!([{"uuid": "MIG-1", "gpu_instance": 2, "vram_total_bytes": 3}]),
            flag if FLAGS.contains(&flag) => json!(true),
            other if own.contains(&other) || other == "error" => value,
            _ => json!(42),
        };
        (field, value)
    };
    Value::Object(fields.into_iter().map(known).collect())
}

#[test]
fn every_reading_goes_over_the_wire_and_into_the_report() {
    let gpu: Gpu = serde_json::from_value(everything()).unwrap();
    assert_eq!(serde_json::from_str::<Gpu>(&serde_json::to_string(&gpu).unwrap()).unwrap(), gpu);
    let shown = serde_json::to_string(&Shown(&gpu)).unwrap();
    let mut rest = shown.as_str();
    for reading in READINGS {
        let (_, behind) = rest.split_once(&format!("{:?}:", reading.name)).expect("in the order of the table");
        assert!(!behind.starts_with("null"), "{} in {shown}", reading.name);
        rest = behind;
    }
    let unknown: Map<String, Value> =
        serde_json::from_str(&serde_json::to_string(&Shown(&Gpu::default())).unwrap()).unwrap();
    assert!(unknown.len() == READINGS.len() && unknown.values().all(Value::is_null), "{unknown:?}");
}

/// Series that share a family differ in their labels alone.
#[test]
fn each_label_has_its_own_reading() {
    let gpu = Gpu {
        pcie_width: Some(8),
        pcie_width_max: Some(16),
        pcie_generation: Some(3),
        pcie_generation_max: Some(4),
        graphics_clock_mhz: Some(2),
        memory_clock_mhz: Some(9),
        temperature_slowdown_c: Some(93),
        temperature_shutdown_c: Some(98),
        temperature_max_c: Some(87),
        hotspot_temperature_slowdown_c: Some(110),
        memory_temperature_max_c: Some(105),
        pcie_sent_mib_per_second: Some(1.0),
        pcie_received_mib_per_second: Some(2.0),
        ecc_uncorrected_volatile: Some(5),
        ecc_uncorrected_aggregate: Some(7),
        ..Gpu::default()
    };
    let series = families().into_iter().filter(|(family, _)| family.labels.len() > 1).flat_map(|(family, series)| {
        let samples = series.iter().flat_map(|(reading, metric)| metric.samples(reading, &gpu)).collect::<Vec<_>>();
        let short = family.name.trim_start_matches("agent_net_gpu_");
        samples.into_iter().map(move |(labels, value)| format!("{short} {} {value}", labels.join(" ")))
    });
    let mut series: Vec<String> = series.collect();
    series.sort();
    assert_eq!(
        series,
        [
            "clock_hertz graphics 2000000",
            "clock_hertz memory 9000000",
            "ecc_errors uncorrected aggregate 7",
            "ecc_errors uncorrected volatile 5",
            "pcie_bytes_per_second received 2097152",
            "pcie_bytes_per_second sent 1048576",
            "pcie_link_generation current 3",
            "pcie_link_generation max 4",
            "pcie_link_width current 8",
            "pcie_link_width max 16",
            "temperature_threshold_celsius hotspot_slowdown 110",
            "temperature_threshold_celsius max 87",
            "temperature_threshold_celsius memory_max 105",
            "temperature_threshold_celsius shutdown 98",
            "temperature_threshold_celsius slowdown 93",
        ]
    );
}
