//! How the thread that writes the file reaches the ledger in memory.

use super::lines::LineReader;
use crate::livepeer::tickets::ledger::Ledger;
use crate::livepeer::tickets::ledger::compaction::CompactionPlan;
use crate::livepeer::tickets::ledger::replay::Findings;

/// The owner of the ledger in memory, as the thread that writes the file sees it.
pub(crate) trait LedgerAccess: Send + 'static {
    /// The file has been read, or why it cannot be.
    fn opened(&self, read: Result<(Ledger, Findings, LineReader), String>);

    /// Starts a compaction of a file that ends there. None: it has not been read.
    fn plan_compaction(&self, until: u64) -> Option<CompactionPlan>;

    /// Works on the ledger and the file that its places refer to.
    fn with(&self, work: &mut dyn FnMut(&mut Ledger, &mut LineReader));

    /// Payments may have become due.
    fn wake(&self);
}
