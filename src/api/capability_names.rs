//! A capability's name as the path of its jobs. Livepeer's Python SDK posts to `ORCHESTRATOR/process/request/NAME`, and
//! go-livepeer sends that on as `POST CAPABILITY_URL/NAME`.

use super::routes::{Access, ROUTES, Route};

/// Why jobs cannot reach a capability of this name; None: they can.
pub(crate) fn problem(name: &str) -> Option<String> {
    let hidden = ROUTES.iter().find(|route| route.path[1..] == *name && !is_job(route));
    if let Some(Route { path, .. }) = hidden {
        return Some(format!("its jobs would arrive at {path}, another route of this worker; choose another name"));
    }
    // go-livepeer ends the path at ? and #, and reads % as an escape.
    if name.contains(['?', '#', '%']) {
        return Some("go-livepeer cannot send jobs to a name with ?, # or %; use letters, digits, - and _".into());
    }
    // It redirects these, and a redirected POST arrives as GET.
    let mut segments = name.strip_suffix('/').unwrap_or(name).split('/');
    if segments.any(|segment| matches!(segment, "" | "." | "..")) {
        return Some("go-livepeer cannot send jobs to a name with an empty part, . or .. between slashes".into());
    }
    None
}

fn is_job(route: &Route) -> bool {
    route.access == Access::Jobs
}

/// The one of `named` that a path means, with or without escapes. go-livepeer escapes what a URL may not hold, and the
/// proxy of its Live Runners escapes a client's escapes again. Valid names contain no `%`.
pub(super) fn find(named: &[&'static str], path: &str) -> Option<&'static str> {
    let find = |path: &[u8]| named.iter().find(|name| name.as_bytes() == path).copied();
    find(path.as_bytes()).or_else(|| {
        if named.is_empty() || !path.contains('%') {
            return None;
        }
        let once = decoded(path.as_bytes());
        find(&once).or_else(|| find(&decoded(&once)))
    })
}

/// Without its escapes; what is not an escape stays.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| u8::try_from(char::from(*text.get(at)?).to_digit(16)?).ok();
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let escaped = digit(at + 1).zip(digit(at + 2)).filter(|_| *byte == b'%');
        out.push(escaped.map_or(*byte, |(high, low)| high * 16 + low));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

#[test]
fn names_that_no_job_can_reach_are_refused() {
    #[track_caller]
    fn check(name: &str, words: Option<&str>) {
        let problem = problem(name);
        assert!(problem.as_deref().map_or(words.is_none(), |p| words.is_some_and(|w| p.contains(w))), "{problem:?}");
    }
    for good in ["agent-net-nyc", "gpu-check", "agent-net", "GPU", "Metrics", "org/gpu.check", "a/", "hardware", "a{b}"]
    {
        check(good, None);
    }
    for route in ROUTES.iter().filter(|route| route.path.len() > 1) {
        check(&route.path[1..], (!is_job(route)).then_some(route.path));
    }
    for bad in ["a?b", "a#b", "a%b", "%6detrics"] {
        check(bad, Some("?, # or %"));
    }
    for bad in ["/a", "a//b", "a/../metrics", "..", ".", "a/.", "/", "a//"] {
        check(bad, Some("between slashes"));
    }
}

#[test]
fn a_name_is_found_however_often_its_path_was_escaped() {
    let named = ["/a{b}", "/org/gpu", "/nyc"];
    let found = |path| find(&named, path);
    for path in ["/a{b}", "/a%7Bb%7d", "/a%257Bb%257D", "/%61{b}"] {
        assert_eq!(found(path), Some("/a{b}"), "{path}");
    }
    assert_eq!((found("/org%2Fgpu"), found("/nyc")), (Some("/org/gpu"), Some("/nyc")));
    for path in ["/a%25257Bb}", "/NYC", "/nyc/", "//nyc", "/../nyc", "/nyc%", "/nyc%2", "/%", "/metrics", ""] {
        assert_eq!(found(path), None, "{path}");
    }
    assert_eq!(find(&[], "/a%7Bb%7d"), None);
}
