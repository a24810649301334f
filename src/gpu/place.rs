//! Where the worker runs, and what that changes in what to do: no container advice on a host, and no command that a
//! container does not have without "on the host".

use std::borrow::Cow;

use super::readings::Gpu;
use super::vendor::Vendor;

/// Where the worker runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Place {
    #[default]
    Host,
    Container,
    Kubernetes,
}

impl Place {
    fn is_host(self) -> bool {
        self == Self::Host
    }

    /// A text for a host and one for containers.
    fn pick(self, host: &'static str, container: &'static str) -> Cow<'static, str> {
        Cow::Borrowed(if self.is_host() { host } else { container })
    }

    /// Behind a command of the host: " on the host" where the worker runs elsewhere.
    pub(crate) fn on_the_host(self) -> &'static str {
        if self.is_host() { "" } else { " on the host" }
    }

    /// `nvidia-smi -i 1 -pm 1`, where it can be run. The host counts other GPUs than a container does: from there the GPU
    /// is named by its PCI bus ID, because the index can be that of another container's GPU.
    pub(crate) fn smi(self, gpu: &Gpu, options: &str) -> String {
        let index = || Cow::Owned(gpu.index.to_string());
        let elsewhere = || gpu.pci_bus_id.as_deref().or(gpu.uuid.as_deref()).unwrap_or("UUID").into();
        let id: Cow<'_, str> = if self.is_host() { index() } else { elsewhere() };
        format!("`nvidia-smi -i {id} {options}`{}", self.on_the_host())
    }

    pub(crate) fn reset(self, gpu: &Gpu) -> String {
        self.smi(gpu, "-r")
    }

    /// The first half of every reset; begins an action. Only few of AMD's boards can be reset by hand.
    pub(crate) fn stop_and_reset(self, gpu: &Gpu) -> String {
        match gpu.vendor {
            Vendor::Nvidia => format!("Stop all processes using this GPU, then run {}", self.reset(gpu)),
            Vendor::Amd => self.reboot().into(),
        }
    }

    /// The first half of every reset, or a reboot.
    pub(crate) fn reset_or_reboot(self, gpu: &Gpu) -> String {
        self.stop_and_reset(gpu) + gpu.vendor.pick(" or reboot", "")
    }

    pub(crate) fn check_logs(self, vendor: Vendor) -> String {
        format!("Check `dmesg`{}{}.", vendor.pick(" and `nvidia-smi`", ""), self.on_the_host())
    }

    /// The driver does not respond.
    pub(crate) fn driver_hangs(self, vendor: Vendor) -> String {
        let when = vendor.pick("if nvidia-smi hangs too", "if it stays so");
        format!("{} {} {when}.", self.check_logs(vendor), self.reboot())
    }

    pub(crate) fn reboot(self) -> &'static str {
        if self.is_host() { "Reboot" } else { "Reboot the host" }
    }

    /// What started the worker starts it again, and Ollama.
    pub(crate) fn restart_both(self) -> &'static str {
        match self {
            Self::Host => "Restart agent-net and Ollama",
            Self::Container => "Restart the worker and Ollama containers",
            Self::Kubernetes => "Restart the pods of the worker and Ollama",
        }
    }

    /// Access that a container lost.
    pub(crate) fn regain_access(self) -> Cow<'static, str> {
        match self {
            Self::Host => "Check who may open /dev/nvidiactl (DeviceAllow and DevicePolicy in systemd), then restart \
                           agent-net and Ollama."
                .into(),
            Self::Container | Self::Kubernetes => format!(
                "{}. Usual cause: `systemctl daemon-reload` on the host. Permanent fix: `native.cgroupdriver=cgroupfs`, \
                 or `nvidia-ctk system create-dev-char-symlinks` on the host.",
                self.restart_both()
            )
            .into(),
        }
    }

    /// Behind a worker that runs: the environment of a command in its container is the worker's.
    pub(crate) fn own_settings(self) -> &'static str {
        if self.is_host() {
            "; doctor has the settings of its own environment, which may differ from the worker's"
        } else {
            ""
        }
    }

    /// The kernel's log cannot be read.
    pub(crate) fn let_it_read_the_log(self) -> &'static str {
        match self {
            Self::Host => "CAP_SYSLOG opens it (a line of agent-net.service).",
            Self::Container => "compose/kmsg.yaml opens it.",
            Self::Kubernetes => "/dev/kmsg of the host and CAP_SYSLOG open it.",
        }
    }

    /// There is no GPU here.
    pub(crate) fn give_a_gpu(self) -> &'static str {
        match self {
            Self::Host => {
                "Use a machine with a GPU of NVIDIA or AMD, and install its driver. No GPU expected? Set EXPECTED_GPUS=0."
            }
            Self::Container => {
                "Pass the container a GPU of its host (compose/gpu.yaml or `--gpus all`). No GPU expected? Set EXPECTED_GPUS=0."
            }
            Self::Kubernetes => {
                "Request a GPU for the pod (`nvidia.com/gpu: 1` in its limits). No GPU expected? Set EXPECTED_GPUS=0."
            }
        }
    }

    /// The driver's library is not here.
    pub(crate) fn give_the_library(self) -> &'static str {
        match self {
            Self::Host => "Install the NVIDIA driver's libnvidia-ml.so.1, or set NVML_LIB to its path.",
            Self::Container => {
                "Start the container with the NVIDIA runtime and NVIDIA_DRIVER_CAPABILITIES=utility \
                 (compose/gpu.yaml), or set NVML_LIB."
            }
            Self::Kubernetes => {
                "Start the pod with the NVIDIA runtime (`runtimeClassName: nvidia`) and \
                 NVIDIA_DRIVER_CAPABILITIES=utility, or set NVML_LIB."
            }
        }
    }

    /// The devices are here, and this user may not open them.
    pub(crate) fn let_it_open_devices(self) -> Cow<'static, str> {
        match self {
            Self::Host => {
                "Add the worker's user to the group that owns /dev/nvidiactl (`SupplementaryGroups` in systemd)."
            }
            Self::Container => "Add the group that owns /dev/nvidiactl to the worker (`group_add` in Compose).",
            Self::Kubernetes => {
                "Add the group that owns /dev/nvidiactl to the pod (`supplementalGroups` in its securityContext)."
            }
        }
        .into()
    }

    /// NVML lists GPUs, and none is ours to use.
    pub(crate) fn give_one_of_the_gpus(self) -> &'static str {
        match self {
            Self::Host => {
                "Add the worker's user to the group that owns /dev/nvidia0 (`SupplementaryGroups` in systemd)."
            }
            Self::Container => {
                "Pass the container a GPU (compose/gpu.yaml or `--gpus all`), and add the group that owns /dev/nvidia0 to \
                 the worker (`group_add` in Compose)."
            }
            Self::Kubernetes => {
                "Request a GPU for the pod (`nvidia.com/gpu: 1` in its limits), and add the group that owns /dev/nvidia0 \
                 to the pod (`supplementalGroups`)."
            }
        }
    }

    /// NVML lists a GPU that is not ours to use.
    pub(crate) fn give_this_gpu(self) -> &'static str {
        match self {
            Self::Host => {
                "Let the worker's user open this GPU's device node, or set EXPECTED_GPUS to the number of GPUs it may use."
            }
            Self::Container => {
                "Pass this GPU to the container (NVIDIA_VISIBLE_DEVICES, `--gpus`, `group_add`), or set EXPECTED_GPUS to the \
                 number of GPUs the container has."
            }
            Self::Kubernetes => {
                "Request this GPU for the pod (`nvidia.com/gpu` in its limits), or set EXPECTED_GPUS to the number of GPUs the \
                 pod has."
            }
        }
    }

    /// MIG is on, and NVML lists no instance of this GPU.
    pub(crate) fn give_an_instance(self, gpu: &Gpu) -> String {
        let given = match self {
            Self::Host => "",
            Self::Container => "Give the container an instance (NVIDIA_VISIBLE_DEVICES=MIG-UUID). If there is none, ",
            Self::Kubernetes => {
                "Request an instance for the pod (`nvidia.com/mig-PROFILE: 1` in its limits). If there is none, "
            }
        };
        let (create, on_the_host) = (self.pick("Create", "create"), self.on_the_host());
        let off = self.smi(gpu, "-mig 0");
        format!("{given}{create} one with `nvidia-smi mig -cgi PROFILE -C`{on_the_host}, or turn MIG off with {off}.")
    }

    /// A device node of the group `gid` is here, and this user may not open it.
    pub(crate) fn join_group(self, gid: u32) -> String {
        match self {
            Self::Host => format!("Add the worker's user to group {gid}, or fix the device's mode."),
            Self::Container => {
                format!("Add group {gid} to the worker (`group_add` in Compose), or fix the mode on the host.")
            }
            Self::Kubernetes => {
                format!("Add group {gid} to the pod (`supplementalGroups`), or fix the device's mode on the host.")
            }
        }
    }

    pub(crate) fn after_a_driver_upgrade(self) -> Cow<'static, str> {
        self.pick(
            "The driver was upgraded while running: reboot.",
            "The driver was upgraded while running: reboot the host, then restart the containers.",
        )
    }
}
