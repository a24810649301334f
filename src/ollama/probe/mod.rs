//! Proof that a model answers and that its GPU computes: a short request to a loaded model of MODEL now and then, and what
//! follows from its answers.

pub(crate) mod answer;
pub(crate) mod heal;
pub(crate) mod prober;
pub(crate) mod report;
pub(crate) mod row;
pub(crate) mod speeds;
pub(crate) mod speeds_file;
pub(crate) mod state;
pub(crate) mod tending;
pub(crate) mod watch;
pub(crate) mod witness;
