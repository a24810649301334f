//! CAPABILITY_…: what a registration holds besides the worker's URL.

use crate::config::error::ConfigError;
use crate::config::setting::Kind;
use crate::config::url::HttpUrl;
use crate::config::values::Values;

#[derive(Debug, Clone)]
pub(crate) struct Capability {
    pub(crate) names: Vec<String>,
    pub(crate) description: String,
    pub(crate) url: Option<HttpUrl>,
    pub(crate) capacity: u32,
    pub(crate) price_per_unit: Option<i64>,
    pub(crate) price_scaling: Option<i64>,
    pub(crate) currency: Option<String>,
}

/// Why no job can reach a capability of this name; None: jobs can. The routes decide, which this room does not know.
pub(crate) type NameCheck = fn(&str) -> Option<String>;

pub(super) fn read(values: &mut Values, name_problem: NameCheck) -> Capability {
    let names = values.list("CAPABILITY_NAME");
    if let Some((name, why)) = names.iter().find_map(|name| Some((name, name_problem(name)?))) {
        values.refuse(ConfigError::value("CAPABILITY_NAME", name, &why));
    }
    Capability {
        names,
        description: values.text("CAPABILITY_DESCRIPTION").to_owned(),
        url: values.url("CAPABILITY_URL"),
        capacity: values.parsed("CAPABILITY_CAPACITY").unwrap_or_default(),
        price_per_unit: values.parsed("CAPABILITY_PRICE_PER_UNIT"),
        price_scaling: values.parsed("CAPABILITY_PRICE_SCALING"),
        currency: values.optional("CAPABILITY_CURRENCY").map(str::to_owned),
    }
}

pub(super) const NAMES: Kind = Kind::Names(usize::MAX, "names", |name| {
    let fits = name.len() <= 128 && name.bytes().all(|b| b.is_ascii_graphic());
    (!fits).then_some("must be at most 128 visible ASCII characters without spaces")
});

pub(super) const CURRENCY: Kind = Kind::Other("wei, eth or a currency code such as usd", |text| {
    text.len() <= 16 && text.bytes().all(|b| b.is_ascii_alphanumeric())
});
