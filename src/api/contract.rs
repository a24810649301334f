//! What is accepted as a job, what an error looks like, and how JSON is written.

use serde::Serialize;
use serde_json::Value;

use crate::sys::json::{json, millis};

/// What X-Metadata and errors call the service.
pub(crate) const CAPABILITY: &str = "gpu-check";

/// The body of GET /health: that it is sent is all it says.
pub(crate) const HEALTHY: &str = r#"{"status":"ok"}"#;

/// Longest accepted `agent_id`, in characters.
const MAX_AGENT_ID: usize = 256;

/// Why a job's body is refused: a code for programs and a sentence for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadBody {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// The `agent_id` of a job's body.
///
/// # Errors
/// `bad_json`, `missing_agent_id` or `bad_agent_id`, with what to send instead.
pub(crate) fn agent_id(body: &[u8]) -> Result<String, BadBody> {
    let bad = |code, message: String| Err(BadBody { code, message });
    // Not a derived struct: serde would take the array ["x"] for one.
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(_) if body.is_empty() => {
            return bad("bad_json", "the body is empty; send a JSON object such as {\"agent_id\":\"my-agent\"}".into());
        }
        Err(why) => {
            return bad("bad_json", format!("the body is not JSON ({why}); send {{\"agent_id\":\"my-agent\"}}"));
        }
    };
    let Value::Object(mut object) = value else {
        return bad("bad_json", "the body is JSON but no object; send {\"agent_id\":\"my-agent\"}".into());
    };
    match object.remove("agent_id") {
        None | Some(Value::Null) => {
            bad("missing_agent_id", "agent_id is missing; send {\"agent_id\":\"my-agent\"}".into())
        }
        Some(Value::String(id)) if id.is_empty() => bad("bad_agent_id", "agent_id is empty; send a name".into()),
        Some(Value::String(id)) if id.chars().count() > MAX_AGENT_ID => {
            bad("bad_agent_id", format!("agent_id is longer than {MAX_AGENT_ID} characters; shorten it"))
        }
        Some(Value::String(id)) => Ok(id),
        Some(_) => bad("bad_agent_id", "agent_id is not a string; put it in quotes".into()),
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Error"))]
pub(crate) struct ErrorBody<'a> {
    status: &'static str,
    code: &'a str,
    error: &'a str,
    timestamp: f64,
    capability: &'static str,
}

/// The body of every error. `now` is in Unix seconds.
pub(crate) fn error_body(code: &str, message: &str, now: f64) -> String {
    json(&ErrorBody { status: "error", code, error: message, timestamp: millis(now), capability: CAPABILITY })
}

#[test]
fn agent_ids() {
    #[track_caller]
    fn check(body: &str, expect: Result<&str, &str>) {
        assert_eq!(agent_id(body.as_bytes()).as_deref().map_err(|b| b.code), expect, "{body}");
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
    assert_eq!(agent_id(b"{\"agent_id\":\"\xff\"}").unwrap_err().code, "bad_json");
}
