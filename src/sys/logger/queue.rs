//! Lines on their way to stderr: bounded, written by one thread, and dropped while that thread cannot keep up.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::stderr;

/// Most lines and bytes that wait.
const MAX_LINES: usize = 1024;
const MAX_BYTES: usize = 256 * 1024;
/// Longer lines are cut, as Docker does.
const MAX_LINE: usize = 16 * 1024;
/// How long the process waits for the last lines at its end.
const FLUSH: Duration = Duration::from_secs(1);

pub(super) struct Queue {
    state: Mutex<QueueState>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
    dropped: AtomicU64,
}

struct QueueState {
    waiting: VecDeque<Entry>,
    /// Bytes of all lines that wait.
    bytes: usize,
    /// The queue was full and takes lines again once half of it is free: one gap instead of many.
    losing: bool,
    /// The thread is writing a line.
    writing: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Line(String),
    /// This many lines are missing here.
    Gap(u64),
}

impl QueueState {
    const fn new() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, losing: false, writing: false }
    }

    /// Takes a line; false: no room.
    fn take(&mut self, line: String) -> bool {
        if self.losing && self.waiting.len() <= MAX_LINES / 2 && self.bytes <= MAX_BYTES / 2 {
            self.losing = false;
        }
        self.losing |= self.waiting.len() >= MAX_LINES || self.bytes + line.len() > MAX_BYTES;
        if !self.losing {
            self.bytes += line.len();
            self.waiting.push_back(Entry::Line(line));
        } else if let Some(Entry::Gap(lines)) = self.waiting.back_mut() {
            *lines += 1;
        } else {
            self.waiting.push_back(Entry::Gap(1));
        }
        !self.losing
    }

    fn next(&mut self) -> Option<Entry> {
        let next = self.waiting.pop_front();
        if let Some(Entry::Line(line)) = &next {
            self.bytes -= line.len();
        }
        next
    }
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self {
            state: Mutex::new(QueueState::new()),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line with its newline, or drops it: never waits for stderr.
    pub(super) fn push(&self, line: String) {
        if !self.lock().take(cut(line)) {
            self.dropped.fetch_add(1, Ordering::AcqRel);
        }
        self.filled.notify_one();
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }

    /// Waits until everything is written, at most [`FLUSH`].
    pub(super) fn flush(&self) {
        let busy = |state: &mut QueueState| state.writing || !state.waiting.is_empty();
        drop(self.emptied.wait_timeout_while(self.lock(), FLUSH, busy));
    }

    /// Writes lines as they come; `gap` makes the line in place of missing ones.
    pub(super) fn write_forever(&self, gap: fn(u64) -> String) {
        let mut stderr = Stderr { torn: false };
        let mut missing = 0;
        loop {
            let line = match self.wait() {
                Entry::Line(line) => Some(line),
                Entry::Gap(lines) => {
                    missing += lines;
                    None
                }
            };
            let reported = missing == 0 || stderr.write(&gap(missing)).is_ok();
            if reported {
                missing = 0;
            }
            if line.is_some_and(|line| !reported || stderr.write(&line).is_err()) {
                missing += 1;
                self.dropped.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Waits for the next entry.
    fn wait(&self) -> Entry {
        let mut state = self.lock();
        loop {
            state.writing = false;
            if let Some(entry) = state.next() {
                state.writing = true;
                return entry;
            }
            self.emptied.notify_all();
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Bypasses the standard library's stderr, which holds its lock while it waits for a reader.
struct Stderr {
    /// The last line was written only in part.
    torn: bool,
}

impl Stderr {
    /// Writes a whole line, however long it takes.
    fn write(&mut self, line: &str) -> io::Result<()> {
        if std::mem::take(&mut self.torn) {
            self.write_all(b"\n").inspect_err(|_| self.torn = true)?;
        }
        self.write_all(line.as_bytes())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            match rustix::io::write(stderr(), left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => left = &left[written..],
                Err(Errno::INTR) => {}
                // Another program may have made the shared terminal or pipe non-blocking.
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&stderr(), PollFlags::OUT)], None)?;
                }
                Err(why) => {
                    self.torn = left.len() < bytes.len();
                    return Err(why.into());
                }
            }
        }
        Ok(())
    }
}

/// A line of at most [`MAX_LINE`] bytes.
fn cut(mut line: String) -> String {
    const END: &str = " (cut)\n";
    if line.len() > MAX_LINE {
        let most = MAX_LINE - END.len();
        line.truncate((0..=most).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0));
        line.push_str(END);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_counts_what_it_drops_in_one_gap_until_half_of_it_is_free() {
        let mut state = QueueState::new();
        let take = |state: &mut QueueState, count: usize| (0..count).filter(|_| state.take("x\n".into())).count();
        assert_eq!(take(&mut state, MAX_LINES + 7), MAX_LINES);
        assert_eq!(state.waiting.back(), Some(&Entry::Gap(7)));
        // One line is written; its place stays free.
        assert_eq!(state.next(), Some(Entry::Line("x\n".into())));
        assert_eq!(take(&mut state, 3), 0);
        assert_eq!(state.waiting.back(), Some(&Entry::Gap(10)));
        while state.waiting.len() > MAX_LINES / 2 {
            state.next();
        }
        assert_eq!(take(&mut state, 1), 1);
        let rest: Vec<Entry> = std::iter::from_fn(|| state.next()).collect();
        assert_eq!(rest.iter().filter(|entry| matches!(entry, Entry::Gap(_))).collect::<Vec<_>>(), [&Entry::Gap(10)]);
        assert_eq!(rest.last(), Some(&Entry::Line("x\n".into())));
        assert_eq!(state.bytes, 0);
    }

    #[test]
    fn few_long_lines_fill_it_as_well() {
        let mut state = QueueState::new();
        let long = "x".repeat(MAX_LINE);
        let taken = (0..100).filter(|_| state.take(long.clone())).count();
        assert_eq!(taken, MAX_BYTES / MAX_LINE);
        assert!(state.bytes <= MAX_BYTES);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_between_two_characters() {
        let line = cut("é".repeat(MAX_LINE) + "\n");
        assert!(line.len() <= MAX_LINE && line.ends_with("é (cut)\n"), "{}", line.len());
        assert_eq!(cut("short\n".into()), "short\n");
    }
}
