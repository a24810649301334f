//! `ack`: tells the worker of this machine that the operator knows of the errors so far.

use super::settings::Settings;
use crate::edge::probe;
use crate::exit::Exit;
use crate::pure::check;

pub(super) fn run(settings: &Settings, json: bool) -> Exit {
    let config = &settings.config;
    let own = format!("http://{}", probe::reachable(config.host, config.port));
    match probe::acknowledge(&own, config.worker_token.as_ref()) {
        Ok(body) if json => super::print(&(body + "\n")),
        Ok(body) => match check::acknowledged(&body) {
            Ok(line) => super::print(&line),
            Err(why) => unknown(&why),
        },
        Err(why) => unknown(&why.to_string()),
    }
}

fn unknown(why: &str) -> Exit {
    super::complain(why);
    Exit::Unknown
}
