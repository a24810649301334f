//! Errors of the memory and other parts that a card corrects or counts (RAS). Few cards have it. Reading a counter asks the
//! hardware: at the slow rate only.

use std::fs;
use std::path::Path;

use super::files::{self, Files, Missing};
use crate::gpu::sample::{Gpu, RetiredPages};

/// The bit of the memory (UMC) in the mask of what is watched; a card without ECC memory may have those of its caches.
const MEMORY: u64 = 1;
/// More parts of a card than any has.
const MOST_BLOCKS: usize = 64;

pub(super) fn read(folder: &Path, gpu: &mut Gpu, files: &mut Files<'_, '_>) {
    if !folder.is_dir() {
        return;
    }
    gpu.ecc_enabled = files.take("ecc_enabled", files::text(&folder.join("features"))).and_then(|text| enabled(&text));
    let name = "ecc_uncorrected_volatile";
    gpu.ecc_uncorrected_volatile =
        files.take(name, uncorrected(folder)).and_then(|errors| files.plausible(name, i64::try_from(errors).ok()?));
    gpu.retired_pages = files.take(
        "retired_pages",
        files::text(&folder.join("gpu_vram_bad_pages")).map(|text| pages(&text)).or_else(|why| match why {
            // No page is bad.
            Missing::Unsupported if folder.join("gpu_vram_bad_pages").exists() => Ok(RetiredPages::default()),
            why => Err(why),
        }),
    );
}

/// `feature mask: 0x0000000f`
fn enabled(text: &str) -> Option<bool> {
    let mask = text.lines().find_map(|line| line.split_once("mask:"))?.1.trim();
    u64::from_str_radix(mask.trim_start_matches("0x"), 16).ok().map(|mask| mask & MEMORY != 0)
}

/// The sum over all parts; one that cannot be asked makes it unknown.
fn uncorrected(folder: &Path) -> Result<u64, Missing> {
    let entries = fs::read_dir(folder).map_err(|_| Missing::Unsupported)?.flatten().map(|entry| entry.path());
    let counters = entries.filter(|path| path.to_string_lossy().ends_with("_err_count")).take(MOST_BLOCKS);
    let mut sum = None;
    for path in counters {
        let text = match files::text(&path) {
            // The driver's query failed.
            Err(Missing::Unsupported) => return Err(Missing::value(&path, "")),
            text => text?,
        };
        let count = text.lines().find_map(|line| line.strip_prefix("ue:")?.trim().parse::<u64>().ok());
        let Some(count) = count else { return Err(Missing::value(&path, &text)) };
        sum = Some(sum.unwrap_or(0_u64).saturating_add(count));
    }
    sum.ok_or(Missing::Unsupported)
}

/// Lines of `0xPAGE : 0xSIZE : R`: retired; P waits for a reset, F could not be retired.
fn pages(text: &str) -> RetiredPages {
    let states = || text.lines().filter_map(|line| line.rsplit(':').next().map(str::trim));
    let count = states().filter(|state| matches!(*state, "R" | "P" | "F")).count();
    RetiredPages {
        single_bit: 0,
        double_bit: u32::try_from(count).unwrap_or(u32::MAX),
        pending: states().any(|state| state == "P"),
    }
}

#[test]
fn bad_pages_are_counted_by_their_state() {
    let text = "0x00000001 : 0x00001000 : R\n0x00000002 : 0x00001000 : P\n0x00000003 : 0x00001000 : F\n";
    assert_eq!(pages(text), RetiredPages { single_bit: 0, double_bit: 3, pending: true });
    assert_eq!(pages("0x00000001 : 0x00001000 : R"), RetiredPages { single_bit: 0, double_bit: 1, pending: false });
    assert_eq!(
        ["feature mask: 0x0000000f", "feature mask: 0x3ffe", "feature mask: 0x0", "x"].map(enabled),
        [Some(true), Some(false), Some(false), None]
    );
}
