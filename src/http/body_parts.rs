//! What an answer says, in pieces that follow each other: what all answers of a snapshot have in common is shared by
//! them, not copied into each.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::gzip;

/// Shorter ones are copied: a piece costs a little, too.
const WORTH_SHARING: usize = 4096;

/// A body.
#[derive(Debug)]
pub(crate) struct Body(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Own(Vec<u8>),
    Shared(Arc<RawValue>),
    /// Compressed with gzip when the program was built.
    Packed(&'static [u8]),
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(json) => json.get().as_bytes(),
            Self::Packed(member) => member,
        }
    }
}

impl Body {
    /// `value` as JSON. What it writes of `shared` becomes a piece.
    pub(crate) fn json<T: Serialize>(value: &T, shared: &[&Arc<RawValue>]) -> Self {
        let mut sink = Sink { own: Vec::with_capacity(4096), shared, pieces: Vec::new() };
        // Writing to memory cannot fail, and structs of strings and finite numbers always serialize.
        let _ = serde_json::to_writer(&mut sink, value);
        sink.pieces.push(Piece::Own(sink.own));
        Self(sink.pieces)
    }

    /// A text that was compressed when the program was built, as a whole gzip member.
    pub(crate) fn packed(member: &'static [u8]) -> Self {
        Self(vec![Piece::Packed(member)])
    }

    /// Compressed, as one piece; None: that is not possible now.
    pub(super) fn gzip(&self) -> Option<Self> {
        match &self.0[..] {
            [Piece::Packed(member)] => Some(Self::packed(member)),
            _ => gzip::gzip(self.pieces().collect::<Vec<_>>().concat()).map(Self::from),
        }
    }

    /// For a client that does not take gzip.
    pub(super) fn plain(self) -> Self {
        match &self.0[..] {
            [Piece::Packed(member)] => Self::from(gzip::unpacked(member)),
            _ => self,
        }
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Reads one piece after the other.
    pub(crate) fn into_reader(self) -> impl io::Read + Send + 'static {
        Reader(self.0.into_iter().map(io::Cursor::new).collect())
    }

    /// In bytes.
    pub(crate) fn len(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }
}

impl<T: Into<Vec<u8>>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self(vec![Piece::Own(bytes.into())])
    }
}

/// What has not been read yet.
struct Reader(VecDeque<io::Cursor<Piece>>);

impl io::Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.0.front_mut() {
            let read = piece.read(buf)?;
            if read > 0 || buf.is_empty() {
                return Ok(read);
            }
            self.0.pop_front();
        }
        Ok(0)
    }

    /// Without a look at each piece's end.
    fn read_to_end(&mut self, all: &mut Vec<u8>) -> io::Result<usize> {
        let before = all.len();
        for mut piece in self.0.drain(..) {
            piece.read_to_end(all)?;
        }
        Ok(all.len() - before)
    }
}

struct Sink<'a> {
    own: Vec<u8>,
    shared: &'a [&'a Arc<RawValue>],
    pieces: Vec<Piece>,
}

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // serde_json writes a raw value in one go.
        let is_it = |json: &&&Arc<RawValue>| std::ptr::eq(json.get().as_bytes(), bytes);
        match self.shared.iter().find(is_it).filter(|_| bytes.len() >= WORTH_SHARING) {
            Some(json) => {
                self.pieces.push(Piece::Own(std::mem::take(&mut self.own)));
                self.pieces.push(Piece::Shared(Arc::clone(json)));
            }
            None => self.own.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn large_lists_are_shared_and_small_ones_copied() {
    #[derive(Serialize)]
    struct Two<'a> {
        a: &'a RawValue,
        b: &'a RawValue,
        c: u8,
    }
    let raw = |text: String| Arc::<RawValue>::from(RawValue::from_string(text).unwrap());
    let (large, small) = (raw(format!("[{}1]", "1,".repeat(WORTH_SHARING))), raw("[2]".into()));
    let value = Two { a: &large, b: &small, c: 3 };
    let body = Body::json(&value, &[&large, &small]);
    let pieces: Vec<&[u8]> = body.pieces().collect();
    assert_eq!(pieces, [br#"{"a":"#, large.get().as_bytes(), br#","b":[2],"c":3}"#]);
    assert!(std::ptr::eq(pieces[1], large.get().as_bytes()), "it is not a copy");
    assert_eq!(body.len(), serde_json::to_string(&value).unwrap().len());
}
