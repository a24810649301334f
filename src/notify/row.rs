//! The status of each receiver, for operators.

use serde::Serialize;

use crate::config::NotifyTarget;
use crate::sys::status_table::StatusTable;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum NotificationState {
    /// Nothing was sent yet.
    Idle,
    /// The last message was accepted.
    Ok,
    /// The last try failed; it is retried.
    Waiting,
    /// The receiver refused the last message.
    Failed,
}

/// One receiver.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Notification"))]
pub(crate) struct NotificationRow {
    /// Scheme and host of its URL, whose path is a secret.
    pub(crate) target: String,
    /// The format, as in NOTIFY_FORMAT.
    pub(crate) format: &'static str,
    pub(crate) state: NotificationState,
    /// Unix seconds of the last message that it accepted.
    pub(crate) last_sent: Option<f64>,
    /// Why the last try failed, and what to do; null if it did not.
    pub(crate) last_error: Option<String>,
    /// Whether a message waits to be sent.
    pub(crate) pending: bool,
    #[serde(skip)]
    pub(crate) counts: Counts,
}

/// Since the start of the worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages that were accepted.
    pub(crate) sent: u64,
    /// Tries that failed.
    pub(crate) failed: u64,
    /// Messages that were refused, or replaced by a newer one before they were sent.
    pub(crate) dropped: u64,
}

impl NotificationRow {
    pub(crate) fn new(target: &NotifyTarget) -> Self {
        Self {
            target: target.url.shown().to_owned(),
            format: target.format.name(),
            state: NotificationState::Idle,
            last_sent: None,
            last_error: None,
            pending: false,
            counts: Counts::default(),
        }
    }
}

impl NotificationRow {
    /// The last try failed.
    pub(crate) fn is_failing(&self) -> bool {
        matches!(self.state, NotificationState::Waiting | NotificationState::Failed)
    }
}

/// All of them, in the order of NOTIFY_URL.
pub(crate) type Notifications = StatusTable<NotificationRow>;
