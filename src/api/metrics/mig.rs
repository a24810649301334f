//! The MIG instances, in the form and with the labels of nvidia_gpu_exporter: an identity for each, and the memory once for
//! each GPU instance, because its compute instances share it.

use crate::gpu::mig_instance::MigInstance;
use crate::gpu::readings::Gpu;
use crate::sys::exposition::{Exposition, Family, gauge, info, metrics};

/// Of an identity.
const LABELS: &[&str] = &["uuid", "mig_uuid", "gpu_instance_id", "compute_instance_id", "profile"];
/// Of a memory.
const MEMORY: &[&str] = &["uuid", "gpu_instance_id"];

metrics! {
    INFO = info("agent_net_gpu_mig_info", LABELS, "Identity of each MIG instance; `uuid` is that of its GPU.");
    TOTAL = gauge("agent_net_gpu_mig_memory_total_bytes", MEMORY, "Memory of each GPU instance.");
    USED = gauge("agent_net_gpu_mig_memory_used_bytes", MEMORY, "Memory in use of each GPU instance.");
    SM = gauge("agent_net_gpu_mig_sm_activity_ratio", MEMORY, "Busy share of each GPU instance's SMs since the last sample.");
    TENSOR = gauge("agent_net_gpu_mig_tensor_activity_ratio", MEMORY, "Busy share of each GPU instance's tensor cores.");
    DRAM = gauge("agent_net_gpu_mig_dram_activity_ratio", MEMORY, "Used share of each GPU instance's memory bandwidth.");
}

const SMI_INFO: Family = info("nvidia_smi_mig_info", LABELS, "Identity of each MIG instance.");
const SMI_TOTAL: Family = gauge("nvidia_smi_mig_memory_total_bytes", MEMORY, "Memory of each GPU instance.");
const SMI_USED: Family = gauge("nvidia_smi_mig_memory_used_bytes", MEMORY, "Memory in use of each GPU instance.");
const SMI_FREE: Family = gauge("nvidia_smi_mig_memory_free_bytes", MEMORY, "Free memory of each GPU instance.");

type Memory<'a> = (&'a Family, fn(&MigInstance) -> Option<u64>);

pub(super) fn write(out: &mut Exposition, gpus: &[(&Gpu, String)]) {
    identity(out, &INFO, gpus);
    memory(out, &[(&TOTAL, |one| one.vram_total_bytes), (&USED, |one| one.vram_used_bytes)], gpus);
    activity(out, &SM, |one| one.sm_activity_percent, gpus);
    activity(out, &TENSOR, |one| one.tensor_activity_percent, gpus);
    activity(out, &DRAM, |one| one.dram_activity_percent, gpus);
}

/// Only the first entry of a GPU instance has it.
fn activity(out: &mut Exposition, family: &Family, read: fn(&MigInstance) -> Option<f64>, gpus: &[(&Gpu, String)]) {
    let all = gpus.iter().flat_map(|(gpu, uuid)| gpu.mig.iter().flatten().map(move |one| (uuid, one)));
    let rows: Vec<(&String, String, f64)> =
        all.filter_map(|(uuid, one)| Some((uuid, one.gpu_instance?.to_string(), read(one)? / 100.0))).collect();
    out.samples(family, rows.iter().map(|(uuid, id, ratio)| (vec![uuid.as_str(), id.as_str()], Some(*ratio))));
}

pub(super) fn nvidia_smi(out: &mut Exposition, gpus: &[(&Gpu, String)]) {
    let families: [Memory<'_>; 3] = [
        (&SMI_TOTAL, |one| one.vram_total_bytes),
        (&SMI_USED, |one| one.vram_used_bytes),
        (&SMI_FREE, MigInstance::free_bytes),
    ];
    identity(out, &SMI_INFO, gpus);
    memory(out, &families, gpus);
}

fn identity(out: &mut Exposition, family: &Family, gpus: &[(&Gpu, String)]) {
    let id = |id: Option<u32>| id.map_or_else(String::new, |id| id.to_string());
    let all = gpus.iter().flat_map(|(gpu, uuid)| gpu.mig.iter().flatten().map(move |one| (uuid, one)));
    // A driver's UUID may be there twice.
    let mut rows: Vec<[String; 5]> = Vec::new();
    for (uuid, one) in all {
        let [own, profile] = [&one.uuid, &one.profile].map(|text| text.clone().unwrap_or_default());
        let row = [uuid.clone(), own, id(one.gpu_instance), id(one.compute_instance), profile];
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    out.samples(family, rows.iter().map(|row| (row.iter().map(String::as_str).collect(), Some(1.0))));
}

fn memory(out: &mut Exposition, families: &[Memory<'_>], gpus: &[(&Gpu, String)]) {
    let all = gpus.iter().flat_map(|(gpu, uuid)| gpu.memories().map(move |one| (uuid, one)));
    // Without its id two would be one series twice.
    let rows: Vec<_> = all.filter_map(|(uuid, one)| Some((uuid, one.gpu_instance?.to_string(), one))).collect();
    for (family, read) in families {
        let value = |one: &MigInstance| read(one).map(|bytes| bytes as f64);
        out.samples(family, rows.iter().map(|(uuid, id, one)| (vec![uuid.as_str(), id.as_str()], value(one))));
    }
}
