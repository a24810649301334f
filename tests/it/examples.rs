//! Examples in the documents: taken from real runs on simulated hardware, with commands and files that exist.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fake_ollama::{Answer, FakeOllama};
use crate::gpus::start;
use crate::harness::{agent_net, run, verdict};
use crate::manual::{commands, help};
use crate::nvml::FakeNvml;
use crate::tables::{DOCUMENTS, read, table};

const MODEL: &str = "codellama:34b-instruct-q4_k_m";
const SIZE: u64 = 20_220_811_520;
const IN_VRAM: u64 = 22_413_672_448;
/// Two L40S: the model is loaded onto the first, another program overheats the second.
const GPUS: &str = "gpus=2\ngpu*.name=NVIDIA L40S\ngpu*.fan=err:3\n\
    gpu0.memory=46068/21893/603\ngpu0.power=123140\ngpu0.temperature=51\ngpu0.utilization=28/11\n\
    gpu1.memory=46068/31240/603\ngpu1.power=291380\ngpu1.temperature=94\ngpu1.utilization=88/35";

/// Statistics of a 34B model on an L40S: made up, in the form of a recorded answer.
const ANSWER: &str = r#""created_at":"2026-11-27T04:21:31Z","response":" 5, 6","done":true,"done_reason":"length","total_duration":596400000,"load_duration":4100000,"prompt_eval_count":13,"prompt_eval_duration":88200000,"eval_count":16,"eval_duration":503100000"#;

/// An Ollama with the model on the GPU.
fn ollama() -> FakeOllama {
    let ollama = FakeOllama::new();
    let model = format!(r#""name":"{MODEL}","model":"{MODEL}","digest":"685be00e1532""#);
    ollama.set("/api/tags", Answer::Json(format!(r#"{{"models":[{{{model},"size":{SIZE}}}]}}"#)));
    let placed = format!(r#""size":{IN_VRAM},"size_vram":{IN_VRAM},"context_length":4096"#);
    let loaded = format!(r#"{model},{placed},"expires_at":"2318-01-01T00:00:00Z""#);
    ollama.set("/api/ps", Answer::Json(format!(r#"{{"models":[{{{loaded}}}]}}"#)));
    ollama.set("/api/generate", Answer::Json(format!(r#"{{"model":"{MODEL}",{ANSWER}}}"#)));
    ollama
}

#[test]
fn the_readme_shows_what_check_prints() {
    let (ollama, nvml) = (ollama(), FakeNvml::new(GPUS));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("degraded", |report| verdict(report) == "degraded");
    let (status, out, _) = run(agent_net().args(["check", "--url", &format!("http://{}", worker.addr)]));
    assert_eq!(status.code(), Some(1), "{out}");
    table("README.md", "check-example", &format!("```console\n$ agent-net check\n{}\n```", out.trim_end()));
}

#[test]
fn the_readme_shows_what_probe_prints() {
    let (ollama, nvml) = (ollama(), FakeNvml::new(&format!("{GPUS}\ngpu*.used_by=err:6\ngpu*.samples=97")));
    let settings = [("OLLAMA_URL", ollama.url()), ("MODEL", MODEL.into())];
    let (status, out, _) = run(agent_net().arg("probe").envs(settings).envs(nvml.settings()));
    assert_eq!(status.code(), Some(0), "{out}");
    table("README.md", "probe-example", &format!("```console\n$ agent-net probe\n{}\n```", out.trim_end()));
}

/// The words of each line of code in the documents: in fences, or between backticks.
fn code_lines() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for text in DOCUMENTS.map(read) {
        for (at, part) in text.split("```").enumerate() {
            let lines: Vec<&str> = match at % 2 {
                // The rest of a console is output.
                1 => part.lines().filter(|line| !part.starts_with("console") || line.starts_with("$ ")).collect(),
                _ => part.split('`').skip(1).step_by(2).collect(),
            };
            all.extend(lines.iter().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()));
        }
    }
    all
}

#[test]
fn every_command_in_the_documents_exists() {
    let help_of: BTreeMap<String, String> = commands().iter().map(|name| (name.join(" "), help(name))).collect();
    let mut seen = 0;
    for line in code_lines() {
        for (at, _) in line.iter().enumerate().filter(|(_, word)| ["agent-net", "/agent-net"].contains(&word.as_str()))
        {
            let rest = &line[at + 1..];
            let rest =
                &rest[..rest.iter().position(|word| ["|", "&&", "#"].contains(&word.as_str())).unwrap_or(rest.len())];
            let is_name = |word: &&String| word.chars().all(|c| c.is_ascii_lowercase());
            let name: Vec<&str> = rest.iter().take_while(is_name).map(String::as_str).take(2).collect();
            let Some(first) = name.first() else { continue };
            let name = if *first == "pm" { name.join(" ") } else { (*first).to_owned() };
            let own = help_of.get(&name).unwrap_or_else(|| panic!("{name:?} is not a command: {line:?}"));
            for option in rest.iter().filter(|word| word.starts_with("--") && *word != "--help") {
                let option = option.split('=').next().unwrap();
                let known =
                    [own, &help_of["serve"]].iter().any(|text| text.split_whitespace().any(|word| word == option));
                assert!(known, "agent-net {name} has no {option}: {line:?}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 30, "{seen}");
}

/// `up` takes the GPUs from a worker that was started with gpu.yaml, if that is missing.
#[test]
fn every_command_that_starts_the_worker_gives_it_the_gpus() {
    let files = crate::tidy::files_below("compose", "yaml").into_iter().map(|(_, text)| text.replace("\\\n#", " "));
    let mut seen = 0;
    for text in DOCUMENTS.map(read).into_iter().chain(files) {
        for line in text.lines().filter(|line| line.contains("-f compose/compose.yaml") && line.contains(" up -d")) {
            let given = ["gpu", "amd", "runtime"].iter().any(|file| line.contains(&format!("compose/{file}.yaml")));
            assert!(given, "without the GPUs: {line}");
            seen += 1;
        }
    }
    assert!(seen >= 15, "{seen}");
}

#[test]
fn every_file_in_the_documents_exists() {
    let ours = ["compose/.env", "compose/secrets", "dist/rootfs"];
    let mut seen = 0;
    for word in code_lines().concat() {
        let path = word.trim_matches(|c: char| !c.is_alphanumeric() && !"./_-".contains(c)).trim_end_matches('.');
        let is_path = ["compose/", "scripts/", "tests/", "src/"].iter().any(|folder| path.starts_with(folder));
        if is_path && !ours.contains(&path) {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "{path} does not exist");
            seen += 1;
        }
    }
    assert!(seen >= 30, "{seen}");
}
