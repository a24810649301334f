//! `ack`: acknowledges past errors on the worker of this machine.

use pico_args::Arguments;

use super::check::render;
use super::control::{self, NoAnswer};
use super::{arguments, output};
use crate::config::settings::Settings;
use crate::sys::exit::Exit;
use crate::sys::signals;

#[derive(Debug)]
pub(super) struct Options {
    json: bool,
    /// The worker's process, for the signal; None: the one that is found.
    pid: Option<u32>,
}

/// # Errors
/// An option that is not valid.
pub(super) fn options(args: &mut Arguments) -> Result<Options, String> {
    let pid = arguments::number(args, "--pid", "the number of a process")?;
    Ok(Options { json: args.contains("--json"), pid })
}

/// Asks through the socket in STATE_DIR, which answers. Without one it sends a signal, which has no answer.
pub(super) fn run(settings: &Settings, options: &Options) -> Exit {
    let dir = settings.config.state_dir.as_deref().filter(|_| options.pid.is_none());
    let no_socket = match dir.map(|dir| control::ask(dir, "ack")) {
        Some(Ok(answer)) => return show(&answer, options.json),
        Some(Err(NoAnswer::Other(why))) => return unknown(&why),
        Some(Err(NoAnswer::NoWorker(why))) => Some(why),
        None => None,
    };
    let chosen = options.pid.map_or_else(|| choose(&signals::workers(), no_socket.as_deref()), Ok);
    match chosen.and_then(|pid| signals::acknowledge(pid).map(|()| pid)) {
        Ok(pid) if options.json => output::print(&format!("{{\"status\":\"signalled\",\"pid\":{pid}}}\n")),
        Ok(pid) => output::print(&format!("sent SIGUSR1 to process {pid}; agent-net check shows the verdict\n")),
        Err(why) => unknown(&why),
    }
}

/// The worker to signal, of those that run here. `no_socket`: why there is none in STATE_DIR. The worker found may then be
/// another one, unless it is process 1 of a container.
fn choose(workers: &[u32], no_socket: Option<&str>) -> Result<u32, String> {
    let before = no_socket.map(|why| format!("{why}; ")).unwrap_or_default();
    match workers {
        [pid] if *pid == 1 || no_socket.is_none() => Ok(*pid),
        [] => Err(format!("{before}no worker runs here; run this on its machine or in its container")),
        [pid] => Err(format!("{before}the worker that runs here may be another one; if you mean it, add --pid {pid}")),
        some => Err(format!("{before}several workers run here, as processes {some:?}; choose one with --pid")),
    }
}

fn show(answer: &str, json: bool) -> Exit {
    match render::acknowledged(answer) {
        Ok(_) if json => output::print(&format!("{answer}\n")),
        Ok(line) => output::print(&line),
        Err(why) => unknown(&why),
    }
}

fn unknown(why: &str) -> Exit {
    output::complain(why);
    Exit::Unknown
}

#[test]
fn a_worker_is_signalled_only_if_no_other_can_be_meant() {
    #[track_caller]
    fn check(workers: &[u32], no_socket: Option<&str>, expect: Result<u32, &str>) {
        assert_eq!(choose(workers, no_socket).as_ref().map_err(String::as_str), expect.as_ref().map_err(|why| *why));
    }
    check(&[7], None, Ok(7));
    check(&[1], Some("no socket"), Ok(1));
    let other = "no socket; the worker that runs here may be another one; if you mean it, add --pid 7";
    check(&[7], Some("no socket"), Err(other));
    check(&[7, 8], None, Err("several workers run here, as processes [7, 8]; choose one with --pid"));
    check(&[], None, Err("no worker runs here; run this on its machine or in its container"));
}
