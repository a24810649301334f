//! simple_logger on stderr, made safe for a server: a full disk or a closed pipe behind stderr ends no thread,
//! and text from outside cannot forge lines or move the cursor.

use std::panic::{self, AssertUnwindSafe};

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

struct Safe(SimpleLogger);

impl Log for Safe {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        // simple_logger prints with eprintln!, which panics when stderr is gone.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| {
            let text = one_line(&record.args().to_string());
            self.0.log(
                &Record::builder().args(format_args!("{text}")).level(record.level()).target(record.target()).build(),
            );
        }));
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Installs the logger of the process; a second call changes nothing.
pub(crate) fn install(level: LevelFilter) {
    // The crates below us log each socket event at debug: only ours are worth an operator's time.
    let inner =
        SimpleLogger::new().with_level(LevelFilter::Warn).with_module_level("agent_net", level).with_utc_timestamps();
    let inner = if level == LevelFilter::Off { inner.with_level(LevelFilter::Off) } else { inner };
    if log::set_boxed_logger(Box::new(Safe(inner))).is_ok() {
        log::set_max_level(level);
    }
}

/// Control characters as escapes.
fn one_line(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[test]
fn a_message_is_one_line() {
    assert_eq!(one_line("a\nERROR b\u{1b}[2J é"), "a\\nERROR b\\u{1b}[2J é");
}
