//! Heat, and clocks that the hardware holds down.

use super::Findings;
use crate::gpu::sample::{Gpu, HW_THERMAL};
use crate::health::reading_log::{self, Track, degrees};
use crate::health::verdict::{Code, Verdict};

/// A GPU this close to switching itself off is lost to its work.
const SHUTDOWN_MARGIN_C: i32 = 2;

pub(super) fn judge(gpu: &Gpu, track: &Track, max_temp_c: Option<u32>, findings: &mut Findings<'_>) {
    let index = gpu.index;
    if let (Some(temperature), Some(shutdown)) = (gpu.temperature_c, shutdown_limit(gpu)) {
        if degrees(temperature) >= shutdown {
            let message = format!("GPU {index} is at {temperature} °C, about to switch itself off");
            findings
                .add(Code::TempCritical, Verdict::Unhealthy, Some(gpu), message, "stop its work and fix its cooling")
                .numbers(temperature, shutdown);
        }
    } else if margin_is_gone(gpu) {
        let message = format!("GPU {index} is beyond its thermal limit and slows itself down");
        findings.add(Code::TempCritical, Verdict::Unhealthy, Some(gpu), message, "stop its work and fix its cooling");
    }
    if let (Some(temperature), Some(heat)) = (gpu.temperature_c, reading_log::heat(gpu).filter(|_| track.hot.held())) {
        let message = format!("GPU {index} is at {temperature} °C; it should stay below {} °C", heat.limit);
        findings
            .add(Code::TempHigh, Verdict::Degraded, Some(gpu), message, "clean its fans and look at the room's air")
            .numbers(temperature, heat.limit);
    }
    if let (Some(temperature), Some(max)) = (gpu.temperature_c, max_temp_c.filter(|_| track.above_max.held())) {
        let message = format!("GPU {index} is at {temperature} °C; GPU_MAX_TEMP_C is {max}");
        findings
            .add(Code::TempAboveMax, Verdict::Degraded, Some(gpu), message, "cool it, or raise GPU_MAX_TEMP_C")
            .numbers(temperature, max);
    }
    if let (Some(temperature), Some(max)) = (gpu.memory_temperature_c, gpu.fixed.memory_temperature_max_c)
        && temperature > max
    {
        let message = format!("the memory of GPU {index} is at {temperature} °C; it is made for {max} °C");
        findings
            .add(
                Code::MemTempHigh,
                Verdict::Degraded,
                Some(gpu),
                message,
                "fix its cooling; the memory's pads may be worn",
            )
            .numbers(temperature, max);
    }
    slowdowns(gpu, track, findings);
}

fn slowdowns(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    let index = gpu.index;
    if track.thermal.held() {
        findings.add(
            Code::HwThermalSlowdown,
            Verdict::Degraded,
            Some(gpu),
            format!("the hardware of GPU {index} holds its clocks down because of heat, most of the time"),
            "fix its cooling; it passes after 5 minutes without",
        );
    }
    if track.brake.held() {
        findings.add(
            Code::HwPowerBrake,
            Verdict::Degraded,
            Some(gpu),
            format!("the power supply makes GPU {index} hold its clocks down, most of the time"),
            "check the power supply and its cables; it passes after 5 minutes without",
        );
    }
    if track.hardware.held() {
        findings.add(
            Code::HwSlowdown,
            Verdict::Degraded,
            Some(gpu),
            format!("the hardware of GPU {index} holds its clocks down most of the time, because of heat or power"),
            "check its cooling, its power cables and the power supply; it passes after 5 minutes without",
        );
    }
}

/// Degrees Celsius from which on it is about to switch itself off.
fn shutdown_limit(gpu: &Gpu) -> Option<i32> {
    let fixed = &gpu.fixed;
    let by_margin = || {
        let left = reading_log::credible_margin(gpu)?.checked_sub(fixed.margin_at_shutdown_c?)?;
        degrees(gpu.temperature_c?).checked_add(left)
    };
    Some(fixed.temperature_shutdown_c.map(degrees).or_else(by_margin)? - SHUTDOWN_MARGIN_C)
}

/// On older parts the margin is 0 or less for no reason: the hardware must say the same.
fn margin_is_gone(gpu: &Gpu) -> bool {
    gpu.temperature_margin_c.is_some_and(|m| m <= 0) && gpu.throttle_bits.is_some_and(|b| b & HW_THERMAL != 0)
}
