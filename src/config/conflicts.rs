//! Settings that need or exclude each other. Each conflict is judged only if all settings in it can be used by themselves.

use crate::config::capability::Capability;
use crate::config::error::ConfigError;
use crate::config::orchestrators::{Orchestrators, Protocol};
use crate::config::values::Values;

/// Records all of them in `values`.
pub(super) fn find(values: &mut Values, orchestrators: &Orchestrators, capability: &Capability) {
    let protocol = orchestrators.protocol;
    let set = |name: &str| values.optional(name).is_some();
    let (registers, live) = (!orchestrators.urls.is_empty(), protocol == Protocol::LiveRunner);
    let tickets = set("TICKET_SUBMIT_URL") && !set("STATE_DIR");
    let nameless = registers && capability.names.is_empty() && !(live && orchestrators.runner.named);
    let token = registers && set("WORKER_TOKEN") && protocol.uses_runners(true);
    let mut refuse = |names: &[&'static str], message: String| {
        if values.are_right(names) {
            values.refuse(ConfigError::sentence(names[0], message));
        }
    };
    if tickets {
        let message = "TICKET_SUBMIT_URL requires STATE_DIR: tickets are saved before a job is answered";
        refuse(&["TICKET_SUBMIT_URL", "STATE_DIR"], message.into());
    }
    if nameless {
        let also = if live { ", or set RUNNER_ID" } else { "" };
        let message = format!(
            "ORCH_URL requires CAPABILITY_NAME: set the name to register, unique per orchestrator, such as agent-net-nyc{also}"
        );
        refuse(&["CAPABILITY_NAME", "ORCH_URL", "ORCH_PROTOCOL", "RUNNER_ID"], message);
    }
    if token {
        let message = "WORKER_TOKEN cannot be combined with ORCH_PROTOCOL=live-runner or both, since a Live Runner's proxy cannot send it; unset one";
        refuse(&["WORKER_TOKEN", "ORCH_URL", "ORCH_PROTOCOL"], message.into());
    }
}

/// What is wrong with the prices although they can be used, and what to do; None: nothing.
pub(super) fn price_trouble(
    orchestrators: &Orchestrators,
    capability: &Capability,
) -> Option<(&'static str, &'static str)> {
    let byoc = !orchestrators.urls.is_empty() && orchestrators.protocol != Protocol::LiveRunner;
    let free = byoc && orchestrators.runner.price.is_some() && capability.price_per_unit.unwrap_or(0) == 0;
    free.then_some((
        "RUNNER_PRICE is set and CAPABILITY_PRICE_PER_UNIT is 0 or unset: BYOC jobs are served for free",
        "set CAPABILITY_PRICE_PER_UNIT above 0, or ORCH_PROTOCOL=live-runner",
    ))
}
