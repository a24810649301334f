//! What the value of a reading can be: its type and its unit, and how both are shown in the report and exposed as metrics.

use std::borrow::Cow;
use std::collections::BTreeMap;

#[cfg(test)]
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::mig_instance::{MigInstance, MigRow};
use crate::sys::exposition::flag;
use crate::sys::json::{MIB, one_decimal};
use crate::sys::order;

/// What the driver counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Shown in MiB.
    Bytes,
    Celsius,
    /// Shown in watts with one decimal.
    Milliwatts,
    /// Shown in joules.
    Millijoules,
    Percent,
    Megahertz,
    /// MiB a second.
    Throughput,
    /// Shown in seconds.
    Nanoseconds,
    /// Bits of [`THROTTLES`], shown by name.
    ThrottleBits,
    /// Counted in these; empty for a plain number, and for what is not a number.
    Of(&'static str),
}

/// A value as the report shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value<'a> {
    Whole(i64),
    Decimal(f64),
    Flag(bool),
    Text(Cow<'a, str>),
    Names(Vec<&'static str>),
    List(&'a [u32]),
    /// By reason.
    Seconds(BTreeMap<&'a str, f64>),
    Rows(RemappedRows),
    Pages(RetiredPages),
    Spares(SpareRows),
    Processes(Vec<ProcessRow<'a>>),
    Mig(Vec<MigRow<'a>>),
}

/// Samples of a metric: the value of its last label, and the number.
pub(crate) type Labeled = Vec<(Cow<'static, str>, f64)>;

/// The type of a reading as the helper sends it. None is "unknown", never 0.
pub(crate) trait Reported {
    /// The type in the report, for its schema.
    #[cfg(test)]
    type Shown: JsonSchema;

    fn shown(&self, unit: Unit) -> Option<Value<'_>>;

    /// In the driver's unit; None for what is not one number.
    fn number(&self) -> Option<f64> {
        None
    }
}

/// Memory rows that were replaced by spare ones (Ampere and later).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RemappedRows {
    pub(crate) correctable: u32,
    pub(crate) uncorrectable: u32,
    /// A row waits for a reset to be replaced.
    pub(crate) pending: bool,
    /// No spare row was left.
    pub(crate) failed: bool,
}

/// Memory banks by the spare rows that they have left for row remaps (Ampere and later).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SpareRows {
    /// Banks with all of their spare rows.
    pub(crate) max: u32,
    pub(crate) high: u32,
    pub(crate) partial: u32,
    pub(crate) low: u32,
    /// Banks whose next broken row cannot be remapped.
    pub(crate) none: u32,
}

/// Memory pages that are no longer used (before Ampere).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RetiredPages {
    pub(crate) single_bit: u32,
    pub(crate) double_bit: u32,
    /// A page waits for a reboot to be retired.
    pub(crate) pending: bool,
}

/// A program that computes on a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    /// As the driver counts them.
    pub(crate) pid: u32,
    /// The server reads it; the helper does not send it.
    #[serde(skip)]
    pub(crate) name: Option<String>,
    /// None: the driver does not report it.
    pub(crate) vram_bytes: Option<u64>,
    /// UUID of the MIG instance that it runs on; None: on none, or on one that is not listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mig_uuid: Option<String>,
    /// Mean since the last slow reading; None: unknown.
    pub(crate) utilization_percent: Option<u32>,
}

/// A process that computes on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Process"))]
pub(crate) struct ProcessRow<'a> {
    /// Process id, as the driver counts them: the host's, or that of the worker's own namespace.
    pid: u32,
    /// The kernel's name of the process, at most 15 bytes; null without the host's /proc.
    name: Option<&'a str>,
    /// Memory of the GPU that it holds, in MiB; null where the driver does not report it.
    vram_mb: Option<u64>,
    /// UUID of the MIG instance that it runs on; null outside MIG mode and where the driver does not report it.
    mig_uuid: Option<&'a str>,
    /// Share of the GPU's compute units that it used, a mean since the last slow readings; null: unknown.
    utilization_percent: Option<u32>,
}

/// Processes beyond this many are not listed.
#[cfg(feature = "nvml")]
pub(crate) const MAX_PROCESSES: usize = 32;

/// Why clocks are held down: NVML's bit and our name.
pub(crate) const THROTTLES: &[(u64, &str)] = &[
    (IDLE, "idle"),
    (0x04, "sw_power"),
    (HW_SLOWDOWN, "hw"),
    (HW_THERMAL, "hw_thermal"),
    (HW_POWER_BRAKE, "hw_power_brake"),
    (SW_THERMAL, "sw_thermal"),
];
pub(crate) const IDLE: u64 = 0x01;
/// Heat or power: older GPUs do not say which.
pub(crate) const HW_SLOWDOWN: u64 = 0x08;
pub(crate) const SW_THERMAL: u64 = 0x20;
pub(crate) const HW_THERMAL: u64 = 0x40;
pub(crate) const HW_POWER_BRAKE: u64 = 0x80;

impl Unit {
    /// Behind a number, as a failed reading is described.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Celsius => "°C",
            Self::Milliwatts => "mW",
            Self::Millijoules => "mJ",
            Self::Percent => "%",
            Self::Megahertz => "MHz",
            Self::Throughput => "MiB/s",
            Self::Nanoseconds => "ns",
            Self::ThrottleBits => "",
            Self::Of(word) => word,
        }
    }

    /// None: too large to show.
    fn shown(self, number: i128) -> Option<Value<'static>> {
        let whole = |number: i128| i64::try_from(number).ok().map(Value::Whole);
        match self {
            Self::Bytes => whole(number / i128::from(MIB)),
            Self::Milliwatts => Some(Value::Decimal((number as f64 / 100.0).round() / 10.0)),
            Self::Millijoules => whole(number / 1000),
            Self::ThrottleBits => {
                let set = |bit: u64| number & i128::from(bit) != 0;
                Some(Value::Names(THROTTLES.iter().filter(|(bit, _)| set(*bit)).map(|(_, name)| *name).collect()))
            }
            _ => whole(number),
        }
    }

    /// In the base unit of metrics.
    pub(crate) fn exposed(self, number: f64) -> f64 {
        match self {
            Self::Milliwatts | Self::Millijoules => number / 1000.0,
            Self::Percent => number / 100.0,
            Self::Megahertz => number * 1e6,
            Self::Throughput => number * MIB as f64,
            Self::Nanoseconds => number / 1e9,
            _ => number,
        }
    }

    /// What the report shows it in.
    pub(crate) fn shown_in(self) -> &'static str {
        match self {
            Self::Bytes => "MiB",
            Self::Milliwatts => "W",
            Self::Millijoules => "J",
            Self::Nanoseconds => "s",
            Self::Celsius | Self::Percent | Self::Megahertz | Self::Throughput => self.word(),
            Self::ThrottleBits | Self::Of(_) => "",
        }
    }

    /// The schema of what is shown of a reading of the type `T` in this unit.
    #[cfg(test)]
    pub(crate) fn schema<T: Reported>(self, generator: &mut SchemaGenerator) -> Schema {
        match self {
            Self::Milliwatts => generator.subschema_for::<Option<f64>>(),
            Self::ThrottleBits => generator.subschema_for::<Option<Vec<&str>>>(),
            _ => generator.subschema_for::<T::Shown>(),
        }
    }
}

macro_rules! whole_numbers {
    ($($type:ty),+) => {$(
        impl Reported for Option<$type> {
            #[cfg(test)]
            type Shown = Self;

            fn shown(&self, unit: Unit) -> Option<Value<'_>> {
                unit.shown((*self)?.into())
            }

            #[allow(clippy::cast_lossless)]
            fn number(&self) -> Option<f64> {
                self.map(|number| number as f64)
            }
        }
    )+};
}
whole_numbers!(u32, i32, u64);

/// A share or a rate.
impl Reported for Option<f64> {
    #[cfg(test)]
    type Shown = Self;

    fn shown(&self, _: Unit) -> Option<Value<'_>> {
        self.map(|number| Value::Decimal(one_decimal(number)))
    }

    fn number(&self) -> Option<f64> {
        *self
    }
}

/// Types that are shown as they are, or by a simple expression.
macro_rules! shown_as {
    ($($type:ty => $shown:ty: $value:expr;)+) => {$(
        impl Reported for Option<$type> {
            #[cfg(test)]
            type Shown = Option<$shown>;

            fn shown(&self, _: Unit) -> Option<Value<'_>> {
                self.as_ref().map($value)
            }
        }
    )+};
}
shown_as! {
    bool => bool: |is| Value::Flag(*is);
    String => String: |text| Value::Text(text.as_str().into());
    Vec<u32> => Vec<u32>: |all| Value::List(all);
    // A version.
    (i32, i32) => String: |(major, minor)| Value::Text(format!("{major}.{minor}").into());
    RemappedRows => RemappedRows: |rows| Value::Rows(*rows);
    RetiredPages => RetiredPages: |pages| Value::Pages(*pages);
    SpareRows => SpareRows: |rows| Value::Spares(*rows);
    Vec<Process> => Vec<ProcessRow<'static>>: |all| Value::Processes(all.iter().map(ProcessRow::new).collect());
    Vec<MigInstance> => Vec<MigRow<'static>>: |all| Value::Mig(all.iter().map(MigRow::new).collect());
}

/// Nanoseconds by reason; empty is unknown.
impl Reported for BTreeMap<String, u64> {
    #[cfg(test)]
    type Shown = Option<BTreeMap<String, f64>>;

    fn shown(&self, unit: Unit) -> Option<Value<'_>> {
        let all = self.iter().map(|(name, number)| (name.as_str(), unit.exposed(*number as f64)));
        (!self.is_empty()).then(|| Value::Seconds(order::map(all)))
    }
}

impl<'a> ProcessRow<'a> {
    fn new(process: &'a Process) -> Self {
        Self {
            pid: process.pid,
            name: process.name.as_deref(),
            vram_mb: process.vram_bytes.map(|bytes| bytes / MIB),
            mig_uuid: process.mig_uuid.as_deref(),
            utilization_percent: process.utilization_percent,
        }
    }
}

/// 1 for each throttle reason that is active, 0 for the others.
pub(crate) fn active(value: &Value<'_>) -> Labeled {
    let Value::Names(names) = value else { return Vec::new() };
    THROTTLES.iter().map(|(_, name)| ((*name).into(), flag(names.contains(name)))).collect()
}

/// Seconds by reason.
pub(crate) fn seconds(value: &Value<'_>) -> Labeled {
    let Value::Seconds(all) = value else { return Vec::new() };
    all.iter().map(|(name, seconds)| ((*name).to_owned().into(), *seconds)).collect()
}

/// The speed of each fan, by its number from 0.
pub(crate) fn fans(value: &Value<'_>) -> Labeled {
    let Value::List(all) = value else { return Vec::new() };
    let share = |percent: &u32| Unit::Percent.exposed(f64::from(*percent));
    all.iter().enumerate().map(|(fan, percent)| (fan.to_string().into(), share(percent))).collect()
}

/// Memory that is out of use, by kind of error.
pub(crate) fn kinds(value: &Value<'_>) -> Labeled {
    let two = |all: [(&'static str, u32); 2]| all.map(|(name, n)| (name.into(), f64::from(n))).into();
    match value {
        Value::Rows(rows) => two([("correctable", rows.correctable), ("uncorrectable", rows.uncorrectable)]),
        Value::Pages(pages) => two([("single_bit", pages.single_bit), ("double_bit", pages.double_bit)]),
        _ => Vec::new(),
    }
}

/// Memory banks, by what they have left.
pub(crate) fn banks(value: &Value<'_>) -> Labeled {
    let Value::Spares(rows) = value else { return Vec::new() };
    let all =
        [("max", rows.max), ("high", rows.high), ("partial", rows.partial), ("low", rows.low), ("none", rows.none)];
    all.map(|(name, n)| (name.into(), f64::from(n))).into()
}

/// A flag as a number.
pub(crate) fn is_set(value: &Value<'_>) -> Option<f64> {
    if let Value::Flag(is) = value { Some(flag(*is)) } else { None }
}

pub(crate) fn remap_pending(value: &Value<'_>) -> Option<f64> {
    if let Value::Rows(rows) = value { Some(flag(rows.pending)) } else { None }
}

pub(crate) fn remap_failed(value: &Value<'_>) -> Option<f64> {
    if let Value::Rows(rows) = value { Some(flag(rows.failed)) } else { None }
}

#[test]
fn throttle_bits_have_names() {
    let names = |bits: Option<u64>| match bits.shown(Unit::ThrottleBits) {
        Some(Value::Names(names)) => Some(names),
        _ => None,
    };
    assert_eq!(names(None), None);
    assert_eq!(names(Some(0)), Some(vec![]));
    // Bits that have no name yet, the highest included, do not make the others unknown.
    assert_eq!(names(Some(0x49 | 1 << 40)), Some(vec!["idle", "hw", "hw_thermal"]));
    assert_eq!(names(Some(0x48 | 1 << 63)), Some(vec!["hw", "hw_thermal"]));
}

#[test]
fn each_series_has_the_value_of_its_label() {
    #[track_caller]
    fn check(series: &Labeled, expect: &[(&str, f64)]) {
        let all: Vec<(&str, f64)> = series.iter().map(|(label, value)| (label.as_ref(), *value)).collect();
        assert_eq!(all, expect);
    }
    let rows = RemappedRows { correctable: 1, uncorrectable: 2, ..RemappedRows::default() };
    check(&kinds(&Value::Rows(rows)), &[("correctable", 1.0), ("uncorrectable", 2.0)]);
    let pages = RetiredPages { single_bit: 1, double_bit: 2, pending: false };
    check(&kinds(&Value::Pages(pages)), &[("single_bit", 1.0), ("double_bit", 2.0)]);
    let spares = SpareRows { max: 1, high: 2, partial: 3, low: 4, none: 5 };
    check(
        &banks(&Value::Spares(spares)),
        &[("max", 1.0), ("high", 2.0), ("partial", 3.0), ("low", 4.0), ("none", 5.0)],
    );
    check(&fans(&Value::List(&[30, 100])), &[("0", 0.3), ("1", 1.0)]);
}
