//! Tickets that come with a job: taken in, written down, handed in.

pub(crate) mod book;
pub(crate) mod file;
pub(crate) mod header;
pub(crate) mod intake;
pub(crate) mod ledger;
