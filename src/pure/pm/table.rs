//! The orchestrator's settings beside the gateway's: where they meet, and whether they fit.

use num_rational::BigRational;
use serde::Serialize;

use super::inputs::{Inputs, Program, Source};
use super::rules::{MIN_UNITS, Outcome};
use super::{amount, rules};

/// One row. `ok` is None where nothing is decided by it.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) parameter: String,
    pub(crate) orchestrator: String,
    pub(crate) gateway: String,
    pub(crate) ok: Option<bool>,
    pub(crate) note: String,
}

fn row(parameter: &str, orchestrator: &dyn ToString, gateway: &dyn ToString, ok: Option<bool>, note: &str) -> Row {
    Row {
        parameter: parameter.into(),
        orchestrator: orchestrator.to_string(),
        gateway: gateway.to_string(),
        ok,
        note: note.into(),
    }
}

/// All rows, for these outcomes.
pub(crate) fn rows(inputs: &Inputs, outcomes: &[Outcome]) -> Vec<Row> {
    let terms = &inputs.terms;
    let mut rows = Vec::new();
    let whole = |value: &num_bigint::BigInt| BigRational::from_integer(value.clone());
    let most = outcomes.iter().filter(|o| o.ticket.is_some()).max_by_key(|o| o.tickets);
    if let Some((ticket, tickets)) = most.and_then(|o| o.ticket.as_ref().zip(o.tickets)) {
        let fits = ticket.ev() <= whole(&terms.max_ticket_ev);
        let hair = terms.ticket_ev == terms.max_ticket_ev && !fits;
        let note = if hair { "equal is refused: a ticket is worth a hair more than ticketEV" } else { "" };
        rows.push(row("ticketEV / maxTicketEV", &terms.ticket_ev, &terms.max_ticket_ev, Some(fits), note));
        let total = ticket.ev() * BigRational::from_integer(tickets.into());
        let fits = total <= whole(&terms.max_total_ev);
        let orchestrator = format!("{tickets} x {}", terms.ticket_ev);
        let note = format!("the most tickets that these releases attach for {} s", terms.timeout);
        rows.push(row("tickets x ticketEV / maxTotalEV", &orchestrator, &terms.max_total_ev, Some(fits), &note));
        let affordable = &terms.deposit / &terms.deposit_multiplier;
        let fits = ticket.face_value <= affordable;
        let parameter = "faceValue / deposit / depositMultiplier";
        rows.push(row(parameter, &ticket.face_value, &affordable, Some(fits), "deposit of the gateway's account"));
    }
    let least = rules::least_face_value(terms);
    let share = terms.reserve_share();
    let parameter = "least faceValue / reserve / pool size";
    rows.push(row(parameter, &least, &share, Some(share >= least), "reserve of the gateway's account"));
    let newest = outcomes.iter().rev().find(|o| o.credit.is_some() && o.ticket.is_some());
    if let Some((outcome, credit)) = newest.and_then(|o| o.credit.as_ref().map(|credit| (o, credit)))
        && outcome.era == super::terms::Era::C
    {
        let minimum = &outcome.price * BigRational::from_integer(MIN_UNITS.into());
        let known = &terms.balance + credit;
        let fits = whole(&known) >= minimum || outcome.check.accepts();
        let note = "the orchestrator wants a minute paid before a job runs (era c)";
        rows.push(row("60 x price / balance + credit", &amount::ceil(&minimum), &known, Some(fits), note));
    }
    rows.extend(idle_rows(inputs));
    rows
}

/// What stands in a file and does nothing, as operators pair it.
fn idle_rows(inputs: &Inputs) -> Vec<Row> {
    let idle = |flag: &str, program: Program| -> Option<&Source> {
        inputs.sources.iter().find(|s| s.flag == flag && s.program == program && s.idle.is_some())
    };
    let mut rows = Vec::new();
    if let Some(gateway) = idle("maxFaceValue", Program::Gateway) {
        let note = "the gateway's does nothing: its deposit limits the face value";
        let orchestrator = inputs.terms.max_face_value.to_string();
        rows.push(row("maxFaceValue / maxFaceValue", &orchestrator, &gateway.value, None, note));
    }
    let price = idle("pricePerUnit", Program::Orchestrator);
    let most = idle("maxPricePerUnit", Program::Gateway);
    if price.is_some() || most.is_some() {
        let shown = |source: Option<&Source>| source.map_or_else(|| "-".to_owned(), |source| source.value.clone());
        let note = "both are only for transcoding: CAPABILITY_PRICE_PER_UNIT is the price";
        rows.push(row("pricePerUnit / maxPricePerUnit", &shown(price), &shown(most), None, note));
    }
    rows
}
