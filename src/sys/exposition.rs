//! Prometheus' text format 0.0.4, and OpenMetrics 1.0 for those who ask for it. They differ in how counters are named
//! in their metadata, in units and in the end mark.

use std::fmt::Write;

/// What kind of metric a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    /// Its samples end in `_total`.
    Counter,
    /// A gauge that is always 1 and says things by its labels; its samples end in `_info`.
    Info,
    Histogram,
}

/// An exposition that is being written.
#[derive(Debug)]
pub(crate) struct Exposition {
    text: String,
    open: bool,
    family: String,
}

pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    /// `open`: in OpenMetrics.
    pub(crate) fn new(open: bool) -> Self {
        Self { text: String::new(), open, family: String::new() }
    }

    /// Begins a family; its samples follow. `name` is that of the samples, with `_total` or `_info`.
    pub(crate) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        name.clone_into(&mut self.family);
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

    /// One sample of the family; nothing for what is not known.
    pub(crate) fn sample(&mut self, labels: Labels<'_>, value: Option<f64>) {
        self.sample_of("", labels, value);
    }

    /// The same with an end to its name, as histograms have it.
    pub(crate) fn sample_of(&mut self, suffix: &str, labels: Labels<'_>, value: Option<f64>) {
        let Some(value) = value else { return };
        self.text.push_str(&self.family);
        self.text.push_str(suffix);
        for (i, (name, text)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"{}\"", if i == 0 { '{' } else { ',' }, escaped(text));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A family of one sample without labels.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, help: &str, value: Option<f64>) {
        if value.is_some() {
            self.family(name, kind, help);
            self.sample(&[], value);
        }
    }

    /// What has been written.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
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
        out.family("a_seconds_total", Kind::Counter, "Some help.");
        out.sample(&[("x", "1"), ("y", "2")], Some(0.5));
        out.sample(&[("x", "3")], None);
        out.family("b_info", Kind::Info, "More.");
        out.sample(&[], Some(1.0));
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
        out.family("m", Kind::Gauge, "h");
        out.sample(&[("name", "a\"} 1\nm{name=\"\\")], Some(1.0));
    });
    assert_eq!(plain.lines().last(), Some(r#"m{name="a\"} 1\nm{name=\"\\"} 1"#));
}

#[test]
fn openmetrics_only_for_those_who_ask() {
    assert!(wants_open(Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")));
    assert!(!wants_open(Some("text/plain")) && !wants_open(Some("*/*")) && !wants_open(None));
}
