//! The parameters of queries: what each accepts, and what it means without one.

use crate::health::uptime::WINDOWS;
use crate::http::refusal::Refusal;
use crate::http::request::Request;
use crate::sys::error_codes::ErrorCode;

/// A parameter that accepts a few words.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) choices: &'static [&'static str],
    /// The first choice is meant where the parameter is missing.
    pub(crate) has_default: bool,
    error: ErrorCode,
    pub(crate) meaning: &'static str,
}

pub(crate) const FORMAT: Parameter = Parameter {
    name: "format",
    choices: &["json", "text"],
    has_default: false,
    error: ErrorCode::BadFormat,
    meaning: "Without it: text if Accept names text/plain and not JSON",
};

pub(crate) const WINDOW: Parameter = Parameter {
    name: "window",
    choices: &[WINDOWS[0].0, WINDOWS[1].0, WINDOWS[2].0],
    has_default: true,
    error: ErrorCode::BadWindow,
    meaning: "The window whose minutes are listed",
};

pub(crate) const STEP: Parameter = Parameter {
    name: "step",
    choices: &["1m", "15m", "1h", "1d"],
    has_default: true,
    error: ErrorCode::BadStep,
    meaning: "The length of a listed step",
};

/// Minutes of each choice of [`STEP`].
const STEP_MINUTES: [u32; 4] = [1, 15, 60, 24 * 60];

impl Parameter {
    /// The position of the choice; None without the parameter.
    ///
    /// # Errors
    /// The parameter's own, with what it accepts.
    fn choice(&self, request: &Request<'_>) -> Result<Option<usize>, Refusal> {
        let Some(value) = request.parameter(self.name) else { return Ok(None) };
        let found = self.choices.iter().position(|choice| *choice == value);
        found.map(Some).ok_or_else(|| {
            let short: String = value.chars().take(32).collect();
            Refusal::new(self.error, format!("unknown {} {short:?}; use {}", self.name, self.alternatives()))
        })
    }

    /// `1h, 24h or 30d`.
    fn alternatives(&self) -> String {
        match self.choices {
            [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
            all => all.join(", "),
        }
    }
}

/// Whether the report is wanted as text.
pub(crate) fn wants_text(request: &Request<'_>) -> Result<bool, Refusal> {
    let by_accept = || request.accept.is_some_and(|a| a.contains("text/plain") && !a.contains("json"));
    Ok(FORMAT.choice(request)?.map_or_else(by_accept, |choice| choice == 1))
}

/// What of the uptime is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UptimeQuery {
    pub(crate) window: &'static str,
    /// Of the window.
    pub(crate) minutes: u32,
    /// Minutes that are listed as one.
    pub(crate) step: u32,
}

pub(crate) fn uptime(request: &Request<'_>) -> Result<UptimeQuery, Refusal> {
    let (window, minutes) = WINDOWS[WINDOW.choice(request)?.unwrap_or(0)];
    let step = STEP_MINUTES[STEP.choice(request)?.unwrap_or(0)];
    Ok(UptimeQuery { window, minutes, step })
}

#[cfg(test)]
fn get(target: &str) -> Request<'_> {
    Request { method: "GET", target, ..Request::default() }
}

#[test]
fn the_report_is_text_where_that_is_asked_for() {
    #[track_caller]
    fn check(target: &str, accept: Option<&str>, expect: Result<bool, &str>) {
        let wanted = wants_text(&Request { accept, ..get(target) });
        assert_eq!(wanted.as_ref().map_err(|r| r.message.as_str()).copied(), expect, "{target} {accept:?}");
    }
    check("/gpu", None, Ok(false));
    check("/gpu?format=text", None, Ok(true));
    check("/gpu?a=b&format=json", Some("text/plain"), Ok(false));
    check("/gpu?format=xml", None, Err("unknown format \"xml\"; use json or text"));
    check("/gpu?format=", None, Err("unknown format \"\"; use json or text"));
    check("/gpu", Some("text/plain"), Ok(true));
    check("/gpu", Some("*/*"), Ok(false));
    check("/gpu", Some("application/json, text/plain, */*"), Ok(false));
}

#[test]
fn windows_and_steps() {
    #[track_caller]
    fn check(target: &str, expect: Result<(&str, u32, u32), &str>) {
        let found = uptime(&get(target)).map(|query| (query.window, query.minutes, query.step));
        assert_eq!(found.as_ref().map_err(|r| r.message.as_str()).copied(), expect, "{target}");
    }
    check("/uptime", Ok(("1h", 60, 1)));
    check("/uptime?x=1&window=1h", Ok(("1h", 60, 1)));
    check("/uptime?window=30d", Ok(("30d", 43_200, 1)));
    check("/uptime?step=1d&window=30d", Ok(("30d", 43_200, 1440)));
    check("/uptime?step=15m", Ok(("1h", 60, 15)));
    check("/uptime?step=2d", Err("unknown step \"2d\"; use 1m, 15m, 1h or 1d"));
    check("/uptime?window=2h", Err("unknown window \"2h\"; use 1h, 24h or 30d"));
}

#[test]
fn the_codes_say_what_the_parameters_accept() {
    for parameter in [FORMAT, WINDOW, STEP] {
        let row = parameter.error.row();
        assert_eq!(row.meaning, format!("Unknown {}.", parameter.name));
        assert_eq!(row.action, format!("Use {}.", parameter.alternatives()));
    }
    assert_eq!(STEP.choices.len(), STEP_MINUTES.len());
}
