//! The compute processes of one GPU, and of its MIG instances.

use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;

use super::raw;
use super::reading_log::ReadingLog;
use crate::gpu::mig_instance::MigInstance;
use crate::gpu::plausible;
use crate::gpu::readings::Gpu;
use crate::gpu::value::{MAX_PROCESSES, Process};

const NAMES: [&str; 1] = ["processes"];

/// `instances`: the handles of `gpu.mig`. In MIG mode the list of the whole GPU needs a privilege that a container lacks,
/// and those of the instances do not.
pub(super) fn read(device: &Device<'_>, instances: &[Device<'_>], gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    let known = gpu.mig.as_deref().unwrap_or_default();
    gpu.processes = if instances.is_empty() {
        list(device, &NAMES, |process| find(known, process), log)
    } else {
        list(device, &[], |process| find(known, process), log).or_else(|| {
            let each = instances.iter().zip(known);
            let each = each.map(|(handle, instance)| list(handle, &NAMES, |_| instance.uuid.clone(), log));
            let all: Option<Vec<Vec<Process>>> = each.collect();
            all.map(|all| all.into_iter().flatten().take(MAX_PROCESSES).collect())
        })
    };
}

/// UUID of the instance that the driver says the process runs on.
fn find(instances: &[MigInstance], process: &ProcessInfo) -> Option<String> {
    let ids = (Some(process.gpu_instance_id?), Some(process.compute_instance_id?));
    let found = instances.iter().find(|one| (one.gpu_instance, one.compute_instance) == ids);
    found.and_then(|one| one.uuid.clone())
}

/// `names`: the readings that fail with it.
fn list(
    device: &Device<'_>,
    names: &[&str],
    mig_uuid: impl Fn(&ProcessInfo) -> Option<String>,
    log: &mut ReadingLog<'_>,
) -> Option<Vec<Process>> {
    // The list would take as much memory as the driver says that there are processes.
    let count = log.at("compute_processes", names, || raw::process_count(device))?;
    log.plausible(NAMES[0], count)?;
    let all: Vec<ProcessInfo> = log.at("compute_processes", names, || device.running_compute_processes())?;
    let process = |p: ProcessInfo| Process {
        pid: p.pid,
        vram_bytes: match p.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes).filter(|bytes| plausible::check("vram_total_mb", *bytes).is_ok()),
            UsedGpuMemory::Unavailable => None,
        },
        mig_uuid: mig_uuid(&p),
        ..Process::default()
    };
    Some(all.into_iter().take(MAX_PROCESSES).map(process).collect())
}
