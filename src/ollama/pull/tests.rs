use super::*;

const GB: u64 = 1_000_000_000;

fn layer(digest: &str, total: u64, completed: u64) -> String {
    let completed = if completed == 0 { String::new() } else { format!(r#","completed":{completed}"#) };
    format!(r#"{{"status":"pulling {digest}","digest":"sha256:{digest}","total":{total}{completed}}}"#)
}

fn status(status: &str) -> String {
    format!(r#"{{"status":"{status}"}}"#)
}

/// A pull of these lines, one each second.
fn pull(lines: &[String]) -> Pull {
    let mut pull = Pull::default();
    for (second, line) in (0..).zip(lines) {
        pull.line(line.as_bytes(), Duration::from_secs(second));
    }
    pull
}

#[test]
fn a_whole_pull() {
    let mut lines = vec![status("pulling manifest"), layer("aa", 10 * GB, 0), layer("aa", 10 * GB, GB)];
    let progress = pull(&lines).progress();
    assert_eq!((progress.percent, progress.completed, progress.total), (10, GB, 10 * GB));
    assert_eq!((progress.bytes_per_second, progress.eta_seconds), (Some(GB / 2), Some(18)));
    assert_eq!((progress.layer, progress.status.as_str()), (Some((1, 10)), ""));
    lines.extend([layer("aa", 10 * GB, 10 * GB), layer("bb", 200, 200), layer("cc", 12, 0)]);
    let progress = pull(&lines).progress();
    assert_eq!((progress.percent, progress.layer), (99, Some((3, 0))), "not done before it is");
    lines.extend([layer("cc", 12, 12), status("verifying sha256 digest"), status("writing manifest")]);
    assert!(pull(&lines).finish().unwrap_err().why.contains("ended the pull early"));
    lines.push(status("success"));
    let done = pull(&lines);
    assert_eq!((done.finish(), done.progress().percent, done.progress().layer), (Ok(()), 100, None));
}

#[test]
fn what_is_shown_never_goes_backwards() {
    let mut pull = Pull::default();
    let mut shown = (0, 0);
    let steps = [(4, 4), (6, 6), (5, 6), (3, 6), (6, 6), (7, 7), (10, 10)];
    for (second, (completed, expected)) in (0..).zip(steps) {
        pull.line(layer("aa", 10 * GB, completed * GB).as_bytes(), Duration::from_secs(second));
        let progress = pull.progress();
        assert_eq!(progress.completed, expected * GB, "{second}");
        assert!((progress.percent, progress.completed) >= shown);
        assert!(progress.eta_seconds.is_none_or(|eta| eta < 100), "{progress:?}");
        shown = (progress.percent, progress.completed);
    }
    // A new layer.
    pull.line(layer("bb", 10 * GB, 0).as_bytes(), Duration::from_secs(20));
    let progress = pull.progress();
    assert_eq!((progress.percent, progress.total, progress.completed), (99, 20 * GB, 10 * GB));
    // A first layer of a few bytes says nothing of the whole.
    let mut small = Pull::default();
    small.line(layer("aa", 12, 12).as_bytes(), Duration::ZERO);
    assert_eq!(small.progress().percent, 0);
}

#[test]
fn bytes_of_an_earlier_pull_do_not_count_as_speed() {
    let lines =
        [layer("aa", 10 * GB, 6 * GB), layer("aa", 10 * GB, 6 * GB + GB / 10), layer("aa", 10 * GB, 6 * GB + GB / 5)];
    let progress = pull(&lines).progress();
    assert_eq!((progress.percent, progress.bytes_per_second, progress.eta_seconds), (62, Some(GB / 10), Some(38)));
    // Nothing comes: no rate is not a rate of what came long ago.
    let mut stalled = pull(&lines);
    for second in 10..40 {
        stalled.line(lines[2].as_bytes(), Duration::from_secs(second));
    }
    assert_eq!((stalled.progress().bytes_per_second, stalled.progress().eta_seconds), (Some(0), None));
}

#[test]
fn an_error_decides_and_comes_with_an_action() {
    for (lines, part) in [
        (vec![r#"{"error":"pull model manifest: file does not exist"}"#], "does not have this model"),
        (vec![r#"{"error":"write /x: no space left on device"}"#, r#"{"status":"success"}"#], "disk is full"),
        (vec![r#"{"status":"success"}"#, r#"{"error":"odd\nthing"}"#], "odd thing"),
        (vec!["<html>"], "not a line of a pull"),
        (vec![r#"{"status":7}"#], "not a line of a pull"),
        (vec!["", "  "], "ended the pull early"),
        (vec![], "ended the pull early"),
        (vec![r#"{"error":"pull model manifest: 412: requires a newer version of Ollama."}"#], "newer Ollama"),
        (vec![r#"{"error":"dial tcp: lookup registry.ollama.ai: no such host"}"#], "Check DNS"),
    ] {
        let lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
        let why = pull(&lines).finish().unwrap_err().why;
        assert!(why.contains(part) && !why.contains('\n'), "{lines:?}: {why}");
    }
}

#[test]
fn an_excess_of_one_layer_does_not_count_for_others() {
    let progress = pull(&[layer("aa", GB, 9 * GB), layer("bb", GB, 0)]).progress();
    assert_eq!((progress.completed, progress.total), (GB, 2 * GB));
}

#[test]
fn absurd_numbers_are_bounded() {
    let long: Vec<String> = (0..100).map(|n| layer(&format!("{n:060000}"), GB, 1)).collect();
    assert_eq!(pull(&long).layers.len(), 0, "a thousand digests of 60 kB would fill the container");
    let mut pull = Pull::default();
    for number in 0..3000_u64 {
        pull.line(layer(&number.to_string(), u64::MAX, u64::MAX).as_bytes(), Duration::from_secs(number % 7));
        pull.line(layer(&number.to_string(), 5, u64::MAX).as_bytes(), Duration::ZERO);
    }
    assert_eq!(pull.layers.len(), MAX_LAYERS);
    assert!(pull.window.len() <= 61, "{}", pull.window.len());
    let long = format!(r#"{{"status":"{}"}}"#, "x".repeat(10_000));
    pull.line(long.as_bytes(), Duration::from_secs(5));
    assert_eq!(pull.progress().status.len(), MAX_TEXT);
}

#[test]
fn progress_in_words() {
    assert_eq!(
        (bytes(999), bytes(1_500_000), bytes(14_200_000_000)),
        ("1.0 kB".into(), "1.5 MB".into(), "14.2 GB".into())
    );
    assert_eq!((time(59), time(61), time(7325)), ("59 s".into(), "1 min 1 s".into(), "2 h 2 min".into()));
}
