//! Medians, their limits, and files in any state.

use super::*;

fn key(digest: &str) -> SpeedKey {
    SpeedKey::new(digest, Some(4096), "GPU-1 580.95 0.33.0")
}

/// A model that was measured this often.
fn measured(speeds: &[f64]) -> Speeds {
    let mut all = Speeds::default();
    for speed in speeds {
        assert!(all.add(&key("a"), *speed, 100.0));
    }
    all
}

fn usual(all: &Speeds, digest: &str) -> Option<f64> {
    all.judgement(&key(digest)).usual
}

fn slow(all: &Speeds) -> Option<(f64, f64)> {
    all.judgement(&key("a")).slow
}

#[test]
fn the_usual_speed_is_the_best_median_of_five() {
    let mut all = measured(&[30.0, 32.0, 31.0, 33.0]);
    assert_eq!(usual(&all, "a"), None);
    all.add(&key("a"), 1.0, 0.0);
    assert_eq!(usual(&all, "a"), Some(31.0));
    // Two that are too fast to be true change nothing.
    let mut all = measured(&[30.0, 30.0, 30.0, 9000.0, 9000.0]);
    assert_eq!(usual(&all, "a"), Some(30.0));
    all.add(&key("a"), 20.0, 0.0);
    assert_eq!((usual(&all, "a"), slow(&all)), (Some(30.0), None));
    assert_eq!(usual(&measured(&[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]), "a"), Some(40.0));
}

#[test]
fn a_model_is_slow_below_half_of_its_usual_speed_and_until_it_is_at_sixty_percent() {
    let mut all = measured(&[100.0; 5]);
    let mut then = |speed: f64, times: usize| {
        (0..times).for_each(|_| assert!(all.add(&key("a"), speed, 0.0)));
        slow(&all)
    };
    // One or two slow probes are never a verdict.
    assert_eq!(then(1.0, 2), None);
    assert_eq!(then(50.0, 5), None);
    assert_eq!(then(49.9, 3), Some((49.9, 100.0)));
    assert_eq!(then(59.9, 5), Some((59.9, 100.0)));
    assert_eq!(then(60.0, 3), None);
    assert_eq!(then(50.0, 5), None);
    // Its usual speed does not follow it down.
    assert_eq!(then(10.0, 50), Some((10.0, 100.0)));
    assert_eq!(then(200.0, 3), None);
    assert_eq!(usual(&all, "a"), Some(200.0));
}

#[test]
fn each_model_context_and_machine_has_a_speed_of_its_own() {
    let all = measured(&[100.0; 5]);
    let others = [
        SpeedKey::new("b", Some(4096), "GPU-1 580.95 0.33.0"),
        SpeedKey::new("a", Some(8192), "GPU-1 580.95 0.33.0"),
        SpeedKey::new("a", None, "GPU-1 580.95 0.33.0"),
        SpeedKey::new("a", Some(4096), "GPU-1 580.95 0.34.0"),
    ];
    for other in others {
        let mut all = all.clone();
        (0..5).for_each(|_| assert!(all.add(&other, 10.0, 0.0)));
        assert_eq!(all.judgement(&other), Judgement { usual: Some(10.0), slow: None });
        assert_eq!(usual(&all, "a"), Some(100.0));
    }
}

#[test]
fn what_cannot_be_a_speed_does_not_count() {
    let mut all = measured(&[30.0; 4]);
    for speed in [0.0, -1.0, 1e6, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        assert!(!all.add(&key("a"), speed, 0.0), "{speed}");
    }
    assert!(!all.add(&key(""), 30.0, 0.0), "a model without a digest");
    assert_eq!(all, measured(&[30.0; 4]));
    assert!(all.add(&key("a"), 999_999.9, 0.0));
}

#[test]
fn keys_that_are_not_used_for_longest_are_dropped() {
    let mut all = measured(&[30.0; 5]);
    for other in 0..200 {
        all.add(&key(&format!("other-{other}")), 1.0, 0.0);
        if other == 50 {
            // Its turn is last again.
            all.add(&key("a"), 30.0, 0.0);
        }
    }
    assert_eq!((all.entries.len(), usual(&all, "a")), (MAX_KEYS, None));
    let mut all = measured(&[30.0; 5]);
    for other in 0..200 {
        all.add(&key(&format!("other-{other}")), 1.0, 0.0);
        all.add(&key("a"), 30.0, 0.0);
    }
    assert_eq!((all.entries.len(), usual(&all, "a")), (MAX_KEYS, Some(30.0)));
    // The largest file can be read.
    let long = |n: usize| SpeedKey::new(&format!("{n}{}", "\u{1F600}".repeat(999)), None, &"\u{1F600}".repeat(5000));
    (0..MAX_KEYS).for_each(|n| (0..6).for_each(|_| assert!(all.add(&long(n), 1.0 / 3.0, 1.0 / 3.0))));
    let text = all.to_text();
    assert!((text.len() as u64) < MAX_FILE, "{}", text.len());
    assert_eq!(Speeds::from_text(text.as_bytes()), (all, 0));
}

#[test]
fn the_last_five_count_on_after_a_restart() {
    let mut before = measured(&[100.0, 100.0, 100.0, 100.0, 100.0, 40.0, 40.0, 40.0]);
    let (mut after, damaged) = Speeds::from_text(before.to_text().as_bytes());
    assert_eq!((&after, damaged), (&before, 0));
    for speed in [55.0, 55.0, 55.0, 55.0, 60.0, 60.0, 60.0] {
        before.add(&key("a"), speed, 0.0);
        after.add(&key("a"), speed, 0.0);
        assert_eq!(slow(&after), slow(&before), "{speed}");
    }
    assert!(serde_json::from_str::<serde_json::Value>(&before.to_text()).unwrap().is_array());
    assert_eq!(Speeds::from_text(Speeds::default().to_text().as_bytes()), (Speeds::default(), 0));
}

/// A disk that was slow to be read.
#[test]
fn what_was_measured_before_the_file_was_read_comes_after_it() {
    let mut now = measured(&[10.0, 10.0, 10.0]);
    now.add(&key("new"), 5.0, 0.0);
    let mut file = measured(&[100.0; 5]);
    file.add(&key("old"), 7.0, 0.0);
    now.continue_from(file);
    assert_eq!(slow(&now), Some((10.0, 100.0)));
    assert_eq!(now.entries.iter().map(|entry| entry.key.digest.as_str()).collect::<Vec<_>>(), ["old", "a", "new"]);
    // A best median that its last five no longer show.
    let mut now = measured(&[200.0, 200.0, 200.0, 200.0, 200.0, 90.0, 90.0, 90.0]);
    now.continue_from(measured(&[100.0; 5]));
    assert_eq!(slow(&now), Some((90.0, 200.0)));
}

#[test]
fn a_bad_entry_costs_that_entry() {
    let entry = |digest: &str, rest: &str| {
        format!(r#"{{"key":{{"digest":"{digest}","context_length":4096,"identity":"GPU-1 580.95 0.33.0"}},{rest}}}"#)
    };
    let good = entry("a", r#""last":[30,31,32,33,34],"best":40,"slow":false,"at":1.5"#);
    let row = |bad: &str| {
        let text = format!("[\n{bad},\n{good},\n{bad}\n]\n");
        let (all, damaged) = Speeds::from_text(text.as_bytes());
        assert_eq!((usual(&all, "a"), all.entries.len(), damaged), (Some(40.0), 1, 2), "{bad}");
    };
    row(&entry("b", r#""last":[NaN],"best":null"#));
    row(&entry("b", r#""last":[1e999],"best":null"#));
    row(&entry("b", r#""last":[-1],"best":null"#));
    row(&entry("b", r#""last":[0],"best":null"#));
    row(&entry("b", r#""last":[30],"best":1000000"#));
    row(&entry("b", r#""last":["30"],"best":null"#));
    row(&entry("b", r#""last":30,"best":null"#));
    row(&entry("b", r#""last":[1,2,3,4,5,6],"best":null"#));
    row(&entry("b", r#""last":[1],"best":null,"slow":1"#));
    row(&entry("b", r#""best":null"#));
    row(&entry("", r#""last":[30],"best":null"#));
    row(&entry(&"b".repeat(129), r#""last":[30],"best":null"#));
    row(r#"{"key":{"digest":"b","context_length":-1,"identity":""},"last":[],"best":null}"#);
    row("null");
    row(&"[".repeat(9000));
    row(&good[..good.len() / 2]);
    row("\u{0}\u{0}\u{0}");
    let not_text = [b"\xff\xfe\n", good.as_bytes()].concat();
    assert_eq!(Speeds::from_text(&not_text).1, 1);
    assert_eq!(usual(&Speeds::from_text(&not_text).0, "a"), Some(40.0));
}

#[test]
fn an_entry_that_contradicts_itself_is_judged_again() {
    let read = |text: &str| Speeds::from_text(text.as_bytes()).0;
    let entry = |rest: &str| {
        read(&format!(r#"{{"key":{{"digest":"a","context_length":4096,"identity":"GPU-1 580.95 0.33.0"}},{rest}}}"#))
    };
    // A best that is below the median, and a verdict that the numbers do not bear.
    assert_eq!(usual(&entry(r#""last":[9,9,9,9,9],"best":1"#), "a"), Some(9.0));
    assert_eq!(slow(&entry(r#""last":[9,9,9,9,9],"best":9,"slow":true"#)), None);
    assert_eq!(slow(&entry(r#""last":[4,4,4,4,4],"best":9,"slow":false"#)), Some((4.0, 9.0)));
    let mut too_few = entry(r#""last":[5],"best":9,"slow":true"#);
    assert_eq!(slow(&too_few), None);
    (0..4).for_each(|_| assert!(too_few.add(&key("a"), 5.0, 0.0)));
    assert_eq!(slow(&too_few), None);
    // The later of two, and the last of too many.
    let one =
        r#"{"key":{"digest":"a","context_length":4096,"identity":"GPU-1 580.95 0.33.0"},"last":[1,1,1,1,1],"best":"#;
    assert_eq!(usual(&read(&format!("{one}7}}\n{one}8}}\n")), "a"), Some(8.0));
    let many: String = (0..100).map(|n| format!("{}\n", one.replace("\"a\"", &format!("\"{n}\"")) + "7}")).collect();
    let all = read(&many);
    assert_eq!((all.entries.len(), usual(&all, "99"), usual(&all, "35")), (MAX_KEYS, Some(7.0), None));
}
