//! The MIG instances, in the form and with the labels of nvidia_gpu_exporter: an identity for each, and memory and activity
//! once for each GPU instance, because its compute instances share it.

use crate::gpu::mig_instance::MigInstance;
use crate::gpu::readings::Gpu;
use crate::gpu::value::Unit;
use crate::sys::exposition::{Exposition, Family, gauge, info, metrics};

/// Of an identity.
const LABELS: &[&str] = &["uuid", "mig_uuid", "gpu_instance_id", "compute_instance_id", "profile"];
/// Of a GPU instance.
const INSTANCE: &[&str] = &["uuid", "gpu_instance_id"];

metrics! {
    INFO = info("agent_net_gpu_mig_info", LABELS, "Identity of each MIG instance; `uuid` is that of its GPU.");
    TOTAL = gauge("agent_net_gpu_mig_memory_total_bytes", INSTANCE, "Memory of each GPU instance.");
    USED = gauge("agent_net_gpu_mig_memory_used_bytes", INSTANCE, "Memory in use of each GPU instance.");
    SM = gauge("agent_net_gpu_mig_sm_activity_ratio", INSTANCE, "Share of the compute units (SMs) of each GPU instance at work since the last sample (GPM).");
    TENSOR = gauge("agent_net_gpu_mig_tensor_activity_ratio", INSTANCE, "Share of its tensor cores at work.");
    DRAM = gauge("agent_net_gpu_mig_dram_activity_ratio", INSTANCE, "Share of its memory bandwidth in use.");
}

const SMI_INFO: Family = info("nvidia_smi_mig_info", LABELS, "Identity of each MIG instance.");
const SMI_TOTAL: Family = gauge("nvidia_smi_mig_memory_total_bytes", INSTANCE, "Memory of each GPU instance.");
const SMI_USED: Family = gauge("nvidia_smi_mig_memory_used_bytes", INSTANCE, "Memory in use of each GPU instance.");
const SMI_FREE: Family = gauge("nvidia_smi_mig_memory_free_bytes", INSTANCE, "Free memory of each GPU instance.");

type Number<'a> = (&'a Family, fn(&MigInstance) -> Option<f64>);

pub(super) fn write(out: &mut Exposition, gpus: &[(&Gpu, String)]) {
    identity(out, &INFO, gpus);
    let families: [Number<'_>; 5] = [
        (&TOTAL, |one| number(one.vram_total_bytes)),
        (&USED, |one| number(one.vram_used_bytes)),
        (&SM, |one| share(one.sm_activity_percent)),
        (&TENSOR, |one| share(one.tensor_activity_percent)),
        (&DRAM, |one| share(one.dram_activity_percent)),
    ];
    by_instance(out, &families, gpus);
}

pub(super) fn nvidia_smi(out: &mut Exposition, gpus: &[(&Gpu, String)]) {
    let families: [Number<'_>; 3] = [
        (&SMI_TOTAL, |one| number(one.vram_total_bytes)),
        (&SMI_USED, |one| number(one.vram_used_bytes)),
        (&SMI_FREE, |one| number(one.free_bytes())),
    ];
    identity(out, &SMI_INFO, gpus);
    by_instance(out, &families, gpus);
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

fn number(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64)
}

fn share(percent: Option<f64>) -> Option<f64> {
    percent.map(|percent| Unit::Percent.exposed(percent))
}

fn by_instance(out: &mut Exposition, families: &[Number<'_>], gpus: &[(&Gpu, String)]) {
    let all = gpus.iter().flat_map(|(gpu, uuid)| gpu.memories().map(move |one| (uuid, one)));
    // Without an id two instances would make the same series.
    let rows: Vec<_> = all.filter_map(|(uuid, one)| Some((uuid, one.gpu_instance?.to_string(), one))).collect();
    for (family, read) in families {
        out.samples(family, rows.iter().map(|(uuid, id, one)| (vec![uuid.as_str(), id.as_str()], read(one))));
    }
}
