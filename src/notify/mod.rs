//! Who is notified: receivers of a change, and a monitor that expects a regular sign of life.

pub(crate) mod call;
pub(crate) mod delivery;
pub(crate) mod event;
pub(crate) mod format;
pub(crate) mod heartbeat;
pub(crate) mod heartbeat_thread;
pub(crate) mod notified;
pub(crate) mod notified_file;
pub(crate) mod notifier;
pub(crate) mod receiver;
pub(crate) mod row;
mod text;
pub(crate) mod watch;
