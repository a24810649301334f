//! A model as Ollama has it on disk, and how fast its runner is.

use std::time::Duration;

use serde_json::{Value, json};

/// Ollama's default.
const DEFAULT_CTX: u64 = 4096;
/// The smallest model that was measured: 256 to 261 ms.
const SMALLEST_LOAD: Duration = Duration::from_millis(258);

/// What it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Generating,
    /// A template with `.Thinking`; with a raw prompt it answers like the others.
    Thinking,
    /// Lists no more context than this, whatever it is loaded with.
    Embedding {
        most_ctx: u64,
    },
}

/// All times are Ollama's own.
#[derive(Debug, Clone)]
pub struct Model {
    /// With its tag.
    pub name: String,
    pub digest: String,
    pub kind: Kind,
    pub size: u64,
    /// While a GPU computes.
    pub size_vram: u64,
    /// The context that it is loaded with where a request names none.
    pub default_ctx: u64,
    pub load: Duration,
    /// For each token of a prompt.
    pub read: Duration,
    /// For each token of an answer.
    pub write: Duration,
    /// How much the time of an answer differs by chance, in percent.
    pub noise: u64,
    /// It ends its answers itself after this many tokens.
    pub answer_tokens: Option<u64>,
    /// It writes one token again and again: Ollama ends its answer after 30 without a word.
    pub repeats: bool,
    /// Ollama reports it on the GPU, but it computes on the CPU.
    pub pretends: bool,
    /// No other load brings it back to the GPU.
    pub stays_on_cpu: bool,
}

impl Model {
    /// Small and fast, all of it on a GPU.
    pub fn new(name: &str, kind: Kind) -> Self {
        let name = full_name(name);
        Self {
            digest: name.clone(),
            name,
            kind,
            size: 9_000_000,
            size_vram: 9_000_000,
            default_ctx: DEFAULT_CTX,
            load: SMALLEST_LOAD,
            read: Duration::from_micros(200),
            write: Duration::from_millis(1),
            noise: 5,
            answer_tokens: None,
            repeats: false,
            pretends: false,
            stays_on_cpu: false,
        }
    }

    pub fn generating(name: &str) -> Self {
        Self::new(name, Kind::Generating)
    }

    pub fn details(&self) -> Value {
        json!({"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "749K",
            "quantization_level": "F16"})
    }

    /// Its row of /api/tags.
    pub fn tag(&self) -> Value {
        json!({"name": self.name, "model": self.name, "modified_at": "2026-06-25T20:00:00.123456789Z",
            "size": self.size, "digest": self.digest, "details": self.details()})
    }

    /// The context that /api/ps lists.
    pub fn listed_ctx(&self, num_ctx: u64) -> u64 {
        match self.kind {
            Kind::Embedding { most_ctx } => num_ctx.min(most_ctx),
            _ => num_ctx,
        }
    }
}

/// A name as Ollama lists it.
pub fn full_name(name: &str) -> String {
    let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged { name.to_owned() } else { format!("{name}:latest") }
}
