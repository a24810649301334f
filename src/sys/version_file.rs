//! STATE_DIR/version: the version that started there last, so that a start can report another one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::files::{is_regular, replace};
use super::version::VERSION;

const NAME: &str = "version";
/// The last version that kept no such file. Its uptime file shows that it ran.
const WITHOUT_FILE: &str = "0.1.0";
/// A longer text is not a version.
const LONGEST: usize = 32;

/// Calls `report` with the version of the last start with this STATE_DIR if it was another one. Must run before `uptime`,
/// the uptime file, is created. True: [`keep`] must run.
pub(crate) fn compare(dir: &Path, uptime: &Path, report: impl FnOnce(&str)) -> bool {
    let path = dir.join(NAME);
    let text = is_regular(&path).and_then(|()| read(&path));
    let written = text.as_deref().ok().and_then(version_in);
    if written == Some(VERSION) {
        return false;
    }
    // A file that cannot be read is of an unknown version.
    let missing = text.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::NotFound);
    if let Some(last) = written.or_else(|| (missing && uptime.exists()).then_some(WITHOUT_FILE)) {
        report(last);
    }
    true
}

/// Keeps this version. If it cannot be written, the next start reports the same again.
pub(crate) fn keep(dir: &Path) {
    let _ = replace(&dir.join(NAME), 0o644, format!("{VERSION}\n").as_bytes());
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST as u64 + 2).read_to_string(&mut text)?;
    Ok(text)
}

/// None: another program's text.
fn version_in(text: &str) -> Option<&str> {
    let text = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    (text.starts_with(|c: char| c.is_ascii_digit()) && text.len() <= LONGEST && text.chars().all(fits)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_is_repeated_in_the_log() {
        assert_eq!(version_in("0.3.1-rc.2+7\n"), Some("0.3.1-rc.2+7"));
        let long = "1".repeat(LONGEST + 1);
        for text in ["", "\n", "latest", "0.2.0\nERROR all is lost", "1 2", &long] {
            assert_eq!(version_in(text), None, "{text:?}");
        }
    }
}
