//! `pm check`: whether jobs would be accepted and paid with the flags of these files.

use std::env;
use std::path::Path;

use pico_args::Arguments;

use crate::cli::arguments;
use crate::cli::output::{complain, print, usage};
use crate::livepeer::payments::findings;
use crate::livepeer::payments::flags::{self, Wanted};
use crate::livepeer::payments::inputs::{Inputs, Program, worker_variables};
use crate::livepeer::payments::terms::Era;
use crate::sys::exit::Exit;
use crate::sys::text_file;

/// What this repository ships, checked without other files: the worker's file, then go-livepeer's, which depend on
/// ORCH_PROTOCOL.
const SHIPPED: (Program, &str) = (Program::Worker, "compose/compose.yaml");
const SHIPPED_BYOC: [(Program, &str); 2] =
    [(Program::Orchestrator, "compose/orchestrator.yaml"), (Program::Gateway, "compose/gateway.yaml")];
/// The signer is in it.
const SHIPPED_LIVE: [(Program, &str); 1] = [(Program::Orchestrator, "compose/live-runner.yaml")];

/// Why nothing was checked.
enum Refused {
    Usage(String),
    /// A file or variable.
    Config(String),
}

#[derive(Default)]
struct Asked {
    files: Vec<(Program, String)>,
    flags: Vec<(String, String)>,
    /// Empty: none was given.
    eras: Vec<Era>,
    json: bool,
}

pub(super) fn run(args: Arguments) -> Exit {
    let asked = match parse(args) {
        Ok(asked) => asked,
        Err(why) => return usage("pm check", &why),
    };
    let inputs = match gather(&asked) {
        Ok(inputs) => inputs,
        Err(Refused::Usage(why)) => return usage("pm check", &why),
        Err(Refused::Config(why)) => {
            complain(&why);
            return Exit::Config;
        }
    };
    if inputs.live().is_some_and(|live| live.needs_eth_price(&inputs.terms)) {
        let why = "RUNNER_PRICE is in dollars: add --eth-price, the price of an ETH, such as --eth-price 3000";
        return usage("pm check", why);
    }
    let named = !asked.eras.is_empty();
    let eras = match (inputs.checks_byoc(named), named) {
        (false, _) => &[][..],
        (true, true) => &asked.eras,
        (true, false) => &Era::ALL,
    };
    let found = findings::check(&inputs, eras);
    match print(&if asked.json { found.json() } else { found.text() }) {
        Exit::Ok if !found.accepted() => Exit::Failed,
        printed => printed,
    }
}

/// go-livepeer's flags have one dash or two, and their value after `=` or a space.
fn parse(args: Arguments) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut left = args.finish().into_iter().peekable();
    while let Some(arg) = left.next() {
        let arg = arg.into_string().map_err(|arg| format!("{arg:?} is not UTF-8"))?;
        let flag = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
        let flag = flag.ok_or_else(|| arguments::unknown(arg.as_ref()))?;
        if flag == "json" {
            asked.json = true;
            continue;
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value = left.next().ok_or_else(|| format!("{arg} has no value"))?;
                (flag, value.into_string().map_err(|value| format!("{value:?} is not UTF-8"))?)
            }
        };
        match name {
            "orchestrator" => asked.files.push((Program::Orchestrator, value)),
            "gateway" => asked.files.push((Program::Gateway, value)),
            "signer" => asked.files.push((Program::Signer, value)),
            "worker" => asked.files.push((Program::Worker, value)),
            "era" => asked.eras = eras(&value)?,
            _ if asked.flags.iter().any(|(known, _)| known == name) => return Err(format!("{arg} is given twice")),
            _ => asked.flags.push((name.to_owned(), value)),
        }
    }
    Ok(asked)
}

fn eras(text: &str) -> Result<Vec<Era>, String> {
    let text = text.to_ascii_lowercase();
    match Era::ALL.into_iter().find(|era| era.letter() == text) {
        Some(era) => Ok(vec![era]),
        None if text == "all" => Ok(Era::ALL.to_vec()),
        None => Err(format!("--era={text:?}: must be a, b, c or all")),
    }
}

/// Everything that is known: the environment, overridden by files, overridden by flags.
fn gather(asked: &Asked) -> Result<Inputs, Refused> {
    let mut inputs = Inputs::default();
    for name in worker_variables() {
        if let Ok(value) = env::var(name)
            && !value.trim().is_empty()
        {
            inputs.read_variable(name, value.trim()).map_err(|why| Refused::Config(why.0))?;
        }
    }
    for (program, path) in &asked.files {
        let text = text_file::read(path).map_err(|why| Refused::Config(format!("{path}: {why}")))?;
        read(&mut inputs, *program, &text, path)?;
    }
    for (name, value) in &asked.flags {
        if !inputs.ask(name, value).map_err(|why| Refused::Usage(why.0))? {
            return Err(Refused::Usage(format!("unknown option -{name}: it does not affect payments")));
        }
    }
    if asked.files.is_empty() && !inputs.has_flags() {
        read_if_there(&mut inputs, SHIPPED)?;
        let files = if inputs.is_live_only() { &SHIPPED_LIVE[..] } else { &SHIPPED_BYOC };
        files.iter().try_for_each(|file| read_if_there(&mut inputs, *file))?;
        // The flags for job and chain were read before.
        if !inputs.has_flags() {
            let why = "nothing to check: add --orchestrator FILE and --gateway FILE, or flags";
            return Err(Refused::Usage(why.into()));
        }
    }
    Ok(inputs)
}

fn read_if_there(inputs: &mut Inputs, (program, path): (Program, &str)) -> Result<(), Refused> {
    let text = text_file::read_if_there(path).map_err(|why| Refused::Config(format!("{path}: {why}")))?;
    text.map_or(Ok(()), |text| read(inputs, program, &text, path))
}

/// Reads a file as its program gets it: Compose puts the environment in, and an .env beside the file.
fn read(inputs: &mut Inputs, program: Program, text: &str, path: &str) -> Result<(), Refused> {
    let beside = Path::new(path).with_file_name(".env");
    let beside = beside.to_str().map(|path| text_file::read_if_there(path).map(Option::unwrap_or_default));
    let beside = beside.transpose().map_err(|why| Refused::Config(format!("the .env next to {path}: {why}")))?;
    let beside = beside.unwrap_or_default();
    let lookup = |name: &str| {
        let wanted = [Wanted { flag: "", variable: name, switch: false, secret: false }];
        let in_file = || flags::find(&beside, ".env", &wanted, &|_| None).ok()?.pop().map(|found| found.value);
        env::var(name).ok().filter(|value| !value.is_empty()).or_else(in_file)
    };
    inputs.read(program, text, path, &lookup).map_err(|why| Refused::Config(why.0))
}
