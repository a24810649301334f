//! Programs that compute on a card with ROCm, and the memory that they hold (KFD). Programs that use Vulkan are not there.

use std::fs;
use std::path::Path;

use super::files::{self, Missing};
use crate::gpu::value::{MAX_PROCESSES, Process};
use crate::sys::order;

const KFD: &str = "sys/class/kfd/kfd";

/// None where there is no KFD, or it does not have the card at `slot`.
pub(super) fn read(root: &Path, slot: &str) -> Option<Vec<Process>> {
    let kfd = root.join(KFD);
    // A card in partitions is a node for each of them.
    let nodes = fs::read_dir(kfd.join("topology/nodes")).ok()?.flatten().filter_map(|node| {
        let node = node.path();
        let is_it = place(&files::text(&node.join("properties")).ok()?)? == slot;
        files::text(&node.join("gpu_id")).ok().filter(|_| is_it)
    });
    let names: Vec<String> = nodes.map(|gpu_id| format!("vram_{gpu_id}")).collect();
    if names.is_empty() {
        return None;
    }
    let entries = fs::read_dir(kfd.join("proc")).ok()?.flatten();
    let process = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let bytes = held(&entry.path(), &names)?;
        // It has the card open, and holds nothing.
        (bytes != Some(0)).then_some(Process { pid, vram_bytes: bytes, ..Process::default() })
    };
    let mut all: Vec<Process> = entries.filter_map(process).collect();
    order::sort_by_key(&mut all, |process| process.pid);
    all.truncate(MAX_PROCESSES);
    Some(all)
}

/// The bytes that a process holds, over all partitions; None inside where one of them cannot be read, and outside where the
/// process uses other cards.
#[expect(clippy::option_option, reason = "a process that is there, and whose memory is not known")]
fn held(process: &Path, names: &[String]) -> Option<Option<u64>> {
    let mut sum = None;
    for name in names {
        match files::number(&process.join(name)) {
            Err(Missing::Unsupported) => {}
            bytes => {
                let bytes = bytes.ok().and_then(|bytes| u64::try_from(bytes).ok());
                sum = Some(sum.unwrap_or(Some(0_u64)).zip(bytes).map(|(sum, bytes)| sum.saturating_add(bytes)));
            }
        }
    }
    sum
}

/// `0000:03:00.0` by the lines `domain 0` and `location_id 768` of a node, whose bits from 28 on are the partition.
fn place(properties: &str) -> Option<String> {
    let number = |key: &str| {
        let line = properties.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        line.trim().parse::<u32>().ok()
    };
    let (domain, location) = (number("domain").unwrap_or(0), number("location_id").filter(|location| *location > 0)?);
    Some(format!("{domain:04x}:{:02x}:{:02x}.{:x}", location >> 8 & 0xff, location >> 3 & 0x1f, location & 7))
}

#[test]
fn a_node_says_where_its_card_is() {
    let node = "cpu_cores_count 0\nsimd_count 160\nvendor_id 4098\ndevice_id 29631\nlocation_id 768\ndomain 0\n";
    assert_eq!(place(node).as_deref(), Some("0000:03:00.0"));
    assert_eq!(place("location_id 49926\ndomain 1\n").as_deref(), Some("0001:c3:00.6"));
    // The processor is a node as well.
    assert_eq!(place("cpu_cores_count 16\nlocation_id 0\n"), None);
}
