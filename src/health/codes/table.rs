//! The rows. A new code is a row here and the rule that raises it. One row: variant, public name, severities (the
//! usual one first), what it means, when it clears, what to do.

use super::advice::{on_cpu, on_cpu_after_sleep};
use super::entry::{Entry, Group};
use crate::gpu::vendor::Vendor;
use crate::health::severity::Verdict::{self, Degraded, Unhealthy, Unknown};

/// One macro, because a const array cannot declare the enum whose order it must have.
macro_rules! table {
    ($($group:ident { $(
        $code:ident $name:literal $severities:tt $means:literal, $clears:literal, $action:expr;
    )* })*) => {
        /// The reason codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub(crate) enum Code {
            $($(#[serde(rename = $name)] $code,)*)*
        }

        /// In the order of [`Code`]: a code is the number of its row.
        pub(crate) const TABLE: &[Entry] = &[$($(Entry {
            name: $name,
            help: concat!("/codes#", $name),
            severities: { const ALL: &[Verdict] = &$severities; ALL },
            group: Group::$group,
            vendors: vendors(Code::$code),
            meaning: $means,
            clears: $clears,
            action: $action,
        },)*)*];
    };
}

table! {

Driver {
    NoSample "NO_SAMPLE" [Unknown]
        "The GPUs have not been read yet.",
        "At the first reading.",
        "Wait a few seconds. If it persists, the driver is not responding.";
    Stale "STALE" [Degraded, Unhealthy]
        "No new sample for 3 intervals (at least 3 s). Unhealthy after 5 minutes.",
        "At the next sample.",
        "If it persists, restart the worker: its sampler is stuck.";
    NoGpu "NO_GPU" [Unhealthy]
        "No GPU of NVIDIA on the PCI bus, no NVML library and no GPU of the driver amdgpu. Or the drivers report no GPUs.",
        "When a GPU is found.",
        "In a container: pass it a GPU (`compose/gpu.yaml` or `--gpus all`). On a host: install the NVIDIA driver, or \
         load amdgpu. No GPU expected? Set EXPECTED_GPUS=0.";
    GpuCountLow "GPU_COUNT_LOW" [Unhealthy]
        "Fewer usable GPUs than EXPECTED_GPUS. Without it: fewer than the container was given, than the PCI bus shows, \
         or than were seen before. Virtual functions, cards of other drivers and legacy cards do not count, nor does a GPU \
         in an AMD processor without a driver.",
        "When all of them are usable, or after `agent-net ack`.",
        "Look for the missing GPU in `nvidia-smi` and `dmesg`. If you removed it on purpose, set EXPECTED_GPUS or run \
         `agent-net ack`.";
    GpuAccessLost "GPU_ACCESS_LOST" [Unhealthy]
        "/dev/nvidiactl can no longer be opened, although NVML still answers.",
        "When /dev/nvidiactl can be opened.",
        "In a container: restart it and Ollama's container. Usual cause: `systemctl daemon-reload` on the host. Permanent \
         fix: `native.cgroupdriver=cgroupfs`, or `nvidia-ctk system create-dev-char-symlinks`. On a host: check who may \
         open /dev/nvidiactl (`DeviceAllow` in systemd), then restart agent-net and Ollama.";
    NvmlLibMissing "NVML_LIB_MISSING" [Unhealthy, Unknown]
        "libnvidia-ml.so.1 was not found. Unknown where the PCI bus cannot be seen, or where Ollama uses a GPU of \
         another vendor.",
        "When the library can be loaded.",
        "In a container: use the NVIDIA runtime with NVIDIA_DRIVER_CAPABILITIES=utility (`compose/gpu.yaml`). On a host: \
         install the driver's libnvidia-ml.so.1, or set NVML_LIB.";
    DriverNotLoaded "DRIVER_NOT_LOADED" [Unhealthy]
        "The NVML library is installed, but the NVIDIA kernel module is not loaded.",
        "When the driver is loaded.",
        "Load the driver on the host (`modprobe nvidia`), or install it: the legacy one where the message names it.";
    DriverLibMismatch "DRIVER_LIB_MISMATCH" [Unhealthy]
        "The NVML library and the loaded driver have different versions: the driver was upgraded while running.",
        "When both have the same version.",
        "Reboot the host, then restart the containers.";
    NvmlNoPermission "NVML_NO_PERMISSION" [Unhealthy, Degraded]
        "The worker may not use the device nodes. Degraded where it may use some GPUs of those that NVML lists.",
        "When access is granted.",
        "Add the group that owns /dev/nvidiactl to the worker (`group_add` in Compose, `SupplementaryGroups` in systemd), \
         or set EXPECTED_GPUS to the number of GPUs it was given.";
    NvmlInitUnknown "NVML_INIT_UNKNOWN" [Unhealthy]
        "NVML fails to start with \"unknown error\". Usually the container lost access to its GPU.",
        "When NVML starts. It is tried again after 1 s, and later every 30 s.",
        "In a container: restart it and Ollama's container. Usual cause: `systemctl daemon-reload` on the host. Permanent \
         fix: `native.cgroupdriver=cgroupfs`, or `nvidia-ctk system create-dev-char-symlinks`. On a host: check who may \
         open /dev/nvidiactl (`DeviceAllow` in systemd), then restart agent-net and Ollama.";
    NvmlInitFailed "NVML_INIT_FAILED" [Unhealthy]
        "NVML fails to start for another reason.",
        "When NVML starts. It is tried again after 1 s, and later every 30 s.",
        "Run `nvidia-smi` on the host. If that fails too, reboot.";
    NvmlHelperMissing "NVML_HELPER_MISSING" [Unknown]
        "The program agent-net-nvml was not found or cannot be started.",
        "When it starts.",
        "Put the agent-net-nvml of this architecture in the same directory as agent-net, or set NVML_HELPER to its path.";
    NvmlHelperFailed "NVML_HELPER_FAILED" [Degraded, Unhealthy]
        "agent-net-nvml crashed, or is of another build. Unhealthy after 30 s without a sample.",
        "At the next sample.",
        "Wait: it is restarted automatically. If it persists, check the worker's log and `dmesg`. Of another build: install \
         agent-net and agent-net-nvml from one build.";
    DriverStarting "DRIVER_STARTING" [Unknown]
        "The driver is starting, for up to a minute. The uptime counts this time as not observed.",
        "When the driver answers.",
        "Wait up to a minute. If each start takes 6 to 25 s, enable persistence mode: `nvidia-smi -pm 1` on the host.";
    DriverStuck "DRIVER_STUCK" [Degraded, Unhealthy]
        "The driver did not answer within 5 s, or within a minute of its start. Unhealthy after 30 s. With a GPU: this \
         GPU has not answered for 30 s.",
        "When the driver answers.",
        "Check `dmesg` and `nvidia-smi` on the host. Reboot if nvidia-smi hangs too.";
}

Gpu {
    GpuSlow "GPU_SLOW" [Unknown, Degraded]
        "A GPU has not answered for 2 s (unknown), or took longer than that twice in a row (degraded). Other GPUs are \
         read meanwhile. `read_ms` has the time.",
        "When it answers within 2 s.",
        "Check `dmesg`. Enable persistence mode (`nvidia-smi -pm 1`). Check the riser and the slot.";
    GpuLost "GPU_LOST" [Unhealthy]
        "The GPU fell off the bus or out of the container. It stays in the list, unless only the kernel's log says so.",
        "When it answers. If the kernel's log reported it: when the driver has started it again, or after `agent-net ack`.",
        "Reboot. If the GPU drops off again, check its power cables and reseat it.";
    GpuReadFailed "GPU_READ_FAILED" [Unhealthy]
        "Two or more of memory, temperature, power and utilization fail with \"unknown error\" (NVML 999) or \"lost\" in \
         two samples in a row: `nvidia-smi` prints \"ERR!\" for them. The GPU does not count as usable.",
        "When the readings work.",
        "Stop all processes using this GPU, then run `nvidia-smi -i N -r` or reboot. If it returns, check its power \
         cables and reseat it.";
    ResetRequired "RESET_REQUIRED" [Unhealthy, Degraded]
        "The driver requests a reset or a reboot (recovery action 1, 2, 4, 6, 7 or an unknown one). Degraded for 5, a \
         restart of IMEX. AMD: the driver could not reset a GPU that hung.",
        "When the driver requests nothing. AMD: when a reset succeeds, or after `agent-net ack`.",
        "Do what the message asks for: stop all processes using this GPU, then run `nvidia-smi -i N -r` or reboot.";
    GpuReset "GPU_RESET" [Degraded]
        "The driver amdgpu reported a hung job or firmware, or that it reset the GPU or one of its queues, in the last 10 \
         minutes. A reset of the GPU ends all jobs on it.",
        "10 minutes after the last report, or after `agent-net ack`.",
        "Check `dmesg` for the program that hung. Restart Ollama if the message says that the memory was lost.";
    DrainP2p "DRAIN_P2P" [Degraded]
        "The driver requests a peer-to-peer drain (recovery action 3).",
        "When the driver requests nothing.",
        "Let multi-GPU jobs finish, then reset the GPU: `nvidia-smi -i N -r`.";
    GpuHandleError "GPU_HANDLE_ERROR" [Unhealthy]
        "NVML gives no access to this GPU, for a reason that the message names as nvml.h does. AMD: the driver could not \
         start it, or could not resume it after a sleep.",
        "When it answers. AMD: when the driver has started or resumed it, or after `agent-net ack`.",
        "Check `dmesg` and `nvidia-smi`. A reboot usually fixes this. INSUFFICIENT_POWER: attach its power cables.";
    FabricUnhealthy "FABRIC_UNHEALTHY" [Unhealthy]
        "The GPU could not be registered with the NVLink fabric of its machine, has waited for that for 5 minutes without a \
         process on it, or the fabric is unhealthy. CUDA programs fail (error 802) until the GPU is registered.",
        "When the GPU is registered and its fabric is healthy.",
        "Check the service `nvidia-fabricmanager` on the host. It must be active and have the driver's version.";
    GpuNoReadings "GPU_NO_READINGS" [Unknown]
        "Neither memory, temperature nor utilization can be read: its health is unknown.",
        "When one of them can be read.",
        "Try a newer driver. Boards that NVML does not support report nothing.";
    MigNoInstance "MIG_NO_INSTANCE" [Unhealthy, Degraded]
        "MIG is on, and the GPU has no instance: nothing can compute on it. Degraded in a container, which may just not \
         have been given one.",
        "When an instance is listed, or MIG is off.",
        "Create an instance (`nvidia-smi mig -cgi PROFILE -C`), or turn MIG off (`nvidia-smi -i N -mig 0`). In a \
         container: give it an instance (NVIDIA_VISIBLE_DEVICES).";
    FieldReadError "FIELD_READ_ERROR" [Degraded]
        "A reading fails that worked before or that every GPU has, or any with \"unknown error\" (NVML 999). An impossible \
         value (4294967295 %, 3.7 MW) counts as a failure. So does the end of a reading that health is judged by, such \
         as the temperature: once it has worked it may not become unsupported, except in MIG mode or with another driver.",
        "When the reading works.",
        "Check `dmesg` and `nvidia-smi -i N -q`. If it persists, run `nvidia-smi -i N -r`.";
    InforomCorrupt "INFOROM_CORRUPT" [Degraded]
        "The board's own data (infoROM) is corrupted. It is checked once after the driver starts.",
        "When NVML is restarted and finds it valid.",
        "Contact the vendor. Do not trust its ECC counters and serial number.";
    VramBelowMin "VRAM_BELOW_MIN" [Unhealthy]
        "The GPU, or in MIG mode its largest instance, has less VRAM than GPU_MIN_VRAM_GB. A GPU in an AMD processor also counts the main memory that it may use.",
        "When it has that much.",
        "Use the intended GPU, or lower GPU_MIN_VRAM_GB.";
}

Xid {
    XidFatal "XID_FATAL" [Unhealthy]
        "The driver reported an XID of the class fatal, or one of the class NVLink on a GPU whose NVLinks were up.",
        "10 minutes after the last one, if the driver requests nothing (its recovery action, or an XID 154 to None) and \
         all readings succeed. Also when the driver is loaded again, or after `agent-net ack`. Older drivers never report \
         a recovery.",
        "Stop all processes using this GPU, then run `nvidia-smi -i N -r` or reboot. Once it is fixed, run `agent-net ack`.";
    XidWarn "XID_WARN" [Degraded]
        "The driver reported an XID of the class warning.",
        "10 minutes after the last one. An XID 154 also clears at the next one to None.",
        "Check `dmesg`. XID 54: check the power cables.";
}

Memory {
    EccUncorrected "ECC_UNCORRECTED" [Unhealthy]
        "Uncorrectable ECC errors since the driver was loaded. AMD: also those in the kernel's log, where there is no counter.",
        "When the counter is 0 after a reset. Logged ones: when the driver is loaded again, or after `agent-net ack`.",
        "Stop all processes using this GPU, then run `nvidia-smi -i N -r`. If they return, replace the board (RMA).";
    RowRemapFailed "ROW_REMAP_FAILED" [Unhealthy]
        "Row remapping failed: no spare memory rows left.",
        "Only with another board.",
        "Replace the board (RMA).";
    MemoryUnrepairable "MEMORY_UNREPAIRABLE" [Unhealthy]
        "The memory has errors that neither remapped rows nor repairs can fix. AMD: too many memory pages are bad.",
        "Only with another board.",
        "Replace the board (RMA).";
    SramThreshold "SRAM_THRESHOLD" [Unhealthy]
        "The GPU's on-chip memory (SRAM) has had more uncorrectable errors than NVIDIA tolerates.",
        "Only with another board.",
        "Replace the board (RMA): NVIDIA's field diagnostic would fail.";
    RepairPending "REPAIR_PENDING" [Degraded]
        "The repair of a memory channel or of a compute unit (TPC) is pending. It takes effect at the next GPU reset.",
        "After a reset. It is not raised beside MEMORY_UNREPAIRABLE and SRAM_THRESHOLD.",
        "Run `nvidia-smi -i N -r` when the GPU is idle.";
    RowRemapPending "ROW_REMAP_PENDING" [Degraded]
        "A row remap is pending. It takes effect at the next GPU reset.",
        "After a reset.",
        "Run `nvidia-smi -i N -r` when the GPU is idle.";
    RowRemapMany "ROW_REMAP_MANY" [Degraded]
        "512 or more memory rows were remapped after uncorrectable errors, or a memory bank has no spare row left.",
        "Only with another board.",
        "Plan to replace the board (RMA) before its spare rows are used up.";
    RetiredPending "RETIRED_PENDING" [Degraded]
        "A page retirement is pending (GPUs before Ampere). It takes effect at the next reboot.",
        "After a reboot.",
        "Reboot when the GPU is idle.";
    RetiredLimit "RETIRED_LIMIT" [Unhealthy]
        "63 or more memory pages are retired, or more than 15 after double-bit errors and rising.",
        "Only with another board.",
        "Replace the board (RMA).";
}

Heat {
    TempCritical "TEMP_CRITICAL" [Unhealthy]
        "The GPU is within 2 °C of its shutdown temperature, or over its thermal limit and throttled by the hardware. A \
         margin alone counts from 80 °C on, or with a thermal slowdown. AMD: also for 10 minutes after the driver reported \
         such heat.",
        "When it is cooler.",
        "Stop its workload and fix the cooling.";
    TempHigh "TEMP_HIGH" [Degraded]
        "3 samples in a row above its specified maximum. Where it has none: within 3 °C of its slowdown temperature, \
         else from 90 °C on; a GPU in an AMD processor has no such limit. Or its hot spot is at its limit.",
        "2 °C below the limit.",
        "Check fans, dust and airflow, and the intake air temperature.";
    TempAboveMax "TEMP_ABOVE_MAX" [Degraded]
        "3 samples in a row above GPU_MAX_TEMP_C.",
        "2 °C below GPU_MAX_TEMP_C.",
        "Improve the cooling, or raise GPU_MAX_TEMP_C.";
    MemTempHigh "MEM_TEMP_HIGH" [Degraded]
        "The memory is above its specified maximum temperature. AMD: at or above its critical one.",
        "When it is cooler.",
        "Fix the cooling. The memory thermal pads may be worn.";
    HwThermalSlowdown "HW_THERMAL_SLOWDOWN" [Degraded]
        "The hardware throttled the GPU because of heat for 60 % of 5 minutes, or for 30 s of a minute.",
        "After 5 minutes without throttling.",
        "Fix the cooling.";
    HwPowerBrake "HW_POWER_BRAKE" [Degraded]
        "The power supply throttled the GPU (hardware power brake) for 60 % of 5 minutes, or for 30 s of a minute.",
        "After 5 minutes without throttling.",
        "Check the power supply and its cables.";
    HwSlowdown "HW_SLOWDOWN" [Degraded]
        "The hardware throttled the GPU under load for 60 % of 5 minutes, and the driver does not say whether heat or \
         power is the cause.",
        "After 5 minutes without throttling.",
        "Check its cooling, its power cables and the power supply.";
    PowerAlarm "POWER_ALARM" [Degraded]
        "A power rail of a Jetson board exceeds its limit.",
        "When the rail is within its limit.",
        "Use a stronger power supply, or a lower power mode (`nvpmodel`).";
}

Pcie {
    PcieWidthLow "PCIE_WIDTH_LOW" [Degraded]
        "3 readings under load (P-state 0 to 2; AMD: any 3 readings) with fewer PCIe lanes than card and slot have.",
        "When it uses all lanes.",
        "Reseat the card. Check the riser and the slot.";
    PcieReplay "PCIE_REPLAY" [Degraded]
        "More PCIe replays a minute than a healthy link of its width and generation has.",
        "After a minute below the limit.",
        "Reseat the card. Check the riser and the slot.";
}

Ollama {
    OllamaNoAnswer "OLLAMA_NO_ANSWER" [Unknown]
        "Ollama has not answered yet, or failed once.",
        "When it answers.",
        "Wait a few seconds. Ollama probes for GPUs before its first response.";
    OllamaDown "OLLAMA_DOWN" [Unhealthy]
        "Ollama failed to answer twice in a row.",
        "When it answers.",
        "Start Ollama, or fix OLLAMA_URL (default http://127.0.0.1:11434). For redirects, logins, TLS and DNS the reason \
         has an action of its own.";
    OllamaListFailed "OLLAMA_LIST_FAILED" [Unknown]
        "Ollama is up but cannot list its models.",
        "When it lists them.",
        "Check Ollama's log. A hung model runner can block /api/ps.";
    ModelOnCpu "MODEL_ON_CPU" [Degraded]
        "A model is on the CPU although a GPU is usable: Ollama lists it so, or no GPU worked during two probes.",
        "When it is on a GPU, a GPU worked during a probe, or it is unloaded.",
        concat!(on_cpu!(), on_cpu_after_sleep!());
    ModelVramMismatch "MODEL_VRAM_MISMATCH" [Degraded]
        "In 3 samples in a row Ollama reported more than 1 GiB of VRAM, and the GPUs had less than half of it in use.",
        "When the figures fit each other.",
        "Restart Ollama. If it uses GPUs that this worker cannot see, give both the same GPUs.";
    ModelNotLoaded "MODEL_NOT_LOADED" [Degraded]
        "A model of MODEL is not pulled or not loaded.",
        "When it is loaded.",
        "Wait: it is being pulled or loaded. `model_keeper` in GET /gpu shows progress, or why it is stuck.";
    ModelStuck "MODEL_STUCK" [Degraded, Unhealthy]
        "Ollama lists a model of MODEL as loaded past its expiry, and a request for it got no answer for two minutes, or \
         until a proxy's timeout of 25 s or more. Unhealthy from the second such request in a row.",
        "When a request for it is answered.",
        "Restart Ollama. Its log and `dmesg` say why the model's runner hangs.";
    ModelHangs "MODEL_HANGS" [Unhealthy, Degraded]
        "Two probes in a row of a loaded model of MODEL got no answer, or failed. The first waits for PROBE_TIMEOUT, the second for \
         2 minutes, if that is longer. Or its runner died in 3 requests of the worker within 30 minutes, as Ollama says: \
         degraded once a request was answered again.",
        "When a probe is answered, or the model is deleted. After deaths: 30 minutes after the third last one.",
        "Restart Ollama. Its log and `dmesg` say why the model's runner hangs or fails: lack of memory, a fault of driver \
         or GPU, a damaged model file.";
    ModelSlow "MODEL_SLOW" [Degraded]
        "The median speed of the last five probes of a model is below half of its best median on the same GPUs.",
        "When the median is above 60 % of the best one, or the model is deleted.",
        "Look for heat, power limits and other programs on the GPU with `nvidia-smi`. See `probe` of the model in GET /gpu.";
    ModelsDisplaced "MODELS_DISPLACED" [Degraded]
        "Ollama unloads one model of MODEL to load another one of MODEL.",
        "When both stay loaded.",
        "Raise OLLAMA_MAX_LOADED_MODELS if there is enough memory, use a smaller model or context, or take one out of MODEL.";
}

Uptime {
    UptimeLowShort "UPTIME_LOW_SHORT" [Degraded]
        "GPU uptime over the last hour is below GPU_SHORT_TERM_UPTIME_THRESHOLD, with 10 minutes or more recorded.",
        "As uptime recovers.",
        "Find the gaps: GET /uptime lists the minutes.";
    UptimeLowMedium "UPTIME_LOW_MEDIUM" [Degraded]
        "GPU uptime over the last 24 hours is below GPU_MEDIUM_TERM_UPTIME_THRESHOLD, with 10 minutes or more recorded.",
        "As uptime recovers.",
        "Find the gaps: GET /uptime?window=24h lists the minutes.";
    UptimeLowLong "UPTIME_LOW_LONG" [Degraded]
        "GPU uptime over the last 30 days is below GPU_LONG_TERM_UPTIME_THRESHOLD, with 10 minutes or more recorded.",
        "As uptime recovers.",
        "Find the gaps: GET /uptime?window=30d lists the minutes.";
}

}

/// Whose GPUs a code is about. A code of the machine is about all of them.
const fn vendors(code: Code) -> &'static [Vendor] {
    match code {
        Code::GpuReset => &[Vendor::Amd],
        Code::GpuAccessLost
        | Code::NvmlLibMissing
        | Code::DriverNotLoaded
        | Code::DriverLibMismatch
        | Code::NvmlNoPermission
        | Code::NvmlInitUnknown
        | Code::DrainP2p
        | Code::InforomCorrupt
        | Code::XidFatal
        | Code::XidWarn
        | Code::RetiredLimit
        | Code::RowRemapFailed
        | Code::RowRemapPending
        | Code::RowRemapMany
        | Code::MigNoInstance
        | Code::SramThreshold
        | Code::RepairPending
        | Code::FabricUnhealthy
        | Code::HwThermalSlowdown
        | Code::HwPowerBrake
        | Code::HwSlowdown
        | Code::PowerAlarm => &[Vendor::Nvidia],
        _ => &[Vendor::Nvidia, Vendor::Amd],
    }
}
