//! The house rules, kept by tests: who may name whom, how long a file may be, what the README must list.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `folder`: path from the root, text without comments and unit tests.
pub fn sources(folder: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                all.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

/// The code of a file: no comments, nothing from its first unit test on.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod").next().unwrap().split("\n#[test]").next().unwrap();
    code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Words that files whose path begins with the first may not hold; the rest are exceptions.
const FORBIDDEN: &[(&str, &[&str], &[&str])] = &[
    (
        "src/pure/",
        &[
            "crate::edge",
            "crate::cmd",
            "crate::worker",
            "crate::sampler",
            "crate::registrar",
            "crate::recorder",
            "crate::cashier",
            "crate::keeper",
            "crate::doctor",
            "std::process",
            "std::fs",
            "std::thread",
            "std::env",
            "Tcp",
            "Udp",
            "Instant::now",
            "SystemTime",
            "log::info",
            "log::warn",
            "log::error",
            "log::debug",
            "println",
            "eprintln",
            "rouille",
            "ureq",
            "pico_args",
            "nvml_wrapper",
            "rustix",
            "httparse",
        ],
        &[],
    ),
    ("src/edge/guard/", &["crate::pure::contract", "crate::pure::route"], &[]),
    ("src/edge/helper/", &["crate::pure::config", "std::net"], &[]),
    (
        "src/edge/",
        &[
            "crate::worker",
            "crate::sampler",
            "crate::registrar",
            "crate::recorder",
            "crate::cashier",
            "crate::keeper",
            "crate::doctor",
            "crate::cmd",
        ],
        &[],
    ),
    ("src/worker.rs", &["crate::edge::http", "crate::edge::guard", "crate::edge::signals", "crate::cmd"], &[]),
    ("src/sampler", &["crate::edge::http", "crate::edge::guard", "crate::edge::signals", "crate::cmd"], &[]),
    ("src/registrar", &["crate::edge::http", "crate::edge::guard", "crate::edge::signals", "crate::cmd"], &[]),
    ("src/recorder.rs", &["crate::edge::http", "crate::edge::guard", "crate::edge::signals", "crate::cmd"], &[]),
    ("src/cashier", &["crate::edge::http", "crate::edge::guard", "crate::edge::signals", "crate::cmd"], &[]),
    ("src/keeper.rs", &["crate::edge::http", "crate::edge::guard", "crate::edge::signals", "crate::cmd"], &[]),
    ("src/doctor.rs", &["crate::edge::http", "crate::edge::guard", "crate::edge::signals", "crate::cmd"], &[]),
    ("src/", &["rouille"], &["src/edge/http.rs"]),
    ("src/", &["nvml_wrapper"], &["src/edge/helper/"]),
    ("src/", &["unsafe {", "unsafe_code"], &["src/edge/helper/raw.rs"]),
    ("src/", &["httparse"], &["src/edge/guard/"]),
    ("src/", &["tiny_http"], &["src/edge/guard/", "src/edge/http.rs", "src/tiny_http/"]),
    ("src/", &["ureq"], &["src/edge/ollama", "src/edge/orchestrator", "src/edge/probe.rs", "src/outbound"]),
    ("src/", &["k256", "sha3", "prost"], &["src/pure/pm/"]),
    ("src/", &["signal_hook"], &["src/edge/signals.rs"]),
    ("src/", &["simple_logger"], &["src/edge/logger.rs"]),
    ("src/", &["pico_args"], &["src/cmd/"]),
    ("src/", &["crate::cmd::"], &["src/cmd/"]),
    ("src/", &["tokio", "async fn"], &[]),
];

/// What `text` may not hold when it stands at `path`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let full = full_paths(path, &code);
    let searched = format!("{code}\n{}", full.join("\n"));
    let rules = FORBIDDEN.iter().filter(|(prefix, _, except)| {
        path.starts_with(prefix) && !except.iter().any(|exception| path.starts_with(exception))
    });
    let words = rules.flat_map(|(_, words, _)| *words).filter(|word| names(&searched, word));
    let mut found: Vec<_> = words.map(|word| format!("{path} names {word}")).collect();
    let edge = |full: &str| full.split("::").nth(2).filter(|_| full.starts_with("crate::edge::")).map(str::to_owned);
    let command = |full: &str| full.split("::").nth(2).filter(|_| full.starts_with("crate::cmd::")).map(str::to_owned);
    let module = module(path).join("::");
    for other in &full {
        if let (Some(own), Some(named)) = (edge(&module), edge(other))
            && own != named
        {
            found.push(format!("{path} names the edge {named}"));
        }
        if let (Some(own), Some(named)) = (command(&module), command(other))
            && own != named
            && named != "settings"
            && root().join(format!("src/cmd/{named}.rs")).exists()
        {
            found.push(format!("{path} names the subcommand {named}"));
        }
    }
    found
}

/// The module that a file is: `src/edge/gpus.rs` is crate, edge, gpus.
fn module(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let names = inner.split('/').filter(|name| !["lib", "main"].contains(name)).map(str::to_owned);
    std::iter::once("crate".to_owned()).chain(names).collect()
}

/// Every path in `code` from its root: groups are taken apart, `self` and `super` resolved.
fn full_paths(path: &str, code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let name = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum();
        let length = if rest.starts_with("::") { 2 } else { first.len_utf8().max(name) };
        tokens.push(&rest[..length]);
        rest = &rest[length..];
    }
    tokens.retain(|token| !token.trim().is_empty());
    let mut all = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = tree(&tokens, at, &[], &mut all).max(at + 1);
    }
    let own = module(path);
    all.iter().filter(|names| names.len() > 1).map(|names| resolve(names, &own)).collect()
}

/// Reads one path with its groups; where it ends.
fn tree<'a>(tokens: &[&'a str], mut at: usize, before: &[&'a str], all: &mut Vec<Vec<&'a str>>) -> usize {
    let mut names = before.to_vec();
    while let Some(token) = tokens.get(at) {
        if *token == "{" && at > 0 && tokens[at - 1] == "::" {
            at += 1;
            while at < tokens.len() && tokens[at] != "}" {
                at = tree(tokens, at, &names, all).max(at + 1);
            }
            return at + 1;
        }
        if !token.chars().all(|c| c.is_alphanumeric() || c == '_') {
            break;
        }
        names.push(token);
        at += 1;
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    all.push(names);
    at
}

fn resolve(names: &[&str], own: &[String]) -> String {
    let ups = names.iter().take_while(|name| ["self", "super"].contains(name)).count();
    let supers = names[..ups].iter().filter(|name| **name == "super").count();
    let mut full = if ups > 0 { own[..own.len().saturating_sub(supers)].to_vec() } else { Vec::new() };
    full.extend(names[ups..].iter().map(|name| (*name).to_owned()));
    full.join("::")
}

/// `word` stands in `code` and not within a longer name.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn every_layer_names_only_what_it_may() {
    let all = sources("src");
    assert!(all.len() > 30, "the sources are not where they are looked for");
    // No program has these files in it.
    let shipped = all.iter().filter(|(path, _)| !path.ends_with("/tests.rs"));
    let found: Vec<_> = shipped.flat_map(|(path, text)| violations(path, text)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_rule_above_finds_what_it_forbids() {
    #[track_caller]
    fn check(path: &str, text: &str, found: bool) {
        assert_eq!(!violations(path, text).is_empty(), found, "{path}: {text}");
    }
    check("src/pure/x.rs", "use crate::edge::gpus;", true);
    check("src/pure/x.rs", "let t = std::time::Instant::now();", true);
    check("src/pure/x.rs", "use std::time::Instant; // Instant::now is the caller's", false);
    check("src/pure/x.rs", "fn a() {}\n#[test]\nfn b() { std::fs::read(p); }", false);
    check("src/edge/gpus.rs", "use crate::edge::ollama::Ollama;", true);
    check("src/edge/gpus.rs", "use crate::pure::gpu::Gpu;", false);
    check("src/edge/ollama.rs", "use rouille::Server;", true);
    check("src/edge/http.rs", "use rouille::Server;", false);
    check("src/edge/helper/look.rs", "use nvml_wrapper::Nvml;", false);
    check("src/edge/helper/look.rs", "unsafe { call() }", true);
    check("src/edge/helper/raw.rs", "unsafe { call() }", false);
    check("src/edge/gpus.rs", "use nvml_wrapper::Nvml;", true);
    check("src/edge/gpus.rs", "use super::ollama::Ollama;", true);
    check("src/edge/gpus.rs", "fn a() { super::super::worker::b(); }", true);
    check("src/edge/guard/body.rs", "use super::head::Framing;", false);
    check("src/edge/guard/body.rs", "use super::super::http;", true);
    check("src/edge/guard/mod.rs", "use super::http;", true);
    check("src/pure/x.rs", "use std::{fmt, fs};", true);
    check("src/pure/x.rs", "use std::{\n    io::{self, Read},\n    time::{Duration, SystemTime},\n};", true);
    check("src/pure/x.rs", "use std::net::{Ipv4Addr, TcpStream};", true);
    check("src/pure/x.rs", "use std::net::{IpAddr, Ipv4Addr, SocketAddr};", false);
    check("src/pure/x.rs", "use crate::{exit::Exit, sampler::Board};", true);
    check("src/pure/x.rs", "use super::super::edge;", true);
    check("src/pure/x.rs", "level: log::LevelFilter,", false);
    check("src/pure/x.rs", "log::warn!(\"x\");", true);
    check("src/pure/verdict/x.rs", "use super::gpu::Gpu;", false);
    check("src/cmd/health.rs", "use super::serve::run;", true);
    check("src/cmd/health.rs", "use crate::cmd::{config, settings::flag};", true);
    check("src/cmd/health.rs", "use super::settings::Settings; fn a() { super::print(b); }", false);
    check("src/worker.rs", "use crate::{edge::{http, limits}, pure::text};", true);
    check("src/worker.rs", "use crate::edge::http;", true);
    check("src/worker.rs", "async fn handle() {}", true);
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

fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    text.split(start).skip(1).filter_map(|rest| rest.split(end).next()).collect()
}

/// The paths of all routes.
pub fn routes() -> Vec<String> {
    let route = fs::read_to_string(root().join("src/pure/route.rs")).unwrap();
    let table = route.split("PATHS: &[(&str, Path)] = &[").nth(1).unwrap().split("\n];").next().unwrap();
    let routes: Vec<String> = between(table, "(\"", "\"").into_iter().map(str::to_owned).collect();
    assert!(routes.len() >= 10, "{routes:?}");
    routes
}

#[test]
fn the_readme_lists_everything_there_is() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let config = read("src/pure/config/table.rs");
    let table = config.split("SETTINGS: &[Setting] = &[").nth(1).unwrap().split("\n];").next().unwrap();
    let settings = [between(table, "setting(\"", "\""), between(table, "secret(\"", "\"")].concat();
    assert!(settings.len() >= 30, "{settings:?}");
    let routes = routes();
    let verdict = read("src/pure/verdict.rs");
    let codes = between(&verdict, "pub(crate) enum Code {\n", "\n}")[0];
    let codes: Vec<String> = codes.lines().map(|line| screaming(line.trim().trim_end_matches(','))).collect();
    assert!(codes.len() >= 45, "{codes:?}");
    let exit = read("src/exit.rs");
    let exits = between(&exit, " = ", ",\n").into_iter().map(|code| format!("| {code} |"));
    let all: Vec<String> = sources("src").iter().map(|(_, text)| code(text)).collect();
    let mut metrics: Vec<_> = all.iter().flat_map(|text| between(text, "\"agent_net_", "\"")).collect();
    metrics.dedup();
    assert!(metrics.len() >= 55, "{metrics:?}");
    let metrics = metrics.into_iter().map(|name| format!("`agent_net_{name}`"));
    let commands = read("src/cmd/manual/commands.rs");
    let commands = between(&commands, "name: \"", "\"").into_iter().filter(|name| *name != "serve");
    let commands = commands.map(|name| format!("`agent-net {name}`"));
    let wanted = settings.into_iter().chain(routes.iter().map(String::as_str)).map(|name| format!("`{name}"));
    let missing: Vec<_> = wanted
        .chain(codes.iter().map(|code| format!("`{code}`")))
        .chain(exits)
        .chain(metrics)
        .chain(commands)
        .filter(|name| {
            !readme.contains(name.as_str()) && !readme.contains(&format!(" {}`", name.trim_start_matches('`')))
        })
        .collect();
    assert!(missing.is_empty(), "the README lacks {missing:?}");
}

/// `NoGpu` as `NO_GPU`.
pub fn screaming(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_uppercase());
    }
    out
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
    for script in scripts {
        let text = fs::read_to_string(&script).unwrap();
        assert!(text.starts_with("#!/bin/sh\n"), "{script:?} is no POSIX shell script");
        assert!(text.contains("\n# Usage: scripts/") && text.contains("\n# Exit codes: "), "{script:?}");
    }
}
