//! Whatever comes from outside is read or refused: no reader panics, and what it lets through keeps its promises.
//! AGENT_NET_CASES sets how many inputs each property gets, for a long run.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::api::router::Router;
use crate::api::{job, page, parameters, text};
use crate::cli::check::render;
use crate::config::KeepAlive;
use crate::config::go;
use crate::config::url::HttpUrl;
use crate::gpu::sample::GpuSample;
use crate::gpu::xid::KernelLog;
use crate::gpu::{pci, wire};
use crate::health::uptime::{RECORD, Uptime};
use crate::http::refusal::error_body;
use crate::http::request::Request;
use crate::livepeer::runner;
use crate::ollama::models;
use crate::ollama::pull::Pull;
use crate::sys::text::one_line;
use crate::sys::{exposition, meminfo};

/// A change of good input.
#[derive(Debug, Clone)]
enum Edit {
    Put(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
    Cut,
}

fn edit() -> impl Strategy<Value = Edit> {
    // What parsers trip over.
    let odd = prop::sample::select(vec![
        "\0",
        "\"",
        "\\",
        "\\u0000",
        "\\ud800",
        "{",
        "}",
        "[",
        "]",
        "null",
        "-1",
        "1e999",
        "18446744073709551616",
        "\r\n",
        "%",
        "=",
        ";",
        ",",
        "\u{202e}",
        "\u{feff}",
        "é",
    ]);
    prop_oneof![
        any::<u8>().prop_map(Edit::Put),
        odd.prop_map(|text| Edit::Insert(text.as_bytes().to_vec())),
        (1..20_usize).prop_map(Edit::Remove),
        (1..200_usize).prop_map(Edit::Repeat),
        Just(Edit::Cut),
    ]
}

fn apply(mut bytes: Vec<u8>, edits: Vec<(Index, Edit)>) -> Vec<u8> {
    for (place, edit) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = place.index(bytes.len());
        match edit {
            Edit::Put(byte) => bytes[at] = byte,
            Edit::Insert(more) => drop(bytes.splice(at..at, more)),
            Edit::Remove(count) => drop(bytes.drain(at..(at + count).min(bytes.len()))),
            Edit::Repeat(count) => {
                let part = bytes[at..(at + count).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, part));
            }
            Edit::Cut => bytes.truncate(at),
        }
    }
    bytes
}

/// One of `good` with a few changes, or anything.
pub(crate) fn outside(good: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let changed = (prop::sample::select(good), prop::collection::vec((any::<Index>(), edit()), 0..5))
        .prop_map(|(text, edits)| apply(text.as_bytes().to_vec(), edits));
    prop_oneof![4 => changed, 1 => prop::collection::vec(any::<u8>(), 0..300)]
}

fn outside_text(good: &'static [&'static str]) -> impl Strategy<Value = String> {
    outside(good).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What a shell makes of a word; None: part of it would be more than text.
fn unquoted(word: &str) -> Option<String> {
    let (mut out, mut chars) = (String::new(), word.chars());
    while let Some(c) = chars.next() {
        match c {
            '\'' => loop {
                match chars.next()? {
                    '\'' => break,
                    inside => out.push(inside),
                }
            },
            '\\' => out.push(chars.next()?),
            _ => return None,
        }
    }
    Some(out)
}

const JOBS: &[&str] = &[r#"{"agent_id":"demo-agent"}"#, r#"{"agent_id":"a","more":[1,{"x":null}]}"#, r#"["agent_id"]"#];
const LISTS: &[&str] = &[
    r#"{"models":[{"name":"a:1","model":"a:1","size":9,"digest":"d","details":{"families":null},"size_vram":3,"expires_at":"2319-03-05T01:02:03.5Z"}]}"#,
    r#"{"models":null}"#,
    r#"{"version":"0.32.15"}"#,
];
const PULLS: &[&str] = &[
    "{\"status\":\"pulling manifest\"}\n{\"status\":\"pulling aa\",\"digest\":\"sha256:aa\",\"total\":100,\"completed\":7}\n{\"status\":\"success\"}\n",
    "{\"error\":\"pull model manifest: file does not exist\"}\n",
];
const TARGETS: &[&str] =
    &["/gpu-check", "/gpu?format=text", "/uptime?window=24h&step=1h", "/", "/metrics", "/agents", "http://h/x"];
const LINES: &[&str] = &[
    r#"{"id":1,"answer":{"Ok":{"driver_version":"570","gpus":[{"index":0,"uuid":"GPU-1","temperature_c":41,"fan_percent":[1]}],"read_us":9}}}"#,
    r#"{"id":1,"answer":{"Err":{"kind":"lib_mismatch","detail":"x"}}}"#,
    r#"{"protocol":4,"version":"0.2.0"}"#,
];
const RECORDS: &[&str] = &[
    "4,1,100,-;NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus.",
    "6,2,200,-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.14",
    "3,9,5,-;NVRM: The NVIDIA GPU 0000:01:00.0",
];
const REPORTS: &[&str] = &[
    r#"{"gpu_count":1,"gpus":[{}],"total_models":1,"model_name":"m","health":{"verdict":"ok","reasons":[{"code":"X","severity":"ok","gpu":null,"message":"m","action":"a"}]},"source":"nvml"}"#,
    "verdict=ok\n",
];
const RUNNERS: &[&str] =
    &[r#"{"runner_id":"r","heartbeat_secret":"s","heartbeat_interval":"5s","heartbeat_ttl":"25s"}"#, "not found"];
const URLS: &[&str] = &["http://127.0.0.1:11434", "https://o.example:8935/base/", "http://[::1]:80", "http://u:p@h"];
const DURATIONS: &[&str] = &["15m", "1h30m0.5s", "-1", "90", "100µs"];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn jobs(body in outside(JOBS)) {
        match job::agent_id(Some(&body)) {
            Ok(id) => prop_assert!((1..=256).contains(&id.chars().count())),
            Err(bad) => {
                let code = bad.code.row().name;
                let answer: Value = serde_json::from_str(&error_body(code, &bad.message, 1.0)).unwrap();
                prop_assert_eq!(&answer["code"], code);
            }
        }
    }

    #[test]
    fn what_goes_into_a_header_stays_in_it(text in outside_text(JOBS)) {
        let ascii = crate::sys::json::ascii(&serde_json::to_string(&text).unwrap());
        prop_assert!(ascii.bytes().all(|b| (0x20..0x7f).contains(&b)));
        prop_assert_eq!(serde_json::from_str::<String>(&ascii).unwrap(), text);
    }

    #[test]
    fn requests(method in "[A-Z]{1,9}", target in outside_text(TARGETS), body in outside(JOBS), accept in outside_text(&["text/plain"]), token in outside_text(&["Bearer t", "Basic OnQ="]), proxied: bool) {
        let request = Request {
            method: &method,
            target: &target,
            accept: Some(&accept),
            authorization: Some(&token),
            payment: None,
            job: None,
            if_none_match: Some(&accept),
            proxied,
            gzip: proxied,
            late: false,
            waited: std::time::Duration::ZERO,
            surplus: false,
            body: Some(&body),
        };
        let wanted = exposition::wants_open(Some(&accept));
        prop_assert!(!wanted || accept.contains("openmetrics"));
        let router = Router::new(&["agent-net-nyc".into()], "/base", Some("t".into()));
        if let Err(refusal) = router.find(&request).route {
            prop_assert!((400..=599).contains(&refusal.code.row().status));
        }
        let _ = (parameters::wants_text(&request), parameters::uptime(&request), page::reply(request.if_none_match));
        let stranger = router.find(&Request { authorization: None, ..request }).route;
        prop_assert!(stranger.is_err() || target.starts_with("/health"), "{:?}", stranger);
    }

    #[test]
    fn model_lists(tags in outside(LISTS), ps in outside(LISTS), name in outside_text(&["a:1", "library/a:1"])) {
        let _ = models::parse_version(&tags);
        let lists = [&tags, &ps].map(|list| models::parse_list(list).unwrap_or_default());
        let joined = models::join(&lists[0], &lists[1]);
        prop_assert!(joined.iter().all(|model| !model.name.is_empty() && (model.pulled || model.loaded.is_some())));
        prop_assert!(joined.iter().filter_map(|model| model.loaded?.on_gpu_percent()).all(|percent| percent <= 100));
        models::status_of(&joined, &name);
    }

    #[test]
    fn pulls(stream in outside(PULLS), step in 0..5000_u64) {
        let mut pull = Pull::default();
        let mut shown = 0;
        for (at, line) in (0..).zip(stream.split(|b| *b == b'\n')) {
            pull.line(line, Duration::from_millis(at * step));
            let progress = pull.progress();
            prop_assert!(progress.percent >= shown && progress.percent <= 100 && progress.completed <= progress.total);
            prop_assert!(!progress.status.contains('\n'));
            shown = progress.percent;
        }
        prop_assert!(pull.finish().is_err() || shown == 100);
    }

    #[test]
    fn lines_of_the_helper(line in outside_text(LINES)) {
        let _ = wire::parse::<wire::Hello>(&line);
        match wire::parse::<wire::Answer>(&line) {
            Ok(answer) => {
                let again = wire::line(&answer);
                prop_assert_eq!(wire::parse::<wire::Answer>(&again), Ok(answer));
            }
            Err(why) => prop_assert!(why.lines().count() <= 1 && why.len() < 1000, "{}", why),
        }
        let _ = wire::parse::<GpuSample>(&line);
    }

    #[test]
    fn records_of_the_kernel(records in prop::collection::vec(outside_text(RECORDS), 1..4)) {
        let mut log = KernelLog::default();
        for record in records {
            let _ = log.read(&record);
        }
    }

    #[test]
    fn files_of_the_machine(text in outside_text(&["MemTotal: 100 kB\nMemAvailable: 50 kB\n", "0000:01:00.0"])) {
        if let Some((total, free)) = meminfo::parse(&text) {
            prop_assert!(free <= total || text.contains("MemAvailable"));
        }
        if let Some(place) = pci::PciId::parse(&text) {
            prop_assert_eq!(pci::PciId::parse(&place.to_string()), Some(place));
        }
    }

    #[test]
    fn the_uptime_file(bytes in prop::collection::vec(any::<u8>(), 0..RECORD * 64), wall in any::<f64>()) {
        let mut uptime = Uptime::new();
        prop_assert!(uptime.load(&bytes) <= bytes.len() / RECORD);
        for window in uptime.windows(wall) {
            prop_assert!(window.percent().is_none_or(|percent| (0.0..=100.0).contains(&percent)));
        }
        let _ = uptime.history(wall, 60);
    }

    #[test]
    fn reports(report in outside_text(REPORTS)) {
        let _ = render::verdict_of_text(&report);
        if let Ok((_, text)) = render::summary(&report) {
            prop_assert!(text.ends_with('\n') && !text.contains('|'));
        }
    }

    #[test]
    fn answers_of_a_registry(status in 100..600_u16, body in outside_text(RUNNERS)) {
        let _ = runner::beat_answer(status, &body, None, None);
    }

    #[test]
    fn addresses(text in outside_text(URLS)) {
        if let Ok(url) = HttpUrl::parse(&text) {
            let again = HttpUrl::parse(url.as_str()).unwrap();
            prop_assert_eq!(again.as_str(), url.as_str());
            let host = url.as_str().split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
            prop_assert!(!host.is_empty() && !host.contains('@'), "{}", host);
        }
    }

    #[test]
    fn durations(text in outside_text(DURATIONS)) {
        let _ = go::duration(&text);
        if let Some(keep) = KeepAlive::parse(&text) {
            prop_assert!(keep.time.is_none_or(|time| time >= Duration::from_secs(10)));
            prop_assert!(keep.json.is_number() || keep.json == Value::String(text));
        }
    }

    #[test]
    fn lines_for_a_shell(text in outside_text(&["codellama:34b", "it's $(reboot)"])) {
        let mut lines = text::Lines::default();
        lines.quote("name", &text);
        let line = lines.done();
        prop_assert_eq!(line.lines().count(), 1);
        let shell = unquoted(line.trim_end_matches('\n').strip_prefix("name=").unwrap());
        prop_assert_eq!(shell, Some(one_line(&text)), "{}", line);
    }
}

/// Cases of each property: AGENT_NET_CASES, for a long run.
pub(crate) fn config() -> ProptestConfig {
    let cases = std::env::var("AGENT_NET_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}
