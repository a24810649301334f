//! `health`: whether the worker of this machine responds, for the image's HEALTHCHECK.

use super::local;
use super::output;
use crate::config::settings::Settings;
use crate::sys::exit::Exit;

pub(super) fn run(settings: &Settings) -> Exit {
    let addr = local::reachable(settings.config.host, settings.config.port);
    match local::health(addr, local::HEALTH) {
        Ok(200) => output::print("ok\n"),
        Ok(status) => {
            output::complain(&format!("http://{addr}/health responded with {status}"));
            Exit::Failed
        }
        Err(why) => {
            output::complain(&why.to_string());
            Exit::Unknown
        }
    }
}
