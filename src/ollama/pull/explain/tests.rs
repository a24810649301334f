use super::*;

/// A signed address as Ollama's registry hands it out; the digest holds `401` and `403`.
const SIGNED: &str = "https://dd20bb891979d25aebc8bec07b2b3bbc.r2.cloudflarestorage.com/ollama/docker/registry/v2/blobs/sha256/26/2609401d349e7c70196403be59bea7eb89a968d4642e409b0e798b34403b96c8/data?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=66040c77ac1b787c3af820529859349a%2F20250518%2Fauto%2Fs3%2Faws4_request&X-Amz-Date=20250518T160802Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=de2b516c7a37d24bf292eda5ec61b4d6b1c3d3672d81e44f7e6e7145fa12431d";
const HASH: &str = "sha256:c09741aa401cfe5f8d0cb94c21754da6e655bafb1d492c471e0aae61b55d37f";

#[track_caller]
fn check(error: &str, cause: PullCause, parts: &[&str]) {
    let explained = explain(error);
    assert_eq!(explained.cause, cause, "{explained:?}");
    for part in parts {
        assert!(explained.why.contains(part), "{part:?} is not in {explained:?}");
    }
    assert!(explained.why.chars().count() < 600 && !explained.why.contains('\n'), "{explained:?}");
    for secret in ["X-Amz", "66040c77", "de2b516c"] {
        assert!(!explained.why.contains(secret), "{explained:?}");
    }
}

/// Texts of ollama#10766, #9102, #8231, #6211, #8533, #8167, #4520, #10151 and #8868.
#[test]
fn the_cause_behind_a_long_url_is_found() {
    let get = |end: &str| format!("max retries exceeded: Get \"{SIGNED}\": {end}");
    let host = "https://dd20bb891979d25aebc8bec07b2b3bbc.r2.cloudflarestorage.com/…/data\": ";
    check(
        &get("dial tcp: lookup dd20bb891979d25aebc8bec07b2b3bbc.r2.cloudflarestorage.com: no such host"),
        PullCause::Other,
        &["cannot resolve the registry's name", host, "no such host)"],
    );
    check(&get("dial tcp: lookup x.com on 127.0.0.53:53: server misbehaving"), PullCause::Other, &["DNS", host]);
    check(
        &get("dial tcp: lookup x.com on 10.0.0.2:53: read udp 10.0.0.9:41212->10.0.0.2:53: i/o timeout"),
        PullCause::Other,
        &["DNS"],
    );
    check(&get("net/http: TLS handshake timeout"), PullCause::Cut, &["in time", host]);
    check(&get("dial tcp 172.67.182.229:443: i/o timeout"), PullCause::Cut, &["in time", "172.67.182.229:443"]);
    check(
        &get("read tcp 172.17.0.2:51234->104.18.9.90:443: read: connection reset by peer"),
        PullCause::Cut,
        &["was cut"],
    );
    check(&get("EOF"), PullCause::Cut, &["was cut", host]);
    check("max retries exceeded: EOF", PullCause::Cut, &["was cut", "(max retries exceeded: EOF)"]);
    check("max retries exceeded: unexpected EOF", PullCause::Cut, &["was cut"]);
    check(&get("dial tcp 10.0.0.1:443: connect: no route to host"), PullCause::Other, &["cannot reach"]);
    check(&get("something new"), PullCause::Other, &["max retries exceeded: Get \"https://dd20", "\": something new"]);
}

#[test]
fn a_status_is_known_as_a_status() {
    let refused = "denies Ollama this model";
    check(r#"pull model manifest: 401: {"error":"unauthorized"}"#, PullCause::Other, &[refused]);
    check("max retries exceeded: unexpected status code 403", PullCause::Other, &[refused]);
    check("pull model manifest: 429: slow down", PullCause::Other, &["rate limit is reached"]);
    check(r#"pull model manifest: 500: {"errors":[{"code":"UNKNOWN"}]}"#, PullCause::Other, &["an internal error"]);
    check("503: upstream", PullCause::Other, &["an internal error"]);
    check("pull model manifest: 412: {\"errors\":[]}", PullCause::Other, &["newer Ollama"]);
    for no_status in [
        format!("max retries exceeded: Get \"{SIGNED}\": odd"),
        format!("{HASH} is odd"),
        "odd: 127.0.0.1:403: odd".into(),
        "part 401 of 16 404 MB is odd".into(),
        "odd 401000: x".into(),
    ] {
        let why = explain(&no_status).why;
        assert!(why.contains("odd") && !why.contains("denies") && !why.contains("does not have this model"), "{why}");
    }
}

#[test]
fn each_cause_has_its_action() {
    check(
        &format!("digest mismatch, file must be downloaded again: want {HASH}, got {HASH}"),
        PullCause::WrongBytes,
        &["the download is corrupted by a proxy, or by the disk or RAM", "want sha256:"],
    );
    let manifest =
        |end: &str| format!("pull model manifest: Get \"https://10.0.0.5:5000/v2/library/m/manifests/1\": {end}");
    check(&manifest("tls: first record does not look like a TLS handshake"), PullCause::Other, &["\"insecure\": true"]);
    check(&manifest("http: server gave HTTP response to HTTPS client"), PullCause::Other, &["\"insecure\": true"]);
    let x509 = "tls: failed to verify certificate: x509: certificate";
    check(&manifest(&format!("{x509} signed by unknown authority")), PullCause::Other, &["inspects TLS"]);
    check(
        &manifest(&format!("{x509} has expired or is not yet valid: current time")),
        PullCause::Other,
        &["the clock"],
    );
    check(
        r#"realm host "evil.example" does not match original host "registry.ollama.ai""#,
        PullCause::Other,
        &["realm"],
    );
    check(
        "open /root/.ollama/models/blobs/sha256-26-partial: read-only file system",
        PullCause::Other,
        &["is read-only. Mount it"],
    );
    check("mkdir /models/blobs: permission denied", PullCause::Other, &["may not write"]);
    check("write /x: no space left on device", PullCause::Other, &["disk is full"]);
    check("pull model manifest: file does not exist", PullCause::Other, &["does not have this model"]);
    check("file does not exist", PullCause::Other, &["lacks a part"]);
    check("http: no Location header in response", PullCause::Other, &["redirect downloads"]);
    check("dial tcp 127.0.0.1:1: connect: connection refused", PullCause::Other, &["cannot reach"]);
    check("proxyconnect tcp: dial tcp 10.1.1.1:3128: i/o timeout", PullCause::Other, &["HTTPS_PROXY"]);
}

/// Texts of ollama#8516, #10412, #8290, #6920, #12660, #15728, #8769 and #2763.
#[test]
fn what_is_wrong_with_ollamas_files_is_not_put_down_to_the_network() {
    let open = "pull model manifest: open /usr/share/ollama/.ollama/id_ed25519:";
    for key in [&format!("{open} permission denied"), &format!("{open} not a directory"), "ssh: no key found"] {
        check(key, PullCause::Other, &["cannot read its key"]);
    }
    for manifest in ["registry.ollama.ai/library/phi3:latest: EOF", "registry.ollama.ai/library/phi3:latest EOF", "EOF"]
    {
        check(manifest, PullCause::Other, &["cannot read the manifest"]);
    }
    let blob = format!("/root/.ollama/models/blobs/{HASH}-partial");
    for gone in [
        format!("remove {blob}-0: no such file or directory"),
        format!("rename {blob} /root/.ollama/models/blobs/{HASH}: no such file or directory"),
        "unexpected end of JSON input".into(),
    ] {
        check(&gone, PullCause::Other, &["gone or incomplete"]);
    }
    check(&format!("write {blob}: input/output error"), PullCause::Other, &["fails. Check dmesg"]);
}

/// Texts of ollama#6679, #4558, #2118, #6441, #13129 and #1002.
#[test]
fn what_a_proxy_says_in_the_registrys_place_is_known() {
    for page in [
        "pull model manifest: invalid character '<' looking for beginning of value",
        "Get \"?nonce=4Tzwhl8cqbwHyVbQ4jHiqw&scope=&service=&ts=1716299545\": unsupported protocol scheme \"\"",
    ] {
        check(page, PullCause::Other, &["in the registry's place"]);
    }
    for proxy in [
        "Get \"https://r.ai/v2/\": malformed HTTP response \"\\x15\\x03\"",
        "Get \"https://r.ai/v2/\": proxyconnect tcp: dial tcp: lookup socks5: no such host",
    ] {
        check(proxy, PullCause::Other, &["the proxy does not serve Ollama. Check HTTPS_PROXY"]);
    }
    let page = "pull model manifest: 500: <!DOCTYPE html>\n\n <html class=\"no-js\" lang=\"en-US\">\n<head>";
    check(page, PullCause::Other, &["an internal error", "(pull model manifest: 500)"]);
    check("max retries exceeded", PullCause::Cut, &["was cut"]);
    for realm in ["realm host \"a.example\" does not match original host \"r.example\"", "invalid realm"] {
        check(realm, PullCause::Other, &["sign-in to another host (realm)"]);
    }
}

#[test]
fn urls_are_short_and_hold_no_secret() {
    #[track_caller]
    fn short(text: &str, expect: &str) {
        assert_eq!(with_short_urls(text), expect);
    }
    short("Get \"https://r.ai/v2/library/m/manifests/1\": EOF", "Get \"https://r.ai/v2/library/m/manifests/1\": EOF");
    short("see https://u:p@r.ai/x?token=1#y, then http://h:5000: no", "see https://r.ai/x, then http://h:5000: no");
    short("http://", "http://");
    short("https://ä/ö\\n\\nhttps://?", "https://ä/ö\\n\\nhttps://");
    let long = format!("https://{}/a/{}", "h".repeat(90), "z".repeat(90));
    let shown = with_short_urls(&long);
    assert!(shown.chars().count() < 150 && shown.contains("/…/z") && shown.ends_with("zzz"), "{shown}");
}
