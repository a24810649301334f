//! A GPU's place in the NVLink fabric of a machine with NVSwitches, in words.

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings as c;

use super::final_calls::FinalCalls;
use super::raw::health::{self, FabricInfo};
use super::reading_log::ReadingLog;
use super::words::words;
use crate::gpu::fabric::{COMPLETED, SUCCESS, UNHEALTHY};
use crate::gpu::plausible;
use crate::gpu::sample::Gpu;

/// Words that the server need not know.
const NOT_STARTED: &str = "not_started";
const IN_PROGRESS: &str = "in_progress";
const HEALTHY: &str = "healthy";
const LIMITED: &str = "limited capacity";

const NAMES: [&str; 3] = ["fabric_state", "fabric_status", "fabric_health"];

/// The version of the call that this driver knows.
pub(super) struct FabricVersion(u32);

impl Default for FabricVersion {
    /// The newest.
    fn default() -> Self {
        Self(3)
    }
}

impl FabricVersion {
    pub(super) fn read(
        &mut self,
        device: &Device<'_>,
        gpu: &mut Gpu,
        finals: &mut FinalCalls,
        log: &mut ReadingLog<'_>,
    ) {
        let info = finals.at(log, "gpu_fabric_info", &NAMES, || self.info(device));
        let Some(info) = info else { return };
        let state = match info.state {
            0 => return NAMES.iter().for_each(|name| log.unsupported(name)),
            // It was looked for, and the machine has no NVSwitches.
            3 if info.status == c::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED => {
                return NAMES.iter().for_each(|name| log.unsupported(name));
            }
            1 => NOT_STARTED,
            2 => IN_PROGRESS,
            3 => COMPLETED,
            other => return NAMES.iter().for_each(|name| log.fail(name, &plausible::impossible(other, ""))),
        };
        gpu.fabric_state = Some(state.into());
        match nvml_try(info.status) {
            // It is valid in that state alone.
            _ if state != COMPLETED => log.pending(NAMES[1]),
            Ok(()) => gpu.fabric_status = Some(SUCCESS.into()),
            Err(why) => gpu.fabric_status = Some(words(&why)),
        }
        gpu.fabric_health = health_in_words(info);
        if gpu.fabric_health.is_none() {
            log.unsupported(NAMES[2]);
        }
    }

    /// Asks with older versions until the driver knows one.
    fn info(&mut self, device: &Device<'_>) -> Result<FabricInfo, NvmlError> {
        loop {
            match health::fabric_info(device, self.0) {
                Err(
                    NvmlError::UnexpectedVariant(25) | NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound,
                ) if self.0 > 1 => self.0 -= 1,
                other => return other,
            }
        }
    }
}

/// Parts of nvml.h's mask: the first bit, the value that is worth a word, and the word.
const PARTS: [(u32, u32, &str); 6] = [
    (0, 1, "reduced bandwidth"),
    (2, 1, "route recovery in progress"),
    (4, 1, "unhealthy route"),
    (6, 1, "access timeout recovery in progress"),
    (12, 2, "no partition assigned"),
    (14, 2, "no connection to the global fabric manager"),
];
/// The values from 2 on of its four bits from 8 on.
const CONFIGURATIONS: [&str; 7] = [
    "wrong system GUID",
    "wrong chassis serial number",
    "no partition",
    "too few NVLinks",
    "incompatible GPU firmware",
    "invalid location",
    "invalid state of the GPU",
];

/// The driver's summary, and behind it what is not as it should be. None: the driver reports neither.
fn health_in_words(info: FabricInfo) -> Option<String> {
    if info.mask == 0 && info.summary == 0 {
        return None;
    }
    let mut faults: Vec<&str> =
        PARTS.iter().filter(|(bit, value, _)| info.mask >> bit & 3 == *value).map(|(.., word)| *word).collect();
    let configuration = (info.mask >> 8 & 15).checked_sub(2);
    faults.extend(configuration.map(|n| *CONFIGURATIONS.get(n as usize).unwrap_or(&"unknown configuration error")));
    let is_broken = configuration.is_some() || faults.contains(&PARTS[2].2);
    let summary = match info.summary {
        1 => HEALTHY,
        2 => UNHEALTHY,
        3 => LIMITED,
        0 if is_broken => UNHEALTHY,
        0 if faults.contains(&PARTS[0].2) => LIMITED,
        0 => HEALTHY,
        _ => "unknown summary",
    };
    Some(if faults.is_empty() { summary.into() } else { format!("{summary}: {}", faults.join(", ")) })
}

#[test]
fn a_mask_and_a_summary_are_said_in_words() {
    #[track_caller]
    fn check(mask: u32, summary: u8, expect: Option<&str>) {
        let info = FabricInfo { state: 3, status: 0, mask, summary };
        assert_eq!(health_in_words(info).as_deref(), expect, "{mask:#x} {summary}");
    }
    // All false, configuration right, partition assigned, manager connected.
    const GOOD: u32 = 2 | 2 << 2 | 2 << 4 | 2 << 6 | 1 << 8 | 1 << 12 | 1 << 14;
    check(0, 0, None);
    check(0, 1, Some("healthy"));
    check(GOOD, 1, Some("healthy"));
    check(0, 2, Some("unhealthy"));
    check(GOOD & !3 | 1, 3, Some("limited capacity: reduced bandwidth"));
    check(1 << 4 | 4 << 8, 2, Some("unhealthy: unhealthy route, no partition"));
    check(2 << 12 | 2 << 14, 2, Some("unhealthy: no partition assigned, no connection to the global fabric manager"));
    check(8 << 8, 2, Some("unhealthy: invalid state of the GPU"));
    check(9 << 8, 2, Some("unhealthy: unknown configuration error"));
    check(0, 9, Some("unknown summary"));
    // Older drivers have no summary.
    check(GOOD, 0, Some("healthy"));
    check(GOOD & !3 | 1, 0, Some("limited capacity: reduced bandwidth"));
    check(1 << 2 | 1 << 6, 0, Some("healthy: route recovery in progress, access timeout recovery in progress"));
    check(1 << 4 | 1, 0, Some("unhealthy: reduced bandwidth, unhealthy route"));
    check(9 << 8, 0, Some("unhealthy: unknown configuration error"));
}
