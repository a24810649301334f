//! Where requests lead, or how they are refused.

use super::*;

fn router(token: Option<&str>) -> Router {
    Router::new(&["agent-net-nyc".into(), "gpu-check".into(), "a{b}".into()], "", token.map(str::to_owned))
}

/// What answers it: method, path and access of the route, or the status.
fn found(router: &Router, request: &Request<'_>) -> Result<(&'static str, &'static str, Access), u16> {
    let route = router.find(request).route.map_err(|refusal| refusal.code.row().status)?;
    Ok((route.method, route.path, route.access))
}

#[track_caller]
fn check(request: &Request<'_>, token: Option<&str>, expect: Result<(&str, &str, Access), u16>) {
    assert_eq!(found(&router(token), request), expect, "{request:?}");
}

fn ask<'a>(method: &'a str, target: &'a str) -> Request<'a> {
    Request { method, target, ..Request::default() }
}

#[test]
fn every_route_of_the_table_is_found() {
    for route in ROUTES {
        let request = Request { proxied: route.access == Access::Redirected, ..ask(route.method, route.path) };
        check(&request, None, Ok((route.method, route.path, route.access)));
        let query = format!("{}?x=1", route.path);
        check(&Request { target: &query, ..request }, None, Ok((route.method, route.path, route.access)));
        if route.method == "GET" {
            check(&Request { method: "HEAD", ..request }, None, Ok((route.method, route.path, route.access)));
        }
    }
}

#[test]
fn requests() {
    let job = |path| Ok(("POST", path, Access::Jobs));
    for (path, route) in [
        ("/gpu-check", "/gpu-check"),
        ("/agent-net?x=1", "/agent-net"),
        ("/", "/"),
        ("/?x=1", "/"),
        ("/agent-net-nyc", "/gpu-check"),
        ("/a{b}", "/gpu-check"),
        ("/a%7Bb%7D", "/gpu-check"),
        ("/a%257Bb%257D", "/gpu-check"),
    ] {
        check(&ask("POST", path), None, job(route));
        check(&Request { proxied: true, ..ask("POST", path) }, None, job(route));
    }
    check(&ask("GET", "/agent-net-nyc"), None, Err(405));
    check(&ask("GET", "/gpu-check"), None, Err(405));
    check(&ask("FOO", "/gpu"), None, Err(405));
    check(&ask("GET", "/"), None, Ok(("GET", "/", Access::Token)));
    for target in ["/gpu-check/", "//gpu-check", "/../gpu-check", "/gpu%2dcheck", "/GPU", "*", ""] {
        check(&ask("POST", target), None, Err(404));
    }
}

#[test]
fn unknown_clients_of_a_proxy_reach_the_job_routes_only() {
    let proxied = |method, target| Request { proxied: true, ..ask(method, target) };
    for route in ROUTES.iter().filter(|route| route.path != "/") {
        let expect = if route.access == Access::Jobs { Ok(("POST", route.path, Access::Jobs)) } else { Err(404) };
        check(&proxied(route.method, route.path), None, expect);
    }
    // A redirected job, which has lost its body: it gets the report without agent_id, not the page.
    check(&proxied("GET", "/"), None, Ok(("GET", "/", Access::Redirected)));
    check(&proxied("PUT", "/"), None, Err(405));
}

#[test]
fn the_token_is_required_everywhere_but_at_health() {
    let ask = |target, authorization| Request { authorization, ..ask("GET", target) };
    let token = Some("s3cret");
    for route in ROUTES {
        let request = Request { proxied: route.access == Access::Redirected, ..self::ask(route.method, route.path) };
        let open = (route.path == "/health").then_some((route.method, route.path, Access::Open));
        check(&request, token, open.ok_or(401));
    }
    check(&ask("/nope", None), token, Err(404));
    for bad in
        ["Bearer", "Bearer s3cre", "Bearer s3cret2", "s3cret", "Basic s3cret", "Basic OnMzY3JlCg==", "Token s3cret"]
    {
        check(&ask("/ready", Some(bad)), token, Err(401));
    }
    for good in ["Bearer s3cret", "bearer  s3cret ", "Basic OnMzY3JldA==", "Basic dXNlcjpzM2NyZXQ="] {
        check(&ask("/ready", Some(good)), token, Ok(("GET", "/ready", Access::Token)));
    }
}

#[test]
fn jobs_are_counted_by_the_name_of_their_route() {
    let router = router(None);
    let job = |method, target| router.find(&ask(method, target)).job_route;
    let redirected = Request { proxied: true, ..ask("GET", "/") };
    assert_eq!(router.find(&redirected).job_route, Some("/"));
    assert_eq!(router.find(&Request { proxied: true, ..ask("PUT", "/gpu") }).job_route, None);
    assert_eq!((job("PUT", "/"), job("GET", "/nope")), (None, None));
    assert_eq!(job("POST", "/agent-net?a=b"), Some("/agent-net"));
    assert_eq!((job("POST", "/gpu"), job("POST", "/gpu-check/"), job("GET", "/")), (None, None, None));
    assert_eq!((job("POST", "/"), job("GET", "/gpu-check")), (Some("/"), Some("/gpu-check")));
    assert_eq!((job("POST", "/agent-net-nyc"), job("POST", "/a%257Bb%7D")), (Some("/agent-net-nyc"), Some("/a{b}")));
}

#[test]
fn a_wrong_method_says_what_is_allowed() {
    #[track_caller]
    fn check(method: &str, target: &str, proxied: bool, allow: &str) {
        let refusal = Router::default().find(&Request { proxied, ..ask(method, target) }).route.unwrap_err();
        assert_eq!((refusal.code, refusal.header), (ErrorCode::MethodNotAllowed, Some(("Allow", allow.to_owned()))));
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
        let router = Router::new(&["nyc".into()], "/base/v1", None);
        let request = ask(method, target);
        (router.find(&request).job_route, found(&router, &request).map(|(.., access)| assert_eq!(access, Access::Jobs)))
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
        let router = Router::new(&["nyc".into()], "/base/v1", None);
        let redirected = Request { proxied: true, ..ask("GET", target) };
        assert_eq!(router.find(&redirected).job_route, Some("/"));
        assert_eq!(found(&router, &redirected), Ok(("GET", "/", Access::Redirected)));
    }
    assert_eq!(job("GET", "/base/v1/"), (Some("/"), Err(405)));
    // go-livepeer appends the health_url of a static runner to its runner_url, which is CAPABILITY_URL.
    let router = Router::new(&["nyc".into()], "/base/v1", None);
    let health = ask("GET", "/base/v1/ready?model=x");
    assert_eq!(found(&router, &health), Ok(("GET", "/ready", Access::Token)));
    assert_eq!(found(&router, &Request { proxied: true, ..health }), Err(404));
    // Nothing else is there.
    for path in
        ["/base/v1/gpu", "/base/v1/metrics", "/base/v1nyc", "/base/nyc", "/base/v1/base/v1/nyc", "/base/v1//nyc"]
    {
        assert_eq!((job("POST", path), job("GET", path)), ((None, Err(404)), (None, Err(404))), "{path}");
    }
}
