//! Whether a GPU has memory of its own, by what its driver says of it.

use nvml_wrapper::Device;

use super::raw::addressing;
use super::reading_log::ReadingLog;
use crate::gpu::plausible;
use crate::gpu::sample::Gpu;

/// The reading, and its words by nvml.h's numbers.
const NAME: &str = "addressing_mode";
const MODES: [&str; 3] = ["none", HMM, ATS];
/// Pages move between the memories of CPU and GPU: the GPU has its own.
const HMM: &str = "hmm";
/// CPU and GPU have one page table. Grace superchips have it and memory of their own as well.
const ATS: &str = "ats";

/// Parts without memory of their own, by what their names contain. For drivers before 580, which have no addressing mode,
/// and for parts whose driver answers "none".
const NAMES: [&str; 5] = ["GB10", "Thor", "Orin", "Xavier", "Tegra"];

/// Reads the addressing mode, unless it is known.
pub(super) fn addressing(device: &Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    if gpu.addressing_mode.is_none() {
        gpu.addressing_mode = read(device, &[NAME], log);
    }
}

/// Reads the addressing mode ahead of the other fixed readings, since the memory depends on it: what it lacks is noted with
/// them.
pub(super) fn addressing_at_first(device: &Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    if gpu.addressing_mode.is_none() && !gpu.fixed_gaps.unsupported.iter().any(|name| name == NAME) {
        gpu.addressing_mode = read(device, &[], log);
    }
}

fn read(device: &Device<'_>, names: &[&str], log: &mut ReadingLog<'_>) -> Option<String> {
    let mode = log.at(NAME, names, || addressing::addressing_mode(device))?;
    let word = MODES.get(mode as usize).map(|word| (*word).to_owned());
    if word.is_none() {
        names.iter().for_each(|name| log.fail(name, &plausible::impossible(mode, "")));
    }
    word
}

/// Whether its memory is the machine's. `total`: bytes that the driver reports for the GPU, None or 0 where it reports none.
/// `main`: bytes of the machine's main memory, read only where they decide.
pub(super) fn is_shared(gpu: &Gpu, total: Option<u64>, main: impl FnOnce() -> Option<u64>) -> bool {
    let mode = gpu.addressing_mode.as_deref();
    let named = || gpu.name.as_ref().is_some_and(|name| NAMES.iter().any(|part| name.contains(part)));
    let can_be = match mode {
        Some(ATS) => true,
        Some(HMM) => false,
        _ => named(),
    };
    match total.filter(|total| *total > 0) {
        None => can_be,
        Some(total) => can_be && main().is_some_and(|main| total.abs_diff(main) <= main / 16),
    }
}

#[test]
fn the_driver_decides_and_the_name_only_where_it_does_not() {
    const MAIN: u64 = 128 << 30;
    #[track_caller]
    fn check(mode: Option<&str>, name: &str, total: Option<u64>, expect: bool) {
        let gpu = Gpu { addressing_mode: mode.map(str::to_owned), name: Some(name.into()), ..Gpu::default() };
        assert_eq!(is_shared(&gpu, total, || Some(MAIN)), expect, "{mode:?} {name} {total:?}");
    }
    for absent in [None, Some(0)] {
        check(Some("ats"), "NVIDIA GB10", absent, true);
        check(Some("ats"), "NVIDIA of next year", absent, true);
        // Drivers that do not say.
        check(None, "NVIDIA GB10", absent, true);
        check(Some("none"), "NVIDIA Thor", absent, true);
        check(None, "Orin (nvgpu)", absent, true);
        check(None, "NVIDIA GeForce RTX 4090", absent, false);
        check(Some("none"), "NVIDIA H100", absent, false);
        check(Some("hmm"), "NVIDIA GeForce RTX 4090", absent, false);
        check(Some("hmm"), "NVIDIA Orin-looking card", absent, false);
    }
    // Grace Hopper and GB200 share addresses and have memory of their own.
    check(Some("ats"), "NVIDIA GH200 480GB", Some(96 << 30), false);
    check(Some("ats"), "NVIDIA GB200", Some(186 << 30), false);
    // A driver that reports the machine's memory as the GPU's.
    check(Some("ats"), "NVIDIA GB10", Some(MAIN), true);
    check(Some("ats"), "NVIDIA GB10", Some(MAIN - (6 << 30)), true);
    check(None, "NVIDIA Thor", Some(MAIN), true);
    check(Some("hmm"), "NVIDIA GeForce RTX 4090", Some(MAIN), false);
    check(None, "NVIDIA GeForce RTX 4090", Some(MAIN), false);
    let ats = Gpu { addressing_mode: Some("ats".into()), ..Gpu::default() };
    assert!(!is_shared(&ats, Some(MAIN), || None));
}
