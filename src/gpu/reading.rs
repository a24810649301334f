//! What a row of the table of readings holds.

use std::borrow::Cow;

#[cfg(test)]
use schemars::{Schema, SchemaGenerator};

use super::value::{self, Labeled, Unit, Value};
use crate::sys::exposition::{Family, counter, gauge};

/// How often a reading is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// At each sample.
    Fast,
    /// Every SLOW_SAMPLE_INTERVAL: it costs more than it changes.
    Slow,
    /// Until it is known: it does not change while the driver stays loaded.
    Fixed,
}

/// One row; `G` is the GPU, whose fields the table itself declares.
#[derive(Debug)]
pub(crate) struct Row<G: 'static> {
    /// In the report, with its unit there; also in `unsupported` and `failed`.
    pub(crate) name: &'static str,
    #[cfg(any(feature = "nvml", test))]
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
    /// Least and greatest value that a driver can mean, in the unit.
    pub(crate) range: Option<(i64, i64)>,
    /// Every GPU has it: it may not fail even if it has never worked.
    pub(crate) core: bool,
    /// Health is judged by it: where it has worked it may not end, not even as unsupported.
    pub(crate) lasting: bool,
    pub(crate) metric: Option<Metric>,
    /// Further metrics that are made of it.
    pub(crate) more: &'static [Metric],
    /// What it is, in one sentence without its unit; also the help of its metric.
    pub(crate) doc: &'static str,
    /// As the report shows it; None: unknown.
    pub(crate) shown: fn(&G) -> Option<Value<'_>>,
    /// In the driver's unit.
    pub(crate) number: fn(&G) -> Option<f64>,
    /// Makes it unknown.
    #[cfg(any(feature = "nvml", test))]
    pub(crate) clear: fn(&mut G),
    #[cfg(test)]
    pub(crate) schema: fn(&mut SchemaGenerator) -> Schema,
}

/// What a reading is exposed as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) family: Family,
    /// The values of the labels after `uuid`, up to those that [`Source::Each`] brings along.
    labels: &'static [&'static str],
    source: Source,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// The number itself, in the base unit.
    Number,
    One(fn(&Value<'_>) -> Option<f64>),
    Each(fn(&Value<'_>) -> Labeled),
}

impl Metric {
    pub(crate) const fn one(family: Family, of: fn(&Value<'_>) -> Option<f64>) -> Self {
        Self { family, labels: &[], source: Source::One(of) }
    }

    /// The labels after `uuid`, and the value; nothing while the reading is unknown.
    pub(crate) fn samples<G>(&self, row: &Row<G>, gpu: &G) -> Vec<(Vec<Cow<'static, str>>, f64)> {
        let labels = || self.labels.iter().map(|label| Cow::Borrowed(*label));
        let one = |number: Option<f64>| number.map(|number| (labels().collect(), number)).into_iter().collect();
        match self.source {
            Source::Number => one((row.number)(gpu).map(|number| row.unit.exposed(number))),
            Source::One(of) => one((row.shown)(gpu).and_then(|value| of(&value))),
            Source::Each(of) => {
                let all = (row.shown)(gpu).map(|value| of(&value)).unwrap_or_default();
                all.into_iter().map(|(last, number)| (labels().chain([last]).collect(), number)).collect()
            }
        }
    }
}

const fn row<G>(_kind: Kind, name: &'static str, unit: Unit, doc: &'static str) -> Row<G> {
    Row {
        name,
        #[cfg(any(feature = "nvml", test))]
        kind: _kind,
        unit,
        range: None,
        core: false,
        lasting: false,
        metric: None,
        more: &[],
        doc,
        shown: |_| None,
        number: |_| None,
        #[cfg(any(feature = "nvml", test))]
        clear: |_| (),
        #[cfg(test)]
        schema: |_| Schema::default(),
    }
}

pub(crate) const fn fast<G>(name: &'static str, unit: Unit, doc: &'static str) -> Row<G> {
    row(Kind::Fast, name, unit, doc)
}

pub(crate) const fn slow<G>(name: &'static str, unit: Unit, doc: &'static str) -> Row<G> {
    row(Kind::Slow, name, unit, doc)
}

pub(crate) const fn fixed<G>(name: &'static str, unit: Unit, doc: &'static str) -> Row<G> {
    row(Kind::Fixed, name, unit, doc)
}

impl<G> Row<G> {
    pub(crate) const fn range(mut self, least: i64, greatest: i64) -> Self {
        self.range = Some((least, greatest));
        self
    }

    pub(crate) const fn core(mut self) -> Self {
        self.core = true;
        self.lasting()
    }

    pub(crate) const fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    const fn metric(mut self, family: Family, labels: &'static [&'static str], source: Source) -> Self {
        self.metric = Some(Metric { family, labels, source });
        self
    }

    pub(crate) const fn gauge(self, name: &'static str) -> Self {
        let help = self.doc;
        self.metric(gauge(name, UUID, help), &[], Source::Number)
    }

    /// 1 while it is true.
    pub(crate) const fn flag(self, name: &'static str) -> Self {
        let help = self.doc;
        self.metric(gauge(name, UUID, help), &[], Source::One(value::is_set))
    }

    pub(crate) const fn counter(self, name: &'static str) -> Self {
        let help = self.doc;
        self.metric(counter(name, UUID, help), &[], Source::Number)
    }

    /// One series of a family that several readings share.
    pub(crate) const fn series(self, family: Family, labels: &'static [&'static str]) -> Self {
        self.metric(family, labels, Source::Number)
    }

    pub(crate) const fn each(self, family: Family, of: fn(&Value<'_>) -> Labeled) -> Self {
        self.metric(family, &[], Source::Each(of))
    }

    pub(crate) const fn more(mut self, metrics: &'static [Metric]) -> Self {
        self.more = metrics;
        self
    }

    pub(crate) fn metrics(&self) -> impl Iterator<Item = &Metric> {
        self.metric.iter().chain(self.more)
    }
}

const UUID: &[&str] = &["uuid"];
