//! The secrets of live runners while a worker is replaced: without its secret an entry can be renewed only once it has
//! expired, after 20 s. They are in a file between two workers, and nowhere else.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::Secret;
use crate::sys::files::{is_regular, replace};

const NAME: &str = "runner-secrets";
const MODE: u32 = 0o600;
/// Bytes of it that are read, and that are written to see whether the disk takes them: several hundred orchestrators.
const MOST: usize = 64 << 10;

/// Orchestrators and the secrets of their entries.
pub(crate) type Secrets = Vec<(String, String)>;

/// Where a runner's secrets are kept.
#[derive(Debug)]
pub(crate) struct KeptSecrets {
    /// None: nowhere.
    path: Option<PathBuf>,
    id: String,
}

impl KeptSecrets {
    pub(crate) fn new(dir: Option<&str>, id: &str) -> Self {
        Self { path: dir.map(|dir| PathBuf::from(dir).join(NAME)), id: id.to_owned() }
    }

    /// Takes what the previous worker kept; none for another id.
    pub(crate) fn take(&self) -> Secrets {
        let Some(path) = &self.path else { return Vec::new() };
        let text = read(path);
        // It is of use once.
        let removed = fs::remove_file(path).is_ok();
        text.ok().filter(|_| removed).map(|text| parse(&text, &self.id)).unwrap_or_default()
    }

    /// There is a place for them. It is tried out: an entry whose secret is lost comes back later than one that was removed.
    pub(crate) fn is_possible(&self) -> bool {
        let Some(path) = &self.path else { return false };
        let tried = replace(path, MODE, &[b'\n'; MOST]);
        if let Err(why) = &tried {
            log::warn!("cannot write {}: {why}; unregistering the live runner", path.display());
        }
        tried.is_ok()
    }

    /// Keeps them for the next worker.
    pub(crate) fn put(&self, secrets: &[(String, String)]) {
        let Some(path) = &self.path else { return };
        if secrets.is_empty() {
            // A trial may be there.
            let _ = fs::remove_file(path);
            return;
        }
        if let Err(why) = replace(path, MODE, written(secrets, &self.id).as_bytes()) {
            log::warn!("cannot write {}: {why}; the live runner returns within 25 s of the restart", path.display());
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    is_regular(path)?;
    let mut text = String::new();
    File::open(path)?.take(MOST as u64).read_to_string(&mut text)?;
    Ok(text)
}

fn written(secrets: &[(String, String)], id: &str) -> String {
    secrets.iter().map(|(url, secret)| format!("{id} {url} {secret}\n")).collect()
}

fn parse(text: &str, id: &str) -> Secrets {
    let secret = |line: &str| {
        // What is cut off has no end.
        let mut words = line.strip_suffix('\n')?.split(' ');
        let (of, url, secret) = (words.next()?, words.next()?, words.next()?);
        // A damaged one that no header can carry would never be refused, and so never replaced.
        (of == id && words.next().is_none() && Secret::fits(secret)).then(|| (url.to_owned(), secret.to_owned()))
    };
    text.split_inclusive('\n').filter_map(secret).collect()
}

#[test]
fn secrets_are_those_of_the_same_runner() {
    let secrets = [("http://a:8935".to_owned(), "s1".to_owned()), ("https://b:8935".to_owned(), "s2".to_owned())];
    let text = written(&secrets, "agent-net");
    assert_eq!(parse(&text, "agent-net"), secrets);
    assert_eq!(parse(&text, "agent-net-2"), []);
    for odd in [
        "",
        "agent-net",
        "agent-net http://a",
        "agent-net http://a s s",
        "agent-net http://a s\u{1}",
        "agent-net http://a é",
    ] {
        assert_eq!(parse(&format!("{odd}\n"), "agent-net"), [], "{odd}");
    }
    assert_eq!(parse(text.trim_end(), "agent-net"), secrets[..1], "the last one may be cut");
}

#[test]
fn those_of_many_orchestrators_are_kept() {
    let dir = std::env::temp_dir().join(format!("agent-net-kept-secrets-{}", std::process::id()));
    let kept = KeptSecrets::new(dir.to_str(), &"i".repeat(128));
    let secrets: Vec<(String, String)> =
        (0..200).map(|at| (format!("https://orchestrator-{at}.example:8935"), "s".repeat(52))).collect();
    kept.put(&secrets);
    assert_eq!(kept.take(), secrets);
    assert_eq!(kept.take(), [], "once");
    fs::remove_dir_all(dir).unwrap();
}
