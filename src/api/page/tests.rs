//! The page is small and closed, and its hashes are right.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::*;

const HTML: &str = include_str!("status.html");

/// The text of the page's one element of this name.
fn element(name: &str) -> &'static str {
    let after = HTML.split_once(&format!("<{name}>")).expect("it begins").1;
    after.split_once(&format!("</{name}>")).expect("it ends").0
}

#[test]
fn it_is_small_and_refers_to_nothing_outside() {
    assert!(HTML.len() < 40_000, "{}", HTML.len());
    assert!(element("style").len() > 1000 && element("script").len() > 1000);
    for word in ["http:", "https:", "innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "style="] {
        let found = HTML.replace("http://www.w3.org/2000/svg", "").contains(word);
        assert!(!found, "the page contains {word}");
    }
}

/// Fails unless a file of src has these constants with the hashes of these texts. AGENT_NET_WRITE=1 writes them.
#[track_caller]
pub(crate) fn check_hashes(file: &str, constants: &[(&str, &str)]) {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut right = text.clone();
    for (name, hashed) in constants {
        let start = format!("const {name}: &str = ");
        let (before, rest) = right.split_once(&start).expect("the constant");
        let (_, after) = rest.split_once(";\n").expect("its end");
        let hash = STANDARD.encode(Sha256::digest(hashed));
        let quoted = if *name == "ETAG" { format!("\"\\\"{hash}\\\"\"") } else { format!("\"{hash}\"") };
        right = format!("{before}{start}{quoted};\n{after}");
    }
    if right != text && std::env::var("AGENT_NET_WRITE").as_deref() == Ok("1") {
        return std::fs::write(path, right).unwrap();
    }
    assert!(right == text, "{file}: hashes are out of date: run the tests with AGENT_NET_WRITE=1");
}

/// A wrong hash of style or script leaves the page bare, a wrong ETag leaves browsers with an old one.
#[test]
fn the_hashes_are_those_of_the_page() {
    check_hashes("src/api/page.rs", &[("ETAG", HTML), ("STYLE", element("style")), ("SCRIPT", element("script"))]);
}

#[test]
fn a_page_that_is_known_is_not_sent_again() {
    for known in [ETAG, "*", &format!("\"x\", W/{ETAG}")] {
        let reply = reply(Some(known));
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{known}");
    }
    for other in [None, Some("\"x\""), Some("")] {
        assert_eq!(reply(other).status, 200, "{other:?}");
    }
}
