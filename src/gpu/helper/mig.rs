//! The instances of a GPU in MIG mode. They are listed with the slow readings. Their memory is read at each sample, with
//! their activity where the GPU has GPM. An instance is a compute instance: a GPU instance without one is not
//! listed. A handle ends with its instance, and NVML may give it to another one: none is kept beyond the next list.

use std::mem;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::DeviceAttributes;

use super::gpm::Gpm;
use super::reading_log::ReadingLog;
use super::{raw, readings};
use crate::gpu::mig_instance::MigInstance;
use crate::gpu::plausible;
use crate::gpu::readings::Gpu;
use crate::sys::json::MIB;

/// The instances of one GPU that are read at each sample.
#[derive(Default)]
pub(super) struct Instances {
    /// Of `Gpu::mig`, in its order.
    handles: Vec<Device<'static>>,
    /// Bytes of each one's memory; None: it cannot be read.
    totals: Vec<Option<u64>>,
    /// Of each GPU instance: its id, the UUID of its first instance, and how busy it was.
    gpm: Vec<(u32, Option<String>, Gpm)>,
}

impl Instances {
    pub(super) fn handles(&self) -> &[Device<'static>] {
        &self.handles
    }

    /// Looks whether MIG is on, and lists the instances.
    pub(super) fn list(&mut self, device: &Device<'static>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
        let mut gpm = mem::take(self).gpm;
        let mode = log.at("mig_mode", &["mig_mode", "mig"], || device.mig_mode().map(|mode| mode.current));
        gpu.mig_mode = mode.and_then(|mode| log.plausible("mig_mode", mode)).map(|mode| mode == 1);
        if gpu.mig_mode != Some(true) {
            return;
        }
        let Some(most) = log.number("mig_device_count", "mig", || device.mig_device_count()) else { return };
        let Some(handles) = log.at("mig_device_by_index", &["mig"], || handles(device, most)) else { return };
        let board = gpu.vram_total_bytes;
        let read = handles.into_iter().filter_map(|handle| Some((instance(&handle, board, log)?, handle)));
        let (instances, handles): (Vec<MigInstance>, _) = read.unzip();
        self.totals =
            instances.iter().map(|one| one.vram_total_bytes.filter(|_| one.vram_used_bytes.is_some())).collect();
        (gpu.mig, self.handles) = (Some(instances), handles);
        // An id is given to another one once its GPU instance is gone: then what was kept of it is of no use.
        self.gpm = gpu
            .memories()
            .filter_map(|one| Some((one.gpu_instance?, one.uuid.clone())))
            .map(|(id, uuid)| {
                let kept = gpm.iter().position(|(of, first, _)| (*of, first) == (id, &uuid));
                kept.map_or_else(|| (id, uuid, Gpm::of_instance(id)), |at| gpm.swap_remove(at))
            })
            .collect();
    }

    /// Reads how busy each GPU instance was since the last sample. `probing`: this sample is a probe's.
    pub(super) fn activity(
        &mut self,
        device: &Device<'static>,
        gpu: &mut Gpu,
        probing: bool,
        log: &mut ReadingLog<'_>,
    ) {
        for (id, _, gpm) in &mut self.gpm {
            let [sm, tensor, dram] = gpm.activity(device, probing, log);
            for one in gpu.mig.iter_mut().flatten().filter(|one| one.gpu_instance == Some(*id)) {
                (one.sm_activity_percent, one.tensor_activity_percent, one.dram_activity_percent) = (sm, tensor, dram);
            }
        }
    }

    /// Forgets the last samples of that: the GPU did not answer in between.
    pub(super) fn interrupt(&mut self) {
        self.gpm.iter_mut().for_each(|(.., gpm)| gpm.interrupt());
    }

    /// Reads the memory of the listed instances. False: one of them is gone or is another one, and must be listed again.
    pub(super) fn refresh(&mut self, gpu: &mut Gpu, log: &mut ReadingLog<'_>) -> bool {
        let mut is_listed = true;
        for ((instance, handle), listed) in gpu.mig.iter_mut().flatten().zip(&self.handles).zip(&self.totals) {
            instance.vram_used_bytes = None;
            let Some(listed) = listed.filter(|_| is_listed) else { continue };
            let read = memory(handle, log).filter(|(total, _)| *total == listed);
            instance.vram_used_bytes = read.map(|(_, used)| used);
            is_listed = read.is_some();
        }
        if !is_listed {
            // Another one can have its id and its UUID.
            self.gpm.clear();
        }
        is_listed
    }
}

/// Numbers without an instance are left out, also in the middle. So are instances of others.
///
/// # Errors
/// NVML's. It is `NoPermission` where all instances belong to others.
fn handles(device: &Device<'static>, most: u32) -> Result<Vec<Device<'static>>, NvmlError> {
    let mut refused = None;
    let mut handles = Vec::new();
    for index in 0..most {
        match device.mig_device_by_index(index) {
            Ok(handle) => handles.push(handle),
            Err(NvmlError::NotFound) => {}
            Err(why @ NvmlError::NoPermission) => refused = Some(why),
            Err(why) => return Err(why),
        }
    }
    refused.filter(|_| handles.is_empty()).map_or(Ok(handles), Err)
}

/// None: it has just been destroyed. `board`: memory of the whole GPU.
fn instance(handle: &Device<'_>, board: Option<u64>, log: &mut ReadingLog<'_>) -> Option<MigInstance> {
    let uuid = log.at("mig_uuid", &[], || match raw::uuid(handle) {
        Err(NvmlError::InvalidArg | NvmlError::NotFound) => Ok(None),
        other => other.map(Some),
    });
    if uuid == Some(None) {
        return None;
    }
    let attributes = log.at("mig_attributes", &[], || handle.attributes());
    let named = log.at("mig_name", &[], || raw::name(handle)).and_then(|name| profile_in(&name));
    let profile = named.or_else(|| attributes.as_ref().and_then(|attributes| profile_of(attributes, board)));
    let (total, used) = memory(handle, log).unzip();
    Some(MigInstance {
        uuid: uuid.flatten(),
        profile,
        gpu_instance: log.at("mig_instance_id", &[], || raw::gpu_instance(handle)),
        compute_instance: log.at("mig_instance_id", &[], || raw::compute_instance(handle)),
        sm_count: attributes.as_ref().map(|attributes| attributes.multiprocessor_count),
        vram_total_bytes: total.or_else(|| attributes.map(|attributes| attributes.memory_size_mb * MIB)),
        vram_used_bytes: used,
        ..MigInstance::default()
    })
}

/// Bytes of its total memory and of those in use.
fn memory(handle: &Device<'_>, log: &mut ReadingLog<'_>) -> Option<(u64, u64)> {
    let (total, used, ..) = log.at("mig_memory_info", &[], || readings::memory_info(handle))?;
    let possible = plausible::check("vram_total_mb", total).is_ok() && used <= total;
    possible.then_some((total, used))
}

/// Newer drivers name an instance as CUDA does: `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
fn profile_in(name: &str) -> Option<String> {
    let word = name.rsplit_once("MIG ")?.1.split(' ').next()?;
    let is_profile = word.contains("g.") && word.starts_with(|first: char| first.is_ascii_digit());
    is_profile.then(|| word.to_owned())
}

/// The profile's name, as NVIDIA's go-nvlib builds it: with the share in eighths that an instance has of the board's gigabytes.
/// A driver shows the profile itself only to root. `board`: bytes.
fn profile_of(attributes: &DeviceAttributes, board: Option<u64>) -> Option<String> {
    let (slices, parts) = (attributes.gpu_instance_slice_count, attributes.compute_instance_slice_count);
    let board = board.filter(|_| slices > 0)?;
    let eighths = (attributes.memory_size_mb.checked_mul(MIB)?.checked_mul(8)?).div_ceil(board).min(8);
    // Rounded.
    let gigabytes = (board.div_ceil(1 << 30) * eighths * 2 + 8) / 16;
    let part = if (1..slices).contains(&parts) { format!("{parts}c.") } else { String::new() };
    // Only this kind of the smallest instances has NVIDIA's optical flow engine.
    let media = if slices == 1 && attributes.shared_ofa_count > 0 { "+me" } else { "" };
    Some(format!("{part}{slices}g.{gigabytes}gb{media}"))
}

#[test]
fn a_profile_is_part_of_the_name_on_newer_drivers() {
    for (name, profile) in [
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", Some("1g.10gb")),
        ("NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb", Some("1c.3g.20gb")),
        ("MIG 1g.10gb+me", Some("1g.10gb+me")),
        ("NVIDIA H100 80GB HBM3 MIG", None),
        ("NVIDIA H100 80GB HBM3 MIG device", None),
        ("NVIDIA H100 80GB HBM3", None),
        ("", None),
    ] {
        assert_eq!(profile_in(name).as_deref(), profile, "{name}");
    }
}

#[test]
fn a_profile_is_built_from_the_attributes_on_older_drivers() {
    #[track_caller]
    fn check(board_mib: u64, slices: [u32; 2], mib: u64, ofa: u32, expect: &str) {
        let attributes = DeviceAttributes {
            multiprocessor_count: 16,
            shared_copy_engine_count: 1,
            shared_decoder_count: 1,
            shared_encoder_count: 0,
            shared_jpeg_count: 1,
            shared_ofa_count: ofa,
            gpu_instance_slice_count: slices[0],
            compute_instance_slice_count: slices[1],
            memory_size_mb: mib,
        };
        assert_eq!(profile_of(&attributes, Some(board_mib * MIB)).as_deref(), Some(expect));
        assert_eq!(profile_of(&attributes, None), None);
    }
    // Memory of instances by NVIDIA's user guide, and by a capture of an H100.
    check(81_559, [3, 3], 40_448, 0, "3g.40gb");
    check(81_559, [2, 2], 20_096, 0, "2g.20gb");
    check(81_559, [1, 1], 9_984, 0, "1g.10gb");
    check(81_559, [1, 1], 9_984, 1, "1g.10gb+me");
    check(81_559, [3, 1], 40_448, 0, "1c.3g.40gb");
    check(81_559, [7, 7], 81_152, 1, "7g.80gb");
    check(40_960, [1, 1], 4_864, 0, "1g.5gb");
    check(40_960, [7, 7], 40_192, 1, "7g.40gb");
    check(143_771, [1, 1], 16_384, 0, "1g.18gb");
    check(143_771, [2, 2], 33_280, 0, "2g.35gb");
}
