//! Lines of the file, read one by one: never more than one is in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::disk::NAME;
use crate::livepeer::tickets::ledger::lines::{Lines, Piece, Place};
use crate::sys::text::io_words;

/// No line of ours is longer: a request's headers fill a fifth of it.
const MAX_LINE: u64 = 1 << 20;
const BUFFER: usize = 64 << 10;

/// The file, from which single lines are read back.
#[derive(Debug, Clone)]
pub(crate) struct LineReader(pub(super) Arc<File>);

impl LineReader {
    /// # Errors
    /// The kernel's; another program may have changed the file.
    pub(crate) fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let length = usize::try_from(place.length.min(MAX_LINE)).unwrap_or(0);
        let mut line = vec![0; length];
        self.0.read_exact_at(&mut line, place.offset)?;
        Ok(line)
    }
}

/// A file read from its start, with its own position.
struct Cursor {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Cursor {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = into.len().min(left);
        let count = self.file.read_at(&mut into[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Reads lines from the start to an end.
pub(crate) struct Scan {
    file: LineReader,
    reader: BufReader<Cursor>,
    line: Vec<u8>,
    /// Where the next line begins.
    at: u64,
    /// The ends of the text and of the file.
    ends: (u64, u64),
}

impl Scan {
    /// The first `length` bytes of a file.
    pub(super) fn new(file: &Arc<File>, length: u64) -> io::Result<Self> {
        let end = without_nuls(file, length)?;
        Ok(Self::of(LineReader(Arc::clone(file)), (end, length)))
    }

    fn of(file: LineReader, ends: (u64, u64)) -> Self {
        let reader = Cursor { file: Arc::clone(&file.0), at: 0, end: ends.0 };
        Self { file, reader: BufReader::with_capacity(BUFFER, reader), line: Vec::new(), at: 0, ends }
    }

    /// The file in `dir` as it is now, without locking it. None: no file.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn peek(dir: &str) -> io::Result<Option<Self>> {
        match File::open(Path::new(dir).join(NAME)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Self::new(&Arc::new(file), length).map(Some)
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// The same lines from the start.
    pub(crate) fn rewind(self) -> Self {
        Self::of(self.file, self.ends)
    }

    fn read_line(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.line.clear();
        let mut length = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut self.line)? as u64;
        if length == 0 {
            return Ok(None);
        }
        let mut whole = self.line.last() == Some(&b'\n');
        let too_long = !whole && length == MAX_LINE;
        while too_long && !whole {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let newline = buffer.iter().position(|byte| *byte == b'\n');
            let count = newline.map_or(buffer.len(), |at| at + 1);
            self.reader.consume(count);
            length += count as u64;
            whole = newline.is_some();
        }
        let place = Place { offset: self.at, length };
        self.at += length;
        let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Ok(Some(Piece { place, bytes: (!too_long).then_some(text), whole }))
    }
}

impl Lines for Scan {
    fn next(&mut self) -> Result<Option<Piece<'_>>, String> {
        self.read_line().map_err(|why| io_words(&why))
    }

    fn again(&mut self, place: Place) -> Result<Vec<u8>, String> {
        self.file.read(place).map_err(|why| io_words(&why))
    }

    fn ends(&self) -> (u64, u64) {
        self.ends
    }
}

/// The end of the text without trailing NUL bytes: a power loss may leave a file longer than what was written.
fn without_nuls(file: &File, length: u64) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(BUFFER as u64);
        let part = &mut buffer[..usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(part, start)?;
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
