//! The table of routes agrees with itself and with the reference.

use super::*;

#[test]
fn the_reference_lists_every_route() {
    let rows = listed().map(|route| {
        let query = route.parameters.iter().map(|p| format!(" `{}`", p.form()));
        let details = if route.details.is_empty() { String::new() } else { format!(". {}", route.details) };
        let text = format!("{}{details}{}", route.summary, query.collect::<String>());
        vec![route.method.to_owned(), format!("`{}`", route.path), route.access.users().to_owned(), text]
    });
    let name = [
        "POST",
        "`/NAME`",
        Access::Jobs.users(),
        "The same as POST /gpu-check, for each name of CAPABILITY_NAME. Jobs of Livepeer's Python SDK arrive here.",
    ];
    let rows = rows.chain([name.map(str::to_owned).to_vec()]);
    let text = crate::tables::markdown(&["method", "path", "access", "response"], rows);
    crate::tables::table("src/reference.md", "routes", &text);
}

#[test]
fn a_route_stands_once_and_says_what_it_answers() {
    let mut names: Vec<String> = listed().map(|route| format!("{} {}", route.method, route.path)).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "a method and path stand twice");
    for route in ROUTES {
        assert!(route.path.starts_with('/') && ["GET", "POST"].contains(&route.method), "{route:?}");
        assert_eq!(route.method == "POST", route.access == Access::Jobs, "{route:?}");
    }
    for route in listed() {
        assert!(!route.summary.is_empty() && !route.summary.ends_with('.'), "{route:?}");
        assert!(!route.answers.is_empty(), "{route:?}");
        assert!(["jobs", "state", "operation"].contains(&route.tag), "{route:?}");
    }
}

#[test]
fn routes_are_explained_by_their_path() {
    let uptime = find("/UPTIME").unwrap();
    let [("GET", text)] = &uptime.fields[..] else { panic!("{uptime:?}") };
    for part in [
        "Uptime of the GPUs over 1h, 24h and 30d, and the minutes of one window. Access: token (state).",
        " ?window=1h|24h|30d, the first by default: The window whose minutes are listed. ",
        " 200 application/json Uptime: The windows, and the steps of one of them. ",
        " Errors: bad_window, bad_step, bad_request,",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let methods: Vec<&str> = find("/").unwrap().fields.iter().map(|(method, _)| *method).collect();
    assert_eq!((uptime.name, methods), ("/uptime", vec!["GET", "POST"]));
    assert!(find("/nope").is_none() && paths().iter().filter(|path| **path == "/").count() == 1);
}

#[test]
fn probes_are_known_by_the_end_of_their_path() {
    for target in ["/health", "/ready", "/ready?model=a", "/below/ready"] {
        assert!(is_probe(target), "{target}");
    }
    for target in ["/", "/metrics", "/gpu?x=/health", "/health/x", "*"] {
        assert!(!is_probe(target), "{target}");
    }
}
