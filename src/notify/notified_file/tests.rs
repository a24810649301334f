use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;

use super::*;
use crate::notify::event::{Event, EventKind, samples};

const SOON: Duration = Duration::from_secs(60);

fn known(unix: f64) -> Known {
    Known::new(&Event::new(EventKind::Verdict, &Arc::from("w"), Some(samples::lost()), unix), unix)
}

/// An empty folder, and the file in it.
fn folder(name: &str) -> (PathBuf, PathBuf) {
    let dir = std::env::temp_dir().join(format!("agent-net-notified-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    (dir.clone(), dir.join(NAME))
}

fn start(dir: &Path, keys: &[&str]) -> NotifiedBook {
    NotifiedBook::start(dir.to_str(), keys.iter().map(|key| (*key).to_owned()).collect()).unwrap()
}

fn written(path: &Path) -> Option<Notified> {
    Notified::from_text(&fs::read(path).ok()?)
}

#[track_caller]
fn wait_for(done: impl Fn() -> bool) {
    let end = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < end, "still not");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn without_a_folder_there_is_nothing_to_wait_for() {
    let book = NotifiedBook::start(None, Vec::new()).unwrap();
    let event = Event::new(EventKind::Stopping, &Arc::from("w"), Some(samples::ok()), 1.0);
    book.put("key", Known::new(&event, 1.0));
    let end = Instant::now() + Duration::from_secs(60);
    book.flush(end);
    assert!(Instant::now() < end);
    assert!(book.known("key").is_some());
}

/// A disk may hang for longer than a message waits for the file.
#[test]
fn what_was_sent_before_the_file_was_read_is_newer() {
    let (dir, path) = folder("late");
    let mut earlier = Notified::default();
    ["a", "b"].iter().for_each(|key| earlier.put(key, known(1.0)));
    fs::write(&path, earlier.to_text()).unwrap();
    let shared = Shared::default();
    shared.lock().notified.put("a", known(2.0));
    shared.load(&OwnFile::new(&path, MODE), &["a".into(), "b".into()]);
    let at = |key: &str| shared.lock().notified.of(key).map(|known| known.at);
    assert_eq!((at("a"), at("b")), (Some(2.0), Some(1.0)));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn of_two_workers_the_first_one_writes() {
    let (dir, path) = folder("two");
    let first = start(&dir, &["a"]);
    first.put("a", known(1.0));
    let at = |key: &str| written(&path).and_then(|notified| notified.of(key).map(|known| known.at));
    wait_for(|| at("a") == Some(1.0));
    let second = start(&dir, &["a"]);
    assert_eq!(second.known("a").map(|known| known.at), Some(1.0), "it knows what the first one had written");
    second.put("a", known(2.0));
    second.flush(Instant::now() + SOON);
    assert_eq!(at("a"), Some(1.0));
    first.put("a", known(3.0));
    wait_for(|| at("a") == Some(3.0));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_receiver_with_another_url_keeps_what_it_knows_and_leaves_nothing() {
    let (dir, path) = folder("renamed");
    let book = start(&dir, &["a"]);
    book.put("a", known(1.0));
    for number in 0..2000 {
        let name = |number: usize| if number == 0 { "a".to_owned() } else { number.to_string() };
        book.rename(&name(number), &name(number + 1));
    }
    wait_for(|| written(&path).is_some_and(|notified| notified.of("2000").is_some()));
    assert!(fs::metadata(&path).unwrap().len() < 500);
    // A first start has no file, and an empty one is not damaged.
    drop(File::create(&path).unwrap());
    assert_eq!(read(&OwnFile::new(&path, MODE)), Ok(Notified::default()));
    fs::remove_dir_all(dir).unwrap();
}
