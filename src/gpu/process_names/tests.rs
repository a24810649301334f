//! What is read of /proc, byte by byte.

use super::*;

/// As Linux 6.18 writes it, behind the name.
const REST: &str =
    " S 1 4242 4242 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 5187698 3133440 393 18446744073709551615 1 1 1";

#[track_caller]
fn check(line: &[u8], expect: Option<&str>) {
    assert_eq!(stat(4242, line).map(|stat| stat.name).as_deref(), expect, "{}", String::from_utf8_lossy(line));
}

#[test]
fn any_byte_may_be_in_a_name() {
    let named = |name: &[u8], expect| check(&[b"4242 (", name, b")", REST.as_bytes(), b"\n"].concat(), expect);
    named(b"ollama", Some("ollama"));
    named(b"ollama_llama_se", Some("ollama_llama_se"));
    named(b"a) S 1 (b", Some("a) S 1 (b"));
    named(b"(sd-pam)", Some("(sd-pam)"));
    named(b"Web Content", Some("Web Content"));
    named(b"a\nb\x1b[31m\"\\", Some("a b [31m\"\\"));
    named(b"\xff\xfe\xc3\xa4", Some("\u{fffd}\u{fffd}ä"));
    named(b"", Some(""));
    named(" \u{202e} ".as_bytes(), Some(" "));
    let longest = "x".repeat(64);
    named(longest.as_bytes(), Some(&longest));
    named(&[b'x'; 65], None);
}

#[test]
fn what_is_not_such_a_line_has_no_name() {
    let parsed = stat(4242, format!("4242 (a){REST}").as_bytes());
    assert_eq!(parsed, Some(Stat { name: "a".into(), parent: 1, flags: 4_194_304, started: 5_187_698 }));
    for line in [
        "",
        "4242",
        "4242 (a)",
        "4242 (a",
        ")a(",
        "4243 (a) S 1 4242 4242 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 5187698",
        "4242 (a) S 1 4242 4242 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0",
        "4242 (a) S 1 4242 4242 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 -7",
        "x (a) S 1 4242 4242 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 5187698",
    ] {
        check(line.as_bytes(), None);
    }
    check(b"4242 (a) S \xff 1 4242 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 5187698", None);
}

#[test]
fn whose_numbers_a_proc_has_is_in_its_status() {
    let of = |line: &str| namespace(format!("Name:\tagent-net\nPid:\t7\n{line}NSpgid:\t7\n").as_bytes());
    assert_eq!(of("NSpid:\t4242\n"), Some(Namespace::Own));
    assert_eq!(of("NSpid:\t4242\t1\n"), Some(Namespace::Parent));
    assert_eq!(of("NSpid:\t4242\t17\t1\n"), Some(Namespace::Parent));
    // Kernels before 4.1.
    assert_eq!((of(""), of("NSpid:\n")), (None, None));
}

#[test]
fn a_process_of_this_namespace_is_seen_without_proc() {
    assert!(exists_here(std::process::id()));
    assert!(!exists_here(u32::MAX) && !exists_here(0) && !exists_here(4_200_000));
}
