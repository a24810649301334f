//! Pulls that fail the same way again and again: what they cost, and what is said of them.

use crate::fake_ollama::{Answer, Step};
use crate::harness::{Worker, wait_for};
use crate::model_store::{GB, MODEL, becomes, empty, fails, keeps, layer, line, pulled, row};

const MISMATCH: &str = r#"{"error":"digest mismatch, file must be downloaded again: want sha256:8de95da68dc485c0889c205384c24642f83ca18d089559c977ffc6a3972a71a8, got sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;

/// ollama#941, #8769, #14554, #11831: Ollama throws away what came, and each retry loads all of it again.
#[test]
fn wrong_bytes_are_loaded_three_times_at_most() {
    let fake = empty();
    let whole = [layer("aa", 9 * GB, 0), layer("aa", 9 * GB, 9 * GB), line(MISMATCH)];
    fake.set("/api/pull", Answer::Stream(whole.to_vec()));
    let worker = keeps(&fake, &[("AGENT_NET_FAULT", "hurry:500")]);
    let row = fails(&worker, "downloaded 3 times, corrupted each time");
    let error = row["error"].as_str().unwrap();
    for part in ["24 h", &format!("agent-net pull {MODEL}"), "a proxy, or by the disk or RAM"] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    // Retries were five minutes apart at most before: hundreds of looks are hours.
    let looks = fake.requests("/api/ps");
    wait_for("more looks", || (fake.requests("/api/ps") > looks + 300).then_some(()));
    assert_eq!(fake.requests("/api/pull"), 3);
    // A restart of Ollama changes nothing of the cause.
    fake.set_once("/api/tags", Answer::HangUp);
    wait_for("more looks", || (fake.requests("/api/ps") > looks + 400).then_some(()));
    assert_eq!(fake.requests("/api/pull"), 3);
    fails(&worker, "corrupted each time");
    // The operator has found the cause and pulled it.
    fake.set("/api/tags", pulled(MODEL, "d"));
    becomes(&worker, "loaded");
    assert_eq!(fake.requests("/api/pull"), 3);
}

#[test]
fn a_registry_that_always_cuts_at_one_place_is_named() {
    let fake = empty();
    let cut = [
        layer("aa", 10 * GB, 0),
        layer("aa", 10 * GB, 42 * GB / 10),
        line(r#"{"error":"max retries exceeded: unexpected EOF"}"#),
    ];
    fake.set("/api/pull", Answer::Stream(cut.to_vec()));
    let worker = keeps(&fake, &[]);
    let row = fails(&worker, "interrupted 3 times at 42 %");
    assert!(row["error"].as_str().unwrap().contains("(max retries exceeded: unexpected EOF)"), "{row}");
    // An Ollama that ends itself is another matter.
    fake.set("/api/pull", Answer::Stream(vec![layer("aa", 10 * GB, 42 * GB / 10), Step::Cut]));
    wait_for("its own words", || (!row_error(&worker).contains("interrupted")).then_some(()));
}

fn row_error(worker: &Worker) -> String {
    row(worker)["error"].as_str().unwrap_or("interrupted").to_owned()
}

/// The text of ollama#10766: the cause stands behind a signed address, and digests can hold `401`.
#[test]
fn a_long_error_is_explained_by_its_end() {
    let fake = empty();
    let address = format!(
        "https://dd20bb891979d25aebc8bec07b2b3bbc.r2.cloudflarestorage.com/ollama/docker/registry/v2/blobs/sha256/26/2609048d349e7c70196401be59bea7eb89a968d4642e409b0e798b34403b96c8/data?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Signature={}",
        "66040c77ac1b787c3af820529859349a%2F20250518%2Fauto%2Fs3%2Faws4_request",
        "de2b516c".repeat(8)
    );
    let error =
        format!("max retries exceeded: Get \"{address}\": dial tcp: lookup r2.cloudflarestorage.com: no such host");
    let error = serde_json::json!({"error": error}).to_string();
    fake.set("/api/pull", Answer::Stream(vec![line(r#"{"status":"pulling manifest"}"#), line(&error)]));
    let worker = keeps(&fake, &[]);
    let row = fails(&worker, "Ollama cannot resolve the registry's name");
    let shown = row["error"].as_str().unwrap();
    assert!(shown.contains("r2.cloudflarestorage.com/…/data") && shown.ends_with("no such host)"), "{shown}");
    assert!(!shown.contains("X-Amz") && !worker.log().contains("X-Amz"), "{}", worker.log());
}
