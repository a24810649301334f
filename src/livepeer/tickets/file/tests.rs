//! The thread that writes the file, and its restart.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::livepeer::tickets::ledger::Ledger;
use crate::livepeer::tickets::ledger::compaction::CompactionPlan;
use crate::livepeer::tickets::ledger::replay::Findings;

const SOON: Duration = Duration::from_secs(60);

/// An owner of the ledger that panics once, when a line is on the disk.
#[derive(Default)]
struct Owner {
    panicked: AtomicBool,
    opened: Mutex<Vec<Result<usize, String>>>,
}

impl LedgerAccess for Arc<Owner> {
    fn opened(&self, read: Result<(Ledger, Findings, LineReader), String>) {
        self.opened.lock().unwrap().push(read.map(|(ledger, ..)| ledger.pending()));
    }

    fn plan_compaction(&self, _: u64) -> Option<CompactionPlan> {
        None
    }

    fn with(&self, _: &mut dyn FnMut(&mut Ledger, &mut LineReader)) {
        assert!(self.panicked.swap(true, Ordering::AcqRel), "expected by this test");
    }

    fn wake(&self) {}
}

#[test]
fn after_a_panic_no_line_is_taken_for_another_payment() {
    let dir = std::env::temp_dir().join(format!("agent-net-ledger-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    let owner = Arc::new(Owner::default());
    let file = LedgerFile::start(dir.to_str().unwrap(), Arc::clone(&owner)).unwrap();
    let line = |name: &str| format!("{{\"void\":{{\"id\":\"{name}\"}}}}\n");
    assert_eq!(file.append(line("first"), Mark::Payment(0)).unwrap().wait(SOON), Ok(()));
    let end = Instant::now() + SOON;
    while !owner.panicked.load(Ordering::Acquire) && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    // Its restart takes a second.
    let (payment, result) =
        (file.append(line("payment"), Mark::Payment(1)), file.append(line("result"), Mark::Nothing));
    assert_eq!(payment.unwrap().wait(SOON), Err(RESTARTED.into()));
    assert_eq!(result.unwrap().wait(SOON), Ok(()));
    assert_eq!(file.append(line("next"), Mark::Payment(0)).unwrap().wait(SOON), Ok(()));
    assert_eq!(*owner.opened.lock().unwrap(), [Ok(0), Err(RESTARTED.into()), Ok(0)]);
    let written = fs::read_to_string(dir.join(NAME)).unwrap();
    assert_eq!(written, ["first", "result", "next"].map(line).concat());
    assert_eq!(file.queued.load(Ordering::Acquire), 0);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_the_queue_refuses_takes_no_room_in_it() {
    let (orders, waiting) = mpsc::channel();
    let file = LedgerFile { orders, queued: Arc::default(), errors: Arc::default() };
    let taken = (0..1000).filter(|_| file.append("x".repeat(1000), Mark::Nothing).is_ok()).count();
    assert!((1..1000).contains(&taken), "{taken}");
    let cost: usize = waiting.try_iter().map(|order| order.cost()).sum();
    assert_eq!(file.queued.load(Ordering::Acquire), cost);
}
