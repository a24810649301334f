//! The findings as tables for people.

use super::{EraFinding, Findings, seconds};
use crate::livepeer::payments::amount::{grouped, shown, shown_rounded_up};
use crate::livepeer::payments::terms::MAX_TIMEOUT;

impl Findings {
    /// Lines of at most about 120 characters, apart from notes and suggestions.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for era in &self.eras {
            out.push_str(&era.text());
        }
        if let Some(live) = &self.live_runner {
            out.push_str(&live.text());
        }
        out.push('\n');
        let rows = self.table.iter().map(|row| {
            let ok = row.ok.map_or("-", |ok| if ok { "OK" } else { "MISMATCH" });
            [row.parameter.clone(), numbers(&row.orchestrator), numbers(&row.gateway), ok.to_owned(), row.note.clone()]
        });
        let payer = match (&self.live_runner, self.eras.is_empty()) {
            (None, _) => "gateway",
            (Some(_), false) => "gateway or signer",
            (Some(_), true) => "signer",
        };
        let head = ["parameter", "orchestrator", payer, "", "note"].map(str::to_owned);
        out.push_str(&columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
        let amount = |text: &Option<String>| text.as_deref().map_or_else(|| "none is enough".into(), rounded_up);
        if let Some(deposit) = &self.needed_deposit {
            out.push_str(&format!("\nneeded at a gas price of {}: ", shown(&self.gas_price)));
            out.push_str(&format!("deposit {}, reserve {}", rounded_up(deposit), amount(&self.needed_reserve)));
            out.push_str(&format!(" ({} for the full face value)\n", amount(&self.full_reserve)));
        }
        if !self.notes.is_empty() {
            out.push_str("\nnotes:\n");
            self.notes.iter().for_each(|note| out.push_str(&format!("  {note}\n")));
        }
        if !self.suggestions.is_empty() {
            out.push_str("\nchanges that make it pass, smallest changes first:\n");
            self.suggestions.iter().for_each(|change| out.push_str(&format!("  {change}\n")));
        }
        out.push_str("\nchecked with:\n");
        for input in &self.inputs {
            out.push_str(&format!("  {}={} ({})\n", input.name, input.value, input.from));
        }
        out.push_str(
            "  go-livepeer's defaults for everything else; agent-net pm check --help lists the defaults of the chain\n",
        );
        out
    }
}

impl EraFinding {
    fn text(&self) -> String {
        let verdict = if self.accepted { "ACCEPTED" } else { "REFUSED" };
        let check = if self.check == "ok" { String::new() } else { format!(" by {}", self.check) };
        let check = if self.accepted { format!(" ({})", self.check) } else { check };
        let mut out = format!("era {} ({}): {verdict}{check}\n  {}\n", self.era, self.releases, self.message);
        let timeouts = match (self.shortest_timeout, self.longest_timeout) {
            (Some(first), Some(last)) => seconds(first, last.min(MAX_TIMEOUT)),
            _ => "none".into(),
        };
        out.push_str(&format!("  accepted timeouts: {timeouts}"));
        if let Some(units) = &self.prepaid_units {
            out.push_str(&format!("; prepaid: {units} s"));
        }
        if let Some(risk) = self.credit_at_risk.as_ref().filter(|risk| *risk != "0") {
            out.push_str(&format!("; lost after 10 idle minutes: up to {}", rounded_up(risk)));
        }
        out.push('\n');
        if let (Some(share), true) = (&self.redeem_cost_share, self.accepted) {
            let limit =
                self.gas_price_limit.as_ref().map_or_else(|| "any".into(), |gas| format!("up to {}", exactly(gas)));
            out.push_str(&format!("  redeeming costs {share} of a winner; accepted at gas prices: {limit}\n"));
        }
        out
    }
}

/// Left-aligned columns, as wide as their widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Whole wei with a unit.
fn exactly(wei: &str) -> String {
    shown(&wei.parse().unwrap_or_default())
}

fn rounded_up(wei: &str) -> String {
    shown_rounded_up(&wei.parse().unwrap_or_default())
}

/// `60 x 29000000000000` with commas between thousands.
fn numbers(cell: &str) -> String {
    let number = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
    let words = cell.split(' ').map(|word| if number(word) { grouped(word) } else { word.to_owned() });
    words.collect::<Vec<_>>().join(" ")
}
