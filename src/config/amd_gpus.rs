//! AMD_GPUS: which AMD GPUs are read.

/// Which AMD GPUs are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum AmdGpus {
    /// All cards; a GPU that is a part of the processor only where the machine has no other GPU.
    #[default]
    Auto,
    All,
    Off,
}

impl AmdGpus {
    pub(crate) const NAMES: &[&str] = &["auto", "all", "off"];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => Self::NAMES[0],
            Self::All => Self::NAMES[1],
            Self::Off => Self::NAMES[2],
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Auto, Self::All, Self::Off].into_iter().find(|wanted| wanted.name() == name)
    }
}
