//! The error codes of answers, one row each: their status cannot be wrong, and every list of them is made of this table.

use super::explanation::{Explanation, Names};

/// What a client did wrong, or what this worker cannot do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    BadJson,
    MissingAgentId,
    BadAgentId,
    BadRequest,
    BadFraming,
    IncompleteBody,
    BadWindow,
    BadStep,
    BadFormat,
    BadModel,
    BadGpu,
    BadPayment,
    TicketReused,
    Unauthorized,
    NotFound,
    MethodNotAllowed,
    Timeout,
    BodyTooLarge,
    HeadTooLarge,
    Internal,
    AtCapacity,
    NoSample,
    Draining,
    LedgerFailed,
}

use ErrorCode::*;

/// What there is to say of a code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorRow {
    code: ErrorCode,
    pub(crate) status: u16,
    /// As it stands in the answer.
    pub(crate) name: &'static str,
    /// Seconds of `Retry-After`.
    pub(crate) retry_after: Option<u32>,
    pub(crate) meaning: &'static str,
    /// What the client should do.
    pub(crate) action: &'static str,
}

const fn row(
    code: ErrorCode,
    status: u16,
    name: &'static str,
    meaning: &'static str,
    action: &'static str,
) -> ErrorRow {
    ErrorRow { code, status, name, retry_after: None, meaning, action }
}

const fn retry(seconds: u32, row: ErrorRow) -> ErrorRow {
    ErrorRow { retry_after: Some(seconds), ..row }
}

/// In the order of [`ErrorCode`].
pub(crate) const ERRORS: &[ErrorRow] = &[
    row(BadJson, 400, "bad_json", "The body is not a JSON object.", "Send {\"agent_id\":\"my-agent\"}."),
    row(MissingAgentId, 400, "missing_agent_id", "The object has no agent_id, or it is null.", "Add it."),
    row(
        BadAgentId,
        400,
        "bad_agent_id",
        "agent_id is empty, longer than 256 characters, or not a string.",
        "Send 1 to 256 characters in quotes.",
    ),
    row(BadRequest, 400, "bad_request", "The request is not valid HTTP/1.", "Fix the client."),
    row(
        BadFraming,
        400,
        "bad_framing",
        "The body's length is ambiguous, or its chunks are broken.",
        "Fix the client or the proxy.",
    ),
    row(IncompleteBody, 400, "incomplete_body", "The body is shorter than announced.", "Send all of it."),
    row(BadWindow, 400, "bad_window", "Unknown window.", "Use 1h, 24h or 30d."),
    row(BadStep, 400, "bad_step", "Unknown step.", "Use 1m, 15m, 1h or 1d."),
    row(BadFormat, 400, "bad_format", "Unknown format.", "Use json or text."),
    row(
        BadModel,
        400,
        "bad_model",
        "model is empty, longer than 256 bytes, or not the name of a model.",
        "Send a name as `ollama list` shows it.",
    ),
    row(
        BadGpu,
        400,
        "bad_gpu",
        "gpu is not a whole number from 0 to 100, or model is missing.",
        "Send model=NAME and gpu=0 to gpu=100.",
    ),
    row(BadPayment, 400, "bad_payment", "The tickets in Livepeer-Payment are not valid.", "Send valid ones."),
    row(TicketReused, 400, "ticket_reused", "A ticket was sent before.", "Send a new one."),
    row(
        Unauthorized,
        401,
        "unauthorized",
        "WORKER_TOKEN is set, and the request lacks it.",
        "Send Authorization: Bearer TOKEN.",
    ),
    row(NotFound, 404, "not_found", "Unknown path.", "See the routes."),
    row(
        MethodNotAllowed,
        405,
        "method_not_allowed",
        "The path does not accept this method.",
        "Use one that Allow lists.",
    ),
    row(Timeout, 408, "timeout", "The head took longer than 10 s, or the body longer than 60 s.", "Send faster."),
    row(BodyTooLarge, 413, "body_too_large", "The body is larger than 64 KiB.", "Send less."),
    row(HeadTooLarge, 431, "head_too_large", "The head is larger than 64 KiB.", "Send fewer headers."),
    row(Internal, 500, "internal", "A defect of the worker. It serves the next request.", "Report its log."),
    retry(1, row(AtCapacity, 503, "at_capacity", "Too many jobs, connections or requests.", "Retry.")),
    retry(1, row(NoSample, 503, "no_sample", "Neither GPUs nor Ollama have been read yet.", "Retry.")),
    retry(10, row(Draining, 503, "draining", "The worker is shutting down.", "Use another worker.")),
    retry(10, row(LedgerFailed, 503, "ledger_failed", "Tickets cannot be saved.", "Retry.")),
];

// A row stands where its code finds it.
const _: () = {
    let mut at = 0;
    while at < ERRORS.len() {
        assert!(ERRORS[at].code as usize == at);
        at += 1;
    }
    assert!(LedgerFailed as usize + 1 == ERRORS.len());
};

impl ErrorCode {
    pub(crate) fn row(self) -> &'static ErrorRow {
        &ERRORS[self as usize]
    }
}

/// For `agent-net explain`.
pub(crate) const NAMES: Names = Names { kind: "error code", all: || ERRORS.iter().map(|row| row.name).collect(), find };

fn find(name: &str) -> Option<Explanation> {
    let row = ERRORS.iter().find(|row| row.name.eq_ignore_ascii_case(name))?;
    let fields = [
        ("status", row.status.to_string()),
        ("meaning", row.meaning.into()),
        ("action", row.action.into()),
        ("retry_after", row.retry_after.map_or_else(String::new, |seconds| format!("{seconds} s"))),
    ];
    Some(Explanation::new(&NAMES, row.name, fields))
}

/// The schema of a code.
#[cfg(test)]
pub(crate) fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": ERRORS.iter().map(|row| row.name).collect::<Vec<_>>() })
}

#[test]
fn the_reference_lists_every_code() {
    let rows = ERRORS.iter().map(|row| {
        let retry = row.retry_after.map_or_else(String::new, |seconds| format!("{seconds} s"));
        vec![row.status.to_string(), format!("`{}`", row.name), row.meaning.into(), row.action.into(), retry]
    });
    let columns = ["status", "code", "meaning", "what the client should do", "`Retry-After`"];
    crate::tables::table("src/reference.md", "errors", &crate::tables::markdown(&columns, rows));
}

#[test]
fn codes_are_explained_by_name() {
    let found = find("DRAINING").expect("it is a code");
    let fields: Vec<(&str, &str)> = found.fields.iter().map(|(key, text)| (*key, text.as_str())).collect();
    let meaning = ("meaning", "The worker is shutting down.");
    let wanted = [("status", "503"), meaning, ("action", "Use another worker."), ("retry_after", "10 s")];
    assert_eq!((found.name, fields), ("draining", wanted.to_vec()));
    assert!(find("TEMP_HIGH").is_none());
}

#[test]
fn the_table_agrees_with_itself() {
    let mut names: Vec<&str> = ERRORS.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ERRORS.len(), "a name stands twice");
    for row in ERRORS {
        assert_eq!(row.retry_after.is_some(), row.status == 503, "{}", row.name);
        for text in [row.meaning, row.action] {
            assert!(text.ends_with('.') && text.len() <= 80, "{}: {text}", row.name);
        }
    }
    assert!(ERRORS.windows(2).all(|pair| pair[0].status <= pair[1].status), "by status");
}
