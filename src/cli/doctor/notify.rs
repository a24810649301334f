//! Whether the receivers of NOTIFY_URL can be reached. Nothing is sent: a check must not ring a telephone.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::diagnosis::Finding;
use crate::config::{Config, NotifyTarget};
use crate::outgoing;
use crate::sys::resolver;
use crate::sys::text::io_words;

/// For the name and for the connection.
const TIMEOUT: Duration = Duration::from_secs(4);

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let settings = &config.notify;
    if settings.targets.is_empty() {
        let unset = "NOTIFY_URL is not set: changes of the verdict are not sent";
        return vec![Finding::pass("notify", unset)];
    }
    if let Err(why) = outgoing::tls(&settings.tls) {
        return vec![Finding::fail("notify", format!("NOTIFY_TLS: {why}"), "Fix NOTIFY_TLS.")];
    }
    thread::scope(|scope| {
        let each: Vec<_> = settings.targets.iter().map(|target| scope.spawn(move || reach(target))).collect();
        each.into_iter().filter_map(|one| one.join().ok()).collect()
    })
}

fn reach(target: &NotifyTarget) -> Finding {
    let shown = target.url.shown();
    let how = format!("{shown} ({})", target.format.name());
    match connect(&target.url.address()) {
        Ok(()) => Finding::pass("notify", format!("{how} can be reached; `agent-net notify --test` sends a message")),
        Err(why) => Finding::warn(
            "notify",
            format!("{how} cannot be reached: {why}"),
            "Check NOTIFY_URL, name resolution and firewall, then run `agent-net notify --test`, which also uses a proxy.",
        ),
    }
}

fn connect(address: &str) -> Result<(), String> {
    let found = resolver::find(address, TIMEOUT).map_err(|why| why.to_string())?;
    let mut failure = "the name has no address".to_owned();
    for address in found.addresses {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(why) => failure = io_words(&why),
        }
    }
    Err(failure)
}
