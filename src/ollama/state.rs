//! The state of Ollama at one moment.

use super::models::Model;
use crate::outgoing::refusal::Trouble;

/// Whether Ollama answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// No answer yet, or one failure: one lost answer is not an outage.
    Pending,
    Up {
        version: String,
    },
    /// Failed twice or more in a row, with the last error.
    Down(Trouble),
}

/// What is known about Ollama.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OllamaState {
    pub(crate) reach: Reach,
    /// Pulled and loaded models of the last good answers; empty when `lists_known` is false.
    pub(crate) models: Vec<Model>,
    /// Both lists were read and are recent.
    pub(crate) lists_known: bool,
    /// Why a list could not be read, although Ollama answers.
    pub(crate) list_error: Option<Trouble>,
}

impl OllamaState {
    pub(crate) const PENDING: Self =
        Self { reach: Reach::Pending, models: Vec::new(), lists_known: false, list_error: None };

    /// Bytes that loaded models hold on GPUs.
    pub(crate) fn vram_bytes(&self) -> u64 {
        self.models.iter().filter_map(|m| m.loaded).fold(0, |sum, l| sum.saturating_add(l.vram_bytes))
    }

    /// The loaded model with the most VRAM.
    pub(crate) fn main_model(&self) -> Option<&Model> {
        // max_by_key returns the last of equals; Ollama lists the one that stays longest first.
        self.models.iter().rev().filter(|m| m.loaded.is_some()).max_by_key(|m| m.loaded.map(|l| l.vram_bytes))
    }
}
