//! Preloaded into the worker: calls of the C library fail, hang, take long or answer nonsense as the file FAULTS says.
//!
//! Its byte N is the mode of part N: 0 for well, else the letter of a fault. The four bytes at 64 + 4 N count the calls
//! that were tampered with. The file is mapped, so that both sides see each other's changes at once.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

const DISK: usize = 0;
const CLOCK: usize = 1;
const DESCRIPTORS: usize = 2;
const THREADS: usize = 3;
const NAMES: usize = 4;
const KERNEL_LOG: usize = 5;

const EPERM: c_int = 1;
const EIO: c_int = 5;
const EAGAIN: c_int = 11;
const EINVAL: c_int = 22;
const ENFILE: c_int = 23;
const EMFILE: c_int = 24;
const ENOSPC: c_int = 28;
const EPIPE: c_int = 32;
const EPROTO: c_int = 71;
const ECONNABORTED: c_int = 103;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn getenv(name: *const c_char) -> *const c_char;
    fn mmap(at: *mut c_void, length: usize, access: c_int, flags: c_int, file: c_int, from: c_long) -> *mut c_void;
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

fn shared() -> Option<*mut u8> {
    static SHARED: OnceLock<Option<usize>> = OnceLock::new();
    let open = real!(open64: fn(*const c_char, c_int, c_int) -> c_int);
    let map = || unsafe {
        let path = getenv(c"FAULTS".as_ptr());
        if path.is_null() {
            return None;
        }
        let file = open(path, 2, 0);
        let at = mmap(null_mut(), 4096, 3, 1, file, 0);
        (file >= 0 && at as isize != -1).then_some(at as usize)
    };
    SHARED.get_or_init(map).map(|at| at as *mut u8)
}

fn mode(part: usize) -> u8 {
    shared().map_or(0, |at| unsafe { AtomicU8::from_ptr(at.add(part)) }.load(Ordering::SeqCst))
}

/// One call more that is tampered with; how many there were before.
fn count(part: usize) -> u32 {
    shared().map_or(0, |at| unsafe { AtomicU32::from_ptr(at.add(64 + 4 * part).cast()) }.fetch_add(1, Ordering::SeqCst))
}

fn fail(errno: c_int) -> c_int {
    unsafe { *__errno_location() = errno };
    -1
}

/// As long as this part hangs.
fn hang(part: usize) {
    while mode(part) == b'h' {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn late(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

// ---- disk ----

#[unsafe(no_mangle)]
pub extern "C" fn open64(path: *const c_char, flags: c_int, access: c_int) -> c_int {
    let open = real!(open64: fn(*const c_char, c_int, c_int) -> c_int);
    if is_kernel_log(path) {
        let file = unsafe { open(path, flags, access) };
        THE_LOG.store(file, Ordering::SeqCst);
        return file;
    }
    if mode(DISK) == 0 || !on_our_disk(path) {
        return unsafe { open(path, flags, access) };
    }
    count(DISK);
    match mode(DISK) {
        b'd' => return fail(EIO),
        b'h' => hang(DISK),
        b's' => late(300),
        _ => {}
    }
    unsafe { open(path, flags, access) }
}

fn on_our_disk(path: *const c_char) -> bool {
    setting(c"STATE_DIR").is_some_and(|dir| bytes(path).starts_with(dir))
}

fn setting(name: &CStr) -> Option<&'static [u8]> {
    let value = unsafe { getenv(name.as_ptr()) };
    (!value.is_null()).then(|| bytes(value))
}

fn bytes(text: *const c_char) -> &'static [u8] {
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

#[unsafe(no_mangle)]
pub extern "C" fn pwrite64(file: c_int, bytes: *const u8, length: usize, at: c_long) -> isize {
    let write = real!(pwrite64: fn(c_int, *const u8, usize, c_long) -> isize);
    let mut rubbish = [0xa5; 64];
    let (mut bytes, mut length) = (bytes, length);
    if mode(DISK) != 0 {
        let before = count(DISK);
        match mode(DISK) {
            b'd' => return fail(EIO) as isize,
            b'h' => hang(DISK),
            b's' => late(300),
            b'g' if length <= rubbish.len() => bytes = rubbish.as_mut_ptr(),
            b'p' if before % 2 == 0 && length > 1 => length /= 2,
            b'p' => return fail(ENOSPC) as isize,
            _ => {}
        }
    }
    unsafe { write(file, bytes, length, at) }
}

#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    match mode(DISK) {
        0 => {}
        b'd' => return fail(EIO),
        b'h' => hang(DISK),
        _ => late(300),
    }
    let sync = real!(fdatasync: fn(c_int) -> c_int);
    unsafe { sync(file) }
}

// ---- the kernel's log ----

/// The descriptor of HOST_ROOT/dev/kmsg, a file that stands for the device.
static THE_LOG: AtomicI32 = AtomicI32::new(-1);

fn is_kernel_log(path: *const c_char) -> bool {
    setting(c"HOST_ROOT").is_some_and(|root| bytes(path).strip_prefix(root) == Some(b"/dev/kmsg"))
}

/// Each read of the log gives one record, as the device does. One that there is no room for is lost.
#[unsafe(no_mangle)]
pub extern "C" fn read(file: c_int, into: *mut u8, room: usize) -> isize {
    let read = real!(read: fn(c_int, *mut u8, usize) -> isize);
    if file != THE_LOG.load(Ordering::SeqCst) {
        return unsafe { read(file, into, room) };
    }
    let before = count(KERNEL_LOG);
    match mode(KERNEL_LOG) {
        b'd' => return fail(EPERM) as isize,
        b'p' if before % 2 == 0 => return fail(EPIPE) as isize,
        _ => {}
    }
    let (mut record, mut length) = ([0; 8192], 0);
    while length < record.len() && (length == 0 || record[length - 1] != b'\n') {
        if unsafe { read(file, record.as_mut_ptr().add(length), 1) } != 1 {
            return fail(EAGAIN) as isize;
        }
        length += 1;
    }
    if length > room {
        return fail(EINVAL) as isize;
    }
    unsafe { into.copy_from_nonoverlapping(record.as_ptr(), length) };
    length as isize
}

// ---- clock ----

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanos: c_long,
}

#[unsafe(no_mangle)]
pub extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    static BEGAN: AtomicI64 = AtomicI64::new(0);
    let ask = real!(clock_gettime: fn(c_int, *mut Timespec) -> c_int);
    let done = unsafe { ask(clock, time) };
    // CLOCK_REALTIME alone can be set by anybody.
    if clock != 0 || done != 0 {
        return done;
    }
    let seconds = unsafe { &mut (*time).seconds };
    let mode = mode(CLOCK);
    if mode == 0 {
        BEGAN.store(0, Ordering::SeqCst);
        return done;
    }
    let before = i64::from(count(CLOCK));
    let _ = BEGAN.compare_exchange(0, *seconds, Ordering::SeqCst, Ordering::SeqCst);
    let began = BEGAN.load(Ordering::SeqCst);
    *seconds = match mode {
        b'd' => *seconds - began,
        b'h' => began,
        b's' => began + (*seconds - began) / 10,
        b'p' => *seconds / 2,
        _ => (before * 7_919_000_027) % 8_000_000_000 - 2_000_000_000,
    };
    done
}

// ---- descriptors ----

fn descriptor(make: impl Fn() -> c_int) -> c_int {
    if mode(DESCRIPTORS) == 0 {
        return make();
    }
    let before = count(DESCRIPTORS);
    match mode(DESCRIPTORS) {
        b'd' => return fail(EMFILE),
        b'h' => hang(DESCRIPTORS),
        b's' => late(100),
        b'p' if before % 2 == 0 => return fail(EMFILE),
        b'g' if before % 5 > 0 => return fail([ECONNABORTED, EPROTO, EPERM, ENFILE][before as usize % 5 - 1]),
        _ => {}
    }
    make()
}

#[unsafe(no_mangle)]
pub extern "C" fn accept4(listener: c_int, peer: *mut c_void, length: *mut u32, flags: c_int) -> c_int {
    let accept = real!(accept4: fn(c_int, *mut c_void, *mut u32, c_int) -> c_int);
    descriptor(|| unsafe { accept(listener, peer, length, flags) })
}

#[unsafe(no_mangle)]
pub extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let socket = real!(socket: fn(c_int, c_int, c_int) -> c_int);
    descriptor(|| unsafe { socket(domain, kind, protocol) })
}

// ---- threads ----

type Start = extern "C" fn(*mut c_void) -> *mut c_void;

#[unsafe(no_mangle)]
pub extern "C" fn pthread_create(out: *mut c_void, how: *const c_void, start: Start, with: *mut c_void) -> c_int {
    if mode(THREADS) != 0 {
        let before = count(THREADS);
        match mode(THREADS) {
            b'd' => return EAGAIN,
            b'h' => hang(THREADS),
            b's' => late(50),
            b'p' if before % 2 == 0 => return EAGAIN,
            b'g' => return [EPERM, EINVAL, EAGAIN][before as usize % 3],
            _ => {}
        }
    }
    let create = real!(pthread_create: fn(*mut c_void, *const c_void, Start, *mut c_void) -> c_int);
    unsafe { create(out, how, start, with) }
}

// ---- names ----

#[repr(C)]
pub struct Address {
    _before: [c_int; 4],
    _length: u32,
    _address: *mut c_void,
    _name: *mut c_char,
    next: *mut Address,
}

type Found = *mut *mut Address;

/// All names below .test are this machine.
#[unsafe(no_mangle)]
pub extern "C" fn getaddrinfo(name: *const c_char, port: *const c_char, hints: *const c_void, out: Found) -> c_int {
    let real = real!(getaddrinfo: fn(*const c_char, *const c_char, *const c_void, Found) -> c_int);
    let look = |name: *const c_char, out| unsafe { real(name, port, hints, out) };
    let (here, nowhere) = (c"127.0.0.1".as_ptr(), c"127.0.0.77".as_ptr());
    if name.is_null() || !unsafe { CStr::from_ptr(name) }.to_bytes().ends_with(b".test") {
        return look(name, out);
    }
    if mode(NAMES) != 0 {
        count(NAMES);
    }
    match mode(NAMES) {
        // No such name; before the network is there: try again.
        b'd' => return -2,
        b'a' => return -3,
        b'h' => hang(NAMES),
        b's' => late(300),
        b'g' => return look(nowhere, out),
        b'p' => {
            let mut second = null_mut();
            let found = look(nowhere, out).max(look(here, &mut second));
            unsafe { (**out).next = second };
            return found;
        }
        _ => {}
    }
    look(here, out)
}
