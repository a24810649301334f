//! The uptime: what GET /uptime says of it, and what becomes of its file.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::doctor::pipe;
use crate::fake_ollama::FakeOllama;
use crate::gpus::is_ok;
use crate::harness::{SmallDisk, Worker, codes, folder, verdict, wait_for};
use crate::nvml::FakeNvml;

const MINUTES: u64 = 30 * 24 * 60;
const MAGIC: &[u8; 8] = b"AGNTUP1\n";

fn minute_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60
}

/// CRC-16/IBM-3740, bit by bit.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 })
    })
}

/// A file with these minutes: number since 1970, seconds up, seconds down.
fn file_of(minutes: &[(u64, u8, u8)]) -> Vec<u8> {
    let mut file = vec![0; 8 * (MINUTES as usize + 1)];
    file[..8].copy_from_slice(MAGIC);
    for (minute, up, down) in minutes {
        let at = 8 * ((minute % MINUTES) as usize + 1);
        file[at..at + 4].copy_from_slice(&u32::try_from(*minute).unwrap().to_le_bytes());
        (file[at + 4], file[at + 5]) = (*up, *down);
        let check = crc(&file[at..at + 6]).to_le_bytes();
        file[at + 6..at + 8].copy_from_slice(&check);
    }
    file
}

/// The sound minutes of a file.
fn minutes_of(file: &[u8]) -> Vec<(u64, u8, u8)> {
    let records = file[8..].chunks_exact(8).filter(|r| **r != [0; 8]);
    let sound = records.filter(|r| crc(&r[..6]).to_le_bytes() == r[6..8]);
    sound.map(|r| (u64::from(u32::from_le_bytes([r[0], r[1], r[2], r[3]])), r[4], r[5])).collect()
}

/// Good minutes from `from` to `to` minutes ago, both included.
fn good(from: u64, to: u64) -> Vec<(u64, u8, u8)> {
    let now = minute_now();
    (to..=from).rev().map(|ago| (now - ago, 60, 0)).collect()
}

/// A worker that is well, with its state in `dir`.
struct Scene {
    ollama: FakeOllama,
    nvml: FakeNvml,
    dir: PathBuf,
}

impl Scene {
    fn new(name: &str, minutes: &[(u64, u8, u8)]) -> Self {
        let scene = Self { ollama: FakeOllama::new(), nvml: FakeNvml::new(""), dir: folder(name) };
        if !minutes.is_empty() {
            fs::write(scene.file(), file_of(minutes)).unwrap();
        }
        scene
    }

    fn file(&self) -> PathBuf {
        self.dir.join("uptime.bin")
    }

    fn start(&self, more: &[(&str, &str)]) -> Worker {
        self.start_in(&self.dir, more)
    }

    fn start_in(&self, dir: &Path, more: &[(&str, &str)]) -> Worker {
        let url = self.ollama.url();
        let mut settings = vec![("OLLAMA_URL", url.as_str()), ("STATE_DIR", dir.to_str().unwrap())];
        settings.extend([("SAMPLE_INTERVAL", "100ms"), ("HOST_ROOT", "/nonexistent")]);
        settings.extend(self.nvml.settings());
        settings.extend(more);
        Worker::start(&settings)
    }
}

/// The seconds up of the last hour.
fn up_of_the_hour(worker: &Worker) -> u64 {
    worker.get("/uptime").json()["windows"]["1h"]["up_seconds"].as_u64().unwrap()
}

/// The history, once the file has been read.
fn history(worker: &Worker, minutes: u64) -> Value {
    wait_for("the history", || {
        let answer = worker.get("/uptime?window=30d").json();
        let known = answer["minutes"].as_array().unwrap().iter().filter(|m| m["up_seconds"] == 60).count();
        (known as u64 >= minutes).then_some(answer)
    })
}

#[test]
fn time_when_nothing_ran_is_not_up() {
    let past = good(39, 20);
    let scene = Scene::new("uptime-gap", &past);
    let worker = scene.start(&[]);
    let answer = history(&worker, 20);
    assert_eq!(
        (&answer["status"], &answer["kept"], &answer["window"]),
        (&json!("success"), &json!(true), &json!("30d"))
    );
    let hour = &answer["windows"]["1h"];
    let number = |name: &str| hour[name].as_f64().unwrap_or_else(|| panic!("{name}: {hour:#}"));
    // The worker's own seconds come on top.
    assert!((1200.0..1230.0).contains(&number("up_seconds")) && number("down_seconds") == 0.0, "{hour:#}");
    // 20 good minutes, then 19 to 20 of nothing.
    assert!((49.0..52.0).contains(&number("percent")), "{hour:#}");
    assert_eq!(number("availability_percent"), 100.0);
    assert!((49.0..52.0).contains(&number("coverage_percent")), "{hour:#}");
    assert!((1140.0..=1260.0).contains(&number("unobserved_seconds")), "{hour:#}");
    assert_eq!((number("threshold_percent"), &hour["low"]), (99.0, &json!(true)));
    let first = &answer["minutes"][0];
    assert_eq!((first["start"].as_u64().unwrap() / 60, &first["up_seconds"]), (past[0].0, &json!(60)));
    let report = worker.report_when("the uptime", |r| r["uptime"]["30d"].is_f64());
    for window in ["1h", "24h", "30d"] {
        let percent = [&report["uptime"][window], &answer["windows"][window]["percent"]].map(|v| v.as_f64().unwrap());
        assert!((percent[0] - percent[1]).abs() < 1.0, "{window}: {percent:?}");
    }
}

#[test]
fn low_uptime_is_reported() {
    let thresholds =
        ["GPU_SHORT_TERM_UPTIME_THRESHOLD", "GPU_MEDIUM_TERM_UPTIME_THRESHOLD", "GPU_LONG_TERM_UPTIME_THRESHOLD"];
    // Up for an hour, five hours ago, and then nothing.
    let scene = Scene::new("uptime-low", &good(360, 300));
    for (judged, code) in [(0, "UPTIME_LOW_SHORT"), (1, "UPTIME_LOW_MEDIUM"), (2, "UPTIME_LOW_LONG")] {
        let settings: Vec<(&str, &str)> =
            thresholds.iter().enumerate().map(|(i, name)| (*name, if i == judged { "99.5" } else { "0" })).collect();
        let worker = scene.start(&settings);
        // Both that and the first sample are there.
        let report = worker.report_when(code, |r| codes(r) == [code]);
        assert_eq!(verdict(&report), "degraded", "{report:#}");
        let reason = &report["health"]["reasons"][0];
        assert_eq!(reason["threshold"], 99.5);
        assert!(reason["value"].as_f64().is_some_and(|v| v < 20.0), "{reason}");
        assert_eq!(report["gpus"][0]["verdict"], "ok", "it is not a fault of the GPU now");
    }
    // The same with a past that was good.
    let scene = Scene::new("uptime-good", &good(360, 0));
    let worker = scene.start(&[]);
    history(&worker, 350);
    worker.report_when("verdict ok", is_ok);
}

#[test]
fn windows_are_asked_for_by_name() {
    let scene = Scene::new("uptime-window", &good(3000, 1));
    let worker = scene.start(&[]);
    history(&worker, 3000);
    for (target, window, least, most) in [
        ("/uptime", "1h", 58, 60),
        ("/uptime?window=1h", "1h", 58, 60),
        ("/uptime?x=y&window=24h", "24h", 1438, 1440),
        ("/uptime?window=30d", "30d", 3000, 3001),
    ] {
        let answer = worker.get(target).json();
        let count = answer["minutes"].as_array().unwrap().len();
        assert!(answer["window"] == window && (least..=most).contains(&count), "{target}: {count}");
    }
    for target in ["/uptime?window=", "/uptime?window=1d", "/uptime?window=24H"] {
        let answer = worker.get(target);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_window"), "{target}");
    }
    assert_eq!(worker.post("/uptime", "").status, 405);
}

#[test]
fn only_faults_of_the_gpus_count_as_down() {
    let mut scene = Scene::new("uptime-down", &[]);
    let worker = scene.start(&[]);
    let seconds = |name: &str| worker.get("/uptime").json()["windows"]["1h"][name].as_u64().unwrap();
    wait_for("two seconds up", || (seconds("up_seconds") >= 2).then_some(()));
    scene.ollama.stop();
    worker.report_when("OLLAMA_DOWN", |r| codes(r) == ["OLLAMA_DOWN"]);
    let before = seconds("up_seconds");
    wait_for("more time up", || (seconds("up_seconds") >= before + 2).then_some(()));
    assert_eq!(seconds("down_seconds"), 0);
    scene.nvml.set("gpu0.handle=15");
    wait_for("time down", || (seconds("down_seconds") >= 2).then_some(()));
}

#[test]
fn a_hundred_kills_lose_nothing_that_was_written() {
    let past = good(50, 2);
    let scene = Scene::new("uptime-kill", &past);
    for round in 0..100 {
        let worker = scene.start(&[]);
        thread::sleep(Duration::from_millis(round * 7 % 150));
        worker.signal(Signal::KILL);
        let (_, log) = worker.wait();
        assert!(!log.contains("uptime.bin") && !log.contains("damaged"), "round {round}: {log}");
        let kept = minutes_of(&fs::read(scene.file()).unwrap());
        let missing: Vec<_> = past.iter().filter(|minute| !kept.contains(minute)).collect();
        assert!(missing.is_empty(), "round {round} lost {missing:?}");
    }
    let worker = scene.start(&[]);
    history(&worker, 49);
}

#[test]
fn the_running_minute_loses_a_few_seconds_at_most() {
    let scene = Scene::new("uptime-minute", &[]);
    let worker = scene.start(&[]);
    let written = wait_for("seconds on disk", || {
        let file = fs::read(scene.file()).ok().filter(|file| file.len() > 8)?;
        Some(minutes_of(&file).iter().map(|(_, up, _)| u64::from(*up)).sum::<u64>()).filter(|up| *up >= 5)
    });
    let seen = up_of_the_hour(&worker);
    worker.signal(Signal::KILL);
    worker.wait();
    let file = minutes_of(&fs::read(scene.file()).unwrap());
    let last: u64 = file.iter().map(|(_, up, _)| u64::from(*up)).sum();
    assert!(last >= written && seen.saturating_sub(last) <= 11, "{last} of {seen} s were written");
    let again = scene.start(&[]);
    wait_for("what was written", || (up_of_the_hour(&again) >= written).then_some(()));
    // An orderly end loses nothing.
    let seen = wait_for("more seconds", || Some(up_of_the_hour(&again)).filter(|up| *up >= written + 2));
    again.stop();
    let file: u64 = minutes_of(&fs::read(scene.file()).unwrap()).iter().map(|(_, up, _)| u64::from(*up)).sum();
    assert!(file >= seen, "{file} of {seen} s");
}

/// What is done to a file; how many of its 49 good minutes are left; part of the warning.
type Harm = (&'static str, fn(&mut Vec<u8>), u64, &'static str);

const HARMS: &[Harm] = &[
    ("whole", |_| (), 49, ""),
    ("empty", Vec::clear, 0, ""),
    ("one byte", |f| f.truncate(1), 0, "bytes instead of"),
    ("longer", |f| f.extend([7; 999]), 49, "bytes instead of"),
    ("zeros", |f| f.fill(0), 0, ""),
    ("garbage", |f| f.iter_mut().zip(1_u64..).for_each(|(b, i)| *b = (i * i * 31 % 251) as u8), 0, "damaged minute"),
    ("another beginning", |f| f[..8].copy_from_slice(b"NOTOURS\n"), 49, "does not begin as an uptime file"),
    ("a flipped bit", |f| f[place_of(10) + 4] ^= 4, 48, "skipped 1 damaged minute"),
    ("half a record", |f| f[place_of(10) + 3..place_of(10) + 8].fill(0), 48, "skipped 1 damaged minute"),
    // A sound record in another's place says that the disk has mixed them up.
    ("moved", |f| f.copy_within(place_of(10)..place_of(10) + 8, place_of(11)), 48, "skipped 1 damaged minute"),
];

fn place_of(ago: u64) -> usize {
    8 * (((minute_now() - ago) % MINUTES) as usize + 1)
}

#[test]
fn a_damaged_file_costs_what_is_damaged_and_no_more() {
    for (name, harm, left, warning) in HARMS {
        let scene = Scene::new("uptime-harm", &[]);
        // Not across the turn of a minute.
        let mut file = file_of(&good(50, 2));
        harm(&mut file);
        fs::write(scene.file(), &file).unwrap();
        let worker = scene.start(&[]);
        let answer = history(&worker, *left);
        let known = answer["minutes"].as_array().unwrap().iter().filter(|m| m["up_seconds"] == 60).count();
        assert!(known as u64 <= left + 1, "{name}: {known}");
        wait_for(warning, || worker.log().contains(warning).then_some(()));
        let size = || fs::metadata(scene.file()).unwrap().len();
        wait_for("the whole size", || (size() == 8 * (MINUTES + 1)).then_some(()));
        worker.stop();
        assert_eq!(&fs::read(scene.file()).unwrap()[..8], MAGIC, "{name}");
    }
}

/// The worker serves, has said why, and counts.
#[track_caller]
fn does_without(worker: &Worker, part: &str) {
    assert_eq!(worker.report()["status"], "success");
    let log = wait_for("a warning", || Some(worker.log()).filter(|log| log.contains("cannot write")));
    assert!(log.contains(part), "{part:?} is not in {log}");
    let errors = |text: &str| {
        text.lines().any(|line| {
            line.strip_prefix("agent_net_state_write_errors_total ").is_some_and(|n| n.parse::<f64>().unwrap() >= 1.0)
        })
    };
    // The line comes just before.
    wait_for("the metric", || errors(worker.get("/metrics").text()).then_some(()));
    wait_for("time up", || (up_of_the_hour(worker) >= 1).then_some(()));
}

#[test]
fn a_place_that_cannot_be_written_is_a_warning_and_a_metric() {
    let scene = Scene::new("uptime-place", &[]);
    for (dir, part) in [("/dev/null/x", "Not a directory"), ("/proc/agent-net", "No such file")] {
        does_without(&scene.start_in(Path::new(dir), &[]), part);
    }
    fs::create_dir(scene.file()).unwrap();
    does_without(&scene.start(&[]), "not a regular file");
    fs::remove_dir(scene.file()).unwrap();
    // Whoever opens a pipe waits for its other end.
    pipe(&scene.file());
    does_without(&scene.start(&[]), "not a regular file");
    fs::remove_file(scene.file()).unwrap();
    let first = scene.start(&[]);
    wait_for("the file", || scene.file().exists().then_some(()));
    does_without(&scene.start(&[]), "another worker is using it");
    drop(first);
}

#[test]
fn a_removed_file_is_recreated_with_all_that_is_known() {
    let past = good(50, 2);
    let scene = Scene::new("uptime-removed", &past);
    let worker = scene.start(&[]);
    history(&worker, 49);
    fs::remove_file(scene.file()).unwrap();
    wait_for("the past in a new file", || {
        let file = fs::read(scene.file()).ok().filter(|file| file.len() > 8)?;
        let kept = minutes_of(&file);
        past.iter().all(|minute| kept.contains(minute)).then_some(())
    });
    assert!(worker.log().contains("it was removed"), "{}", worker.log());
}

/// A file with a lease of another process cannot be opened until that lease is released: a disk that hangs.
#[test]
fn a_disk_that_hangs_delays_nothing_else() {
    let scene = Scene::new("uptime-hung", &good(50, 2));
    // F_SETSIG (10) to a signal that is ignored, F_SETLEASE (1024) with F_WRLCK (1), until its stdin ends.
    let script = r#"open(F, "+<", $ARGV[0]) or die; fcntl(F, 10, 23) or die; fcntl(F, 1024, 1) or die "lease: $!";
        $| = 1; print "held\n"; <STDIN>;"#;
    let mut holder = Command::new("perl");
    holder.args(["-e", script]).arg(scene.file()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().expect("perl runs");
    if holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).is_err() {
        println!("skipped: there are no leases on this file system");
        let _ = holder.wait();
        return;
    }
    let worker = scene.start(&[]);
    worker.report_when("verdict ok", is_ok);
    let up = wait_for("time up", || Some(up_of_the_hour(&worker)).filter(|up| *up >= 2));
    assert!(up < 1000, "the disk does not hang: {up} s up");
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    history(&worker, 49);
}

#[test]
fn a_full_disk_is_written_again_when_there_is_room() {
    let scene = Scene::new("uptime-full", &[]);
    let Some(disk) = SmallDisk::mount(&scene.dir, "4k") else { return };
    let worker = scene.start(&[]);
    does_without(&worker, "No space left");
    disk.resize("2m");
    wait_for("a written file", || worker.log().contains("can be written again").then_some(()));
    assert!(worker.get("/metrics").text().contains("agent_net_state_last_write_timestamp_seconds "));
    assert!(!minutes_of(&fs::read(scene.file()).unwrap()).is_empty());
    // All its room is taken: a disk that fills up again does no harm.
    let blocks = fs::metadata(scene.file()).unwrap().blocks();
    assert!(blocks * 512 >= 8 * (MINUTES + 1), "{blocks} blocks");
}
