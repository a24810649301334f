//! What the rules need of the past: samples with their times in, current conditions out. A condition clears as soon as
//! the readings show it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::gpu::holders;
use crate::gpu::pci::PciId;
use crate::gpu::readings::is_core;
use crate::gpu::sample::{
    Failure, Gpu, GpuSample, HW_POWER_BRAKE, HW_SLOWDOWN, HW_THERMAL, IDLE, RetiredPages, SLOW_READ, SW_THERMAL,
};
use crate::gpu::state::GpuState;
use crate::health::streak::{Lasting, Streak};
use crate::ollama::state::OllamaState;
use crate::sys::order;

/// A condition of heat clears this far below its limit, in degrees Celsius.
const HYSTERESIS_C: i32 = 2;
/// Without any threshold of the GPU, this is hot.
const HOT_C: i32 = 90;
/// With this many failed core readings a GPU is dead.
const DEAD_READINGS: usize = 2;
/// A card below this temperature is not at its limit, whatever its margin: some H100 report a margin of 0 or less while
/// they are cold. Every board's own limit is higher.
const WARM_C: i32 = 80;
/// Below the temperature at which it slows down.
const BELOW_SLOWDOWN_C: i32 = 3;

/// GPUs that are remembered: more than any machine has. A wrong count must not fill the memory.
const MAX_TRACKS: usize = 512;

/// The past of one machine.
#[derive(Debug, Default)]
pub(crate) struct History {
    tracks: BTreeMap<String, Track>,
    /// The most GPUs that NVML has listed and that this process may use.
    pub(crate) most_gpus: usize,
    /// A GPU of AMD was listed.
    pub(crate) amd_ever: bool,
    /// When the slow readings of a fault's GPUs were last counted.
    counted: Duration,
    /// PCI addresses of all GPUs seen so far.
    known: BTreeSet<PciId>,
    vram_mismatch: Streak,
}

/// The past of one GPU.
#[derive(Debug, Default)]
pub(crate) struct Track {
    pub(crate) hot: Streak,
    pub(crate) above_max: Streak,
    /// The chip's hot spot is at its limit.
    pub(crate) hot_spot: Streak,
    pub(crate) narrow: Streak,
    pub(crate) thermal: Slowdown,
    pub(crate) brake: Slowdown,
    /// By the hardware, without heat or power as its reported cause.
    pub(crate) hardware: Slowdown,
    /// It answers slowly.
    pub(crate) slow: Streak<2>,
    /// Its core readings fail as those of a dead GPU do.
    pub(crate) dead: Streak<2>,
    pub(crate) replays: Replays,
    pub(crate) nvlink_ever: bool,
    pub(crate) awaits_fabric: Lasting,
    /// Pages were retired while it was watched.
    pub(crate) retired_rise: bool,
    retired: Option<u32>,
    /// Readings that have failed since the GPU was first seen; None before that.
    never_worked: Option<BTreeSet<String>>,
}

impl History {
    /// Adds a state. `max_temp_c`: GPU_MAX_TEMP_C. `at`: any monotonic clock.
    pub(crate) fn see_state(&mut self, gpu: &GpuState, ollama: &OllamaState, max_temp_c: Option<u32>, at: Duration) {
        match gpu {
            GpuState::Sample(sample) => self.see(sample, ollama, max_temp_c, at),
            // Those of the other driver. A fault does not say which readings are new.
            _ => {
                let fresh = at.saturating_sub(self.counted) >= MINUTE;
                if fresh {
                    self.counted = at;
                }
                for gpu in gpu.gpus() {
                    if gpu.usable() {
                        self.see_gpu(gpu, fresh, max_temp_c, at);
                    } else if let Some(track) = self.tracks.get_mut(&gpu.id()) {
                        track.see_nothing(at);
                    }
                }
            }
        }
    }

    /// Adds a sample.
    pub(crate) fn see(&mut self, sample: &GpuSample, ollama: &OllamaState, max_temp_c: Option<u32>, at: Duration) {
        self.most_gpus = self.most_gpus.max(sample.given());
        for gpu in &sample.gpus {
            self.see_gpu(gpu, sample.slow_fresh, max_temp_c, at);
        }
        let mismatch = vram_mismatch(sample, ollama).is_some();
        self.vram_mismatch.see(mismatch, !mismatch);
    }

    fn see_gpu(&mut self, gpu: &Gpu, slow_fresh: bool, max_temp_c: Option<u32>, at: Duration) {
        self.amd_ever |= gpu.vendor.is_amd();
        if self.known.len() < MAX_TRACKS {
            self.known.extend(gpu.pci());
        }
        let id = gpu.id();
        if self.tracks.len() < MAX_TRACKS || self.tracks.contains_key(&id) {
            self.tracks.entry(id).or_default().see(gpu, slow_fresh, max_temp_c, at);
        }
    }

    pub(crate) fn of(&self, gpu: &Gpu) -> Option<&Track> {
        self.tracks.get(&gpu.id())
    }

    pub(crate) fn knows(&self, place: PciId) -> bool {
        self.known.contains(&place)
    }

    /// For several samples Ollama has reported more VRAM than the GPUs use.
    pub(crate) fn vram_mismatch(&self) -> bool {
        self.vram_mismatch.held()
    }

    /// The operator has acknowledged missing GPUs.
    pub(crate) fn forget_missing(&mut self, now_counted: usize) {
        self.most_gpus = now_counted;
    }
}

/// Bytes of VRAM that Ollama reports and bytes that the GPUs use, where the second is less than half of the first and
/// the first is more than 1 GiB.
pub(crate) fn vram_mismatch(sample: &GpuSample, ollama: &OllamaState) -> Option<(u64, u64)> {
    let claimed = ollama.vram_bytes();
    if sample.gpus.is_empty() || !ollama.lists_known {
        return None;
    }
    // A GPU without this reading could hold it all. Shared memory says little: a model's mapped file counts as free. Of
    // AMD's the driver says what the GPU itself uses of it.
    let own = |g: &Gpu| holders::used_for_models(g).filter(|_| !g.unified_memory || g.vendor.is_amd());
    let used: u64 = sample.gpus.iter().map(own).sum::<Option<u64>>()?;
    (claimed > 1 << 30 && used < claimed / 2).then_some((claimed, used))
}

impl Track {
    fn see(&mut self, gpu: &Gpu, slow_fresh: bool, max_temp_c: Option<u32>, at: Duration) {
        let over = heat(gpu).map(|heat| heat.over);
        self.hot.see(over.is_some_and(|o| o >= 0), over.is_none_or(|o| o <= -HYSTERESIS_C));
        let over = hot_spot(gpu).map(|heat| heat.over);
        self.hot_spot.see(over.is_some_and(|o| o >= 0), over.is_none_or(|o| o <= -HYSTERESIS_C));
        let over = max_temp_c.and_then(|max| Some(degrees(gpu.temperature_c?) - degrees(max)));
        self.above_max.see(over.is_some_and(|o| o > 0), over.is_none_or(|o| o <= -HYSTERESIS_C));
        let bit = |mask: u64| gpu.throttle_bits.map(|bits| bits & mask != 0);
        let counter = |name: &str| gpu.throttle_ns.get(name).copied();
        self.thermal.see(at, bit(HW_THERMAL), counter("hw_thermal"));
        self.brake.see(at, bit(HW_POWER_BRAKE), counter("hw_power_brake"));
        // At idle it means nothing: laptops set it on battery. With one of the other bits it belongs to that one.
        let alone = |bits: u64| bits & (HW_SLOWDOWN | HW_THERMAL | HW_POWER_BRAKE | IDLE) == HW_SLOWDOWN;
        let working = gpu.utilization_percent.is_none_or(|percent| percent > 0);
        self.hardware.see(at, gpu.throttle_bits.map(|bits| alone(bits) && working), None);
        // One that sleeps has no readings that could fail.
        if !gpu.usable() || gpu.asleep {
            self.awaits_fabric.see(at, false);
            return;
        }
        let slow = gpu.read_us.is_some_and(|us| Duration::from_micros(us) >= SLOW_READ);
        self.slow.see(slow, !slow);
        let dead = gpu.dead_readings() >= DEAD_READINGS;
        self.dead.see(dead, !dead);
        if slow_fresh {
            self.see_slow(gpu, at);
        }
        let failing = gpu.failed().map(|(name, _)| name);
        match &mut self.never_worked {
            None => self.never_worked = Some(order::set(failing.map(str::to_owned))),
            Some(names) => {
                let failing = order::set(failing);
                names.retain(|name| failing.contains(name.as_str()));
            }
        }
    }

    /// The GPU could not be read: what the last sample showed does not stand for this time.
    fn see_nothing(&mut self, at: Duration) {
        for slowdown in [&mut self.thermal, &mut self.brake, &mut self.hardware] {
            slowdown.see(at, None, None);
        }
        self.awaits_fabric.see(at, false);
    }

    fn see_slow(&mut self, gpu: &Gpu, at: Duration) {
        self.awaits_fabric.see(at, gpu.awaits_fabric());
        self.nvlink_ever |= gpu.nvlinks_active.is_some_and(|links| links > 0);
        match (gpu.pcie_width, gpu.pcie_width_max) {
            // At idle a link may be narrower; it counts only under load. That of an AMD card's slot keeps its width.
            (Some(now), Some(max)) if now < max && !gpu.unified_memory => {
                if gpu.vendor.is_amd() || gpu.performance_state.is_some_and(|state| state <= 2) {
                    self.narrow.see(true, false);
                }
            }
            _ => self.narrow.see(false, true),
        }
        self.replays.see(at, gpu.pcie_replays);
        if let Some(pages) = gpu.retired_pages {
            let total = total(pages);
            self.retired_rise |= self.retired.is_some_and(|before| total > before);
            self.retired = Some(total);
        }
    }

    /// A failed reading is a fault if the device caused it, if it worked before, or if every GPU has it.
    pub(crate) fn is_fault(&self, reading: &str, why: &Failure) -> bool {
        let must_work = why.of_device || is_core(reading);
        must_work || !self.never_worked.as_ref().is_some_and(|names| names.contains(reading))
    }
}

/// Single and double bit pages together.
pub(crate) fn total(pages: RetiredPages) -> u32 {
    pages.single_bit.saturating_add(pages.double_bit)
}

/// A GPU's temperature relative to its own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heat {
    /// Degrees Celsius from which it is too hot.
    pub(crate) limit: i32,
    /// Degrees above that limit, negative below.
    pub(crate) over: i32,
}

/// From its own limit on the hot spot throttles the GPU. Just below it the GPU works as it should.
pub(crate) fn hot_spot(gpu: &Gpu) -> Option<Heat> {
    let (temperature, limit) = (degrees(gpu.hotspot_temperature_c?), degrees(gpu.hotspot_temperature_slowdown_c?));
    Some(Heat { limit, over: temperature - limit })
}

/// The limit is the specified maximum, else (newer parts) the margin to it, else just below where the GPU slows
/// down, else 90 °C.
pub(crate) fn heat(gpu: &Gpu) -> Option<Heat> {
    let temperature = degrees(gpu.temperature_c?);
    let by_limit = |limit: i32| Heat { limit, over: temperature - limit };
    if let Some(max) = gpu.temperature_max_c {
        return Some(by_limit(degrees(max) + 1));
    }
    if let (Some(margin), Some(at_max)) = (credible_margin(gpu), gpu.margin_at_max_c) {
        let over = at_max.saturating_sub(1).saturating_sub(margin);
        return Some(Heat { limit: temperature.saturating_sub(over), over });
    }
    let below_slowdown = gpu.temperature_slowdown_c.map(|slowdown| degrees(slowdown) - BELOW_SLOWDOWN_C);
    // AMD's cards have a limit. A GPU in the processor has none, and runs at more than 90 °C by design.
    let unknown = (!gpu.vendor.is_amd()).then_some(HOT_C);
    below_slowdown.or(unknown).map(by_limit)
}

/// The margin to the thermal limit. A margin of 0 or less counts only together with heat or a thermal slowdown.
pub(crate) fn credible_margin(gpu: &Gpu) -> Option<i32> {
    let warm = gpu.temperature_c.is_some_and(|celsius| degrees(celsius) >= WARM_C);
    let slowed = gpu.throttle_bits.is_some_and(|bits| bits & (HW_THERMAL | SW_THERMAL) != 0);
    gpu.temperature_margin_c.filter(|margin| *margin > 0 || warm || slowed)
}

/// A signed temperature; the helper lets only plausible values through.
pub(crate) fn degrees(celsius: u32) -> i32 {
    i32::try_from(celsius).unwrap_or(i32::MAX / 2)
}

/// The window in which throttling is counted, and which must be clean before the condition clears.
const SLOWDOWN_WINDOW: Duration = Duration::from_secs(300);
/// This share of the window raises the condition.
const SLOWDOWN_SHARE: f64 = 0.6;
/// Or this share of a minute by the driver's own counter.
const COUNTER_SHARE: f64 = 0.5;
/// A minute with less than this by the counter is clean.
const COUNTER_NOISE: f64 = 1.0 / 60.0;
const MINUTE: Duration = Duration::from_secs(60);
/// Samples that come faster are merged, so that the window stays small.
const FINEST: Duration = Duration::from_secs(1);

/// Whether the hardware throttles, by its bit and by the driver's counter of nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Slowdown {
    seen: VecDeque<Seen>,
    last_active: Option<Duration>,
    held: bool,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Duration,
    active: bool,
    counter: Option<u64>,
}

impl Slowdown {
    fn see(&mut self, at: Duration, bit: Option<bool>, counter: Option<u64>) {
        let active = bit == Some(true);
        if self.seen.back().zip(counter).is_some_and(|(last, now)| last.counter.is_some_and(|before| now < before)) {
            // The driver was reloaded: the old numbers mean nothing.
            self.seen.iter_mut().for_each(|seen| seen.counter = None);
        }
        let growing = self.growth(at, counter, FINEST).is_some_and(|share| share > COUNTER_NOISE);
        if active || growing {
            self.last_active = Some(at);
        }
        match self.seen.back_mut() {
            Some(last) if at.saturating_sub(last.at) < FINEST => last.active |= active,
            _ => self.seen.push_back(Seen { at, active, counter }),
        }
        while self.seen.front().is_some_and(|first| at.saturating_sub(first.at) > SLOWDOWN_WINDOW) {
            self.seen.pop_front();
        }
        let by_counter = self.growth(at, counter, MINUTE).is_some_and(|share| share > COUNTER_SHARE);
        let clean = self.last_active.is_none_or(|last| at.saturating_sub(last) >= SLOWDOWN_WINDOW);
        self.held = self.active_share(at) >= SLOWDOWN_SHARE || by_counter || (self.held && !clean);
    }

    /// The share of the time since the latest sample that is at least `back` old in which the counter grew.
    fn growth(&self, at: Duration, counter: Option<u64>, back: Duration) -> Option<f64> {
        let now = counter?;
        let then = self.seen.iter().rev().find(|seen| at.saturating_sub(seen.at) >= back)?;
        let grown = now.checked_sub(then.counter?)?;
        Some(grown as f64 / 1e9 / at.saturating_sub(then.at).as_secs_f64())
    }

    /// The share of the whole window; each sample stands for the time until the next.
    fn active_share(&self, at: Duration) -> f64 {
        let ends = self.seen.iter().skip(1).map(|seen| seen.at).chain([at]);
        let active = self.seen.iter().zip(ends).filter(|(seen, _)| seen.active);
        let total: f64 = active.map(|(seen, end)| end.saturating_sub(seen.at).as_secs_f64()).sum();
        total / SLOWDOWN_WINDOW.as_secs_f64()
    }

    pub(crate) fn held(&self) -> bool {
        self.held
    }
}

/// PCIe replays.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    seen: VecDeque<(Duration, u32)>,
}

impl Replays {
    fn see(&mut self, at: Duration, count: Option<u32>) {
        let Some(count) = count else { return self.seen.clear() };
        if self.seen.back().is_some_and(|(_, before)| count < *before) {
            self.seen.clear();
        }
        self.seen.push_back((at, count));
        while self.seen.len() > 2 && at.saturating_sub(self.seen[1].0) >= MINUTE {
            self.seen.pop_front();
        }
        while self.seen.len() > MOST_REPLAYS {
            self.seen.pop_front();
        }
    }

    /// Replays in the last minute; where readings are farther apart, the rate per minute.
    pub(crate) fn per_minute(&self) -> f64 {
        let (Some((start, first)), Some((end, last))) = (self.seen.front(), self.seen.back()) else { return 0.0 };
        let span = end.saturating_sub(*start).max(MINUTE);
        f64::from(last - first) / (span.as_secs_f64() / 60.0)
    }
}

/// A minute of the shortest SLOW_SAMPLE_INTERVAL.
const MOST_REPLAYS: usize = 601;

#[cfg(test)]
mod tests;
