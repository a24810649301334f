//! Requests in rows: what each asks for, or how it is refused.

use super::*;

#[track_caller]
fn check(request: &Request<'_>, token: Option<&str>, expect: &Result<Job, u16>) {
    let routes =
        Routes::new(&["agent-net-nyc".into(), "gpu-check".into(), "a{b}".into()], "", token.map(str::to_owned));
    assert_eq!(&routes.parse(request).map_err(|r| r.status), expect, "{request:?}");
}

#[test]
fn requests() {
    let job = |method, target, body| Request { method, target, body, ..Request::default() };
    let good: Option<&[u8]> = Some(b"{\"agent_id\":\"a\"}");
    let report = || Ok(Job::Report { agent_id: "a".into(), tickets: None });
    check(&job("POST", "/gpu-check", good), None, &report());
    check(&job("POST", "/agent-net?x=1", good), None, &report());
    for path in ["/", "/?x=1", "/agent-net-nyc", "/a{b}", "/a%7Bb%7D", "/a%257Bb%257D"] {
        check(&job("POST", path, good), None, &report());
        let stranger = Request { proxied: true, ..job("POST", path, good) };
        check(&stranger, None, &report());
    }
    check(&job("GET", "/agent-net-nyc", good), None, &Err(405));
    check(&job("GET", "/", None), None, &Ok(Job::Page { known: false }));
    check(&job("POST", "/gpu-check", None), None, &Err(413));
    check(&job("POST", "/gpu-check", Some(b"{}")), None, &Err(400));
    check(&job("GET", "/gpu-check", good), None, &Err(405));
    check(&job("FOO", "/gpu", good), None, &Err(405));
    check(&job("HEAD", "/gpu", Some(b"")), None, &Ok(Job::Gpu { text: false }));
    check(&job("GET", "/gpu?format=text", None), None, &Ok(Job::Gpu { text: true }));
    check(&job("GET", "/gpu?a=b&format=json", None), None, &Ok(Job::Gpu { text: false }));
    check(&job("GET", "/gpu?format=xml", None), None, &Err(400));
    check(&job("GET", "/openapi.json", None), None, &Ok(Job::OpenApi));
    check(&job("GET", "/ready", None), None, &Ok(Job::Ready));
    for target in ["/gpu-check/", "//gpu-check", "/../gpu-check", "/gpu%2dcheck", "/GPU", "*", ""] {
        check(&job("POST", target, good), None, &Err(404));
    }
    for (accept, text) in [("text/plain", true), ("*/*", false), ("application/json, text/plain, */*", false)] {
        let request = Request { accept: Some(accept), ..job("GET", "/gpu", None) };
        check(&request, None, &Ok(Job::Gpu { text }));
    }
}

#[test]
fn uptime_and_metrics() {
    let get = |target| Request { method: "GET", target, ..Request::default() };
    let hour = Job::Uptime { window: "1h", minutes: 60, step: 1 };
    check(&get("/uptime"), None, &Ok(Job::Uptime { window: "1h", minutes: 60, step: 1 }));
    check(&get("/uptime?x=1&window=1h"), None, &Ok(hour));
    check(&get("/uptime?window=30d"), None, &Ok(Job::Uptime { window: "30d", minutes: 43_200, step: 1 }));
    check(&get("/uptime?step=1d&window=30d"), None, &Ok(Job::Uptime { window: "30d", minutes: 43_200, step: 1440 }));
    check(&get("/uptime?step=2d"), None, &Err(400));
    check(&get("/uptime?window=2h"), None, &Err(400));
    check(&get("/metrics"), None, &Ok(Job::Metrics { open: false }));
    let open = Request { accept: Some("application/openmetrics-text;version=1.0.0"), ..get("/metrics") };
    check(&open, None, &Ok(Job::Metrics { open: true }));
}

#[test]
fn strangers_reach_the_job_routes_only() {
    let stranger = |method, target| Request { method, target, proxied: true, body: Some(b"{}"), ..Request::default() };
    check(&stranger("POST", "/gpu-check"), None, &Err(400));
    for target in [
        "/gpu",
        "/models",
        "/version",
        "/hardware/info",
        "/history",
        "/hardware/stats",
        "/capabilities",
        "/openapi.json",
        "/uptime",
        "/agents",
        "/metrics",
        "/health",
        "/ready",
    ] {
        check(&stranger("GET", target), None, &Err(404));
    }
    // A redirected job, which has lost its body: it gets the report without agent_id, not the page.
    check(&stranger("GET", "/"), None, &Ok(Job::Gpu { text: false }));
    check(&stranger("PUT", "/"), None, &Err(405));
}

#[test]
fn the_token_is_asked_for_everywhere_but_at_health() {
    let ask = |target, authorization| Request { method: "GET", target, authorization, ..Request::default() };
    let token = Some("s3cret");
    check(&ask("/health", None), token, &Ok(Job::Health));
    check(&ask("/nope", None), token, &Err(404));
    for bad in
        ["Bearer", "Bearer s3cre", "Bearer s3cret2", "s3cret", "Basic s3cret", "Basic OnMzY3JlCg==", "Token s3cret"]
    {
        check(&ask("/ready", Some(bad)), token, &Err(401));
    }
    for good in ["Bearer s3cret", "bearer  s3cret ", "Basic OnMzY3JldA==", "Basic dXNlcjpzM2NyZXQ="] {
        check(&ask("/ready", Some(good)), token, &Ok(Job::Ready));
    }
}

#[test]
fn jobs_are_counted_by_the_name_of_their_route() {
    let routes = Routes::new(&["agent-net-nyc".into(), "gpu-check".into(), "a{b}".into()], "", None);
    let job = |method, target| routes.job_route(&Request { method, target, ..Request::default() });
    let redirected = Request { method: "GET", target: "/", proxied: true, ..Request::default() };
    assert_eq!(routes.job_route(&redirected), Some("/"));
    assert_eq!(job("POST", "/agent-net?a=b"), Some("/agent-net"));
    assert_eq!((job("POST", "/gpu"), job("POST", "/gpu-check/"), job("GET", "/")), (None, None, None));
    assert_eq!((job("POST", "/"), job("GET", "/gpu-check")), (Some("/"), Some("/gpu-check")));
    assert_eq!((job("POST", "/agent-net-nyc"), job("POST", "/a%257Bb%7D")), (Some("/agent-net-nyc"), Some("/a{b}")));
}

#[test]
fn a_wrong_method_says_what_is_allowed() {
    #[track_caller]
    fn check(method: &str, target: &str, proxied: bool, allow: &str) {
        let refusal = Routes::default().parse(&Request { method, target, proxied, ..Request::default() }).unwrap_err();
        assert_eq!((refusal.code, refusal.header), ("method_not_allowed", Some(("Allow", allow.to_owned()))));
    }
    check("PUT", "/", false, "GET, HEAD, POST");
    check("OPTIONS", "/", false, "GET, HEAD, POST");
    check("PUT", "/", true, "GET, HEAD, POST");
    check("GET", "/gpu-check", true, "POST");
    check("GET", "/agent-net", false, "POST");
    check("POST", "/gpu", false, "GET, HEAD");
}

#[test]
fn jobs_may_come_below_the_path_of_capability_url() {
    fn job(method: &str, target: &str) -> (Option<&'static str>, Result<(), u16>) {
        let routes = Routes::new(&["nyc".into()], "/base/v1", None);
        let request = Request { method, target, body: Some(b"{\"agent_id\":\"a\"}"), ..Request::default() };
        (routes.job_route(&request), routes.parse(&request).map(|_| ()).map_err(|refusal| refusal.status))
    }
    for below in ["", "/base/v1"] {
        assert_eq!(job("POST", &format!("{below}/nyc?x=1")), (Some("/nyc"), Ok(())));
        assert_eq!(job("POST", &format!("{below}/gpu-check")), (Some("/gpu-check"), Ok(())));
        assert_eq!(job("POST", &format!("{below}/")), (Some("/"), Ok(())));
    }
    assert_eq!(job("POST", "/base/v1"), (Some("/"), Ok(())));
    assert_eq!(job("GET", "/base/v1/nyc"), (Some("/nyc"), Err(405)));
    // What a POST to a runner's own URL becomes.
    for target in ["/", "/base/v1/", "/base/v1"] {
        let routes = Routes::new(&["nyc".into()], "/base/v1", None);
        let redirected = Request { method: "GET", target, proxied: true, ..Request::default() };
        assert_eq!(
            (routes.job_route(&redirected), routes.parse(&redirected)),
            (Some("/"), Ok(Job::Gpu { text: false }))
        );
    }
    assert_eq!(job("GET", "/base/v1/"), (Some("/"), Err(405)));
    // Nothing but jobs is there.
    for path in
        ["/base/v1/gpu", "/base/v1/metrics", "/base/v1nyc", "/base/nyc", "/base/v1/base/v1/nyc", "/base/v1//nyc"]
    {
        assert_eq!((job("POST", path), job("GET", path)), ((None, Err(404)), (None, Err(404))), "{path}");
    }
}
