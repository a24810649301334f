//! `explain`: what a public name means.

use std::borrow::Cow;

use pico_args::Arguments;

use super::names;
use super::output::{self, usage};
use crate::sys::exit::Exit;
use crate::sys::explanation;
use crate::sys::json::json as to_json;

pub(super) fn run(mut args: Arguments) -> Exit {
    let json = args.contains("--json");
    let words = args.finish();
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    match route_alone(&words).as_slice() {
        [] => output::print(&list(json)),
        [option, ..] if option.starts_with('-') => usage("explain", &format!("unknown option {option}")),
        [name] => match names::find(name) {
            Some(found) if json => output::print(&(explanation::json(&found) + "\n")),
            Some(found) => output::print(&explanation::text(&found)),
            None => usage("explain", &unknown(name)),
        },
        [_, more, ..] => usage("explain", &format!("unexpected argument {more:?}: give one name")),
    }
}

/// `GET /gpu` and `/ready?model=NAME` are routes with more than their name.
fn route_alone<'a>(words: &'a [Cow<'_, str>]) -> Vec<&'a str> {
    let words: Vec<&str> = words.iter().flat_map(|word| word.split(' ')).collect();
    match words.as_slice() {
        [.., path] if words.len() <= 2 && path.starts_with('/') => vec![path.split('?').next().unwrap_or_default()],
        _ => words,
    }
}

/// The names of each kind, one a line.
fn list(json: bool) -> String {
    if json {
        let kinds: Vec<_> =
            names::all().map(|(kind, names)| serde_json::json!({ "kind": kind, "names": names })).collect();
        return to_json(&serde_json::json!({ "kinds": kinds })) + "\n";
    }
    let of_kind = |(kind, names): (&str, Vec<&str>)| format!("{kind}s:\n  {}\n", names.join("\n  "));
    names::all().map(of_kind).collect::<Vec<_>>().join("\n")
}

fn unknown(name: &str) -> String {
    match names::closest(name).as_slice() {
        [] => format!("unknown name {name:?}; agent-net explain lists all names"),
        near => format!("unknown name {name:?}; did you mean {}?", near.join(", ")),
    }
}
