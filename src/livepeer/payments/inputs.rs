//! Which flags and variables make the terms, which program reads each, and where each was found.

mod known;

use num_bigint::BigInt;
use num_traits::{Signed, Zero};

use super::amount;
use super::flags::{self, FlagError, Found, Place, Wanted};
use super::live::{self, Byoc, Cap, Live};
use super::terms::{MAX_TIMEOUT, REDEEM_GAS_L1, REDEEM_GAS_L2, Terms};
use crate::config::go;
use crate::config::price::Price;
use known::{INPUTS, Input, Kind, Role};

use Program::{Asked, Gateway, Orchestrator, Signer, Worker};
pub(crate) use known::{Program, worker_variables};

/// The place of values from the process's own variables.
const ENVIRONMENT: &str = "the environment";

/// A value that was found, and whether it has an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) flag: &'static str,
    pub(crate) program: Program,
    pub(crate) name: String,
    pub(crate) value: String,
    /// FILE:LINE, the environment or the command line.
    pub(crate) place: String,
    /// Why it has no effect.
    pub(crate) idle: Option<String>,
}

/// The terms, and where each of them came from.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) terms: Terms,
    pub(crate) sources: Vec<Source>,
    live: Live,
    /// A remote signer has its own limits of tickets, which are used of these terms.
    signer: Terms,
    /// The flags of a -remoteSigner were found.
    pub(crate) signer_known: bool,
    /// ORCH_PROTOCOL; "" for auto.
    protocol: String,
}

impl Inputs {
    /// Takes the flags and variables of one program's file, which override earlier ones.
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
                // The names of this program's own options are not flags of go-livepeer.
                flag: if matches!(input.reader, Orchestrator | Gateway) { input.flag } else { "" },
                variable: input.variable,
                switch: input.kind == Kind::Switch,
                secret: input.kind == Kind::Secret,
            })
            .collect();
        let all = flags::find(text, file, &wanted, lookup)?;
        let programs = programs(&all, program);
        self.live.known |= program == Orchestrator || programs.contains(&Orchestrator);
        self.signer_known |= program == Signer || programs.contains(&Signer);
        for (found, program) in all.iter().zip(&programs) {
            let same = |(other, theirs): &(&Found, &Program)| {
                let worker = INPUTS[found.wanted].reader == Worker;
                other.wanted == found.wanted && other.value != found.value && (worker || *theirs == program)
            };
            let other = all.iter().zip(&programs).find(same).filter(|_| !INPUTS[found.wanted].is_mode());
            if let Some((other, _)) = other {
                let secret = INPUTS[found.wanted].kind == Kind::Secret;
                let values = [found.value.as_str(), other.value.as_str()];
                let [one, two] = if secret { ["one value", "another"] } else { values };
                let message = format!(
                    "{} is {one} here and {two} at {}; put each program's flags into a file of its own",
                    found.name, other.place
                );
                return Err(FlagError::at(&found.place, message));
            }
        }
        all.iter().zip(programs).try_for_each(|(found, program)| self.take(program, found))
    }

    /// Takes one value of the worker's environment.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn read_variable(&mut self, name: &str, value: &str) -> Result<(), FlagError> {
        self.read(Worker, &format!("{name}={value}"), ENVIRONMENT, &|_| None)
    }

    /// Takes one flag of the command line. False: an unknown name.
    ///
    /// # Errors
    /// When its value cannot be used.
    pub(crate) fn ask(&mut self, flag: &str, value: &str) -> Result<bool, FlagError> {
        let wanted = INPUTS.iter().position(|input| input.flag == flag && !input.is_mode());
        let Some(wanted) = wanted else { return Ok(false) };
        let place = Place { file: "the command line".into(), line: 1 };
        let found = Found { wanted, name: format!("--{flag}"), value: value.to_owned(), place, section: 0 };
        self.take(Asked, &found).map(|()| true)
    }

    fn take(&mut self, program: Program, found: &Found) -> Result<(), FlagError> {
        let input = &INPUTS[found.wanted];
        // A worker's price may be in any file: some compose files have it next to the orchestrator's flags.
        let own = program == Asked || input.reader == Worker || input.is_read_by(program);
        let idle = match input.role {
            Role::Mode(_) => return Ok(()),
            Role::Transcoding if !input.is_read_by(program) => {
                Some("is only for transcoding and has no effect on these jobs".to_owned())
            }
            Role::Shared if !own => return Ok(()),
            _ if !own => {
                Some(format!("has no effect at a {}: only the {}'s counts", program.name(), input.reader.name()))
            }
            _ => None,
        };
        let place = match program {
            Asked => found.place.file.clone(),
            _ if found.place.file == ENVIRONMENT => ENVIRONMENT.into(),
            _ => found.place.to_string(),
        };
        let secret = input.kind == Kind::Secret;
        if idle.is_none() {
            let is_same =
                |known: &Source| known.flag == input.flag && known.idle.is_none() && meet(known.program, program);
            let known = self.sources.iter().find(|known| is_same(known)).filter(|_| !secret && program != Asked);
            if let Some(known) = known.filter(|known| known.value != found.value && known.place != ENVIRONMENT) {
                let message = format!("{} is {} here and {} at {}", found.name, found.value, known.value, known.place);
                return Err(FlagError::at(&found.place, message));
            }
            self.set(input, found, program)?;
            self.sources.retain(|source| !is_same(source));
        }
        let (name, value) = (found.name.clone(), if secret { "***".into() } else { found.value.clone() });
        self.sources.push(Source { flag: input.flag, program, name, value, place, idle });
        Ok(())
    }

    fn set(&mut self, input: &Input, found: &Found, program: Program) -> Result<(), FlagError> {
        let units = program == Asked;
        let wrong = |problem: String| {
            let message = format!("{}={}: {problem}", found.name, found.value);
            if units { FlagError(message) } else { FlagError::at(&found.place, message) }
        };
        let value = found.value.as_str();
        let number = || -> Result<BigInt, FlagError> {
            match input.kind {
                Kind::Wei if units => amount::parse(value).map_err(wrong),
                Kind::Price if units => amount::parse(value).or_else(|why| value.parse().map_err(|_| wrong(why))),
                _ => whole(value).ok_or_else(|| wrong("must be a whole number in decimal wei, without quotes".into())),
            }
        };
        let from = |least: u32| -> Result<BigInt, FlagError> {
            let number = number()?;
            let most = amount::max_uint256();
            if number < least.into() || number > most {
                return Err(wrong(format!("must be a whole number from {least} to 2^256 - 1")));
            }
            Ok(number)
        };
        let price = || -> Result<BigInt, FlagError> {
            let number = number()?;
            match i64::try_from(&number) {
                Ok(_) => Ok(number),
                Err(_) => Err(wrong("must be a whole number of 64 bits, at most 9223372036854775807".into())),
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
                        "must be wei or eth: the orchestrator takes other rates from a price feed".into(),
                    ));
                }
            },
            "timeout" => {
                let seconds = value.trim_end_matches('s').parse().ok().filter(|s| (1..=MAX_TIMEOUT).contains(s));
                terms.timeout =
                    seconds.ok_or_else(|| wrong(format!("must be whole seconds from 1 to {MAX_TIMEOUT}")))?;
            }
            flag => {
                if let Some((_, least)) = whole_number(terms, flag) {
                    let number = from(least)?;
                    self.set_whole(flag, program, &number);
                }
                self.set_other(flag, value).map_err(|problem| wrong(problem.into()))?;
            }
        }
        Ok(())
    }

    /// A signer has limits of its own; those of the command line apply to both.
    fn set_whole(&mut self, flag: &str, program: Program, number: &BigInt) {
        let sides: &mut [&mut Terms] = match program {
            Signer => &mut [&mut self.signer],
            Asked => &mut [&mut self.terms, &mut self.signer],
            _ => &mut [&mut self.terms],
        };
        for side in sides {
            if let Some((term, _)) = whole_number(side, flag) {
                term.clone_from(number);
            }
        }
    }

    /// What is not an amount.
    fn set_other(&mut self, flag: &str, value: &str) -> Result<(), &'static str> {
        let (live, terms) = (&mut self.live, &mut self.terms);
        let on = || switch(value).ok_or("must be true or false");
        match flag {
            "autoAdjustPrice" => terms.auto_adjust_price = on()?,
            "network" => {
                live.network = true;
                terms.offchain = value == "offchain";
                // As in go-livepeer: an unknown network is not Arbitrum.
                let gas = if value.starts_with("arbitrum") { REDEEM_GAS_L2 } else { REDEEM_GAS_L1 };
                terms.redeem_gas = gas.into();
            }
            "runner-price" => {
                let valid = "must be a price in dollars, such as 0.0005usd/fixed, 1.2usd/hour or 0.1usd/720p";
                live.price = Some(Price::parse(value).ok_or(valid)?);
            }
            "orch-protocol" => {
                let known = ["auto", "byoc", "live-runner", "both"].contains(&value);
                self.protocol = known.then(|| value.to_owned()).ok_or("must be auto, byoc, live-runner or both")?;
            }
            "useLiveRunners" => live.runners = on()?,
            "liveRunnerConfig" => live.listed = !value.is_empty(),
            "orchSecret" => live.secret = !value.trim().is_empty(),
            "livePaymentInterval" => {
                live.interval = go::duration(value).ok_or("must be a duration such as 5s")?;
            }
            "maxPricePerUnit" => {
                live.cap = Cap::parse(value).ok_or("must be in wei, ETH or USD, such as 1000 or 0.001USD")?;
            }
            "pixelsPerUnit" => {
                let number = live::dollars(value).filter(|number| !number.is_zero());
                live.pixels_per_unit = number.ok_or("must be a number above 0")?;
            }
            "eth-price" => {
                let price = live::dollars(value).filter(|price| !price.is_zero());
                live.eth_price = Some(price.ok_or("must be the price of an ETH in dollars, such as 3000")?);
            }
            _ => {}
        }
        Ok(())
    }

    /// The payer of Live Runners' calls: the orchestrator's terms with the limits of the client's signer.
    pub(crate) fn payer(&self) -> Terms {
        let signer = &self.signer;
        Terms {
            max_ticket_ev: signer.max_ticket_ev.clone(),
            max_total_ev: signer.max_total_ev.clone(),
            deposit_multiplier: signer.deposit_multiplier.clone(),
            ..self.terms.clone()
        }
    }

    /// What Live Runners depend on; None: no flag concerns them.
    pub(crate) fn live(&self) -> Option<Live> {
        let live = &self.live;
        let concerned = live.price.is_some() || live.runners || live.listed || self.signer_known;
        match self.protocol.as_str() {
            "byoc" => return None,
            "live-runner" | "both" => {}
            _ if concerned => {}
            _ => return None,
        }
        // Only known settings of the worker can show that it has no price for BYOC.
        let shown = self.source("runner-price").is_some_and(|source| source.program != Asked);
        let byoc = if self.is_live_only() || self.terms.base_price().is_positive() {
            Byoc::Settled
        } else if shown || !self.protocol.is_empty() {
            Byoc::Free
        } else {
            Byoc::Unknown
        };
        Some(Live { byoc, ..live.clone() })
    }

    /// Whether to check BYOC jobs. `asked`: an era was given.
    pub(crate) fn checks_byoc(&self, asked: bool) -> bool {
        let speaks = self.source("price-per-unit").is_some() || self.sources.iter().any(|s| s.program == Gateway);
        !self.is_live_only() && (asked || speaks || self.live().is_none())
    }

    /// Whether any flag of worker, orchestrator or gateway is known.
    pub(crate) fn has_flags(&self) -> bool {
        let counts = |flag: &str| flag != "orch-protocol" && INPUTS.iter().any(|i| i.flag == flag && i.reader != Asked);
        self.sources.iter().any(|source| counts(source.flag))
    }

    /// ORCH_PROTOCOL excludes BYOC.
    pub(crate) fn is_live_only(&self) -> bool {
        self.protocol == "live-runner"
    }

    /// ORCH_PROTOCOL excludes Live Runners.
    pub(crate) fn is_byoc_only(&self) -> bool {
        self.protocol == "byoc"
    }

    /// Where the effective value of a flag came from, unless it is a remote signer's.
    pub(crate) fn source(&self, flag: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.flag == flag && source.program != Signer && source.idle.is_none())
    }
}

/// Whose flags were found: those of a command line belong to its mode, all others to `program`.
fn programs(all: &[Found], program: Program) -> Vec<Program> {
    let mode = |found: &Found| match INPUTS[found.wanted].role {
        Role::Mode(mode) if switch(&found.value) == Some(true) => Some(mode),
        _ => None,
    };
    let mut programs: Vec<Program> = Vec::new();
    let mut section = None;
    let mut last = None;
    for found in all {
        if section != Some(found.section) {
            (section, last) = (Some(found.section), None);
        }
        match mode(found) {
            Some(mode) if last.is_none() => {
                let before = all[..programs.len()].iter().rev().take_while(|other| other.section == found.section);
                let before = programs.len() - before.count();
                programs[before..].fill(mode);
                last = Some(mode);
            }
            Some(mode) => last = Some(mode),
            None => {}
        }
        programs.push(last.unwrap_or(program));
    }
    programs
}

/// Whether values of these two set the same terms: a signer has its own, those of the command line apply to all.
fn meet(one: Program, other: Program) -> bool {
    one == Asked || other == Asked || (one == Signer) == (other == Signer)
}

/// The term that a flag with a whole number sets, and its smallest value.
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
