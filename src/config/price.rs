//! RUNNER_PRICE.

use serde::Serialize;

/// RUNNER_PRICE, `0.0005usd/fixed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Price {
    /// A decimal number, as written.
    price: String,
    currency: &'static str,
    unit: String,
}

impl Price {
    /// None: not a price.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_once("usd/")?;
        let digits = number.bytes().filter(u8::is_ascii_digit).count();
        let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.') && number.matches('.').count() <= 1;
        let positive = number.bytes().any(|b| (b'1'..=b'9').contains(&b));
        let known = matches!(unit, "fixed" | "hour" | "720p");
        let whole = digits > 0 && !number.starts_with('.') && !number.ends_with('.') && digits <= 30;
        (plain && positive && known && whole).then(|| Self { price: number.into(), currency: "usd", unit: unit.into() })
    }

    /// A decimal number of dollars, as it was written.
    pub(crate) fn dollars(&self) -> &str {
        &self.price
    }

    /// `fixed`, `hour` or `720p`.
    pub(crate) fn unit(&self) -> &str {
        &self.unit
    }

    /// By the amount of video, a unit that livepeer/node does not know.
    pub(crate) fn is_per_frame(&self) -> bool {
        self.unit == "720p"
    }
}
