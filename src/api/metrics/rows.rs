//! What metrics of the models of MODEL read of a model's row.

use crate::ollama::keeper::row::KeeperRow;

/// A sample of one model: the values of further labels, and the number.
pub(super) type Sample = (Vec<&'static str>, f64);
pub(super) type Read = fn(&KeeperRow) -> Vec<Sample>;

/// A sample without further labels; none where it is unknown.
pub(super) fn one(value: Option<f64>) -> Vec<Sample> {
    value.into_iter().map(|value| (Vec::new(), value)).collect()
}

/// What succeeded and what failed, each with `labels` before its result.
pub(super) fn ended([ok, failed]: [u64; 2], labels: &[&'static str]) -> Vec<Sample> {
    [("ok", ok), ("failed", failed)].map(|(result, count)| ([labels, &[result]].concat(), count as f64)).into()
}
