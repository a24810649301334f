//! Finds libnvidia-ml.so.1, loads and initializes it.

use std::fs;
use std::path::{Path, PathBuf};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::words::words;
use crate::gpu::sample::{FaultKind, GpuFault};
use crate::sys::order;

/// NVML, initialized.
pub(super) struct Loaded {
    /// It lives as long as the process: shutting down a driver that hangs would hang too, and a fresh start is
    /// a new process.
    pub(super) nvml: &'static Nvml,
    pub(super) path: PathBuf,
}

pub(super) fn fault(why: &NvmlError, what: &str) -> GpuFault {
    let kind = match why {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => FaultKind::LibMissing,
        NvmlError::DriverNotLoaded => FaultKind::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => FaultKind::LibMismatch,
        NvmlError::NoPermission => FaultKind::NoPermission,
        NvmlError::Unknown => FaultKind::InitUnknown,
        _ => FaultKind::InitFailed,
    };
    // The loader's message repeats the path.
    let path = what.rsplit('=').next().unwrap_or(what);
    let words = words(why).replacen(&format!("{path}: "), "", 1);
    GpuFault { kind, detail: format!("{what}: {words}") }
}

/// The first library that can be loaded, initialized.
pub(super) fn load() -> Result<Loaded, GpuFault> {
    if let Some(path) = std::env::var_os("NVML_LIB").filter(|p| !p.is_empty()).map(PathBuf::from) {
        return init(&path).map_err(|why| fault(&why, &format!("NVML_LIB={}", path.display())));
    }
    let mut first = None;
    for path in std::iter::once(PathBuf::from("libnvidia-ml.so.1")).chain(mounted()).chain(installed()) {
        match init(&path) {
            Ok(loaded) => return Ok(loaded),
            Err(why @ NvmlError::LibloadingError(_)) => {
                // The loader's error about an existing file says more than "no such file" about the name.
                let missing = fault(&why, &path.display().to_string());
                if first.is_none() || path.is_absolute() {
                    first = Some(missing);
                }
            }
            // It was loaded: another copy would report the same about this driver.
            Err(why) => return Err(fault(&why, &path.display().to_string())),
        }
    }
    Err(first.unwrap_or(GpuFault { kind: FaultKind::LibMissing, detail: "libnvidia-ml.so.1 was not found".into() }))
}

fn init(path: &Path) -> Result<Loaded, NvmlError> {
    let nvml = Nvml::builder().lib_path(path.as_os_str()).init()?;
    Ok(Loaded { nvml: Box::leak(Box::new(nvml)), path: path.to_owned() })
}

const PREFIX: &str = "libnvidia-ml.so";

/// The NVIDIA container toolkit bind-mounts the real file in both of its modes, wherever the host keeps it.
fn mounted() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| is_nvml(point)).collect()
}

fn is_nvml(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with(PREFIX))
}

/// Versioned files in the folders where drivers and container platforms put them.
fn installed() -> Vec<PathBuf> {
    let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let hint = std::env::var("NVIDIA_CTK_LIBCUDA_DIR").unwrap_or_default();
    let mut folders = vec![PathBuf::from(&triplet), PathBuf::from("/usr/lib64")];
    folders.extend(hint.split(':').filter(|d| !d.is_empty()).map(PathBuf::from));
    folders.push(PathBuf::from("/usr/lib/wsl/lib"));
    folders.extend(entries(Path::new("/usr/lib/wsl/drivers")));
    folders.push(PathBuf::from("/usr/local/nvidia/lib64"));
    folders.push(Path::new(&triplet).join("nvidia/current"));
    folders.push(PathBuf::from("/usr/lib"));
    folders.iter().flat_map(|folder| entries(folder)).filter(|path| is_nvml(path)).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    order::sort(&mut paths);
    paths
}
