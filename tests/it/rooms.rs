//! The rooms of `src`, kept by tests: which room names which, which files touch the world outside, and that no files name
//! each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

#[path = "rooms/touching.rs"]
mod touching;

use touching::TOUCHING;

use crate::tidy::{code, names, ships, sources};

/// The rooms, top to bottom: a file names its own room and those below it.
const ROOMS: &[&str] =
    &["cli", "api", "http", "livepeer", "notify", "peers", "health", "ollama", "gpu", "outgoing", "config", "sys"];

/// Rooms that see less than what is below them.
const ONLY: &[(&str, &[&str])] =
    &[("http", &["sys"]), ("livepeer/payments", &["config", "sys"]), ("gpu/helper", &["gpu", "sys"])];

/// Words that a thinking file does not hold.
const OUTSIDE: &[&str] = &[
    "std::process",
    "std::fs",
    "std::thread",
    "threads::spawn",
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
    "rouille::",
    "ureq",
    "pico_args",
    "nvml_wrapper",
    "rustix",
    "signal_hook",
];

/// What only some files may name: (words, where they may stand).
const RESERVED: &[(&[&str], &[&str])] = &[
    (&["rouille::"], &["src/http/rouille.rs"]),
    (&["nvml_wrapper"], &["src/gpu/helper/"]),
    (&["unsafe {", "unsafe_code"], &["src/gpu/helper/raw.rs", "src/gpu/helper/raw/"]),
    (&["httparse"], &["src/http/"]),
    (
        &["ureq"],
        &[
            "src/ollama/",
            "src/livepeer/orchestrator",
            "src/cli/local.rs",
            "src/notify/call.rs",
            "src/outgoing/",
            "src/peers/",
        ],
    ),
    (&["k256", "prost"], &["src/livepeer/payments/"]),
    (&["sha3"], &["src/livepeer/payments/", "src/sys/hash.rs"]),
    (&["sd_listen_fds"], &["src/http/listen.rs"]),
    (&["signal_hook"], &["src/sys/signals.rs"]),
    (&["simple_logger"], &["src/sys/logger.rs"]),
    (&["pico_args"], &["src/cli/", "src/config/settings.rs"]),
    (&["tokio", "async fn"], &[]),
];

fn room(path: &str) -> &str {
    path.trim_start_matches("src/").split('/').next().unwrap_or_default()
}

/// `word` stands in the code, or begins a path of it, where it ends with `::`.
fn holds(searched: &str, full: &[String], word: &str) -> bool {
    if word.ends_with("::") { full.iter().any(|path| path.starts_with(word)) } else { names(searched, word) }
}

/// What `text` may not hold when it stands at `path`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let full = full_paths(path, &code);
    let searched = format!("{code}\n{}", full.join("\n"));
    let mut found = Vec::new();
    for (words, allowed) in RESERVED {
        if !allowed.iter().any(|start| path.starts_with(start)) {
            found.extend(
                words.iter().filter(|word| holds(&searched, &full, word)).map(|word| format!("{path} names {word}")),
            );
        }
    }
    if !TOUCHING.contains(&path.trim_start_matches("src/")) {
        found.extend(
            OUTSIDE.iter().filter(|word| holds(&searched, &full, word)).map(|word| format!("{path} touches {word}")),
        );
    }
    let own = room(path);
    let place = |room: &str| ROOMS.iter().position(|each| *each == room);
    for other in full.iter().filter_map(|full| full.strip_prefix("crate::")?.split("::").next()) {
        if let (Some(here), Some(there)) = (place(own), place(other)) {
            let narrow = ONLY.iter().find(|(folder, _)| path.trim_start_matches("src/").starts_with(folder));
            let allowed = narrow.is_none_or(|(folder, rooms)| rooms.contains(&other) || folder.starts_with(other));
            if there < here || (there != here && !allowed) {
                found.push(format!("{path} names the room {other}"));
            }
        }
    }
    found.dedup();
    found
}

/// The module that a file is: `src/gpu/client.rs` is crate, gpu, client.
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

/// The files that a file names, by the longest module path that is a file.
fn graph(all: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeMap<String, String> = all.iter().map(|(path, _)| (module(path).join("::"), path.clone())).collect();
    let file_of = |full: &str| {
        let ends = full.match_indices("::").map(|(at, _)| at).chain([full.len()]);
        ends.filter_map(|end| files.get(&full[..end])).last().cloned()
    };
    let edges = all.iter().map(|(path, text)| {
        let own = module(path).join("::");
        let code = code(text);
        // A name without `crate` or `super` is that of a child, where there is one.
        let named = full_paths(path, &code).into_iter().filter_map(|full| {
            if full.starts_with("crate::") { file_of(&full) } else { file_of(&format!("{own}::{full}")) }
        });
        let named = named.filter(|other| other != path && other != "src/lib.rs").collect();
        (path.clone(), named)
    });
    edges.collect()
}

/// Files that lead back to themselves.
fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let reach = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            for other in graph.get(file).into_iter().flatten() {
                if seen.insert(other.clone()) {
                    next.push(other);
                }
            }
        }
        seen
    };
    graph.keys().filter(|file| reach(file).contains(*file)).cloned().collect()
}

#[test]
fn every_file_names_only_what_it_may() {
    let all = sources("src");
    assert!(all.len() > 30, "the sources are not where they are looked for");
    let found: Vec<_> = all.iter().filter(|file| ships(file)).flat_map(|(path, text)| violations(path, text)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_list_of_touching_files_is_not_longer_than_it_has_to_be() {
    let all = sources("src");
    for listed in TOUCHING {
        let (path, text) = all.iter().find(|(path, _)| path.trim_start_matches("src/") == *listed).expect(listed);
        let code = code(text);
        let full = full_paths(path, &code);
        let searched = format!("{code}\n{}", full.join("\n"));
        assert!(OUTSIDE.iter().any(|word| holds(&searched, &full, word)), "{listed} touches nothing");
    }
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let shipped: Vec<_> = sources("src").into_iter().filter(ships).collect();
    let found = circles(&graph(&shipped));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_rules_above_find_what_they_forbid() {
    #[track_caller]
    fn check(path: &str, text: &str, found: bool) {
        assert_eq!(!violations(path, text).is_empty(), found, "{path}: {text}");
    }
    check("src/gpu/x.rs", "use crate::health::verdict::Verdict;", true);
    check("src/health/x.rs", "use crate::gpu::sample::Gpu;", false);
    check("src/health/x.rs", "let t = std::time::Instant::now();", true);
    check("src/health/x.rs", "use std::time::Instant; // Instant::now is the caller's", false);
    check("src/health/x.rs", "fn a() {}\n#[test]\nfn b() { std::fs::read(p); }", false);
    check("src/gpu/client.rs", "use crate::ollama::fetch::Ollama;", true);
    check("src/gpu/client.rs", "use std::process::Child;", false);
    check("src/ollama/fetch.rs", "use rouille::Server;", true);
    check("src/http/rouille.rs", "use rouille::Request;", false);
    check("src/http/rouille.rs", "use crate::config::Config;", true);
    check("src/gpu/helper/reading_log.rs", "use nvml_wrapper::Nvml;", false);
    check("src/gpu/helper/reading_log.rs", "use crate::config::Config;", true);
    check("src/gpu/helper/reading_log.rs", "unsafe { call() }", true);
    check("src/gpu/helper/raw.rs", "unsafe { call() }", false);
    check("src/gpu/client.rs", "use nvml_wrapper::Nvml;", true);
    check("src/gpu/client.rs", "fn a() { super::super::api::b(); }", true);
    check("src/http/body.rs", "use super::head::Framing;", false);
    check("src/livepeer/payments/x.rs", "use crate::health::verdict::Code;", true);
    check("src/livepeer/payments/x.rs", "use crate::livepeer::payments::odds;", false);
    check("src/health/x.rs", "use std::{fmt, fs};", true);
    check("src/health/x.rs", "use std::{\n    io::{self, Read},\n    time::{Duration, SystemTime},\n};", true);
    check("src/health/x.rs", "use std::net::{Ipv4Addr, TcpStream};", true);
    check("src/health/x.rs", "use std::net::{IpAddr, Ipv4Addr, SocketAddr};", false);
    check("src/health/x.rs", "use crate::{cli::exit, sys::text};", true);
    check("src/health/x.rs", "level: log::LevelFilter,", false);
    check("src/health/x.rs", "log::warn!(\"x\");", true);
    check("src/api/worker.rs", "use crate::{cli::{serve}, sys::text};", true);
    check("src/api/worker.rs", "async fn handle() {}", true);
}

#[test]
fn a_circle_is_found() {
    let files = |list: &[(&str, &str)]| list.iter().map(|(p, t)| ((*p).into(), (*t).into())).collect::<Vec<_>>();
    let found = |list: &[(&str, &str)]| circles(&graph(&files(list)));
    let (parent, child) = ("src/gpu/a.rs", "src/gpu/a/b.rs");
    assert_eq!(found(&[(parent, "mod b;\nuse b::C;"), (child, "use super::D;")]), [parent, child]);
    assert_eq!(found(&[(parent, "mod b;\nfn f() { b::g(); }"), (child, "use super::{D, E};")]), [parent, child]);
    assert!(
        found(&[(parent, "mod b;\nuse b::C;"), (child, "use super::super::c::D;"), ("src/gpu/c.rs", "")]).is_empty()
    );
    assert!(found(&[(parent, "mod b;\nuse b::C;"), (child, "fn f() {}\n#[test]\nfn t() { super::d(); }")]).is_empty());
}
