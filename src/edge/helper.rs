//! The helper's side: loads NVML and answers asks, one JSON line each, until stdin ends.

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::exit::Exit;
use crate::pure::gpu::{FaultKind, Gpu, GpuError, GpuErrorKind, GpuFault, GpuSample, Missing};
use crate::pure::wire::{self, Answer, Ask, Hello, Question};

/// Answers until stdin ends.
pub(crate) fn run() -> ExitCode {
    die_with_parent();
    let answered = private_stdout().and_then(|out| answer_all(io::stdin().lock(), out));
    match answered {
        Ok(()) => Exit::Ok.into(),
        // The server is gone or has given this helper up; stderr is all that is left to say it on.
        Err(why) => {
            let _ = writeln!(io::stderr(), "agent-net-nvml: {why}; it is started by agent-net and of no use alone");
            Exit::Failed.into()
        }
    }
}

/// A helper that hangs inside the driver does not see its stdin end.
fn die_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

/// The pipe to the server under a number that no library knows; what a library prints goes to stderr instead.
fn private_stdout() -> io::Result<File> {
    let out = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(File::from(out))
}

fn answer_all(asks: impl BufRead, mut out: File) -> io::Result<()> {
    let hello = Hello { protocol: wire::PROTOCOL, version: env!("CARGO_PKG_VERSION").into() };
    out.write_all(wire::line(&hello).as_bytes())?;
    let mut library = None;
    for line in asks.lines() {
        let Ask { id, ask: Question::Sample } = wire::parse(&line?).map_err(io::Error::other)?;
        let answer = sample(&mut library);
        if answer.is_err()
            && let Some(Loaded { nvml, .. }) = library.take()
        {
            // Shutting down a library that has just failed may crash; the next ask loads it anew.
            mem::forget(nvml);
        }
        out.write_all(wire::line(&Answer { id, answer }).as_bytes())?;
    }
    Ok(())
}

struct Loaded {
    nvml: Nvml,
    path: PathBuf,
}

fn sample(library: &mut Option<Loaded>) -> Result<GpuSample, GpuFault> {
    let start = Instant::now();
    let loaded = match library {
        Some(loaded) => loaded,
        None => library.insert(load()?),
    };
    let nvml = &loaded.nvml;
    let count = nvml.device_count().map_err(|why| fault(&why, "nvmlDeviceGetCount"))?;
    // A lying count must not become a line that is longer than the protocol allows.
    let gpus = (0..count.min(MAX_GPUS)).map(|index| gpu(index, nvml.device_by_index(index))).collect();
    Ok(GpuSample {
        driver_version: nvml.sys_driver_version().ok(),
        library: Some(loaded.path.display().to_string()),
        gpus,
        read_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
    })
}

/// More than any machine has.
const MAX_GPUS: u32 = 128;

fn gpu(index: u32, handle: Result<Device<'_>, NvmlError>) -> Gpu {
    let mut gpu = Gpu { index, ..Gpu::default() };
    let device = match handle {
        Ok(device) => device,
        Err(why) => {
            gpu.error = Some(GpuError { kind: lost(&why).unwrap_or(GpuErrorKind::Other), message: why.to_string() });
            return gpu;
        }
    };
    let mut losses = Vec::new();
    let mut look = Look { gpu: &mut gpu, losses: &mut losses };
    let uuid = look.at(&["uuid"], device.uuid());
    let name = look.at(&["name"], device.name());
    let memory = look.at(&["vram_total_mb", "vram_used_mb", "vram_free_mb"], device.memory_info());
    let temperature = look.at(&["temperature_c"], device.temperature(TemperatureSensor::Gpu));
    let power = look.at(&["power_w"], device.power_usage());
    let limit = look.at(&["power_limit_w"], device.enforced_power_limit());
    let utilization = look.at(&["utilization_percent", "memory_utilization_percent"], device.utilization_rates());
    gpu.uuid = uuid;
    gpu.name = name;
    gpu.vram_total_bytes = memory.as_ref().map(|m| m.total);
    gpu.vram_used_bytes = memory.as_ref().map(|m| m.used);
    gpu.vram_free_bytes = memory.as_ref().map(|m| m.free);
    gpu.temperature_c = temperature;
    gpu.power_mw = power;
    gpu.power_limit_mw = limit;
    gpu.utilization_percent = utilization.as_ref().map(|u| u.gpu);
    gpu.memory_utilization_percent = utilization.as_ref().map(|u| u.memory);
    gpu.error = losses.into_iter().next();
    gpu
}

/// Readings of one GPU, each kept with its reason where there is none.
struct Look<'a> {
    gpu: &'a mut Gpu,
    losses: &'a mut Vec<GpuError>,
}

impl Look<'_> {
    /// The value of one call, which `names` come from.
    fn at<T>(&mut self, names: &[&str], reading: Result<T, NvmlError>) -> Option<T> {
        let why = match reading {
            Ok(value) => return Some(value),
            Err(why) => why,
        };
        // A handle of a lost GPU stays valid: its readings are what fails.
        if matches!(why, NvmlError::GpuLost | NvmlError::ResetRequired) {
            let kind = lost(&why).unwrap_or(GpuErrorKind::Other);
            self.losses.push(GpuError { kind, message: why.to_string() });
        }
        let reason = if unsupported(&why) { Missing::Unsupported } else { Missing::Failed(why.to_string()) };
        for name in names {
            self.gpu.note(name, &reason);
        }
        None
    }
}

/// The device, its driver or this user does not have the reading: nothing is wrong with the GPU.
fn unsupported(why: &NvmlError) -> bool {
    matches!(
        why,
        NvmlError::NotSupported
            | NvmlError::NoPermission
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::NoData
    )
}

fn lost(why: &NvmlError) -> Option<GpuErrorKind> {
    match why {
        NvmlError::GpuLost | NvmlError::Unknown => Some(GpuErrorKind::Lost),
        NvmlError::ResetRequired => Some(GpuErrorKind::ResetRequired),
        _ => None,
    }
}

fn fault(why: &NvmlError, what: &str) -> GpuFault {
    let kind = match why {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => FaultKind::LibMissing,
        NvmlError::DriverNotLoaded => FaultKind::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => FaultKind::LibMismatch,
        NvmlError::NoPermission => FaultKind::NoPermission,
        NvmlError::Unknown => FaultKind::InitUnknown,
        _ => FaultKind::InitFailed,
    };
    GpuFault { kind, detail: format!("{what}: {}", words(why)) }
}

/// The loader's own words name the file that is missing.
fn words(why: &NvmlError) -> String {
    match why {
        NvmlError::LibloadingError(why) => format!("it cannot be loaded: {why}"),
        why => why.to_string(),
    }
}

/// The first library that can be loaded, initialised.
fn load() -> Result<Loaded, GpuFault> {
    if let Some(path) = std::env::var_os("NVML_LIB").filter(|p| !p.is_empty()).map(PathBuf::from) {
        return init(&path).map_err(|why| fault(&why, &format!("NVML_LIB={}", path.display())));
    }
    let mut first = None;
    for path in std::iter::once(PathBuf::from("libnvidia-ml.so.1")).chain(mounted()).chain(installed()) {
        match init(&path) {
            Ok(loaded) => return Ok(loaded),
            Err(why @ NvmlError::LibloadingError(_)) => {
                // The loader's complaint about a file that is there says more than "no such file" about the name.
                let missing = fault(&why, &path.display().to_string());
                if first.is_none() || path.is_absolute() {
                    first = Some(missing);
                }
            }
            // It was loaded: no other copy would say anything else about this driver.
            Err(why) => return Err(fault(&why, &path.display().to_string())),
        }
    }
    Err(first.unwrap_or(GpuFault { kind: FaultKind::LibMissing, detail: "libnvidia-ml.so.1 was not found".into() }))
}

fn init(path: &Path) -> Result<Loaded, NvmlError> {
    let nvml = Nvml::builder().lib_path(path.as_os_str()).init()?;
    Ok(Loaded { nvml, path: path.to_owned() })
}

const PREFIX: &str = "libnvidia-ml.so";

/// Both ways in which the NVIDIA container toolkit works bind-mount the real file, wherever the host keeps it.
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
    paths.sort();
    paths
}
