//! The log on stderr. Text from outside cannot forge lines or move the cursor, and no thread ends because of a full disk
//! or a closed pipe behind stderr. `serve` never waits for stderr: lines go through a queue.

mod queue;

use std::io;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::thread;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::text::disturbs_a_line;
use super::threads;
use queue::Queue;

/// As simple_logger writes it.
const TIMESTAMP: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The lines of `serve` that are still to be written.
static QUEUE: Queue = Queue::new();

/// Writes a line before it returns: for one-shot commands.
struct Direct(SimpleLogger);

/// Queues a line for the writing thread: no caller waits for stderr.
struct Queued {
    filter: SimpleLogger,
}

impl Log for Direct {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        // simple_logger prints with eprintln!, which panics when stderr is gone.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| {
            let text = escaped(&record.args().to_string());
            self.0.log(
                &Record::builder().args(format_args!("{text}")).level(record.level()).target(record.target()).build(),
            );
        }));
    }

    fn flush(&self) {}
}

impl Log for Queued {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            QUEUE.push(line(record.level(), record.target(), &record.args().to_string()));
        }
    }

    fn flush(&self) {
        QUEUE.flush();
    }
}

/// While this lives, `serve` logs through a thread. Its drop waits a moment for the last lines, even when a panic ends
/// the main thread.
#[derive(Debug)]
pub(crate) struct Background(());

impl Background {
    /// Installs the process's logger and logs panics through it.
    ///
    /// # Errors
    /// The kernel's, when a thread cannot be started.
    pub(crate) fn install(level: LevelFilter) -> io::Result<Self> {
        // The standard hook writes to stderr itself: a panic in a job would wait for whoever reads the log.
        panic::set_hook(Box::new(|panic| log::error!("{}", panicked(panic))));
        set(Box::new(Queued { filter: filter(level) }), level);
        // Last, so that its own panic is logged as well.
        threads::service("log", || QUEUE.write_forever(gap))?;
        Ok(Self(()))
    }

    /// A line without timestamp, at any LOG_LEVEL.
    pub(crate) fn print(&self, line: &str) {
        QUEUE.push(escaped(line) + "\n");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        QUEUE.flush();
    }
}

/// Installs the logger of a one-shot command; a second call changes nothing.
pub(crate) fn install(level: LevelFilter) {
    set(Box::new(Direct(filter(level))), level);
}

/// Lines lost because stderr was not read in time.
pub(crate) fn dropped() -> u64 {
    QUEUE.dropped()
}

fn set(logger: Box<dyn Log>, level: LevelFilter) {
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

fn filter(level: LevelFilter) -> SimpleLogger {
    // Libraries log each socket event at debug level: only our own lines are useful.
    let all =
        SimpleLogger::new().with_level(LevelFilter::Warn).with_module_level("agent_net", level).with_utc_timestamps();
    if level == LevelFilter::Off { all.with_level(LevelFilter::Off) } else { all }
}

fn line(level: Level, target: &str, text: &str) -> String {
    // A clock beyond the year 9999 leaves the time out.
    let time = OffsetDateTime::now_utc().format(TIMESTAMP).unwrap_or_default();
    format!("{time} {:<5} [{target}] {}\n", level.as_str(), escaped(text))
}

/// The line in place of missing ones.
fn gap(lines: u64) -> String {
    let text = format!("{lines} log lines are missing here: stderr was not read in time or could not be written");
    line(Level::Warn, module_path!(), &text)
}

/// A panic as the standard library reports it.
fn panicked(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
    format!("thread {name} panicked{place}: {}", text.unwrap_or("no message"))
}

/// Characters that disturb a line as escapes.
fn escaped(text: &str) -> String {
    if !text.contains(disturbs_a_line) {
        return text.to_owned();
    }
    text.chars().flat_map(|c| if disturbs_a_line(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

#[test]
fn a_message_is_one_line() {
    assert_eq!(escaped("a\nERROR b\u{1b}[2J é\u{202e}"), "a\\nERROR b\\u{1b}[2J é\\u{202e}");
}
