//! The orchestrator's settings next to the gateway's, and whether they fit.

use num_rational::BigRational;
use serde::Serialize;

use super::inputs::{Inputs, Program, Source};
use super::rules::{MIN_UNITS, Outcome, Ticket};
use super::terms::Terms;
use super::{amount, rules};

/// One row. `ok` is None if it decides nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) parameter: String,
    pub(crate) orchestrator: String,
    pub(crate) gateway: String,
    pub(crate) ok: Option<bool>,
    pub(crate) note: String,
}

pub(super) fn row(
    parameter: &str,
    orchestrator: &dyn ToString,
    gateway: &dyn ToString,
    ok: Option<bool>,
    note: &str,
) -> Row {
    Row {
        parameter: parameter.into(),
        orchestrator: orchestrator.to_string(),
        gateway: gateway.to_string(),
        ok,
        note: note.into(),
    }
}

/// An orchestrator's tickets next to the limits and the deposit of the payer. `note`: on the number of tickets.
pub(super) fn ticket_rows(terms: &Terms, ticket: &Ticket, tickets: u64, note: &str, payer: &str) -> Vec<Row> {
    let whole = |value: &num_bigint::BigInt| BigRational::from_integer(value.clone());
    let fits = ticket.ev() <= whole(&terms.max_ticket_ev);
    let rounded = terms.ticket_ev == terms.max_ticket_ev && !fits;
    let equal =
        if rounded { "equal is refused: rounding makes a ticket worth slightly more than ticketEV" } else { "" };
    let total = ticket.ev() * BigRational::from_integer(tickets.into());
    let counted = format!("{tickets} x {}", terms.ticket_ev);
    let affordable = &terms.deposit / &terms.deposit_multiplier;
    vec![
        row("ticketEV / maxTicketEV", &terms.ticket_ev, &terms.max_ticket_ev, Some(fits), equal),
        row(
            "tickets x ticketEV / maxTotalEV",
            &counted,
            &terms.max_total_ev,
            Some(total <= whole(&terms.max_total_ev)),
            note,
        ),
        row(
            "faceValue / deposit / depositMultiplier",
            &ticket.face_value,
            &affordable,
            Some(ticket.face_value <= affordable),
            &format!("deposit of the {payer}"),
        ),
    ]
}

/// All rows, for these outcomes and those of a Live Runner. `payer`: whose reserve backs the tickets; None: no tickets.
pub(crate) fn rows(inputs: &Inputs, outcomes: &[Outcome], live: Vec<Row>, payer: Option<&str>) -> Vec<Row> {
    let terms = &inputs.terms;
    let mut rows = Vec::new();
    let whole = |value: &num_bigint::BigInt| BigRational::from_integer(value.clone());
    let most = outcomes.iter().filter(|o| o.ticket.is_some()).max_by_key(|o| o.tickets);
    if let Some((ticket, tickets)) = most.and_then(|o| o.ticket.as_ref().zip(o.tickets)) {
        let note = format!("the most tickets that these releases attach for {} s", terms.timeout);
        rows.extend(ticket_rows(terms, ticket, tickets, &note, "gateway's account"));
    }
    let both = !rows.is_empty();
    rows.extend(live.into_iter().map(|row| {
        let name = if both { format!("Live Runner: {}", row.parameter) } else { row.parameter };
        Row { parameter: name, ..row }
    }));
    let least = rules::least_face_value(terms);
    let share = terms.reserve_share();
    let parameter = "least faceValue / reserve / pool size";
    rows.extend(payer.map(|payer| {
        row(parameter, &least, &share, Some(share >= least), &format!("reserve of the {payer}'s account"))
    }));
    let newest = outcomes.iter().rev().find(|o| o.credit.is_some() && o.ticket.is_some());
    if let Some((outcome, credit)) = newest.and_then(|o| o.credit.as_ref().map(|credit| (o, credit)))
        && outcome.era == super::terms::Era::C
    {
        let minimum = &outcome.price * BigRational::from_integer(MIN_UNITS.into());
        let known = &terms.balance + credit;
        let fits = whole(&known) >= minimum || outcome.check.accepts();
        let note = "the orchestrator requires a minute in advance (era c)";
        rows.push(row("60 x price / balance + credit", &amount::ceil(&minimum), &known, Some(fits), note));
    }
    rows.extend(idle_rows(inputs, outcomes.is_empty()));
    rows
}

/// Settings of the files without effect, in the pairs that operators compare.
fn idle_rows(inputs: &Inputs, live_only: bool) -> Vec<Row> {
    let idle = |flag: &str, program: Program| -> Option<&Source> {
        inputs.sources.iter().find(|s| s.flag == flag && s.program == program && s.idle.is_some())
    };
    let mut rows = Vec::new();
    if let Some(gateway) = idle("maxFaceValue", Program::Gateway) {
        let note = "the gateway's has no effect: its deposit limits the face value";
        let orchestrator = inputs.terms.max_face_value.to_string();
        rows.push(row("maxFaceValue / maxFaceValue", &orchestrator, &gateway.value, None, note));
    }
    let price = idle("pricePerUnit", Program::Orchestrator);
    let most = idle("maxPricePerUnit", Program::Gateway);
    if price.is_some() || most.is_some() {
        let shown = |source: Option<&Source>| source.map_or_else(|| "-".to_owned(), |source| source.value.clone());
        let own = if live_only { "RUNNER_PRICE" } else { "CAPABILITY_PRICE_PER_UNIT" };
        let note = format!("only for transcoding: {own} is the price");
        rows.push(row("pricePerUnit / maxPricePerUnit", &shown(price), &shown(most), None, &note));
    }
    rows
}
