//! `--help`, made from the table of settings.

use super::settings::flag;
use crate::pure::config::SETTINGS;

const HEAD: &str = "\
agent-net answers whether the GPU is there and healthy, and which models Ollama holds on it.

Usage: agent-net [serve] [--SETTING VALUE]...   answer jobs until SIGTERM
       agent-net check [--url URL] [--json|--text] [--SETTING VALUE]...
                                                the verdict once: of the worker at URL, else of this machine's
                                                worker, else of this machine; the exit code is the verdict
       agent-net doctor [--json] [--SETTING VALUE]...
                                                what is wrong on this machine and how to mend it
       agent-net ack [--SETTING VALUE]...       tell the worker of this machine that its errors so far are known
       agent-net health [--SETTING VALUE]...    ask the worker of this machine whether it serves (HEALTHCHECK)
       agent-net config [--runner-json] [--SETTING VALUE]...
                                                the effective settings and where each came from, or this worker's
                                                entry for an orchestrator's runners.json
       agent-net pull MODEL [--ollama-url URL]  pulls a model into Ollama and shows how far it is
       agent-net pm COMMAND ...                 payments: odds, a pre-flight of flags, tickets; see agent-net pm --help
       agent-net --help | --version

Exit codes: 0 ok, 1 degraded or failed, 2 unhealthy, 3 unknown or unreachable, 64 usage, 78 a setting that cannot
be used. doctor: 0 all passed, 1 a warning, 2 a failure

Settings (a flag wins over the environment; empty is unset):
";

pub(super) fn text() -> String {
    let mut text = HEAD.to_owned();
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
        text.push_str(&format!("  {:<28} {:<30} {}{default}\n", setting.name, flag(setting.name), setting.meaning));
    }
    text
}
