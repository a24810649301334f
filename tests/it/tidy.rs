//! The house rules, kept by tests: how long a file may be, what the documents must list. Who may name whom: `rooms`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `folder`: path from the root, text without comments and unit tests.
pub fn sources(folder: &str) -> Vec<(String, String)> {
    files_below(folder, "rs")
}

/// All files below `folder` with this extension: path from the root, text.
pub fn files_below(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                all.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

/// Programs have it in them: it is not a file of unit tests.
pub fn ships((path, _): &(String, String)) -> bool {
    !path.ends_with("tests.rs") && !path.contains("/tests/")
}

/// The code of a file: no comments, nothing from its first unit test on.
pub fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod").next().unwrap().split("\n#[test]").next().unwrap();
    code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// `word` stands in `code` and not within a longer name.
pub fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    let long: Vec<_> = [sources("src"), sources("tests")]
        .concat()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 400)
        .collect();
    assert!(long.is_empty(), "to be split by noun: {long:?}");
}

#[test]
fn nothing_is_left_unfinished() {
    let all = [sources("src"), sources("tests")].concat();
    // This file names what it looks for.
    for (path, text) in all.iter().filter(|(path, _)| path != "tests/it/tidy.rs") {
        for word in ["todo!", "unimplemented!", "dbg!", "allow(dead_code", "allow(unused"] {
            assert!(!names(text, word), "{path} holds {word}");
        }
    }
}

/// A second kind of reader would double the machine code that reads JSON: 70 KiB.
#[test]
fn json_is_read_from_bytes_everywhere() {
    for (path, text) in sources("src").into_iter().filter(ships) {
        for reader in ["from_str", "from_reader"] {
            for user in ["serde_json::", "Deserializer::"] {
                assert!(
                    !code(&text).contains(&format!("{user}{reader}")),
                    "{path} reads with {reader}: use from_slice"
                );
            }
        }
    }
}

/// The tables of Unicode's letters are 30 KiB, and what we compare is ASCII.
#[test]
fn letters_change_their_case_in_ascii() {
    for (path, text) in sources("src").into_iter().filter(ships) {
        for call in ["to_lowercase", "to_uppercase", "is_lowercase", "is_uppercase"] {
            assert!(!names(&code(&text), call), "{path} calls {call}: use the call with ascii in its name");
        }
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    text.split(start).skip(1).filter_map(|rest| rest.split(end).next()).collect()
}

/// The paths of all routes.
pub fn routes() -> Vec<String> {
    let table = fs::read_to_string(root().join("src/api/routes.rs")).unwrap();
    let rows = table.split("ROUTES: &[Route] = &[").nth(1).unwrap().split("\n];").next().unwrap();
    let job_path = between(&table, "JOB_PATH: &str = \"", "\"").into_iter();
    let mut routes: Vec<String> =
        between(rows, "path: \"", "\"").into_iter().chain(job_path).map(str::to_owned).collect();
    routes.sort();
    routes.dedup();
    assert!(routes.len() >= 17, "{routes:?}");
    routes
}

#[test]
fn the_documents_list_everything_there_is() {
    let documents = crate::tables::documents();
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let config = read("src/config/table.rs");
    let table = config.split("SETTINGS: &[Setting] = &[").nth(1).unwrap().split("\n];").next().unwrap();
    let settings = [between(table, "setting(\"", "\""), between(table, "secret(\"", "\"")].concat();
    assert!(settings.len() >= 30, "{settings:?}");
    // For tests only.
    let settings = settings.into_iter().filter(|name| *name != "AGENT_NET_FAULT");
    let routes = routes();
    let codes = codes();
    let exit = read("src/sys/exit.rs");
    let exit = between(&exit, "enum Exit {", "}")[0];
    let exits = between(exit, " = ", ",\n").into_iter().map(|code| format!("| {code} |"));
    let all: Vec<String> = sources("src").iter().map(|(_, text)| code(text)).collect();
    let mut metrics: Vec<_> = all.iter().flat_map(|text| between(text, "\"agent_net_", "\"")).collect();
    metrics.dedup();
    assert!(metrics.len() >= 55, "{metrics:?}");
    let metrics = metrics.into_iter().map(|name| format!("`agent_net_{name}`"));
    let commands = read("src/cli/manual/commands.rs");
    let commands = between(&commands, "name: \"", "\"").into_iter().filter(|name| *name != "serve");
    let commands = commands.map(|name| format!("`agent-net {name}`"));
    let wanted = settings.chain(routes.iter().map(String::as_str)).map(|name| format!("`{name}"));
    let missing: Vec<_> = wanted
        .chain(codes.iter().map(|code| format!("`{code}`")))
        .chain(exits)
        .chain(metrics)
        .chain(commands)
        .filter(|name| {
            !documents.contains(name.as_str()) && !documents.contains(&format!(" {}`", name.trim_start_matches('`')))
        })
        .collect();
    assert!(missing.is_empty(), "the documents lack {missing:?}");
    let readme = read("README.md");
    let alerts = read("compose/monitoring/alerts.yaml").matches("- alert: ").count();
    for count in [format!("{} reason codes", codes.len()), format!("{alerts} alert rules")] {
        assert!(readme.contains(&count), "the README does not say {count:?}");
    }
}

/// The reason codes by their public names, from the source of their table.
pub fn codes() -> Vec<String> {
    let table = fs::read_to_string(root().join("src/health/codes/table.rs")).unwrap();
    let named = |line: &str| line.split('"').nth(1).filter(|_| line.ends_with(']')).map(str::to_owned);
    let codes: Vec<String> = table.lines().filter_map(named).collect();
    assert!(codes.len() >= 45, "{codes:?}");
    codes
}

/// The packages of the tree, one line each.
fn tree_of(more: &[&str]) -> String {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args(more)
        .current_dir(root())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&tree.stdout).into_owned();
    assert!(tree.status.success() && text.contains("rouille v"), "{}", String::from_utf8_lossy(&tree.stderr));
    text
}

#[track_caller]
fn holds_none(tree: &str, packages: &[&str]) {
    for package in packages {
        assert!(!tree.lines().any(|line| line.starts_with(&format!("{package} v"))), "{package} in\n{tree}");
    }
}

#[test]
fn no_async_runtime_is_in_the_tree() {
    let tree = tree_of(&["--edges", "normal,dev"]);
    assert!(tree.contains("nvml-wrapper v"), "{tree}");
    holds_none(&tree, &["tokio", "async-std", "smol", "async-executor", "hyper", "mio"]);
}

/// A static program that tries to load a library only finds out when it runs.
#[test]
fn the_static_server_can_load_no_library() {
    holds_none(&tree_of(&["--edges", "normal", "--no-default-features"]), &["nvml-wrapper", "libloading"]);
}

#[test]
fn scripts_say_how_they_are_used() {
    let scripts: Vec<PathBuf> = fs::read_dir(root().join("scripts")).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(scripts.len() >= 4, "{scripts:?}");
    // What a script sources stands in a folder of its name.
    for script in scripts.into_iter().filter(|path| path.is_file()) {
        let text = fs::read_to_string(&script).unwrap();
        assert!(text.starts_with("#!/bin/sh\n"), "{script:?} is not a POSIX shell script");
        assert!(text.contains("\n# Usage: scripts/") && text.contains("\n# Exit codes: "), "{script:?}");
    }
}

/// With CDPATH set, `cd` may enter a folder of that name elsewhere, and prints it.
#[test]
fn scripts_ignore_cdpath() {
    let scripts = files_below("scripts", "sh");
    assert!(names(&scripts.iter().find(|(path, _)| path.ends_with("common.sh")).unwrap().1, "CDPATH"));
    for (path, text) in scripts.iter().filter(|(path, _)| path.matches('/').count() == 1) {
        let before = text.find("cd \"").map_or("", |at| &text[..at]);
        let unset = before.lines().any(|line| {
            let line = line.trim_start();
            line.starts_with("unset ") && line.contains("CDPATH") || line.ends_with("/build-static/common.sh\"")
        });
        assert!(before.is_empty() || unset, "{path}: unset CDPATH before cd");
    }
}

/// A release without a section would leave operators to guess what changed.
#[test]
fn the_changelog_begins_with_this_version() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let newest = text.lines().find_map(|line| line.strip_prefix("## ")).expect("a section");
    let (version, date) = newest.split_once(" – ").expect("VERSION – DATE");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let parts: Vec<_> = date.split('-').map(|part| (part.len(), part.parse::<u32>().is_ok())).collect();
    assert_eq!(parts, [(4, true), (2, true), (2, true)], "{date} is YYYY-MM-DD");
    assert!(text.lines().count() <= 120, "short enough to be read");
}
