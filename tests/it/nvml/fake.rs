//! A stand-in for libnvidia-ml.so.1: the C functions that the helper calls, driven by a text file.
//!
//! The file is named by FAKE_NVML and read again at every nvmlInit_v2 and nvmlDeviceGetCount_v2, so that a test can
//! change it while the helper runs. Without a file there is one healthy GPU. One `key=value` a line:
//!
//! - `gpus=2`: number of GPUs
//! - `init=9`, `count=999`: what nvmlInit_v2 and nvmlDeviceGetCount_v2 return instead of 0
//! - `driver=550.54.14`: the driver's version
//! - `at_init=…`, `at_sample=…`: what happens at nvmlInit_v2, or at each sample: `hang`, `crash` (SIGSEGV), `exit`,
//!   `garbage` (a line on stdout) or `flood` (1 MiB on stdout without a line end)
//! - `at_third_sample=…`: the same at the third sample of a process
//! - `gpu1.handle=15`: what nvmlDeviceGetHandleByIndex_v2 returns for that GPU
//! - `gpu1.READING=VALUE`, or `gpu1.READING=err:3` for an NVML error, where READING is uuid, name, memory (total and used
//!   in MiB: `24576/2048`), temperature, power, limit (milliwatts) or utilization (`3/1`, GPU and memory)

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

const INVALID_ARGUMENT: c_int = 2;
const SUCCESS: c_int = 0;

struct State {
    settings: Option<HashMap<String, String>>,
    samples: u32,
}

static STATE: Mutex<State> = Mutex::new(State { settings: None, samples: 0 });

/// The fields of nvmlMemory_v2_t.
#[repr(C)]
pub struct Memory {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// The fields of nvmlUtilization_t.
#[repr(C)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

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
        "garbage" => println!("NVRM: this is no JSON"),
        "flood" => {
            let _ = std::io::stdout().write_all(&vec![b'x'; 1 << 20]);
        }
        other => panic!("no such misbehaviour: {other}"),
    }
}

/// A reading of the GPU behind `handle`: its text, or an NVML error.
fn reading(handle: *mut c_void, name: &str, default: &str) -> Result<String, c_int> {
    let index = handle as usize - 1;
    let value = setting(&format!("gpu{index}.{name}")).unwrap_or_else(|| default.replace("{}", &index.to_string()));
    match value.strip_prefix("err:") {
        Some(code) => Err(code.parse().unwrap_or(INVALID_ARGUMENT)),
        None => Ok(value),
    }
}

fn number(handle: *mut c_void, name: &str, default: &str, out: *mut c_uint) -> c_int {
    match reading(handle, name, default).map(|text| text.parse()) {
        Ok(Ok(value)) => unsafe {
            *out = value;
            SUCCESS
        },
        Ok(Err(_)) => INVALID_ARGUMENT,
        Err(code) => code,
    }
}

fn text(value: Result<String, c_int>, out: *mut c_char, length: c_uint) -> c_int {
    let value = match value {
        Ok(value) => CString::new(value).unwrap(),
        Err(code) => return code,
    };
    let bytes = value.as_bytes_with_nul();
    if bytes.len() > length as usize {
        return 7; // insufficient size
    }
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    SUCCESS
}

fn pair<T: std::str::FromStr>(value: &str) -> Option<(T, T)> {
    let (first, second) = value.split_once('/')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    read_settings();
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
    code(&format!("gpu{index}.handle"))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetName(handle: *mut c_void, out: *mut c_char, length: c_uint) -> c_int {
    text(reading(handle, "name", "Fake RTX {}"), out, length)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUUID(handle: *mut c_void, out: *mut c_char, length: c_uint) -> c_int {
    text(reading(handle, "uuid", "GPU-00000000-0000-0000-0000-00000000000{}"), out, length)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: *mut c_void, out: *mut Memory) -> c_int {
    let value = match reading(handle, "memory", "24576/8192") {
        Ok(value) => value,
        Err(code) => return code,
    };
    let Some((total, used)) = pair::<u64>(&value) else { return INVALID_ARGUMENT };
    unsafe {
        (*out).total = total << 20;
        (*out).used = used << 20;
        (*out).free = total.saturating_sub(used) << 20;
        (*out).reserved = 0;
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTemperature(handle: *mut c_void, _sensor: c_int, out: *mut c_uint) -> c_int {
    number(handle, "temperature", "41", out)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPowerUsage(handle: *mut c_void, out: *mut c_uint) -> c_int {
    number(handle, "power", "63200", out)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetEnforcedPowerLimit(handle: *mut c_void, out: *mut c_uint) -> c_int {
    number(handle, "limit", "350000", out)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUtilizationRates(handle: *mut c_void, out: *mut Utilization) -> c_int {
    let value = match reading(handle, "utilization", "3/1") {
        Ok(value) => value,
        Err(code) => return code,
    };
    let Some((gpu, memory)) = pair(&value) else { return INVALID_ARGUMENT };
    unsafe { *out = Utilization { gpu, memory } };
    SUCCESS
}
