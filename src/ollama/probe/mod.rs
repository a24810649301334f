//! Proof that a model answers and that its GPU computes: a short request to a loaded model of MODEL now and then, and what
//! follows from its answers.

pub(crate) mod answer;
pub(crate) mod row;
pub(crate) mod watch;
