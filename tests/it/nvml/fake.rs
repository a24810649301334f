//! A stand-in for libnvidia-ml.so.1: the C functions that the helper calls, driven by a text file.
//!
//! The file is named by FAKE_NVML and read again at every nvmlInit_v2 and nvmlDeviceGetCount_v2, so that a test can
//! change it while the helper runs. Without a file there is one healthy GPU. One `key=value` a line:
//!
//! - `gpus=2`: number of GPUs
//! - `init=9`, `count=999`: what nvmlInit_v2 and nvmlDeviceGetCount_v2 return instead of 0
//! - `driver=550.54.14`, `nvml=12.550.54.14`, `cuda=12040`: versions; from driver 580.82 on the fields of the
//!   throttle counters have their new numbers
//! - `at_init=…`, `at_sample=…`: what happens at nvmlInit_v2, or at each sample: `hang`, `crash` (SIGSEGV), `exit`,
//!   `garbage` (a line on stdout), `flood` (1 MiB on stdout without a line end) or `sleep:MS` (MS milliseconds
//!   later)
//! - `at_third_sample=…`: the same at the third sample of a process
//! - `gpu1.handle=15`: what nvmlDeviceGetHandleByIndex_v2 returns for that GPU
//! - `gpu1.sleep=MS`: how long that call takes; `hang` never returns
//! - `gpu1.READING=VALUE`, or `gpu1.READING=err:3` for an NVML error, or for texts `hex:` and bytes; `gpu*.READING` is that of all GPUs. The READINGs
//!   and their defaults, those of a boring workstation card, stand in the files of `fake/`
//!
//! - `calls=FILE`: a line for each reading that is asked for, `gpu0.READING`
//!
//! Compiled with `--cfg old` it is a library before R450, which lacks the functions of `fake/gpm.rs` and `fake/health.rs`.
//!
//! It was compared with real parts: its functions and what nvmlInit_v2 returns without a driver with NVIDIA's own
//! libraries 340.108, 390.157, 418.226, 450.248, 460.106, 470.256, 525.147, 535.274, 550.163 and 555.58 (`real_nvml.rs`);
//! its readings with `nvidia-smi -q` of an RTX 2080 SUPER (drivers 595.71.05, 610.57.04, 591.86 of Windows), an L40S
//! (595.80), an H100 with and without MIG and an H200 (590.48.01), each idle and under load (`boards.rs`).

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

#[path = "fake/activity.rs"]
pub mod activity;
#[path = "fake/addressing.rs"]
pub mod addressing;
#[path = "fake/device.rs"]
pub mod device;
#[path = "fake/events.rs"]
pub mod events;
#[path = "fake/mig.rs"]
pub mod mig;
#[cfg(not(old))]
#[path = "fake/gpm.rs"]
pub mod gpm;
#[cfg(not(old))]
#[path = "fake/health.rs"]
pub mod health;

const INVALID_ARGUMENT: c_int = 2;
const INSUFFICIENT_SIZE: c_int = 7;
/// A reading that a GPU does not have.
const NOT_SUPPORTED: &str = "err:3";
const SUCCESS: c_int = 0;

struct State {
    settings: Option<HashMap<String, String>>,
    samples: u32,
}

static STATE: Mutex<State> = Mutex::new(State { settings: None, samples: 0 });

fn read_settings() {
    let text = std::env::var("FAKE_NVML").ok().and_then(|path| std::fs::read_to_string(path).ok());
    let text = text.unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    let settings = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    STATE.lock().unwrap().settings = Some(settings);
}

fn setting(key: &str) -> Option<String> {
    STATE.lock().unwrap().settings.as_ref().and_then(|all| all.get(key).cloned())
}

fn code(key: &str) -> c_int {
    setting(key).and_then(|value| value.parse().ok()).unwrap_or(SUCCESS)
}

fn misbehave(how: &str) {
    match how {
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        "crash" => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
        "exit" => std::process::exit(7),
        "garbage" => println!("NVRM: this is not JSON"),
        "flood" => {
            let _ = std::io::stdout().write_all(&vec![b'x'; 1 << 20]);
        }
        other => match other.strip_prefix("sleep:").map(str::parse) {
            Some(Ok(millis)) => std::thread::sleep(Duration::from_millis(millis)),
            _ => panic!("no such misbehaviour: {other}"),
        },
    }
}

/// The GPU behind a handle, which may be that of one of its MIG instances.
fn index_of(handle: *mut c_void) -> usize {
    (handle as usize & 0xffff) - 1
}

/// A reading of the GPU behind `handle`: its text, or an NVML error.
fn reading(handle: *mut c_void, name: &str, default: &str) -> Result<String, c_int> {
    let index = index_of(handle);
    let name = match mig::slot(handle) {
        None => name.to_owned(),
        Some(slot) => mig::key(handle, slot, name)?,
    };
    if let Some(file) = setting("calls") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "gpu{index}.{name}").unwrap();
    }
    let set = setting(&format!("gpu{index}.{name}")).or_else(|| setting(&format!("gpu*.{name}")));
    let value = set.unwrap_or_else(|| default.to_owned());
    match value.strip_prefix("err:") {
        Some(code) => Err(code.parse().unwrap_or(INVALID_ARGUMENT)),
        None => Ok(value),
    }
}

/// The numbers of a reading that has several, parted by slashes.
fn numbers<T: std::str::FromStr>(handle: *mut c_void, name: &str, default: &str) -> Result<Vec<T>, c_int> {
    let text = reading(handle, name, default)?;
    text.split('/').map(|part| part.parse().map_err(|_| INVALID_ARGUMENT)).collect()
}

fn put<T: std::str::FromStr>(handle: *mut c_void, name: &str, default: &str, out: *mut T) -> c_int {
    match reading(handle, name, default).map(|text| text.parse()) {
        Ok(Ok(value)) => unsafe {
            *out = value;
            SUCCESS
        },
        Ok(Err(_)) => INVALID_ARGUMENT,
        Err(code) => code,
    }
}

/// The bytes of a text, which may be written as `hex:`.
fn bytes(value: String) -> Vec<u8> {
    match value.strip_prefix("hex:") {
        Some(hex) => hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect(),
        None => value.into_bytes(),
    }
}

fn text(value: Result<String, c_int>, out: *mut c_char, length: c_uint) -> c_int {
    let value = match value {
        Ok(value) => CString::new(bytes(value)).unwrap(),
        Err(code) => return code,
    };
    let bytes = value.as_bytes_with_nul();
    if bytes.len() > length as usize {
        return 7; // insufficient size
    }
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    SUCCESS
}

/// Adds a byte to the file that FAKE_NVML names, with `.inits` behind it. In a container nothing can be written there.
fn count_init() {
    if let Ok(path) = std::env::var("FAKE_NVML") {
        let inits = std::fs::OpenOptions::new().append(true).create(true).open(format!("{path}.inits"));
        let _ = inits.and_then(|mut inits| inits.write_all(b"x"));
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    read_settings();
    count_init();
    if let Some(how) = setting("at_init") {
        misbehave(&how);
    }
    code("init")
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_: c_int) -> *const c_char {
    c"an error of the fake".as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetDriverVersion(out: *mut c_char, length: c_uint) -> c_int {
    text(Ok(setting("driver").unwrap_or_else(|| "550.54.14".into())), out, length)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetNVMLVersion(out: *mut c_char, length: c_uint) -> c_int {
    text(Ok(setting("nvml").unwrap_or_else(|| "12.550.54.14".into())), out, length)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetCudaDriverVersion_v2(out: *mut c_int) -> c_int {
    unsafe { *out = setting("cuda").and_then(|value| value.parse().ok()).unwrap_or(12040) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCount_v2(out: *mut c_uint) -> c_int {
    read_settings();
    let sample = {
        let mut state = STATE.lock().unwrap();
        state.samples += 1;
        state.samples
    };
    if let Some(how) = setting("at_sample").or_else(|| setting("at_third_sample").filter(|_| sample == 3)) {
        misbehave(&how);
    }
    let gpus = setting("gpus").and_then(|value| value.parse().ok()).unwrap_or(1);
    unsafe { *out = gpus };
    code("count")
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut *mut c_void) -> c_int {
    // No pointer at all, but it is not null, and only we look at it.
    unsafe { *out = (index as usize + 1) as *mut c_void };
    match setting(&format!("gpu{index}.sleep")).as_deref() {
        Some("hang") => misbehave("hang"),
        Some(millis) => misbehave(&format!("sleep:{millis}")),
        None => {}
    }
    code(&format!("gpu{index}.handle"))
}
