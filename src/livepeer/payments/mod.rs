//! Livepeer's probabilistic micropayments: whether they work with given flags, and what a ticket holds.
//!
//! Amounts are whole wei, expected values exact fractions. The rules are those of go-livepeer's source:
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
mod reserve;
pub(crate) mod rules;
pub(crate) mod table;
pub(crate) mod terms;
pub(crate) mod ticket;

#[cfg(test)]
mod tests;
