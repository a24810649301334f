//! Preloaded into the worker and its helper: files of sysfs fail when they are read, or take long, as the file FAKE_AMD says.
//! Each file below `/sys/` that the helper opens is written to the file beside it whose name ends in `.opened`.
//!
//! FAKE_AMD holds lines of `PATH errno N`, `PATH sleep MILLISECONDS` or `PATH hang`; PATH has no links in it. It is read at
//! each open, and while a file hangs. An attribute of sysfs fails when it is read, not when it is opened; so does this.
//! All other programs are left alone.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::time::Duration;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
}

fn next(name: &'static str) -> usize {
    // RTLD_NEXT
    unsafe { dlsym(-1_isize as *mut c_void, name.as_ptr().cast()) as usize }
}

/// The C library's own function of this name.
macro_rules! real {
    ($name:ident: fn($($type:ty),*) -> $result:ty) => {{
        static REAL: OnceLock<usize> = OnceLock::new();
        let found = *REAL.get_or_init(|| next(concat!(stringify!($name), "\0")));
        let function: unsafe extern "C" fn($($type),*) -> $result = unsafe { std::mem::transmute(found) };
        function
    }};
}

thread_local! {
    /// What this file does itself is not tampered with.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// The open files of sysfs.
static OPEN: Mutex<Vec<(c_int, String)>> = Mutex::new(Vec::new());

/// FAKE_AMD, and whether this is the helper; None in other programs.
fn control() -> Option<&'static (PathBuf, bool)> {
    static CONTROL: OnceLock<Option<(PathBuf, bool)>> = OnceLock::new();
    let find = || {
        let name = fs::read_to_string("/proc/self/comm").ok()?;
        let is_helper = name.trim() == "agent-net-nvml";
        let control = std::env::var_os("FAKE_AMD").filter(|_| is_helper || name.trim() == "agent-net")?;
        Some((PathBuf::from(control), is_helper))
    };
    CONTROL.get_or_init(find).as_ref()
}

/// Does `what`, unless this file is at work already.
fn once<T>(what: impl FnOnce(&(PathBuf, bool)) -> T) -> Option<T> {
    if WITHIN.replace(true) {
        return None;
    }
    let done = control().map(what);
    WITHIN.set(false);
    done
}

/// What is to happen at a read of `path`: `errno 5`.
fn order(control: &PathBuf, path: &str) -> Option<String> {
    let text = fs::read_to_string(control).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(path)?.strip_prefix(' ')?.to_owned()))
}

fn opened(path: *const c_char, file: c_int) {
    if file < 0 {
        return;
    }
    once(|(control, is_helper)| {
        let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
        let Some(path) = fs::canonicalize(path).ok().and_then(|path| path.into_os_string().into_string().ok()) else {
            return;
        };
        if path.starts_with("/sys/") || !path.contains("/sys/") {
            return;
        }
        OPEN.lock().unwrap().push((file, path.clone()));
        if !is_helper {
            return;
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(control.with_extension("opened"));
        let _ = log.and_then(|mut log| log.write_all(format!("{path}\n").as_bytes()));
    });
}

#[unsafe(no_mangle)]
pub extern "C" fn open64(path: *const c_char, flags: c_int, access: c_int) -> c_int {
    let open = real!(open64: fn(*const c_char, c_int, c_int) -> c_int);
    let file = unsafe { open(path, flags, access) };
    let errno = unsafe { *__errno_location() };
    opened(path, file);
    unsafe { *__errno_location() = errno };
    file
}

#[unsafe(no_mangle)]
pub extern "C" fn open(path: *const c_char, flags: c_int, access: c_int) -> c_int {
    open64(path, flags, access)
}

#[unsafe(no_mangle)]
pub extern "C" fn close(file: c_int) -> c_int {
    once(|_| OPEN.lock().unwrap().retain(|(open, _)| *open != file));
    let close = real!(close: fn(c_int) -> c_int);
    unsafe { close(file) }
}

#[unsafe(no_mangle)]
pub extern "C" fn read(file: c_int, into: *mut u8, length: usize) -> isize {
    let errno = once(|(control, _)| {
        let path = OPEN.lock().unwrap().iter().find(|(open, _)| *open == file).map(|(_, path)| path.clone())?;
        let order = order(control, &path)?;
        match order.split_once(' ') {
            Some(("errno", errno)) => return errno.parse().ok(),
            Some(("sleep", millis)) => std::thread::sleep(Duration::from_millis(millis.parse().unwrap())),
            _ => {
                while self::order(control, &path).as_ref() == Some(&order) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        None
    });
    if let Some(Some(errno)) = errno {
        unsafe { *__errno_location() = errno };
        return -1;
    }
    let read = real!(read: fn(c_int, *mut u8, usize) -> isize);
    unsafe { read(file, into, length) }
}
