//! `health`: whether the worker of this machine serves; the image's HEALTHCHECK.

use super::settings::Settings;
use crate::edge::probe;
use crate::exit::Exit;

pub(super) fn run(settings: &Settings) -> Exit {
    let addr = probe::reachable(settings.config.host, settings.config.port);
    match probe::health(addr, probe::HEALTH) {
        Ok(200) => super::print("ok\n"),
        Ok(status) => {
            super::complain(&format!("http://{addr}/health answered {status}"));
            Exit::Failed
        }
        Err(why) => {
            super::complain(&why.to_string());
            Exit::Unknown
        }
    }
}
