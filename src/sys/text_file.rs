//! Text files and standard input as operators write them: flags, payment headers.

use std::fs::File;
use std::io::{self, Read};

use super::text::io_words;

/// A larger file means a mistaken path.
const MAX_BYTES: u64 = 1024 * 1024;

/// The whole text of a file; `-` is standard input.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(path: &str) -> Result<String, String> {
    if path == "-" {
        return read_all(io::stdin().lock());
    }
    let file = File::open(path).map_err(|why| format!("cannot open it: {}", io_words(&why)))?;
    read_all(file)
}

/// The text of a file that may be missing: None.
///
/// # Errors
/// What is wrong with a file that exists.
pub(crate) fn read_if_there(path: &str) -> Result<Option<String>, String> {
    match File::open(path) {
        Ok(file) => read_all(file).map(Some),
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(why) => Err(format!("cannot open it: {}", io_words(&why))),
    }
}

fn read_all(from: impl Read) -> Result<String, String> {
    let mut text = String::new();
    from.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|why| format!("cannot read it: {}", io_words(&why)))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes"));
    }
    Ok(text)
}

#[test]
fn a_text_that_is_too_large_is_refused_and_not_cut() {
    let text = |length: u64| read_all(io::repeat(b'x').take(length));
    assert_eq!(text(MAX_BYTES).map(|text| text.len() as u64), Ok(MAX_BYTES));
    assert_eq!(text(MAX_BYTES + 1), Err(format!("it is larger than {MAX_BYTES} bytes")));
}
