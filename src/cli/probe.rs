//! `probe [MODEL]`: asks loaded models for a few tokens, now.

mod line;

use super::{output, stop};
use crate::config::settings::Settings;
use crate::config::{Config, model_name_problem};
use crate::health::once;
use crate::http::refusal::error_body;
use crate::ollama::client::{ModelLists, OllamaClient};
use crate::ollama::probe::prober::{self, Answer};
use crate::ollama::probe::watch::GpuWatch;
use crate::outgoing;
use crate::sys::exit::Exit;
use crate::sys::limits::unix_now;
use crate::sys::logger;
use line::{ProbeLine, Readiness};
use std::sync::Arc;

pub(super) fn run(settings: &Settings, model: Option<&str>, as_json: bool) -> Exit {
    let config = &settings.config;
    if let Some((model, why)) = model.and_then(|model| Some((model, model_name_problem(model)?))) {
        return output::usage("probe", &format!("{model:?}: {why}"));
    }
    if let Err(why) = outgoing::tls(&config.ollama.tls) {
        return output::refuse(&[format!("OLLAMA_TLS: {why}")]);
    }
    logger::install(config.log_level.min(log::LevelFilter::Error));
    stop::on_signal("The models stay loaded".into());
    let client = OllamaClient::new(&config.ollama, config.faults.time_scale);
    let lists = match client.lists() {
        Ok(lists) => lists,
        Err(why) => return unreachable(&why, as_json),
    };
    let names = names(config, model, &lists);
    if names.is_empty() {
        output::complain("no model is loaded, and MODEL is unset. Load a model, such as `ollama run llama3.2:3b \"\"`");
    }
    // A model could be unloaded while another one is asked: the lists are read again for each.
    let mut first = Some(lists);
    let gpus = once::gpus(config);
    let mut lines = Vec::new();
    for name in names {
        let lists = first.take().map_or_else(|| client.lists(), Ok);
        let line = probe(&client, &gpus, config, &name, lists);
        if !as_json && let Err(failed) = output::put(&line.text()) {
            return failed;
        }
        lines.push(line);
    }
    let printed = if as_json { output::print(&(line::json(&lines) + "\n")) } else { Exit::Ok };
    if printed == Exit::Ok { line::exit(&lines) } else { printed }
}

fn unreachable(why: &str, as_json: bool) -> Exit {
    let cure = if why.ends_with('.') { "" } else { ". Start Ollama, or check OLLAMA_URL." };
    let why = format!("cannot list Ollama's models: {why}{cure}");
    if as_json {
        output::print(&(error_body("unreachable", &why, unix_now()) + "\n"));
    } else {
        output::complain(&why);
    }
    Exit::Unknown
}

/// The models to ask.
fn names(config: &Config, model: Option<&str>, lists: &ModelLists) -> Vec<String> {
    match model {
        Some(model) => vec![model.to_owned()],
        None if !config.models.names.is_empty() => config.models.names.clone(),
        None => lists.models.iter().filter(|model| model.loaded.is_some()).map(|model| model.name.clone()).collect(),
    }
}

fn probe(
    client: &OllamaClient,
    gpus: &dyn GpuWatch,
    config: &Config,
    name: &str,
    lists: Result<Arc<ModelLists>, String>,
) -> ProbeLine {
    let readiness = match lists {
        Ok(lists) => Readiness::of(name, &lists.status_of(name), lists.now()),
        Err(why) => Readiness::Skip(why),
    };
    match readiness {
        Readiness::Skip(why) => ProbeLine::skipped(name, why),
        Readiness::Ask { loaded, busy } => {
            let timeout = config.models.probe.timeout;
            gpus.mark();
            let Answer { outcome, witness, .. } = prober::ask(client, gpus, name, &loaded, timeout);
            ProbeLine::of(name, outcome, timeout, busy).with(witness, loaded.on_gpu)
        }
    }
}
