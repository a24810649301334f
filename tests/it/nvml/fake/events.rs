//! What the driver reports: `gpu0.xids=1:79,2:13` are numbered XIDs, each reported once to each listener;
//! `gpu0.events=err:3` is a GPU whose events cannot be read.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::sync::Mutex;

use crate::{SUCCESS, index_of, reading};

const TIMEOUT: c_int = 10;
const CRITICAL_XID: c_ulonglong = 8;

/// The GPUs of each set, and the number of the last event that it was sent.
static SETS: Mutex<Vec<(Vec<usize>, u64)>> = Mutex::new(Vec::new());

/// nvmlEventData_t.
#[repr(C)]
pub struct Event {
    device: *mut c_void,
    kind: c_ulonglong,
    data: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetCreate(out: *mut *mut c_void) -> c_int {
    let mut sets = SETS.lock().unwrap();
    sets.push((Vec::new(), 0));
    unsafe { *out = sets.len() as *mut c_void };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(_set: *mut c_void) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(handle: *mut c_void, kinds: c_ulonglong, set: *mut c_void) -> c_int {
    if let Err(code) = reading(handle, "events", "") {
        return code;
    }
    assert_eq!(kinds, CRITICAL_XID);
    SETS.lock().unwrap()[set as usize - 1].0.push(index_of(handle));
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetWait_v2(set: *mut c_void, out: *mut Event, _timeout: c_uint) -> c_int {
    let mut sets = SETS.lock().unwrap();
    let (gpus, sent) = &mut sets[set as usize - 1];
    for index in gpus.iter() {
        let device = (index + 1) as *mut c_void;
        let all = reading(device, "xids", "").unwrap_or_default();
        let next = all.split(',').filter_map(|one| {
            let (number, xid) = one.split_once(':')?;
            Some((number.parse::<u64>().ok()?, xid.parse().ok()?))
        });
        if let Some((number, data)) = next.filter(|(number, _)| number > sent).min() {
            *sent = number;
            let none = c_uint::MAX;
            unsafe { *out = Event { device, kind: CRITICAL_XID, data, gpu_instance: none, compute_instance: none } };
            return SUCCESS;
        }
    }
    TIMEOUT
}
