//! Prometheus' text format 0.0.4, and OpenMetrics 1.0 for those who ask for it. They differ in how counters are named
//! in their metadata, in units and in the end mark.

use std::fmt::Write;

/// What kind of metric a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    /// Its samples end in `_total`.
    Counter,
    /// A gauge that is always 1 and carries text in its labels; its samples end in `_info`.
    Info,
    Histogram,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Info => "info",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric: all that is said of it before its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family {
    /// That of the samples, with `_total` or `_info`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    /// One sentence, for operators.
    pub(crate) help: &'static str,
}

type Names = &'static [&'static str];

pub(crate) const fn gauge(name: &'static str, labels: Names, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

pub(crate) const fn counter(name: &'static str, labels: Names, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

pub(crate) const fn info(name: &'static str, labels: Names, help: &'static str) -> Family {
    Family { name, kind: Kind::Info, labels, help }
}

/// Its samples have the label `le` besides.
pub(crate) const fn histogram(name: &'static str, labels: Names, help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, labels, help }
}

/// A constant for each family, and METRICS, the list of them that the reference is made of.
macro_rules! metrics {
    ($($constant:ident = $family:expr;)+) => {
        $(const $constant: $crate::sys::exposition::Family = $family;)+
        pub(crate) const METRICS: &[$crate::sys::exposition::Family] = &[$($constant),+];
    };
}
pub(crate) use metrics;

/// An exposition that is being written.
#[derive(Debug)]
pub(crate) struct Exposition {
    text: String,
    open: bool,
    /// The family whose samples follow.
    now: Option<Family>,
}

impl Exposition {
    /// `open`: in OpenMetrics.
    pub(crate) fn new(open: bool) -> Self {
        Self { text: String::new(), open, now: None }
    }

    /// Begins a family; its samples follow.
    pub(crate) fn family(&mut self, family: &Family) {
        self.now = Some(*family);
        let Family { name, kind, help, .. } = family;
        let (suffix, word) = match kind {
            Kind::Gauge => ("", "gauge"),
            Kind::Counter => ("_total", "counter"),
            Kind::Info if self.open => ("_info", "info"),
            Kind::Info => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
        };
        let base = if self.open { name.strip_suffix(suffix).unwrap_or(name) } else { name };
        let _ = writeln!(self.text, "# HELP {base} {help}\n# TYPE {base} {word}");
        let unit = ["seconds", "bytes", "celsius", "watts", "joules", "ratio", "hertz"]
            .into_iter()
            .find(|unit| self.open && base.ends_with(&format!("_{unit}")));
        if let Some(unit) = unit {
            let _ = writeln!(self.text, "# UNIT {base} {unit}");
        }
    }

    /// One sample of the family, with a value for each of its labels; nothing if the sample's own value is unknown.
    pub(crate) fn sample(&mut self, labels: &[&str], value: Option<f64>) {
        let names = self.now.map_or(&[][..], |family| family.labels);
        debug_assert_eq!(names.len(), labels.len(), "{:?}", self.now);
        let labels: Vec<(&str, &str)> = names.iter().copied().zip(labels.iter().copied()).collect();
        self.sample_of("", &labels, value);
    }

    /// The same with a suffix to its name and with named labels, as histograms need it.
    pub(crate) fn sample_of(&mut self, suffix: &str, labels: &[(&str, &str)], value: Option<f64>) {
        let (Some(value), Some(family)) = (value, self.now) else { return };
        self.text.push_str(family.name);
        self.text.push_str(suffix);
        for (i, (name, text)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"{}\"", if i == 0 { '{' } else { ',' }, escaped(text));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A family of one sample without labels, left out when it is unknown.
    pub(crate) fn single(&mut self, family: &Family, value: Option<f64>) {
        self.samples(family, [(Vec::new(), value)].into_iter());
    }

    /// A family and its samples, left out when none is known.
    pub(crate) fn samples<'a>(&mut self, family: &Family, samples: impl Iterator<Item = (Vec<&'a str>, Option<f64>)>) {
        let mut begun = false;
        for (labels, value) in samples.filter(|(_, value)| value.is_some()) {
            if !begun {
                self.family(family);
                begun = true;
            }
            self.sample(&labels, value);
        }
    }

    /// What has been written.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// 1 for true, 0 for false.
pub(crate) fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Ends an exposition that was put together from several texts.
pub(crate) const END_OF_OPENMETRICS: &str = "# EOF\n";

/// The Content-Type of an exposition.
pub(crate) fn content_type(open: bool) -> &'static str {
    if open {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    }
}

/// Whether an Accept header asks for OpenMetrics.
pub(crate) fn wants_open(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("application/openmetrics-text"))
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
fn both(write: impl Fn(&mut Exposition)) -> (String, String) {
    let text = |open| {
        let mut out = Exposition::new(open);
        write(&mut out);
        out.into_text()
    };
    (text(false), text(true))
}

#[test]
fn the_two_formats_differ_in_metadata_alone() {
    let (plain, open) = both(|out| {
        out.family(&counter("a_seconds_total", &["x", "y"], "Some help."));
        out.sample(&["1", "2"], Some(0.5));
        out.sample(&["3", "4"], None);
        out.single(&info("b_info", &[], "More."), Some(1.0));
        out.single(&gauge("c", &[], "Unknown."), None);
    });
    assert_eq!(
        plain,
        "# HELP a_seconds_total Some help.\n# TYPE a_seconds_total counter\na_seconds_total{x=\"1\",y=\"2\"} 0.5\n\
         # HELP b_info More.\n# TYPE b_info gauge\nb_info 1\n"
    );
    assert_eq!(
        open,
        "# HELP a_seconds Some help.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
         a_seconds_total{x=\"1\",y=\"2\"} 0.5\n# HELP b More.\n# TYPE b info\nb_info 1\n"
    );
}

#[test]
fn labels_cannot_break_a_line() {
    let (plain, _) = both(|out| {
        out.family(&gauge("m", &["name"], "h"));
        out.sample(&["a\"} 1\nm{name=\"\\"], Some(1.0));
    });
    assert_eq!(plain.lines().last(), Some(r#"m{name="a\"} 1\nm{name=\"\\"} 1"#));
}

#[test]
fn openmetrics_only_for_those_who_ask() {
    assert!(wants_open(Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")));
    assert!(!wants_open(Some("text/plain")) && !wants_open(Some("*/*")) && !wants_open(None));
}
