//! Livepeer's probabilistic micropayments: will they work with these flags, and what does this ticket say?
//!
//! Amounts are whole wei, expected values exact fractions. The rules are go-livepeer's own, read in its source:
//! `pm/`, `byoc/payment.go`, `core/ai_orchestrator.go`, `core/orchestrator.go`.

pub(crate) mod advice;
pub(crate) mod amount;
pub(crate) mod figures;
pub(crate) mod findings;
pub(crate) mod flags;
pub(crate) mod inputs;
pub(crate) mod live;
pub(crate) mod odds;
pub(crate) mod payment;
pub(crate) mod protobuf;
pub(crate) mod rules;
pub(crate) mod table;
pub(crate) mod terms;
pub(crate) mod ticket;

#[cfg(test)]
mod tests;
