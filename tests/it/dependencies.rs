//! What is built in: each dependency has a reason, abandoned crates stay out, and scripts/audit.sh exits with what it
//! found. Its fake cargo-deny was compared with version 0.20.2.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::harness::{command, folder, run, skip};
use crate::scripts::by_all_shells;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = read("Cargo.toml");
    let mut lines = 0;
    for section in manifest.split("\n[").filter(|s| s.lines().next().unwrap().ends_with("dependencies]")) {
        for line in section.lines().skip(1).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            lines += 1;
            assert!(line.split_once(" # ").is_some_and(|(_, why)| why.len() > 5), "without a reason: {line}");
        }
    }
    assert!(lines > 30, "{lines}");
}

#[test]
fn every_exception_to_a_rule_has_a_reason() {
    let rules = read("deny.toml");
    for list in ["\nskip = [", "\nignore = ["] {
        let entries = rules.split(list).nth(1).unwrap().split(']').next().unwrap();
        for entry in entries.lines().filter(|l| !l.trim().is_empty()) {
            assert!(entry.contains("reason = \""), "without a reason: {entry}");
        }
    }
}

/// stubs/multipart replaces the first one, which brings the others.
#[test]
fn the_abandoned_crates_below_rouille_stay_out() {
    for lock in ["Cargo.lock", "tests/bench/hello/Cargo.lock"] {
        let lock = read(lock);
        for name in ["buf_redux", "safemem", "twoway", "quick-error", "mime_guess"] {
            assert!(!lock.contains(&format!("name = \"{name}\"\n")), "{name}");
        }
        assert!(!lock.contains("name = \"multipart\"\nversion = \"0.18.0\"\n"), "multipart");
    }
    // A newer rouille may not need the stub: then it can be deleted.
    assert!(!read("Cargo.lock").contains("[[patch.unused]]"), "Cargo.toml replaces a crate that nothing needs");
}

const FAKE: &str = r#"#!/bin/sh
previous=
for arg; do
    [ "$previous" != --config ] || config=$arg
    previous=$arg
done
case " $* " in
*' fetch db ') eval "$FETCH" ;;
*' --offline '*' advisories ') eval "$ADVISORIES" ;;
*' check '*' licenses bans sources ') eval "$RULES" ;;
*) exit 2 ;;
esac
"#;

/// A folder with the fake, and PATH with that folder in front.
fn fake(name: &str) -> (PathBuf, String) {
    let folder = folder(name);
    let program = folder.join("cargo-deny");
    fs::write(&program, FAKE).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    (folder, path)
}

#[test]
fn audit_exits_with_what_it_found() {
    let (home, path) = fake("audit");
    let rules = "echo 'bans ok, licenses ok, sources ok'";
    let broken_rules = "echo 'bans FAILED, licenses ok, sources ok'; exit 2";
    let clean = "echo 'advisories ok'";
    let found = "echo 'error[vulnerability]: x'; echo 'advisories FAILED'; exit 1";
    let absent = "echo '[ERROR] failed to load advisory database'; exit 1";
    for (rules, fetch, advisories, code, word) in [
        (rules, ":", clean, 0, "clean: licenses, bans, sources, advisories"),
        (rules, "exit 1", clean, 0, "the advisories could not be updated"),
        (rules, "exit 1", absent, 3, "NOT CHECKED: advisories"),
        (rules, ":", absent, 3, "NOT CHECKED: advisories"),
        (rules, ":", found, 1, "error[vulnerability]"),
        (broken_rules, ":", clean, 1, "bans FAILED"),
        (broken_rules, "exit 1", absent, 1, "bans FAILED"),
        ("exit 1", ":", clean, 1, "cargo-deny failed"),
        // It ended well, but says nothing.
        (rules, ":", ":", 3, "NOT CHECKED: advisories"),
    ] {
        let settings = [("PATH", &*path), ("CARGO_HOME", home.to_str().unwrap())];
        let settings =
            [settings.as_slice(), &[("RULES", rules), ("FETCH", fetch), ("ADVISORIES", advisories)]].concat();
        for (rc, out, err) in by_all_shells("audit.sh", &[], &settings) {
            assert_eq!((rc, out.as_str()), (code, ""), "{rules} {fetch} {advisories}: {err}");
            assert!(err.contains(word), "{err}");
        }
    }
}

#[test]
fn audit_takes_a_folder_of_advisories_and_downloads_none() {
    let (home, path) = fake("audit-db");
    let db = home.join("advisory dbs");
    fs::create_dir(&db).unwrap();
    let settings = [
        ("PATH", &*path),
        ("CARGO_HOME", home.to_str().unwrap()),
        ("RULES", "echo 'licenses ok'"),
        ("FETCH", "touch \"$DB/downloaded\""),
        ("DB", db.to_str().unwrap()),
        ("ADVISORIES", r#"grep -qx "db-path = '$DB'" "$config" && echo 'advisories ok'"#),
    ];
    for (rc, _, err) in by_all_shells("audit.sh", &["--db", db.to_str().unwrap()], &settings) {
        assert!(rc == 0 && !db.join("downloaded").exists(), "{err}");
    }
    for args in [&["--db"] as &[&str], &["--db", "/nonexistent"], &["--frob"]] {
        for (rc, _, err) in by_all_shells("audit.sh", args, &settings) {
            assert!(rc == 64 && err.starts_with("audit: "), "{err}");
        }
    }
}

#[test]
fn audit_without_cargo_deny_claims_nothing() {
    let home = folder("audit-missing");
    fs::create_dir_all(home.join("scripts")).unwrap();
    fs::write(home.join("scripts/audit.sh"), read("scripts/audit.sh")).unwrap();
    symlink("/usr/bin/dirname", home.join("dirname")).unwrap();
    let mut script = command("/bin/sh");
    script.arg(home.join("scripts/audit.sh")).env("PATH", &home).env("CARGO_HOME", &home);
    let (status, out, err) = run(&mut script);
    assert_eq!((status.code(), out.as_str()), (Some(3), ""), "{err}");
    assert!(err.contains("nothing is checked: cargo-deny is missing") && err.contains("cargo install"), "{err}");
}

/// cargo-deny's folder for RustSec, named after its address. One advisory about a version of httparse before this one.
fn advisories(name: &str, patched: &str) -> PathBuf {
    let root = folder(name);
    let repository = root.join("advisory-db-3157b0e258782691");
    fs::create_dir_all(repository.join("crates/httparse")).unwrap();
    let advisory = format!(
        "```toml\n[advisory]\nid = \"RUSTSEC-2000-0001\"\npackage = \"httparse\"\ndate = \"2000-01-01\"\n\n\
         [versions]\npatched = [\"{patched}\"]\n```\n\n# A title\n\nA text.\n"
    );
    fs::write(repository.join("crates/httparse/RUSTSEC-2000-0001.md"), advisory).unwrap();
    for args in [&["init", "-q"] as &[&str], &["add", "."], &["commit", "-q", "-m", "One"]] {
        let mut git = command("git");
        git.arg("-C").arg(&repository).args(["-c", "user.name=test", "-c", "user.email=test@localhost"]).args(args);
        assert!(run(&mut git).0.success(), "{args:?}");
    }
    root
}

#[test]
fn the_real_cargo_deny_finds_an_advisory() {
    for (patched, code, word) in [
        (">= 1.0.0", 0, "clean: licenses, bans, sources, advisories"),
        (">= 99.0.0", 1, "RUSTSEC-2000-0001"),
        ("", 3, "NOT CHECKED"),
    ] {
        let db = if patched.is_empty() { folder("no-advisories") } else { advisories("advisories", patched) };
        let mut script = command(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/audit.sh"));
        script.arg("--db").arg(&db);
        for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME"] {
            script.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let (status, out, err) = run(&mut script);
        if err.contains("cargo-deny is missing") {
            return skip("cargo-deny is missing");
        }
        assert_eq!((status.code(), out.as_str()), (Some(code), ""), "{err}");
        assert!(err.contains(word), "{err}");
    }
}
