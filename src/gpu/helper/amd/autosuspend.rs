//! When an idle card is left alone for a while: each look at a sensor starts the time over after which the kernel suspends a
//! card, so that one that is looked at every 5 s never sleeps.

use std::path::Path;
use std::time::{Duration, Instant};

use super::files;
use crate::gpu::sample::Gpu;

/// Samples in a row without work, after which it is left alone.
const IDLE_SAMPLES: u32 = 3;
/// Beyond the kernel's own delay.
const MARGIN: Duration = Duration::from_secs(2);
/// A card that needs longer would have old readings for too long.
const LONGEST: Duration = Duration::from_secs(30);
/// A card that stayed awake, such as one with a display, is left alone again after this time.
const AGAIN: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Autosuspend {
    idle: u32,
    /// Until when it is left alone.
    until: Option<Instant>,
    /// When it was left alone and stayed awake.
    stayed: Option<Instant>,
}

impl Autosuspend {
    /// Whether an awake card is left alone at this sample; its readings are the last ones.
    pub(super) fn waits(&mut self, device: &Path, now: Instant) -> bool {
        match self.until {
            Some(until) if now < until => return true,
            Some(_) => {
                self.until = None;
                self.stayed = Some(now);
            }
            None if self.idle < IDLE_SAMPLES => {}
            None if self.stayed.is_some_and(|stayed| now < stayed + AGAIN) => {}
            None => self.until = delay(device).map(|delay| now + delay + MARGIN),
        }
        self.until.is_some()
    }

    /// Whether it had work when it was read.
    pub(super) fn see(&mut self, gpu: &Gpu) {
        let is_idle = gpu.utilization_percent == Some(0) && gpu.processes.as_ref().is_none_or(Vec::is_empty);
        self.idle = if is_idle { self.idle.saturating_add(1) } else { 0 };
    }
}

/// After how long the kernel suspends it; None: it does not.
fn delay(device: &Path) -> Option<Duration> {
    let is_auto = files::text(&device.join("power/control")).is_ok_and(|control| control == "auto");
    // Negative: never.
    let millis = files::number(&device.join("power/autosuspend_delay_ms")).ok().filter(|_| is_auto)?;
    u64::try_from(millis).ok().map(Duration::from_millis).filter(|delay| *delay <= LONGEST)
}

#[test]
fn an_idle_card_is_left_alone_once_for_the_kernels_delay() {
    let device = std::env::temp_dir().join(format!("agent-net-autosuspend-{}", std::process::id()));
    std::fs::create_dir_all(device.join("power")).unwrap();
    let set = |file: &str, text: &str| std::fs::write(device.join("power").join(file), text).unwrap();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let gpu = |percent| Gpu { utilization_percent: Some(percent), ..Gpu::default() };
    let idle = || {
        let mut card = Autosuspend::default();
        (0..IDLE_SAMPLES).for_each(|_| card.see(&gpu(0)));
        card
    };
    // Without the files; then `on`, never, and too long.
    assert!(!idle().waits(&device, start));
    for (control, delay, waits) in
        [("on", "5000", false), ("auto", "-1", false), ("auto", "60000", false), ("auto", "5000\n", true)]
    {
        set("control", control);
        set("autosuspend_delay_ms", delay);
        assert_eq!(idle().waits(&device, start), waits, "{control} {delay}");
    }
    let mut card = idle();
    assert!(card.waits(&device, start) && card.waits(&device, at(6)));
    // It stayed awake.
    assert!(!card.waits(&device, at(7)) && !card.waits(&device, at(606)));
    assert!(card.waits(&device, at(607)));
    // A card with work is read, and so is one whose work has just ended.
    let mut card = idle();
    card.see(&gpu(1));
    assert!(!card.waits(&device, start));
    card.see(&gpu(0));
    assert!(!card.waits(&device, start));
    std::fs::remove_dir_all(&device).unwrap();
}
