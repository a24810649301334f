//! What is accepted as a job: its body, and the tickets that pay for it.

use serde_json::Value;

use crate::http::refusal::Refusal;
use crate::http::request::{MAX_BODY, Request};
use crate::livepeer::tickets::header::{NotAccepted, Tickets};
use crate::sys::error_codes::ErrorCode;

/// Longest accepted `agent_id`, in characters.
const MAX_AGENT_ID: usize = 256;

/// The `agent_id` of a job's body.
///
/// # Errors
/// `body_too_large`, `bad_json`, `missing_agent_id` or `bad_agent_id`.
pub(crate) fn agent_id(body: Option<&[u8]>) -> Result<String, Refusal> {
    let refused = |code, message: String| Err(Refusal::new(code, message));
    let Some(body) = body else {
        let message =
            format!("the body is larger than {MAX_BODY} bytes; send a job such as {{\"agent_id\":\"my-agent\"}}");
        return refused(ErrorCode::BodyTooLarge, message);
    };
    // A derived struct would accept the array ["x"].
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(_) if body.is_empty() => {
            let message = "the body is empty; send a JSON object such as {\"agent_id\":\"my-agent\"}";
            return refused(ErrorCode::BadJson, message.into());
        }
        Err(why) => {
            let message = format!("the body is not JSON ({why}); send {{\"agent_id\":\"my-agent\"}}");
            return refused(ErrorCode::BadJson, message);
        }
    };
    let Value::Object(mut object) = value else {
        let message = "the body must be a JSON object; send {\"agent_id\":\"my-agent\"}";
        return refused(ErrorCode::BadJson, message.into());
    };
    match object.remove("agent_id") {
        None | Some(Value::Null) => {
            refused(ErrorCode::MissingAgentId, "agent_id is missing; send {\"agent_id\":\"my-agent\"}".into())
        }
        Some(Value::String(id)) if id.is_empty() => {
            refused(ErrorCode::BadAgentId, "agent_id is empty; send a name".into())
        }
        Some(Value::String(id)) if id.chars().count() > MAX_AGENT_ID => {
            refused(ErrorCode::BadAgentId, format!("agent_id is longer than {MAX_AGENT_ID} characters; shorten it"))
        }
        Some(Value::String(id)) => Ok(id),
        Some(_) => refused(ErrorCode::BadAgentId, "agent_id is not a string; put it in quotes".into()),
    }
}

/// What a client pays with. An orchestrator's proxy forwards the headers, but has taken the tickets itself.
pub(crate) fn tickets(request: &Request<'_>) -> Option<Tickets> {
    let given = |header: Option<&str>| header.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned);
    let (payment, job) = given(request.payment).zip(given(request.job))?;
    (!request.proxied).then_some(Tickets { payment, job })
}

impl From<NotAccepted> for Refusal {
    fn from(why: NotAccepted) -> Self {
        match why {
            NotAccepted::Invalid(message) => Self::new(ErrorCode::BadPayment, message),
            NotAccepted::Reused(message) => Self::new(ErrorCode::TicketReused, message),
            NotAccepted::Unwritten(message) => Self::new(ErrorCode::LedgerFailed, message),
        }
    }
}

#[test]
fn agent_ids() {
    #[track_caller]
    fn check(body: &str, expect: Result<&str, &str>) {
        assert_eq!(agent_id(Some(body.as_bytes())).as_deref().map_err(|r| r.code.row().name), expect, "{body}");
    }
    check(r#"{"agent_id":"demo","x":[1]}"#, Ok("demo"));
    check(r#"{"agent_id":"a\nb\u0000é"}"#, Ok("a\nb\0é"));
    check(r#"{"agent_id":"a","agent_id":"b"}"#, Ok("b"));
    check(&format!(r#"{{"agent_id":"{}"}}"#, "é".repeat(256)), Ok(&"é".repeat(256)));
    check(&format!(r#"{{"agent_id":"{}"}}"#, "a".repeat(257)), Err("bad_agent_id"));
    check(r#"{"agent_id":""}"#, Err("bad_agent_id"));
    check(r#"{"agent_id":7}"#, Err("bad_agent_id"));
    check(r#"{"agent_id":null}"#, Err("missing_agent_id"));
    check(r#"{"q":1}"#, Err("missing_agent_id"));
    check("{}", Err("missing_agent_id"));
    check(r#"["demo"]"#, Err("bad_json"));
    check("", Err("bad_json"));
    check("{", Err("bad_json"));
    check("\u{feff}{}", Err("bad_json"));
    check(&"[".repeat(100_000), Err("bad_json"));
    check(r#"{"agent_id":"a"} x"#, Err("bad_json"));
    assert_eq!(agent_id(Some(b"{\"agent_id\":\"\xff\"}")).unwrap_err().code, ErrorCode::BadJson);
    assert_eq!(agent_id(None).unwrap_err().code, ErrorCode::BodyTooLarge);
}

#[test]
fn tickets_are_taken_from_direct_jobs_only() {
    let paid = Request { payment: Some(" p "), job: Some("j"), ..Request::default() };
    assert_eq!(tickets(&paid), Some(Tickets { payment: "p".into(), job: "j".into() }));
    assert_eq!(tickets(&Request { proxied: true, ..paid }), None);
    assert_eq!(tickets(&Request { job: Some(" "), ..paid }), None);
}
