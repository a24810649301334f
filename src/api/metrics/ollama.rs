//! Ollama and the models that it has.

use std::collections::BTreeSet;

use crate::health::snapshot::Snapshot;
use crate::ollama::models::Model;
use crate::ollama::state::Reach;
use crate::sys::exposition::{Exposition, Family, flag, gauge, info, metrics};

metrics! {
    UP = gauge("agent_net_ollama_up", &[], "1 while Ollama responds.");
    INFO = info("agent_net_ollama_info", &["version"], "Version of Ollama.");
    MODELS = gauge("agent_net_ollama_models", &[], "Models pulled into Ollama.");
    SIZE = gauge("agent_net_ollama_model_size_bytes", &["model"], "Size of the model on disk.");
    LOADED = gauge("agent_net_ollama_model_loaded", &["model"], "1 while the model is loaded.");
    VRAM = gauge("agent_net_ollama_model_vram_bytes", &["model"], "VRAM of the loaded model.");
}

pub(super) fn write(out: &mut Exposition, snapshot: &Snapshot) {
    let state = &snapshot.ollama;
    let up = match &state.reach {
        Reach::Pending => None,
        Reach::Up { .. } => Some(true),
        Reach::Down(_) => Some(false),
    };
    out.single(&UP, up.map(flag));
    if let Reach::Up { version } = &state.reach {
        out.family(&INFO);
        out.sample(&[version], Some(1.0));
    }
    if !state.lists_known {
        return;
    }
    let pulled = state.models.iter().filter(|m| m.pulled).count();
    out.single(&MODELS, Some(pulled as f64));
    type Read = fn(&Model) -> Option<f64>;
    let families: [(&Family, Read); 3] = [
        (&SIZE, |m| m.size_bytes.map(|n| n as f64)),
        (&LOADED, |m| Some(flag(m.loaded.is_some()))),
        (&VRAM, |m| m.loaded.map(|l| l.vram_bytes as f64)),
    ];
    for (family, read) in families {
        let mut seen = BTreeSet::new();
        let models = state.models.iter().filter(|m| seen.insert(m.name.as_str()));
        out.samples(family, models.map(|m| (vec![m.name.as_str()], read(m))));
    }
}
