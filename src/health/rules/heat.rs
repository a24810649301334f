//! Heat, and throttling by the hardware.

use super::findings::Findings;
use crate::gpu::sample::{Gpu, HW_THERMAL};
use crate::health::history::{self, Track, degrees};
use crate::health::verdict::{Code, Verdict};

/// A GPU this close to its shutdown temperature cannot be relied on.
const SHUTDOWN_MARGIN_C: i32 = 2;

pub(super) fn heat_reasons(gpu: &Gpu, track: &Track, max_temp_c: Option<u32>, findings: &mut Findings<'_>) {
    critical(gpu, findings);
    let index = gpu.index;
    if let (Some(temperature), Some(heat)) = (gpu.temperature_c, history::heat(gpu).filter(|_| track.hot.held())) {
        let message = format!("GPU {index}: {temperature} °C (limit {} °C)", heat.limit);
        let action = "Check fans, dust and airflow, and the intake air temperature.";
        findings.add(Code::TempHigh, Verdict::Degraded, Some(gpu), message, action).numbers(temperature, heat.limit);
    }
    let hot_spot = history::hot_spot(gpu).filter(|_| track.hot_spot.held() && !track.hot.held());
    if let (Some(temperature), Some(heat)) = (gpu.hotspot_temperature_c, hot_spot) {
        let message =
            format!("GPU {index}: hot spot at {temperature} °C, where it throttles (limit {} °C)", heat.limit);
        let action = "Check fans, dust and airflow. The thermal paste may be worn.";
        findings.add(Code::TempHigh, Verdict::Degraded, Some(gpu), message, action).numbers(temperature, heat.limit);
    }
    if let (Some(temperature), Some(max)) = (gpu.temperature_c, max_temp_c.filter(|_| track.above_max.held())) {
        let message = format!("GPU {index}: {temperature} °C, above GPU_MAX_TEMP_C={max}");
        let action = "Improve the cooling, or raise GPU_MAX_TEMP_C.";
        findings.add(Code::TempAboveMax, Verdict::Degraded, Some(gpu), message, action).numbers(temperature, max);
    }
    if let (Some(temperature), Some(max)) = (gpu.memory_temperature_c, gpu.memory_temperature_max_c)
        && (temperature > max || gpu.vendor.is_amd() && temperature == max)
    {
        let message = format!("GPU {index}: memory at {temperature} °C (specified maximum {max} °C)");
        let action = "Fix the cooling. The memory thermal pads may be worn.";
        findings.add(Code::MemTempHigh, Verdict::Degraded, Some(gpu), message, action).numbers(temperature, max);
    }
    slowdowns(gpu, track, findings);
}

fn critical(gpu: &Gpu, findings: &mut Findings<'_>) {
    const ACTION: &str = "Stop its workload and fix the cooling.";
    let index = gpu.index;
    if let (Some(temperature), Some(limit)) = (gpu.temperature_c, shutdown_limit(gpu)) {
        if degrees(temperature) >= limit {
            let shutdown = limit + SHUTDOWN_MARGIN_C;
            let message = format!("GPU {index}: {temperature} °C, close to its shutdown temperature ({shutdown} °C)");
            findings
                .add(Code::TempCritical, Verdict::Unhealthy, Some(gpu), message, ACTION)
                .numbers(temperature, limit);
        }
    } else if margin_is_gone(gpu) {
        let message = format!("GPU {index}: over its thermal limit and throttling");
        findings.add(Code::TempCritical, Verdict::Unhealthy, Some(gpu), message, ACTION);
    }
}

fn slowdowns(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    let index = gpu.index;
    if track.thermal.held() {
        findings.add(
            Code::HwThermalSlowdown,
            Verdict::Degraded,
            Some(gpu),
            format!("GPU {index}: thermally throttled (hardware slowdown) most of the time"),
            "Fix the cooling. Clears after 5 minutes without throttling.",
        );
    }
    if track.brake.held() {
        findings.add(
            Code::HwPowerBrake,
            Verdict::Degraded,
            Some(gpu),
            format!("GPU {index}: power-throttled (hardware power brake) most of the time"),
            "Check the power supply and its cables. Clears after 5 minutes without throttling.",
        );
    }
    if track.hardware.held() {
        findings.add(
            Code::HwSlowdown,
            Verdict::Degraded,
            Some(gpu),
            format!("GPU {index}: throttled by the hardware most of the time, because of heat or power"),
            "Check its cooling, its power cables and the power supply. Clears after 5 minutes without throttling.",
        );
    }
}

/// Degrees Celsius from which it is close to its shutdown.
fn shutdown_limit(gpu: &Gpu) -> Option<i32> {
    let by_margin = || {
        let remaining = history::credible_margin(gpu)?.checked_sub(gpu.margin_at_shutdown_c?)?;
        degrees(gpu.temperature_c?).checked_add(remaining)
    };
    Some(gpu.temperature_shutdown_c.map(degrees).or_else(by_margin)? - SHUTDOWN_MARGIN_C)
}

/// On older GPUs the margin is 0 or less for no reason: the hardware must confirm it.
fn margin_is_gone(gpu: &Gpu) -> bool {
    gpu.temperature_margin_c.is_some_and(|m| m <= 0) && gpu.throttle_bits.is_some_and(|b| b & HW_THERMAL != 0)
}
