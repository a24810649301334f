//! The readings of one GPU: name in the control file, default, and the function that gives it.

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong, c_void};

use crate::{
    INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, index_of, mig, numbers, put, reading, setting, text,
};

/// A function that gives one number: `name in the file`, default, C name.
macro_rules! number {
    ($($function:ident($type:ty) = $name:literal, $default:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $function(handle: *mut c_void, out: *mut $type) -> c_int {
            put(handle, $name, $default, out)
        }
    )*};
}

number! {
    nvmlDeviceGetPowerUsage(c_uint) = "power", "63200"; // milliwatts
    nvmlDeviceGetEnforcedPowerLimit(c_uint) = "limit", "350000";
    nvmlDeviceGetPowerManagementDefaultLimit(c_uint) = "default_limit", "350000";
    nvmlDeviceGetTotalEnergyConsumption(c_ulonglong) = "energy", "123456789"; // millijoules
    nvmlDeviceGetPerformanceState(c_uint) = "pstate", "8";
    nvmlDeviceGetCurrentClocksThrottleReasons(c_ulonglong) = "throttle", "1"; // bits; 1: it idles
    nvmlDeviceGetNumFans(c_uint) = "fans", "1";
    nvmlDeviceGetCurrPcieLinkGeneration(c_uint) = "pcie_gen", "1";
    nvmlDeviceGetMaxPcieLinkGeneration(c_uint) = "pcie_gen_max", "4";
    nvmlDeviceGetCurrPcieLinkWidth(c_uint) = "pcie_width", "16";
    nvmlDeviceGetMaxPcieLinkWidth(c_uint) = "pcie_width_max", "16";
    nvmlDeviceGetPcieReplayCounter(c_uint) = "replays", "0";
    nvmlDeviceGetPersistenceMode(c_uint) = "persistence", "1";
    nvmlDeviceGetRetiredPagesPendingStatus(c_uint) = "retired_pending", NOT_SUPPORTED;
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetName(handle: *mut c_void, out: *mut c_char, length: c_uint) -> c_int {
    let default = if mig::slot(handle).is_some() { NOT_SUPPORTED.into() } else { format!("Fake RTX {}", index_of(handle)) };
    text(reading(handle, "name", &default), out, length)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUUID(handle: *mut c_void, out: *mut c_char, length: c_uint) -> c_int {
    let default = match mig::slot(handle) {
        None => format!("GPU-00000000-0000-0000-0000-{:012}", index_of(handle)),
        Some(slot) => format!("MIG-00000000-0000-0000-{slot:04}-{:012}", index_of(handle)),
    };
    text(reading(handle, "uuid", &default), out, length)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetVbiosVersion(handle: *mut c_void, out: *mut c_char, length: c_uint) -> c_int {
    text(reading(handle, "vbios", "95.02.18.80.5F"), out, length)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCudaComputeCapability(handle: *mut c_void, major: *mut c_int, minor: *mut c_int) -> c_int {
    match numbers(handle, "compute", "8/9") {
        Ok(version) => unsafe {
            (*major, *minor) = (version[0], version[1]);
            SUCCESS
        },
        Err(code) => code,
    }
}

/// nvmlPciInfo_t.
#[repr(C)]
pub struct Pci {
    legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    device_id: c_uint,
    subsystem_id: c_uint,
    bus_id: [c_char; 32],
}

/// `pci`: the bus id; by default that of bus 1 for GPU 0, and so on.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPciInfo_v3(handle: *mut c_void, out: *mut Pci) -> c_int {
    let default = format!("00000000:{:02X}:00.0", index_of(handle) + 1);
    let pci = unsafe { &mut *out };
    text(Ok("0000:01:00.0".into()), pci.legacy.as_mut_ptr(), 16);
    text(reading(handle, "pci", &default), pci.bus_id.as_mut_ptr(), 32)
}

/// nvmlMemory_t.
#[repr(C)]
pub struct Memory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// nvmlMemory_v2_t.
#[repr(C)]
pub struct Memory2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `memory`: MiB of `total/used/reserved/free`. Without the last free is what is left of the total; the last two may be
/// left out.
fn memory(handle: *mut c_void) -> Result<[u64; 4], c_int> {
    let default = mig::memory(handle).unwrap_or_else(|| "24576/7012/512".into());
    let all = numbers::<u64>(handle, "memory", &default)?;
    let &[total, used, ..] = &all[..] else { return Err(INVALID_ARGUMENT) };
    let reserved = all.get(2).copied().unwrap_or(0);
    let free = all.get(3).copied().unwrap_or(total.saturating_sub(used + reserved));
    Ok([total << 20, used << 20, reserved << 20, free << 20])
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo(handle: *mut c_void, out: *mut Memory) -> c_int {
    match memory(handle) {
        // It counts as used what is held back.
        Ok([total, used, reserved, free]) => unsafe {
            *out = Memory { total, used: used + reserved, free };
            SUCCESS
        },
        Err(code) => code,
    }
}

/// `memory_v2=err:13` is a driver that has only the first version.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: *mut c_void, out: *mut Memory2) -> c_int {
    if let Err(code) = reading(handle, "memory_v2", "") {
        return code;
    }
    let version = unsafe { (*out).version };
    if version as usize != size_of::<Memory2>() | 2 << 24 {
        return 25; // NVML_ERROR_ARGUMENT_VERSION_MISMATCH
    }
    match memory(handle) {
        Ok([total, used, reserved, free]) => unsafe {
            *out = Memory2 { version, total, reserved, free, used };
            SUCCESS
        },
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTemperature(handle: *mut c_void, _sensor: c_int, out: *mut c_uint) -> c_int {
    put(handle, "temperature", "41", out)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTemperatureThreshold(handle: *mut c_void, kind: c_int, out: *mut c_uint) -> c_int {
    match kind {
        0 => put(handle, "shutdown", "98", out),
        1 => put(handle, "slowdown", "95", out),
        2 => put(handle, "memory_max", "105", out),
        3 => put(handle, "max", "90", out),
        _ => INVALID_ARGUMENT,
    }
}

/// nvmlMarginTemperature_v1_t.
#[repr(C)]
pub struct Margin {
    version: c_uint,
    margin: c_int,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMarginTemperature(handle: *mut c_void, out: *mut Margin) -> c_int {
    let margin = unsafe { &mut *out };
    if margin.version as usize != size_of::<Margin>() | 1 << 24 {
        return 25;
    }
    put(handle, "margin", NOT_SUPPORTED, &raw mut margin.margin)
}

/// nvmlUtilization_t.
#[repr(C)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUtilizationRates(handle: *mut c_void, out: *mut Utilization) -> c_int {
    match numbers(handle, "utilization", "3/1").as_deref() {
        Ok([gpu, memory]) => unsafe {
            *out = Utilization { gpu: *gpu, memory: *memory };
            SUCCESS
        },
        Ok(_) => INVALID_ARGUMENT,
        Err(code) => *code,
    }
}

/// `clocks`: megahertz of graphics and memory.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetClockInfo(handle: *mut c_void, kind: c_int, out: *mut c_uint) -> c_int {
    clock(numbers(handle, "clocks", "210/405"), kind, out)
}

/// `clocks_max`: the same.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMaxClockInfo(handle: *mut c_void, kind: c_int, out: *mut c_uint) -> c_int {
    clock(numbers(handle, "clocks_max", "2520/9001"), kind, out)
}

fn clock(clocks: Result<Vec<c_uint>, c_int>, kind: c_int, out: *mut c_uint) -> c_int {
    match (clocks.as_deref(), kind) {
        (Ok([graphics, _]), 0) => unsafe { *out = *graphics },
        (Ok([_, memory]), 2) => unsafe { *out = *memory },
        (Ok(_), _) => return INVALID_ARGUMENT,
        (Err(code), _) => return *code,
    }
    SUCCESS
}

/// nvmlFieldValue_t; its value is one of several types of 8 bytes at most.
#[repr(C)]
pub struct Field {
    id: c_uint,
    scope: c_uint,
    timestamp: c_longlong,
    latency: c_longlong,
    kind: c_uint,
    result: c_int,
    value: u64,
}

/// NVML's numbers of types.
const UNSIGNED_INT: c_uint = 1;
const UNSIGNED_LONG_LONG: c_uint = 3;
const SIGNED_INT: c_uint = 5;

/// Fields by their number: `memory_temperature`; `recovery`; `rows`, the remapped rows as
/// `correctable/uncorrectable/pending/failed`; `throttle_ns`, what is in force as
/// `sw_power/sw_thermal/hw_thermal/hw_power_brake`; `tlimit_max` and `tlimit_shutdown`, which may be negative.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetFieldValues(handle: *mut c_void, count: c_int, values: *mut Field) -> c_int {
    let driver = setting("driver").unwrap_or_else(|| "550.54.14".into());
    let parts: Vec<u32> = driver.split('.').map_while(|part| part.parse().ok()).collect();
    // From 580.82 on 251 and the next are something else.
    let first = if parts >= vec![580, 82] { 269 } else { 251 };
    for i in 0..count.unsigned_abs() as usize {
        let field = unsafe { &mut *values.add(i) };
        let part = |name, default, at: usize| {
            numbers::<u64>(handle, name, default).and_then(|all| all.get(at).copied().ok_or(INVALID_ARGUMENT))
        };
        let signed = |name| numbers::<i32>(handle, name, NOT_SUPPORTED).map(|all| u64::from(all[0].cast_unsigned()));
        let (kind, value) = match field.id {
            82 => (UNSIGNED_INT, part("memory_temperature", NOT_SUPPORTED, 0)),
            230 => (UNSIGNED_INT, part("recovery", "0", 0)),
            id @ 142..=145 => (UNSIGNED_INT, part("rows", "0/0/0/0", id as usize - 142)),
            74 => (UNSIGNED_LONG_LONG, part("throttle_ns", "0/0/0/0", 0)),
            id if (first..first + 3).contains(&id) => {
                (UNSIGNED_LONG_LONG, part("throttle_ns", "0/0/0/0", (id - first) as usize + 1))
            }
            // Where the counters stood before or will stand: power smoothing, which this GPU does not have.
            193 => (SIGNED_INT, signed("tlimit_shutdown")),
            196 => (SIGNED_INT, signed("tlimit_max")),
            // `memory_power`: milliwatts of the memory.
            185 if field.scope == 2 => (UNSIGNED_INT, part("memory_power", NOT_SUPPORTED, 0)),
            _ => (UNSIGNED_INT, Err(3)),
        };
        field.kind = kind;
        (field.result, field.value) = match value {
            // Above the half that is meant there may be anything.
            Ok(value) if kind != UNSIGNED_LONG_LONG => (SUCCESS, value | 0xdead_beef << 32),
            Ok(value) => (SUCCESS, value),
            Err(code) => (code, 0),
        };
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetFanSpeed_v2(handle: *mut c_void, _fan: c_uint, out: *mut c_uint) -> c_int {
    put(handle, "fan", "30", out)
}

/// `ecc`: 1 while it is on.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetEccMode(handle: *mut c_void, now: *mut c_uint, pending: *mut c_uint) -> c_int {
    put(handle, "ecc", "1", pending);
    put(handle, "ecc", "1", now)
}

/// `ecc_errors`: uncorrected ones as `volatile/aggregate`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTotalEccErrors(
    handle: *mut c_void,
    error: c_int,
    counter: c_int,
    out: *mut c_ulonglong,
) -> c_int {
    let all = numbers::<c_ulonglong>(handle, "ecc_errors", "0/0");
    match (all.map(|all| all.get(counter.unsigned_abs() as usize).copied()), error) {
        (Ok(Some(count)), 1) => unsafe { *out = count },
        (Err(code), _) => return code,
        _ => return INVALID_ARGUMENT,
    }
    SUCCESS
}

/// `retired`: pages as `single bit/double bit`.
fn retired(handle: *mut c_void, cause: c_int, count: *mut c_uint) -> c_int {
    let all = numbers::<c_uint>(handle, "retired", NOT_SUPPORTED);
    let pages = match all.map(|all| all.get(cause.unsigned_abs() as usize).copied()) {
        Ok(Some(pages)) => pages,
        Ok(None) => return INVALID_ARGUMENT,
        Err(code) => return code,
    };
    let room = unsafe { std::mem::replace(&mut *count, pages) };
    if pages > room { INSUFFICIENT_SIZE } else { SUCCESS }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetRetiredPages(
    handle: *mut c_void,
    cause: c_int,
    count: *mut c_uint,
    _addresses: *mut c_ulonglong,
) -> c_int {
    retired(handle, cause, count)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetRetiredPages_v2(
    handle: *mut c_void,
    cause: c_int,
    count: *mut c_uint,
    _addresses: *mut c_ulonglong,
    _timestamps: *mut c_ulonglong,
) -> c_int {
    retired(handle, cause, count)
}

/// nvmlProcessInfo_t.
#[repr(C)]
pub struct Process {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// `processes`: `pid:MiB`, parted by commas; `pid:-` where the driver does not say how much, and `pid:MiB:2/0` on compute
/// instance 0 of GPU instance 2. By default it is a number that no process of this machine has: the kernel gives none above
/// 4194304.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: *mut c_void,
    count: *mut c_uint,
    out: *mut Process,
) -> c_int {
    let own = mig::of(handle);
    let default = if mig::slot(handle).is_some() { "" } else { "4200042:6321" };
    let text = match reading(handle, "processes", default) {
        Ok(text) => text,
        Err(code) => return code,
    };
    let parse = |one: &str| {
        let (pid, mib) = one.split_once(':')?;
        let (mib, instance) = mib.split_once(':').unwrap_or((mib, ""));
        let used = if mib == "-" { u64::MAX } else { mib.parse::<u64>().ok()? << 20 };
        let ids: Vec<u32> = instance.split('/').filter_map(|id| id.parse().ok()).collect();
        let ids = own.as_ref().map_or(ids, |own| vec![own[0] as u32, own[1] as u32]);
        let id = |at: usize| ids.get(at).copied().unwrap_or(u32::MAX);
        Some(Process { pid: pid.parse().ok()?, used, gpu_instance: id(0), compute_instance: id(1) })
    };
    let all: Vec<Process> = text.split(',').filter_map(parse).collect();
    let room = unsafe { std::mem::replace(&mut *count, all.len() as c_uint) };
    if all.len() > room as usize {
        return INSUFFICIENT_SIZE;
    }
    for (i, process) in all.into_iter().enumerate() {
        unsafe { out.add(i).write(process) };
    }
    SUCCESS
}

/// `nvlinks`: 1 for each that is up, 0 for each that is not, parted by slashes.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetNvLinkState(handle: *mut c_void, link: c_uint, out: *mut c_uint) -> c_int {
    match numbers::<c_uint>(handle, "nvlinks", NOT_SUPPORTED).map(|all| all.get(link as usize).copied()) {
        Ok(Some(up)) => unsafe { *out = up },
        Ok(None) => return INVALID_ARGUMENT,
        Err(code) => return code,
    }
    SUCCESS
}

/// `inforom=err:14`: the board's data is damaged.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceValidateInforom(handle: *mut c_void) -> c_int {
    reading(handle, "inforom", "").err().unwrap_or(SUCCESS)
}
