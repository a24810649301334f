//! The file in every state of a disk. Its work is called directly; only the last test has the thread.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::sys::files::new_path;

/// A worker, and the file that it has locked.
#[derive(Default)]
struct Worker(Shared, Option<OwnFile>);

impl Worker {
    fn open(&mut self, path: &Path) -> Result<(), String> {
        let file = self.1.get_or_insert_with(|| OwnFile::new(path, MODE));
        self.0.open(file).map_err(|why| why.to_string())
    }

    fn write(&mut self, path: &Path) -> Result<(), String> {
        let file = self.1.get_or_insert_with(|| OwnFile::new(path, MODE));
        self.0.write(file).map_err(|why| why.to_string())
    }

    fn add(&self, speed: f64, times: usize) {
        (0..times).for_each(|_| assert!(self.0.lock().speeds.add(&key(), speed, 100.0)));
    }

    fn usual(&self) -> Option<f64> {
        self.0.lock().speeds.judgement(&key()).usual
    }
}

fn key() -> SpeedKey {
    SpeedKey::new("a", Some(4096), "GPU-1 580.95 0.33.0")
}

/// An empty folder, and the file in it.
fn folder(name: &str) -> (PathBuf, PathBuf) {
    let dir = std::env::temp_dir().join(format!("agent-net-speeds-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    (dir.clone(), dir.join(NAME))
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// A child that another test has just started holds a lock of this one until it runs its program.
#[track_caller]
fn wait_for(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "still not");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_restart_goes_on_where_the_last_worker_was() {
    let (dir, path) = folder("restart");
    let path = dir.join("made").join(path.file_name().unwrap());
    let mut first = Worker::default();
    assert_eq!(first.open(&path), Ok(()));
    first.add(100.0, 5);
    first.add(40.0, 2);
    assert_eq!(first.write(&path), Ok(()));
    // The next one is in place of the one before, and locked as that one was.
    first.add(40.0, 1);
    assert_eq!(first.write(&path), Ok(()));
    assert_eq!(names(path.parent().unwrap()), [NAME]);
    let text = fs::read(&path).unwrap();
    assert!(fs::metadata(&path).unwrap().mode() & 0o600 == 0o600);
    drop(first);
    let mut second = Worker::default();
    // Measured before the disk had answered.
    second.add(55.0, 2);
    wait_for(|| second.open(&path).is_ok());
    assert_eq!(fs::read(&path).unwrap(), text, "it is not written before there is something to write");
    let judged = second.0.lock().speeds.judgement(&key());
    assert_eq!(judged, Judgement { usual: Some(100.0), slow: Some((40.0, 100.0)) });
    second.add(60.0, 3);
    assert_eq!(second.0.lock().speeds.judgement(&key()).slow, None);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn of_two_workers_the_first_one_writes() {
    let (dir, path) = folder("two");
    let (mut first, mut second) = (Worker::default(), Worker::default());
    first.add(100.0, 5);
    assert_eq!(first.write(&path), Ok(()));
    let text = fs::read(&path).unwrap();
    assert_eq!(second.open(&path), Err("another worker is using it".into()));
    assert_eq!(second.usual(), Some(100.0), "it knows what the first one had written");
    second.add(300.0, 5);
    assert_eq!(second.write(&path), Err("another worker is using it".into()));
    assert_eq!(first.write(&path), Ok(()));
    assert_eq!(second.write(&path), Err("another worker is using it".into()), "also after it was replaced");
    assert_eq!(fs::read(&path).unwrap(), text);
    drop(first);
    wait_for(|| second.write(&path).is_ok());
    assert_eq!(second.usual(), Some(300.0));
    assert_ne!(fs::read(&path).unwrap(), text);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_file_that_was_removed_or_replaced_is_written_again() {
    let (dir, path) = folder("removed");
    let mut worker = Worker::default();
    worker.add(100.0, 5);
    assert_eq!(worker.write(&path), Ok(()));
    let text = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(worker.write(&path), Ok(()));
    assert_eq!(fs::read(&path).unwrap(), text);
    // A backup is not believed while the worker knows better.
    fs::remove_file(&path).unwrap();
    fs::write(&path, String::from_utf8_lossy(&text).replace("100.0", "900.0")).unwrap();
    assert_eq!(worker.write(&path), Ok(()));
    assert_eq!(fs::read(&path).unwrap(), text);
    // It is locked again.
    assert!(Worker::default().open(&path).is_err());
    // Another worker has made one in its place.
    fs::remove_file(&path).unwrap();
    assert_eq!(Worker::default().write(&path), Ok(()));
    let mut other = Worker::default();
    wait_for(|| other.open(&path).is_ok());
    assert_eq!(worker.write(&path), Err("another worker is using it".into()));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn only_a_regular_file_is_read_or_replaced() {
    let (dir, path) = folder("kinds");
    let mut worker = Worker::default();
    worker.add(100.0, 5);
    let other = dir.join("other");
    fs::write(&other, "something else").unwrap();
    let refuses = |worker: &mut Worker| {
        let before = fs::symlink_metadata(&path).unwrap().ino();
        assert_eq!(worker.open(&path), Err("not a regular file".into()));
        assert_eq!(worker.write(&path), Err("not a regular file".into()));
        assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before);
    };
    for target in [other.as_path(), Path::new("missing"), Path::new("/dev/zero")] {
        symlink(target, &path).unwrap();
        refuses(&mut worker);
        fs::remove_file(&path).unwrap();
    }
    fs::create_dir(&path).unwrap();
    refuses(&mut worker);
    fs::remove_dir(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    refuses(&mut worker);
    fs::remove_file(&path).unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "something else");
    // A link in the place of the new file is not followed either.
    symlink(&other, new_path(&path)).unwrap();
    assert_eq!(worker.write(&path), Ok(()));
    assert_eq!(fs::read_to_string(&other).unwrap(), "something else");
    assert_eq!(worker.usual(), Some(100.0));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_disk_that_cannot_be_written_is_written_later() {
    let (dir, path) = folder("refused");
    let mut worker = Worker::default();
    worker.add(100.0, 5);
    // A file in the place of the folder: also root cannot write there.
    fs::remove_dir(&dir).unwrap();
    fs::write(&dir, "").unwrap();
    assert!(worker.open(&path).is_err() && worker.write(&path).is_err());
    fs::remove_file(&dir).unwrap();
    assert_eq!(worker.write(&path), Ok(()));
    // One that fails in the middle leaves the old file.
    let text = fs::read(&path).unwrap();
    fs::create_dir(new_path(&path)).unwrap();
    worker.add(50.0, 1);
    assert_eq!(worker.write(&path), Err(format!("{} cannot be removed", new_path(&path).display())));
    assert_eq!(fs::read(&path).unwrap(), text);
    fs::remove_dir(new_path(&path)).unwrap();
    assert_eq!(worker.write(&path), Ok(()));
    assert_ne!(fs::read(&path).unwrap(), text);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_damaged_file_is_read_as_far_as_it_can_be() {
    let (dir, path) = folder("damaged");
    let mut worker = Worker::default();
    worker.add(100.0, 5);
    assert_eq!(worker.write(&path), Ok(()));
    let text = fs::read_to_string(&path).unwrap();
    drop(worker);
    let row = |damaged: &[u8], usual: Option<f64>| {
        fs::write(&path, damaged).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let mut worker = Worker::default();
        wait_for(|| worker.open(&path).is_ok());
        assert_eq!(worker.usual(), usual);
        worker.add(70.0, 5);
        assert_eq!(worker.write(&path), Ok(()));
    };
    row(b"", None);
    row(b"\0\0\0\0", None);
    row(format!("{text}{text}").as_bytes(), Some(100.0));
    row(&text.as_bytes()[..text.len() / 2], None);
    row(format!("[\n{{}},\n{text}").as_bytes(), Some(100.0));
    // Of one that is too large the start is read.
    let end = text.replace("100.0", "900.0");
    row(format!("{text}{}\n{end}", "x".repeat(8 << 20)).as_bytes(), Some(100.0));
    assert!(fs::metadata(&path).unwrap().len() < 1000);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn several_threads_add_and_the_newest_state_is_written() {
    let (dir, path) = folder("threads");
    let book = Arc::new(SpeedBook::start(dir.to_str()).unwrap());
    thread::scope(|scope| {
        for thread in 0..4 {
            let book = Arc::clone(&book);
            let key = SpeedKey::new(&format!("{thread}"), None, "GPU");
            scope.spawn(move || {
                (1..50).for_each(|n| _ = book.add(&key, f64::from(n), 0.0));
                assert_eq!(book.add(&key, 50.0, 0.0), Judgement { usual: Some(48.0), slow: None });
            });
        }
    });
    let all = || Speeds::from_text(&fs::read(&path).unwrap_or_default()).0;
    let done = || (0..4).all(|n| all().judgement(&SpeedKey::new(&format!("{n}"), None, "GPU")).usual == Some(48.0));
    wait_for(done);
    // What cannot be a speed changes nothing, and one change is written once.
    let one = SpeedBook(Arc::default());
    one.add(&key(), 0.0, 0.0);
    assert!(!one.0.lock().changed);
    one.add(&key(), 1.0, 0.0);
    one.0.wait_for_change();
    assert!(!one.0.lock().changed);
    // Without STATE_DIR they are in memory.
    let book = SpeedBook::start(None).unwrap();
    (0..5).for_each(|_| _ = book.add(&key(), 5.0, 0.0));
    assert_eq!(book.judgement(&key()).usual, Some(5.0));
    fs::remove_dir_all(dir).unwrap();
}
