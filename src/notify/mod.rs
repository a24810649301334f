//! Who is notified: receivers of a change, and a monitor that expects a regular sign of life.

pub(crate) mod call;
