//! STATE_DIR across versions. `tests/it/state/0.1.0` holds what 0.1.0 wrote, and this version continues it. AGENT_NET_OLD
//! names a folder with the programs of 0.1.0 (commit 8dbe8df): then they also read what this version wrote. With
//! AGENT_NET_RECORD_STATE as well, the files are recorded again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use crate::fake_ollama::FakeOllama;
use crate::fake_ticket_server::{Behavior, TicketServer, pay};
use crate::harness::{self, Worker, folder, run, wait_for};
use crate::nvml::FakeNvml;
use crate::programs;
use crate::wallet::Wallet;

pub const MINUTES: u64 = 30 * 24 * 60;
const MAGIC: &[u8; 8] = b"AGNTUP1\n";
/// Bytes of uptime.bin: the first ones, and a record for each minute.
const SIZE: usize = 8 * (MINUTES as usize + 1);

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/state/0.1.0").join(name)
}

pub fn read(name: &str) -> String {
    fs::read_to_string(recorded(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
}

// ---- uptime.bin ----

/// CRC-16/IBM-3740, bit by bit.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 })
    })
}

/// The minutes of a file by their number since 1970: seconds up and down. Each record must be sound.
pub fn minutes_of(file: &[u8]) -> BTreeMap<u64, (u8, u8)> {
    assert_eq!((&file[..8], file.len()), (MAGIC.as_slice(), SIZE));
    let places = file[8..].chunks_exact(8).enumerate().filter(|(_, record)| **record != [0; 8]);
    let minutes = places.map(|(place, record)| {
        assert_eq!(crc(&record[..6]).to_le_bytes(), record[6..], "place {place}");
        let at = u64::from(u32::from_le_bytes(record[..4].try_into().unwrap()));
        assert_eq!(at % MINUTES, place as u64);
        (at, (record[4], record[5]))
    });
    minutes.collect()
}

/// The file with these minutes.
fn file_of(minutes: &BTreeMap<u64, (u8, u8)>) -> Vec<u8> {
    let mut file = vec![0; SIZE];
    file[..8].copy_from_slice(MAGIC);
    for (minute, (up, down)) in minutes {
        let record = &mut file[8 * ((minute % MINUTES) as usize + 1)..][..8];
        record[..4].copy_from_slice(&u32::try_from(*minute).unwrap().to_le_bytes());
        (record[4], record[5]) = (*up, *down);
        let check = crc(&record[..6]).to_le_bytes();
        record[6..].copy_from_slice(&check);
    }
    file
}

/// The recorded file, byte by byte: a line is an offset and the 8 bytes there, all others are 0.
pub fn recorded_file() -> Vec<u8> {
    let mut file = vec![0; SIZE];
    for line in read("uptime.txt").lines() {
        let (offset, bytes) = line.split_once(' ').unwrap();
        let bytes = u64::from_str_radix(bytes, 16).unwrap().to_be_bytes();
        file[offset.parse::<usize>().unwrap()..][..8].copy_from_slice(&bytes);
    }
    file
}

fn text_of(file: &[u8]) -> String {
    let all = file.chunks_exact(8).enumerate().filter(|(_, bytes)| **bytes != [0; 8]);
    all.map(|(place, bytes)| format!("{} {:016x}\n", 8 * place, u64::from_be_bytes(bytes.try_into().unwrap())))
        .collect()
}

// ---- recording ----

/// The programs of 0.1.0; None: AGENT_NET_OLD is not set.
pub fn old() -> Option<PathBuf> {
    std::env::var_os("AGENT_NET_OLD").map(|folder| PathBuf::from(folder).join("agent-net"))
}

/// A machine of two GPUs with a STATE_DIR.
pub struct Scene {
    pub ollama: FakeOllama,
    pub nvml: FakeNvml,
    pub tickets: TicketServer,
    pub dir: PathBuf,
}

impl Scene {
    pub fn new(name: &str, behavior: Behavior) -> Self {
        let tickets = TicketServer::new(behavior);
        Self { ollama: FakeOllama::new(), nvml: FakeNvml::new("gpus=2"), tickets, dir: folder(name) }
    }

    pub fn start(&self, program: Option<&Path>) -> Worker {
        let (ollama, tickets) = (self.ollama.url(), self.tickets.url());
        let mut settings = vec![("OLLAMA_URL", ollama.as_str()), ("TICKET_SUBMIT_URL", &tickets)];
        settings.extend([("STATE_DIR", self.dir.to_str().unwrap()), ("HOST_ROOT", "/nonexistent")]);
        settings.extend([("EXPECTED_GPUS", "2"), ("AGENT_NET_FAULT", "hurry:50")]);
        settings.extend(self.nvml.settings());
        match program {
            Some(program) => Worker::of(harness::command(program), &settings),
            None => Worker::start(&settings),
        }
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.join(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    fn lines(&self) -> usize {
        fs::read_to_string(self.dir.join("tickets.jsonl")).unwrap_or_default().lines().count()
    }

    /// With the recorded files, as if 0.1.0 had written them `age` seconds ago.
    pub fn recorded(name: &str, age: f64) -> Self {
        let scene = Self::new(name, Behavior::Judge);
        fs::write(scene.dir.join("uptime.bin"), file_of(&minutes_ago(age))).unwrap();
        fs::write(scene.dir.join("tickets.jsonl"), tickets_ago(age)).unwrap();
        scene
    }

    /// `pm ledger --json` of a program.
    pub fn ledger(&self, program: &Path) -> Value {
        let mut command = harness::command(program);
        let (status, out, err) = run(command.args(["pm", "ledger", "--json", "--state-dir"]).arg(&self.dir));
        assert!(status.success(), "{err}");
        serde_json::from_str(&out).unwrap()
    }

    pub fn wait_for_tickets(&self, result: &str, count: i64) {
        wait_for("the tickets", || {
            (self.ledger(new())["totals"][result]["tickets"].as_i64() == Some(count)).then_some(())
        });
    }
}

/// The program of this version.
pub fn new() -> &'static Path {
    Path::new(programs::server())
}

/// When the recording ended, in Unix seconds.
fn end() -> f64 {
    serde_json::from_str::<Value>(&read("uptime.json")).unwrap()["timestamp"].as_f64().unwrap()
}

/// The recorded minutes, moved so that the recording ended `age` seconds ago.
pub fn minutes_ago(age: f64) -> BTreeMap<u64, (u8, u8)> {
    let later = (now() - age) as i64 / 60 - end() as i64 / 60;
    let moved = |(at, seconds): (u64, _)| (at.checked_add_signed(later).unwrap(), seconds);
    minutes_of(&recorded_file()).into_iter().map(moved).collect()
}

/// The recorded ledger with all its times moved in the same way: a payment is submitted for 42 hours.
fn tickets_ago(age: f64) -> String {
    let later = now() - age - end();
    let moved = |part: &str| {
        let (number, rest) = part.split_once([',', '}']).unwrap();
        let separator = &part[number.len()..=number.len()];
        format!("{:?}{separator}{rest}", number.parse::<f64>().unwrap() + later)
    };
    let text = read("tickets.jsonl");
    let mut parts = text.split("\"at\":");
    let first = parts.next().unwrap().to_owned();
    [first].into_iter().chain(parts.map(moved)).collect::<Vec<_>>().join("\"at\":")
}

pub fn windows(worker: &Worker) -> Value {
    worker.get("/uptime?window=30d").json()
}

/// Takes about four minutes.
#[test]
fn record_the_state_of_the_old_version() {
    let (Some(old), Some(_)) = (old(), std::env::var_os("AGENT_NET_RECORD_STATE")) else { return };
    fs::create_dir_all(recorded("")).unwrap();
    let scene = Scene::new("state-recorded", Behavior::Judge);
    let worker = scene.start(Some(&old));
    let submit = |seed: u64, tickets: u32, behavior: Behavior, lines: usize| {
        scene.tickets.set(behavior);
        assert_eq!(pay(worker.addr, &Wallet::new(seed).payment(1..=tickets)).status, 200);
        wait_for("its lines", || (scene.lines() >= lines).then_some(()));
    };
    submit(201, 1, Behavior::Judge, 3);
    submit(202, 3, Behavior::Say(400), 6);
    let long = |seconds| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    long(85);
    scene.nvml.set("gpus=1");
    long(80);
    scene.nvml.set("gpus=2");
    long(40);
    // It may have arrived: payment, sent, failed.
    submit(203, 2, Behavior::HangUp, 9);
    scene.tickets.set(Behavior::Hang);
    assert_eq!(pay(worker.addr, &Wallet::new(204).payment([9])).status, 200);
    std::thread::sleep(Duration::from_secs(2));
    let mut command = harness::command(&old);
    let (_, ledger, _) = run(command.args(["pm", "ledger", "--json", "--state-dir"]).arg(&scene.dir));
    fs::write(recorded("ledger.json"), ledger).unwrap();
    fs::write(recorded("tickets.jsonl"), scene.read("tickets.jsonl")).unwrap();
    let (status, log) = worker.stop();
    assert!(status.success(), "{log}");
    fs::write(recorded("uptime.txt"), text_of(&scene.read("uptime.bin"))).unwrap();
    // The windows as 0.1.0 itself reports them of that file, without a second of its own: its driver is away.
    scene.nvml.set("at_init=hang");
    let worker = scene.start(Some(&old));
    let answer = wait_for("the minutes", || {
        let answer = windows(&worker);
        (answer["minutes"].as_array().unwrap().len() > 2).then_some(answer)
    });
    fs::write(recorded("uptime.json"), format!("{answer:#}\n")).unwrap();
    worker.signal(Signal::KILL);
}
