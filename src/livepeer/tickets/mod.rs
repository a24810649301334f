//! Payment tickets that come with jobs: verified, saved, submitted.

pub(crate) mod file;
pub(crate) mod header;
pub(crate) mod intake;
pub(crate) mod intake_state;
pub(crate) mod ledger;
