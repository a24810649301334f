//! `health`: whether the worker of this machine serves; the image's HEALTHCHECK.

use super::probe;
use crate::config::settings::Settings;
use crate::sys::exit::Exit;

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
