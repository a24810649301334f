//! Lines of the file, read one by one: whatever its size, there is never more than one in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::livepeer::tickets::ledger::{Lines, Piece, Place};

/// No line of ours is longer: what a request's headers can hold takes a fifth of it.
const MAX_LINE: u64 = 1 << 20;
const BUFFER: usize = 64 << 10;

/// The file, to read lines back from.
#[derive(Debug, Clone)]
pub(crate) struct Pages(pub(super) Arc<File>);

impl Pages {
    /// # Errors
    /// The kernel's; a file may have changed under us.
    pub(crate) fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let length = usize::try_from(place.length.min(MAX_LINE)).unwrap_or(0);
        let mut line = vec![0; length];
        self.0.read_exact_at(&mut line, place.offset)?;
        Ok(line)
    }
}

/// A file read from its start, without a position that others share.
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
    pages: Pages,
    reader: BufReader<Cursor>,
    line: Vec<u8>,
    /// Where the next line begins.
    at: u64,
    /// Of the text, and of the file.
    ends: (u64, u64),
}

impl Scan {
    /// The first `length` bytes of a file.
    pub(super) fn new(file: &Arc<File>, length: u64) -> io::Result<Self> {
        let end = without_nuls(file, length)?;
        Ok(Self::of(Pages(Arc::clone(file)), (end, length)))
    }

    fn of(pages: Pages, ends: (u64, u64)) -> Self {
        let reader = Cursor { file: Arc::clone(&pages.0), at: 0, end: ends.0 };
        Self { pages, reader: BufReader::with_capacity(BUFFER, reader), line: Vec::new(), at: 0, ends }
    }

    /// The file below `dir` as it is now, without taking it from the worker that writes it. None: there is no file.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn peek(dir: &str) -> io::Result<Option<Self>> {
        match File::open(Path::new(dir).join(super::NAME)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Self::new(&Arc::new(file), length).map(Some)
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// The same lines once more.
    pub(crate) fn rewind(self) -> Self {
        Self::of(self.pages, self.ends)
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
        self.read_line().map_err(|why| why.to_string())
    }

    fn again(&mut self, place: Place) -> Result<Vec<u8>, String> {
        self.pages.read(place).map_err(|why| why.to_string())
    }

    fn ends(&self) -> (u64, u64) {
        self.ends
    }
}

/// The end of what is no NUL byte: a power loss may leave a file longer than what was written to it.
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
