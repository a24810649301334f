//! Advice that several places give. Macros, because the table joins literals.

/// For a model on the CPU.
macro_rules! on_cpu {
    () => {
        "Restart Ollama and reload the model. Ollama's log says why it skipped the GPU."
    };
}
/// Besides, with a GPU of NVIDIA: CUDA may fail until then, while NVML answers and no restart of Ollama changes anything.
macro_rules! on_cpu_after_sleep {
    () => {
        " NVIDIA: after a sleep of the machine, stop Ollama and reload the module nvidia_uvm first."
    };
}
pub(super) use {on_cpu, on_cpu_after_sleep};

pub(crate) const ON_CPU: &str = on_cpu!();
pub(crate) const ON_CPU_AFTER_SLEEP: &str = on_cpu_after_sleep!();
