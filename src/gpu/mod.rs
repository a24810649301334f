//! GPUs: what one says of itself, the helpers that read NVML and amdgpu, and what the machine shows without them.

pub(crate) mod activity;
pub(crate) mod amd_cards;
pub(crate) mod amd_log;
pub(crate) mod bus;
pub(crate) mod client;
pub(crate) mod fabric;
pub(crate) mod failure;
#[cfg(feature = "nvml")]
pub(crate) mod helper;
pub(crate) mod holders;
pub(crate) mod host;
pub(crate) mod host_facts;
pub(crate) mod kmsg;
pub(crate) mod legacy;
pub(crate) mod merge;
pub(crate) mod mig;
pub(crate) mod mig_instance;
pub(crate) mod pci;
pub(crate) mod place;
pub(crate) mod plausible;
pub(crate) mod process_names;
pub(crate) mod reading;
pub(crate) mod readings;
pub(crate) mod runtime_power;
pub(crate) mod sample;
pub(crate) mod sleep;
pub(crate) mod state;
pub(crate) mod suspendable;

pub(crate) mod tegra;
pub(crate) mod value;
pub(crate) mod vendor;
pub(crate) mod wire;
pub(crate) mod xid;
