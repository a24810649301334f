//! Which processes hold the GPUs' memory, the largest first.

use std::collections::BTreeMap;
use std::fmt;

use super::readings::Gpu;
use crate::sys::json::MIB;
use crate::sys::order;

/// Processes that are named at a time.
const MOST_NAMED: usize = 3;
/// A process that holds less is not what keeps a model off a GPU.
const MUCH_BYTES: u64 = 512 * MIB;

/// A process and what it holds on all GPUs that were asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder<'a> {
    pub(crate) pid: u32,
    pub(crate) name: Option<&'a str>,
    pub(crate) bytes: u64,
}

impl Holder<'_> {
    /// Ollama and its runners: `ollama`, `ollama_llama_se`, `llama-server`.
    fn is_ollama(&self) -> bool {
        self.name.is_some_and(|name| name.starts_with("ollama") || name == "llama-server")
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
    let mut held: BTreeMap<u32, Holder<'a>> = BTreeMap::new();
    for process in gpus.into_iter().flat_map(|gpu| gpu.processes.iter().flatten()) {
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

/// What to do about the largest holder that is not Ollama's, as the start of an action. Empty where none is known.
pub(crate) fn cure(gpus: &[Gpu]) -> String {
    let other = |holder: &Holder<'_>| holder.name.is_some() && !holder.is_ollama() && holder.bytes >= MUCH_BYTES;
    let words = |holder| format!("Stop {holder}, or give Ollama another GPU. ");
    holders(gpus).into_iter().find(other).map(words).unwrap_or_default()
}

#[test]
fn the_largest_holders_are_named_and_the_largest_that_is_not_ollama_is_to_be_stopped() {
    use super::value::Process;
    let process = |pid, name: &str, mib: Option<u64>| {
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Process { pid, name, vram_bytes: mib.map(|mib| mib * MIB) }
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
