//! The flags and variables that affect payments, and which program reads each.

/// The program whose file holds a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Worker,
    Orchestrator,
    Gateway,
    /// A -remoteSigner, which pays for the clients of Live Runners.
    Signer,
    /// The command line of this program: it takes every flag, and amounts may have units.
    Asked,
}

impl Program {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Orchestrator => "orchestrator",
            Self::Gateway => "gateway",
            Self::Signer => "remote signer",
            Self::Asked => "command line",
        }
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Wei, from 0.
    Wei,
    /// A whole number of 64 bits, of either sign: prices and their scaling.
    Price,
    /// A whole number, from 1.
    Count,
    Switch,
    Text,
    /// Text that is never shown.
    Secret,
}

/// One flag or variable.
pub(super) struct Input {
    pub(super) flag: &'static str,
    pub(super) variable: &'static str,
    pub(super) kind: Kind,
    /// The program whose value counts; [`Asked`]: no file holds it.
    pub(super) reader: Program,
    pub(super) role: Role,
}

impl Input {
    pub(super) fn is_mode(&self) -> bool {
        matches!(self.role, Role::Mode(_))
    }

    /// A remote signer has a gateway's limits, and one of its own on prices.
    pub(super) fn is_read_by(&self, program: Program) -> bool {
        match (self.role, program) {
            (Role::Transcoding, Program::Signer | Program::Asked) => {
                matches!(self.flag, "maxPricePerUnit" | "pixelsPerUnit")
            }
            (Role::Transcoding, _) => false,
            (_, Program::Signer) => self.reader == Program::Gateway,
            (_, program) => self.reader == program,
        }
    }
}

/// The effect of a value on these jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Counts,
    /// It counts at its reader; others have a flag of this name for themselves.
    Shared,
    /// Only transcoding uses it, and a remote signer.
    Transcoding,
    /// It shows which program's flags these are.
    Mode(Program),
}

const fn input(flag: &'static str, variable: &'static str, kind: Kind, reader: Program, role: Role) -> Input {
    Input { flag, variable, kind, reader, role }
}

use Program::{Asked, Gateway, Orchestrator, Signer, Worker};
use Role::{Counts, Mode, Shared, Transcoding};

pub(super) const INPUTS: &[Input] = &[
    input("price-per-unit", "CAPABILITY_PRICE_PER_UNIT", Kind::Price, Worker, Counts),
    input("price-scaling", "CAPABILITY_PRICE_SCALING", Kind::Price, Worker, Counts),
    input("price-currency", "CAPABILITY_CURRENCY", Kind::Text, Worker, Counts),
    input("runner-price", "RUNNER_PRICE", Kind::Text, Worker, Counts),
    input("orch-protocol", "ORCH_PROTOCOL", Kind::Text, Worker, Counts),
    input("orchestrator", "", Kind::Switch, Orchestrator, Mode(Orchestrator)),
    input("gateway", "", Kind::Switch, Gateway, Mode(Gateway)),
    input("broadcaster", "", Kind::Switch, Gateway, Mode(Gateway)),
    input("remoteSigner", "", Kind::Switch, Gateway, Mode(Signer)),
    input("useLiveRunners", "LP_USELIVERUNNERS", Kind::Switch, Orchestrator, Counts),
    input("liveRunnerConfig", "LP_LIVERUNNERCONFIG", Kind::Text, Orchestrator, Counts),
    input("orchSecret", "LP_ORCHSECRET", Kind::Secret, Orchestrator, Shared),
    input("livePaymentInterval", "LP_LIVEPAYMENTINTERVAL", Kind::Text, Orchestrator, Shared),
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
    input("eth-price", "", Kind::Text, Asked, Counts),
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
