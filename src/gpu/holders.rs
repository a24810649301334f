//! Which processes hold the GPUs' memory, the largest first.

use std::collections::BTreeMap;
use std::fmt;

use super::mig_instance::MigInstance;
use super::readings::Gpu;
use super::value::Process;
use crate::sys::json::MIB;
use crate::sys::order;

/// Processes that are named at a time.
const MOST_NAMED: usize = 3;
/// A process that holds less, or less than this part of its GPU, is not what keeps a model off it.
const MUCH_BYTES: u64 = 512 * MIB;
const MUCH_PART: u64 = 8;

/// A process and what it holds on all GPUs that were asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder<'a> {
    pub(crate) pid: u32,
    pub(crate) name: Option<&'a str>,
    pub(crate) bytes: u64,
}

impl Holder<'_> {
    /// Ollama and its runners: `ollama`, `ollama_llama_se`, `llama-server`, NixOS's `.ollama-wrapped`.
    fn is_ollama(&self) -> bool {
        self.name.is_some_and(|name| name.contains("ollama") || name == "llama-server")
    }
}

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "{name} (pid {})", self.pid),
            None => write!(f, "process {}", self.pid),
        }
    }
}

/// The processes whose memory the driver reports.
pub(crate) fn holders<'a>(gpus: impl IntoIterator<Item = &'a Gpu>) -> Vec<Holder<'a>> {
    let processes: Vec<&Process> = gpus.into_iter().flat_map(|gpu| gpu.processes.iter().flatten()).collect();
    by_process(&processes)
}

fn by_process<'a>(processes: &[&'a Process]) -> Vec<Holder<'a>> {
    let mut held: BTreeMap<u32, Holder<'a>> = BTreeMap::new();
    for process in processes {
        let Some(bytes) = process.vram_bytes else { continue };
        let holder = held.entry(process.pid).or_insert(Holder { pid: process.pid, name: None, bytes: 0 });
        holder.name = process.name.as_deref();
        holder.bytes = holder.bytes.saturating_add(bytes);
    }
    let mut held: Vec<Holder<'a>> = held.into_values().collect();
    order::sort_by_key(&mut held, |holder| std::cmp::Reverse(holder.bytes));
    held
}

/// The largest, as the end of a message: `. VRAM: ollama (pid 4242) holds 6321 MiB, process 99 holds 4000 MiB`. Empty where
/// none is known.
pub(crate) fn clause(gpus: &[Gpu]) -> String {
    let named = holders(gpus).into_iter().take(MOST_NAMED);
    let named: Vec<String> = named.map(|holder| format!("{holder} holds {} MiB", holder.bytes / MIB)).collect();
    if named.is_empty() { String::new() } else { format!(". VRAM: {}", named.join(", ")) }
}

/// A memory that models need room in, of a GPU or of one of its MIG instances: its bytes, 0 for unknown, and who holds it.
type Memory<'a> = (u64, Vec<Holder<'a>>);

/// Those of a GPU; none where its processes are unknown.
fn memories(gpu: &Gpu) -> Vec<Memory<'_>> {
    if gpu.processes.is_none() {
        return Vec::new();
    }
    if gpu.mig.as_ref().is_none_or(Vec::is_empty) {
        return vec![(gpu.vram_total_bytes.unwrap_or(0), holders([gpu]))];
    }
    gpu.memories().map(|memory| (memory.vram_total_bytes.unwrap_or(0), holders_in(gpu, memory))).collect()
}

fn holders_in<'a>(gpu: &'a Gpu, memory: &MigInstance) -> Vec<Holder<'a>> {
    let own = gpu.processes.iter().flatten().filter(|process| gpu.holds(memory, process));
    by_process(&own.collect::<Vec<_>>())
}

/// Bytes in use where Ollama's models can be. In MIG mode that is on the instances that Ollama runs on, or on all of them
/// where that is unknown.
pub(crate) fn used_for_models(gpu: &Gpu) -> Option<u64> {
    let has_ollama = |memory: &&MigInstance| holders_in(gpu, memory).iter().any(Holder::is_ollama);
    let own: Vec<&MigInstance> = gpu.memories().filter(has_ollama).collect();
    let own = if own.is_empty() { gpu.memories().collect() } else { own };
    let used = own.iter().map(|memory| memory.vram_used_bytes).sum::<Option<u64>>();
    if own.is_empty() { gpu.vram_used_bytes } else { used.or(gpu.vram_used_bytes) }
}

/// What to do about the largest holder that is not Ollama's, as the start of an action. It counts on the GPUs or
/// MIG instances that Ollama uses. Where Ollama uses none, each needs such a holder: the model would fit on one without. Empty where none is known.
pub(crate) fn cure(gpus: &[Gpu]) -> String {
    let listed: Vec<Memory<'_>> = gpus.iter().flat_map(memories).collect();
    let has_ollama = |all: &[Holder<'_>]| all.iter().any(Holder::is_ollama);
    let is_used = listed.iter().any(|(_, all)| has_ollama(all));
    let largest = |(total, all): &Memory<'_>| {
        let much = MUCH_BYTES.max(total / MUCH_PART);
        let blamed = |holder: &&Holder<'_>| holder.name.is_some() && !holder.is_ollama() && holder.bytes >= much;
        all.iter().find(blamed).map(|holder| (holder.bytes, holder.to_string()))
    };
    let counted = listed.iter().filter(|(_, all)| !is_used || has_ollama(all));
    let blamed: Vec<Option<(u64, String)>> = counted.map(largest).collect();
    if !is_used && blamed.contains(&None) {
        return String::new();
    }
    let words = |(_, holder)| format!("Stop {holder}, or give Ollama another GPU. ");
    blamed.into_iter().flatten().max().map(words).unwrap_or_default()
}

#[test]
fn the_largest_holders_are_named_and_the_largest_that_is_not_ollama_is_to_be_stopped() {
    let process = |pid, name: &str, mib: Option<u64>| {
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Process { pid, name, vram_bytes: mib.map(|mib| mib * MIB), ..Process::default() }
    };
    let gpu = |processes| Gpu { processes, ..Gpu::default() };
    let check = |gpus: &[Gpu], seen: &str, to_do: &str| {
        assert_eq!((clause(gpus).as_str(), cure(gpus).as_str()), (seen, to_do));
    };
    check(&[], "", "");
    check(&[gpu(None), gpu(Some(vec![])), gpu(Some(vec![process(7, "x", None)]))], "", "");
    let first =
        gpu(Some(vec![process(4242, "ollama", Some(6321)), process(8, "a", Some(1)), process(9, "", Some(700))]));
    check(
        std::slice::from_ref(&first),
        ". VRAM: ollama (pid 4242) holds 6321 MiB, process 9 holds 700 MiB, a (pid 8) holds 1 MiB",
        "",
    );
    let python = |mib| gpu(Some(vec![process(99, "python3", Some(mib)), process(4242, "ollama", Some(10))]));
    check(
        &[first.clone(), python(512)],
        ". VRAM: ollama (pid 4242) holds 6331 MiB, process 9 holds 700 MiB, python3 (pid 99) holds 512 MiB",
        "Stop python3 (pid 99), or give Ollama another GPU. ",
    );
    assert_eq!(cure(&[first, python(511)]), "");
    for (runner, to_do) in
        [("llama-server", ""), ("ollama_llama_se", ""), ("llama", "Stop llama (pid 1), or give Ollama another GPU. ")]
    {
        assert_eq!(cure(&[gpu(Some(vec![process(1, runner, Some(9000))]))]), to_do);
    }
}

#[test]
fn a_process_is_to_be_stopped_only_where_it_takes_ollamas_room() {
    let gpu = |total: u64, processes: &[(u32, &str, u64)]| {
        let process = |&(pid, name, mib): &(u32, &str, u64)| Process {
            pid,
            name: Some(name.into()),
            vram_bytes: Some(mib * MIB),
            ..Process::default()
        };
        let processes = Some(processes.iter().map(process).collect());
        Gpu { processes, vram_total_bytes: Some(total * MIB), ..Gpu::default() }
    };
    let (ollama, python, other) = ((1, "ollama", 9000), (2, "python3", 20_000), (3, "java", 4000));
    let stop = |name| format!("Stop {name}, or give Ollama another GPU. ");
    // On another GPU than Ollama's.
    assert_eq!(cure(&[gpu(24_000, &[ollama]), gpu(24_000, &[python])]), "");
    assert_eq!(cure(&[gpu(24_000, &[ollama, other]), gpu(24_000, &[python])]), stop("java (pid 3)"));
    // Ollama uses none, and one is free.
    assert_eq!(cure(&[gpu(24_000, &[python]), gpu(24_000, &[])]), "");
    assert_eq!(cure(&[gpu(24_000, &[other]), gpu(24_000, &[python]), Gpu::default()]), stop("python3 (pid 2)"));
    // Small beside its GPU.
    assert_eq!(cure(&[gpu(80_000, &[other])]), "");
    for name in [".ollama-wrapped", "ollama", "llama-server"] {
        assert_eq!(cure(&[gpu(24_000, &[(4, name, 20_000)])]), "", "{name}");
    }
}

#[test]
fn in_mig_mode_an_instance_is_what_a_model_needs_room_in() {
    let process = |pid, name: &str, mib: u64, on: Option<&str>| Process {
        pid,
        name: Some(name.into()),
        vram_bytes: Some(mib * MIB),
        mig_uuid: on.map(str::to_owned),
        ..Process::default()
    };
    let instance = |uuid: &str, gpu_instance, used: Option<u64>| MigInstance {
        uuid: Some(uuid.into()),
        gpu_instance: Some(gpu_instance),
        vram_total_bytes: Some(10_000 * MIB),
        vram_used_bytes: used.map(|mib| mib * MIB),
        ..MigInstance::default()
    };
    let gpu = |processes: &[Process], used: Option<u64>| Gpu {
        mig: Some(vec![instance("a", 1, Some(9000)), instance("b", 2, used), instance("c", 2, used)]),
        processes: Some(processes.to_vec()),
        vram_total_bytes: Some(80_000 * MIB),
        vram_used_bytes: Some(70_000 * MIB),
        ..Gpu::default()
    };
    let ollama = process(1, "ollama", 4000, Some("b"));
    let check = |processes: &[Process], used, expect: &str, used_mib: u64| {
        let gpu = gpu(processes, used);
        assert_eq!((cure(std::slice::from_ref(&gpu)).as_str(), used_for_models(&gpu)), (expect, Some(used_mib * MIB)));
    };
    let stop = "Stop python3 (pid 2), or give Ollama another GPU. ";
    // On another instance, on the same one, and on another part of its GPU instance. Where that is unknown, it is not blamed.
    check(&[ollama.clone(), process(2, "python3", 5000, Some("a"))], Some(500), "", 500);
    check(&[ollama.clone(), process(2, "python3", 1300, Some("b"))], Some(500), stop, 500);
    check(&[ollama.clone(), process(2, "python3", 1300, Some("c"))], Some(500), stop, 500);
    check(&[ollama.clone(), process(2, "python3", 5000, None)], Some(500), "", 500);
    check(&[ollama, process(2, "python3", 1200, Some("b"))], Some(500), "", 500);
    // Ollama uses none: another instance may have room.
    check(&[process(2, "python3", 5000, Some("b"))], Some(500), "", 9500);
    check(
        &[process(2, "python3", 5000, Some("b")), process(3, "java", 9000, Some("a"))],
        Some(500),
        "Stop java (pid 3), or give Ollama another GPU. ",
        9500,
    );
    check(&[], None, "", 70_000);
    assert_eq!(used_for_models(&Gpu { vram_used_bytes: Some(7), ..Gpu::default() }), Some(7));
}
