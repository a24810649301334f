//! The parameters of queries: what each accepts, and what it means without one.

use std::borrow::Cow;

use crate::config::{MAX_MODEL_NAME, is_model_name};
use crate::health::uptime::WINDOWS;
use crate::http::refusal::Refusal;
use crate::http::request::Request;
use crate::sys::error_codes::ErrorCode;

#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) accepts: Accepts,
    error: ErrorCode,
    pub(crate) meaning: &'static str,
}

/// What a parameter accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Accepts {
    /// One of a few words.
    Words(&'static [&'static str]),
    /// One of a few words; the first is meant where the parameter is missing.
    WordsOrFirst(&'static [&'static str]),
    /// The name of a model of Ollama.
    Model,
    /// A whole number from 0 to 100; 100 is meant where it is missing.
    Percent,
}

pub(crate) const FORMAT: Parameter = Parameter {
    name: "format",
    accepts: Accepts::Words(&["json", "text"]),
    error: ErrorCode::BadFormat,
    meaning: "Without it: text if Accept names text/plain and not JSON",
};

pub(crate) const WINDOW: Parameter = Parameter {
    name: "window",
    accepts: Accepts::WordsOrFirst(&[WINDOWS[0].0, WINDOWS[1].0, WINDOWS[2].0]),
    error: ErrorCode::BadWindow,
    meaning: "The window whose minutes are listed",
};

pub(crate) const STEP: Parameter = Parameter {
    name: "step",
    accepts: Accepts::WordsOrFirst(&["1m", "15m", "1h", "1d"]),
    error: ErrorCode::BadStep,
    meaning: "The length of a listed step",
};

pub(crate) const MODEL: Parameter = Parameter {
    name: "model",
    accepts: Accepts::Model,
    error: ErrorCode::BadModel,
    meaning: "Whether jobs for this model may come, by any name that Ollama knows it by",
};

pub(crate) const GPU: Parameter = Parameter {
    name: "gpu",
    accepts: Accepts::Percent,
    error: ErrorCode::BadGpu,
    meaning: "With model: the least share of it on the GPU, in percent",
};

/// Minutes of each choice of [`STEP`].
const STEP_MINUTES: [u32; 4] = [1, 15, 60, 24 * 60];

impl Parameter {
    /// `?window=1h|24h|30d`
    pub(crate) fn form(&self) -> String {
        let value = match self.accepts {
            Accepts::Words(words) | Accepts::WordsOrFirst(words) => words.join("|"),
            Accepts::Model => "NAME".into(),
            Accepts::Percent => "PERCENT".into(),
        };
        format!("?{}={value}", self.name)
    }

    /// The position of the choice; None without the parameter.
    ///
    /// # Errors
    /// The parameter's own, with what it accepts.
    fn choice(&self, request: &Request<'_>) -> Result<Option<usize>, Refusal> {
        let Some(value) = request.parameter(self.name) else { return Ok(None) };
        let found = self.words().iter().position(|choice| *choice == value);
        found.map(Some).ok_or_else(|| {
            let message = format!("unknown {} {:?}; use {}", self.name, start(value), self.alternatives());
            Refusal::new(self.error, message)
        })
    }

    fn words(&self) -> &'static [&'static str] {
        match self.accepts {
            Accepts::Words(words) | Accepts::WordsOrFirst(words) => words,
            Accepts::Model | Accepts::Percent => &[],
        }
    }

    /// `1h, 24h or 30d`.
    fn alternatives(&self) -> String {
        match self.words() {
            [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
            all => all.join(", "),
        }
    }

    /// `must`: what is valid.
    fn refusal(&self, value: &str, must: &str) -> Refusal {
        Refusal::new(self.error, format!("{}={:?}: {must}", self.name, start(value)))
    }
}

/// Enough of a value to recognize it.
fn start(value: &str) -> String {
    value.chars().take(32).collect()
}

/// A value with its escapes resolved; None: one is broken, or the result is not UTF-8.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains(['%', '+']) {
        return Some(value.into());
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// A model whose readiness is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelQuery {
    pub(crate) name: String,
    /// The least share on the GPU.
    pub(crate) gpu_percent: u8,
}

/// None: no model is named.
pub(crate) fn ready(request: &Request<'_>) -> Result<Option<ModelQuery>, Refusal> {
    let gpu_percent = request.parameter(GPU.name).map_or(Ok(100), |value| {
        // `parse` accepts a sign.
        let digits = decoded(value).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let percent = digits.and_then(|text| text.parse().ok()).filter(|percent| *percent <= 100);
        percent.ok_or_else(|| GPU.refusal(value, "must be a whole number from 0 to 100"))
    })?;
    let Some(value) = request.parameter(MODEL.name) else {
        let alone = request.parameter(GPU.name).map(|value| GPU.refusal(value, "must stand beside model=NAME"));
        return alone.map_or(Ok(None), Err);
    };
    match decoded(value).filter(|name| is_model_name(name)) {
        Some(name) => Ok(Some(ModelQuery { name: name.into_owned(), gpu_percent })),
        None => {
            let must = format!(
                "must be a name as `ollama list` shows it, such as codellama:34b, of at most {MAX_MODEL_NAME} bytes"
            );
            Err(MODEL.refusal(value, &must))
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
    /// Length of the window in minutes.
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
fn models_and_shares() {
    #[track_caller]
    fn check(query: &str, expect: Result<Option<(&str, u8)>, &str>) {
        let target = format!("/ready{query}");
        let found = ready(&get(&target));
        let found = found.as_ref().map(|query| query.as_ref().map(|query| (query.name.as_str(), query.gpu_percent)));
        assert_eq!(found.map_err(|refusal| refusal.message.split(" as `").next().unwrap()), expect, "{query}");
    }
    check("", Ok(None));
    check("?x=1", Ok(None));
    check("?model=llama3", Ok(Some(("llama3", 100))));
    check("?gpu=0&model=codellama:34b-instruct-q4_k_m", Ok(Some(("codellama:34b-instruct-q4_k_m", 0))));
    check("?model=hf.co%2Forg/repo%3AQ4&gpu=007", Ok(Some(("hf.co/org/repo:Q4", 7))));
    check("?model=%6c%6C&gpu=%35%30", Ok(Some(("ll", 50))));
    check("?model=gpt-oss:120b-cloud", Ok(Some(("gpt-oss:120b-cloud", 100))));
    check("?model=a&model=b&gpu=1&gpu=x", Ok(Some(("a", 1))));
    let longest = "x".repeat(MAX_MODEL_NAME);
    check(&format!("?model={longest}"), Ok(Some((&longest, 100))));
    check(&format!("?model={}", "%78".repeat(MAX_MODEL_NAME)), Ok(Some((&longest, 100))));
    check(&format!("?model={longest}x"), Err("model=\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\": must be a name"));
    for bad in
        ["", "a+b", "a%20b", "%", "%7", "a%zz", "a%+1", "%ff", "%00", "a:", "/a", "http://a/b", "-a", "a%2f", "\u{e4}"]
    {
        check(&format!("?model={bad}"), Err(&format!("model={bad:?}: must be a name")));
    }
    check("?model", Err("model=\"\": must be a name"));
    for bad in ["", "101", "256", "-1", "+1", "1.5", "x", "99999999999999999999", "%", "1%", "%2b1"] {
        let expect = format!("gpu={bad:?}: must be a whole number from 0 to 100");
        check(&format!("?model=a&gpu={}", &bad), Err(&expect));
        check(&format!("?gpu={}", &bad), Err(&expect));
    }
    check("?gpu=50", Err("gpu=\"50\": must stand beside model=NAME"));
}

#[test]
fn the_codes_say_what_the_parameters_accept() {
    for parameter in [FORMAT, WINDOW, STEP] {
        let row = parameter.error.row();
        assert_eq!(row.meaning, format!("Unknown {}.", parameter.name));
        assert_eq!(row.action, format!("Use {}.", parameter.alternatives()));
    }
    assert_eq!(STEP.words().len(), STEP_MINUTES.len());
}
