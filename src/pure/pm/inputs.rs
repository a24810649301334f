//! Which flags and variables make the terms, who reads each, and what was found where.

use num_bigint::BigInt;
use num_traits::Signed;

use super::amount;
use super::flags::{self, FlagError, Found, Place, Wanted};
use super::terms::{MAX_TIMEOUT, REDEEM_GAS_L1, REDEEM_GAS_L2, Terms};

/// What values of the process's own variables are said to come from.
const ENVIRONMENT: &str = "the environment";

/// Whose file a flag stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Worker,
    Orchestrator,
    Gateway,
    /// The command line of this program: everything may stand there, and amounts may have units.
    Asked,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Orchestrator => "orchestrator",
            Self::Gateway => "gateway",
            Self::Asked => "command line",
        }
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Wei, from 0.
    Wei,
    /// A whole number of 64 bits, of either sign: prices and their scaling.
    Price,
    /// A whole number, from 1.
    Count,
    Switch,
    Text,
}

/// One flag or variable.
struct Input {
    flag: &'static str,
    variable: &'static str,
    kind: Kind,
    /// Whose value counts; [`Asked`]: nobody's file has it.
    reader: Program,
    role: Role,
}

/// What a value does for these jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Counts,
    /// It counts at its reader; the others have the flag for themselves.
    Shared,
    /// Only transcoding looks at it.
    Transcoding,
}

const fn input(flag: &'static str, variable: &'static str, kind: Kind, reader: Program, role: Role) -> Input {
    Input { flag, variable, kind, reader, role }
}

use Program::{Asked, Gateway, Orchestrator, Worker};
use Role::{Counts, Shared, Transcoding};

const INPUTS: &[Input] = &[
    input("price-per-unit", "CAPABILITY_PRICE_PER_UNIT", Kind::Price, Worker, Counts),
    input("price-scaling", "CAPABILITY_PRICE_SCALING", Kind::Price, Worker, Counts),
    input("price-currency", "CAPABILITY_CURRENCY", Kind::Text, Worker, Counts),
    input("ticketEV", "LP_TICKETEV", Kind::Wei, Orchestrator, Counts),
    input("maxFaceValue", "LP_MAXFACEVALUE", Kind::Wei, Orchestrator, Counts),
    input("autoAdjustPrice", "LP_AUTOADJUSTPRICE", Kind::Switch, Orchestrator, Counts),
    input("minGasPrice", "LP_MINGASPRICE", Kind::Wei, Orchestrator, Shared),
    input("maxGasPrice", "LP_MAXGASPRICE", Kind::Wei, Orchestrator, Shared),
    input("network", "LP_NETWORK", Kind::Text, Orchestrator, Shared),
    input("pricePerUnit", "LP_PRICEPERUNIT", Kind::Text, Orchestrator, Transcoding),
    input("pixelsPerUnit", "LP_PIXELSPERUNIT", Kind::Text, Orchestrator, Transcoding),
    input("maxTicketEV", "LP_MAXTICKETEV", Kind::Wei, Gateway, Counts),
    input("maxTotalEV", "LP_MAXTOTALEV", Kind::Wei, Gateway, Counts),
    input("depositMultiplier", "LP_DEPOSITMULTIPLIER", Kind::Count, Gateway, Counts),
    input("maxPricePerUnit", "LP_MAXPRICEPERUNIT", Kind::Text, Gateway, Transcoding),
    input("maxPricePerCapability", "LP_MAXPRICEPERCAPABILITY", Kind::Text, Gateway, Transcoding),
    input("timeout", "", Kind::Count, Asked, Counts),
    input("gas-price", "", Kind::Wei, Asked, Counts),
    input("deposit", "", Kind::Wei, Asked, Counts),
    input("reserve", "", Kind::Wei, Asked, Counts),
    input("balance", "", Kind::Wei, Asked, Counts),
    input("claimed", "", Kind::Wei, Asked, Counts),
    input("pending", "", Kind::Wei, Asked, Counts),
    input("pool-size", "", Kind::Count, Asked, Counts),
    input("redeem-gas", "", Kind::Count, Asked, Counts),
];

/// The variables of the worker, which the environment may hold as well.
pub(crate) fn worker_variables() -> impl Iterator<Item = &'static str> {
    INPUTS.iter().filter(|input| input.reader == Worker).map(|input| input.variable)
}

/// One value that was found, and whether it does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) flag: &'static str,
    pub(crate) program: Program,
    pub(crate) name: String,
    pub(crate) value: String,
    /// FILE:LINE, or where else it came from.
    pub(crate) place: String,
    /// Why it does nothing.
    pub(crate) idle: Option<String>,
}

/// The terms, and where each of them came from.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) terms: Terms,
    pub(crate) sources: Vec<Source>,
}

impl Inputs {
    /// Takes the flags and variables of one program's file; what was taken before is overridden.
    ///
    /// # Errors
    /// The first value that cannot be used, with file and line.
    pub(crate) fn read(
        &mut self,
        program: Program,
        text: &str,
        file: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), FlagError> {
        let wanted: Vec<Wanted<'_>> = INPUTS
            .iter()
            .map(|input| Wanted {
                // The names of this program's own options are no flags of go-livepeer's.
                flag: if matches!(input.reader, Orchestrator | Gateway) { input.flag } else { "" },
                variable: input.variable,
                switch: input.kind == Kind::Switch,
            })
            .collect();
        let all = flags::find(text, file, &wanted, lookup)?;
        for found in &all {
            let other = all.iter().find(|other| other.wanted == found.wanted && other.value != found.value);
            if let Some(other) = other {
                let message = format!(
                    "{} is {} here and {} at {}; give each program's flags in a file of its own",
                    found.name, found.value, other.value, other.place
                );
                return Err(FlagError::at(&found.place, message));
            }
        }
        all.iter().try_for_each(|found| self.take(program, found))
    }

    /// Takes one value of the worker's environment.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn read_variable(&mut self, name: &str, value: &str) -> Result<(), FlagError> {
        self.read(Worker, &format!("{name}={value}"), ENVIRONMENT, &|_| None)
    }

    /// Takes one flag of the command line. False: there is none of this name.
    ///
    /// # Errors
    /// When its value cannot be used.
    pub(crate) fn ask(&mut self, flag: &str, value: &str) -> Result<bool, FlagError> {
        let Some(wanted) = INPUTS.iter().position(|input| input.flag == flag) else { return Ok(false) };
        let place = Place { file: "the command line".into(), line: 1 };
        let found = Found { wanted, name: format!("--{flag}"), value: value.to_owned(), place };
        self.take(Asked, &found).map(|()| true)
    }

    fn take(&mut self, program: Program, found: &Found) -> Result<(), FlagError> {
        let input = &INPUTS[found.wanted];
        // A worker's price may stand in any file: the original's compose files have it beside the orchestrator's.
        let own = program == Asked || input.reader == program || input.reader == Worker;
        let idle = match input.role {
            Transcoding => Some("is only for transcoding and does nothing for these jobs".to_owned()),
            Shared if !own => return Ok(()),
            _ if !own => {
                Some(format!("does nothing at a {}; only the {}'s counts", program.name(), input.reader.name()))
            }
            _ => None,
        };
        let place = match program {
            Asked => found.place.file.clone(),
            _ if found.place.file == ENVIRONMENT => ENVIRONMENT.into(),
            _ => found.place.to_string(),
        };
        if idle.is_none() {
            let known =
                self.source(input.flag).filter(|known| known.value != found.value && known.place != ENVIRONMENT);
            if let Some(known) = known.filter(|_| program != Asked) {
                let message = format!("{} is {} here and {} at {}", found.name, found.value, known.value, known.place);
                return Err(FlagError::at(&found.place, message));
            }
            self.set(input, found, program == Asked)?;
            self.sources.retain(|source| source.flag != input.flag || source.idle.is_some());
        }
        let (name, value) = (found.name.clone(), found.value.clone());
        self.sources.push(Source { flag: input.flag, program, name, value, place, idle });
        Ok(())
    }

    fn set(&mut self, input: &Input, found: &Found, units: bool) -> Result<(), FlagError> {
        let wrong = |accepted: String| {
            let message = format!("{}={}: {accepted}", found.name, found.value);
            if units { FlagError(message) } else { FlagError::at(&found.place, message) }
        };
        let value = found.value.as_str();
        let number = || -> Result<BigInt, FlagError> {
            match input.kind {
                Kind::Wei if units => amount::parse(value).map_err(wrong),
                Kind::Price if units => amount::parse(value).or_else(|why| value.parse().map_err(|_| wrong(why))),
                _ => whole(value).ok_or_else(|| wrong("a whole number is accepted: no quotes, decimal wei".into())),
            }
        };
        let from = |least: u32| -> Result<BigInt, FlagError> {
            let number = number()?;
            let most = amount::max_uint256();
            if number < least.into() || number > most {
                return Err(wrong(format!("a whole number from {least} to 2^256 - 1 is accepted")));
            }
            Ok(number)
        };
        let price = || -> Result<BigInt, FlagError> {
            let number = number()?;
            match i64::try_from(&number) {
                Ok(_) => Ok(number),
                Err(_) => Err(wrong("a price is a whole number of 64 bits, at most 9223372036854775807".into())),
            }
        };
        let terms = &mut self.terms;
        match input.flag {
            "price-per-unit" => terms.price_per_unit = price()?,
            "price-scaling" => terms.price_scaling = price()?,
            "price-currency" => match value.to_ascii_lowercase().as_str() {
                "wei" => terms.price_in_eth = false,
                "eth" => terms.price_in_eth = true,
                _ => {
                    return Err(wrong(
                        "only wei and eth can be checked: the orchestrator asks somebody for other rates".into(),
                    ));
                }
            },
            "autoAdjustPrice" => {
                terms.auto_adjust_price = switch(value).ok_or_else(|| wrong("true or false is accepted".into()))?;
            }
            "network" => {
                terms.offchain = value == "offchain";
                // As go-livepeer: what it does not know is no Arbitrum.
                let gas = if value.starts_with("arbitrum") { REDEEM_GAS_L2 } else { REDEEM_GAS_L1 };
                terms.redeem_gas = gas.into();
            }
            "timeout" => {
                let seconds = value.trim_end_matches('s').parse().ok().filter(|s| (1..=MAX_TIMEOUT).contains(s));
                terms.timeout =
                    seconds.ok_or_else(|| wrong(format!("whole seconds from 1 to {MAX_TIMEOUT} are accepted")))?;
            }
            flag => {
                if let Some((term, least)) = whole_number(terms, flag) {
                    *term = from(least)?;
                }
            }
        }
        Ok(())
    }

    /// Whether anything is known of worker, orchestrator or gateway.
    pub(crate) fn has_flags(&self) -> bool {
        self.sources.iter().any(|source| INPUTS.iter().any(|i| i.flag == source.flag && i.reader != Asked))
    }

    /// Where the effective value of a flag came from.
    pub(crate) fn source(&self, flag: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.flag == flag && source.idle.is_none())
    }
}

/// The term that a flag with a whole number sets, and the least that it may be.
fn whole_number<'a>(terms: &'a mut Terms, flag: &str) -> Option<(&'a mut BigInt, u32)> {
    Some(match flag {
        "ticketEV" => (&mut terms.ticket_ev, 0),
        "maxFaceValue" => (&mut terms.max_face_value, 0),
        "minGasPrice" => (&mut terms.min_gas_price, 0),
        "maxGasPrice" => (&mut terms.max_gas_price, 0),
        "maxTicketEV" => (&mut terms.max_ticket_ev, 0),
        "maxTotalEV" => (&mut terms.max_total_ev, 0),
        "depositMultiplier" => (&mut terms.deposit_multiplier, 1),
        "gas-price" => (&mut terms.gas_price, 0),
        "deposit" => (&mut terms.deposit, 0),
        "reserve" => (&mut terms.reserve, 0),
        "balance" => (&mut terms.balance, 0),
        "claimed" => (&mut terms.claimed, 0),
        "pending" => (&mut terms.pending, 0),
        "pool-size" => (&mut terms.pool_size, 1),
        "redeem-gas" => (&mut terms.redeem_gas, 1),
        _ => return None,
    })
}

/// A whole decimal number, with a sign perhaps.
fn whole(text: &str) -> Option<BigInt> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let fits = !digits.is_empty() && digits.len() <= 80 && digits.bytes().all(|b| b.is_ascii_digit());
    let number: Option<BigInt> = fits.then(|| digits.parse().ok()).flatten();
    number.map(|number| if text.starts_with('-') { -number.abs() } else { number })
}

/// As Go's strconv.ParseBool.
fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
