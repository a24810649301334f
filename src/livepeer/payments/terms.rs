//! Everything the payment rules depend on, with go-livepeer's defaults.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::amount::ratio;

/// The releases of go-livepeer between which the rules changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// One ticket a minute.
    A,
    /// One ticket a second.
    B,
    /// As many tickets as the price requires.
    C,
}

impl Era {
    pub(crate) const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
        }
    }

    pub(crate) fn releases(self) -> &'static str {
        match self {
            Self::A => "up to v0.8.6",
            Self::B => "v0.8.7 and v0.8.8",
            Self::C => "v0.8.9 and later",
        }
    }
}

/// The longest timeout that go-livepeer can count in nanoseconds, in seconds.
pub(crate) const MAX_TIMEOUT: u64 = 9_223_372_036;

/// Gas that redeeming a winner takes: Arbitrum, and the mainnet or a network that go-livepeer does not know.
pub(crate) const REDEEM_GAS_L2: u32 = 1_200_000;
pub(crate) const REDEEM_GAS_L1: u32 = 350_000;

/// One set of flags of worker, orchestrator and gateway, and the state of the chain. Amounts are in wei.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    /// CAPABILITY_PRICE_PER_UNIT, for a second; in ETH where `price_in_eth`.
    pub(crate) price_per_unit: BigInt,
    /// CAPABILITY_PRICE_SCALING; 0 is read as 1.
    pub(crate) price_scaling: BigInt,
    pub(crate) price_in_eth: bool,
    /// There is no chain: every price is 0.
    pub(crate) offchain: bool,
    pub(crate) ticket_ev: BigInt,
    /// 0: no cap.
    pub(crate) max_face_value: BigInt,
    pub(crate) auto_adjust_price: bool,
    pub(crate) min_gas_price: BigInt,
    /// 0: none. Only redeeming stops above it.
    pub(crate) max_gas_price: BigInt,
    pub(crate) redeem_gas: BigInt,
    pub(crate) max_ticket_ev: BigInt,
    pub(crate) max_total_ev: BigInt,
    /// At least 1.
    pub(crate) deposit_multiplier: BigInt,
    /// The node's eth_gasPrice.
    pub(crate) gas_price: BigInt,
    /// Deposit of the gateway's account.
    pub(crate) deposit: BigInt,
    pub(crate) reserve: BigInt,
    /// The part of the reserve that this orchestrator has claimed in this round.
    pub(crate) claimed: BigInt,
    /// Face values of this sender's winners that are being redeemed.
    pub(crate) pending: BigInt,
    /// Active orchestrators, among whom the reserve is shared; at least 1.
    pub(crate) pool_size: BigInt,
    /// Credit from earlier payments.
    pub(crate) balance: BigInt,
    /// The job's timeout_seconds, from 1 to [`MAX_TIMEOUT`].
    pub(crate) timeout: u64,
}

impl Default for Terms {
    /// go-livepeer's defaults; of the chain a quiet Arbitrum: gas at 0.01 gwei, 100 orchestrators, a deposit of 0.1 ETH
    /// and a reserve of 1 ETH.
    fn default() -> Self {
        let wei = |wei: u64| BigInt::from(wei);
        Self {
            price_per_unit: wei(0),
            price_scaling: wei(1),
            price_in_eth: false,
            offchain: false,
            ticket_ev: wei(8_000_000_000),
            max_face_value: wei(0),
            auto_adjust_price: true,
            min_gas_price: wei(0),
            max_gas_price: wei(0),
            redeem_gas: REDEEM_GAS_L2.into(),
            max_ticket_ev: wei(3_000_000_000_000),
            max_total_ev: wei(20_000_000_000_000),
            deposit_multiplier: wei(1),
            gas_price: wei(10_000_000),
            deposit: wei(100_000_000_000_000_000),
            reserve: wei(1_000_000_000_000_000_000),
            claimed: wei(0),
            pending: wei(0),
            pool_size: wei(100),
            balance: wei(0),
            timeout: 60,
        }
    }
}

impl Terms {
    /// The registered price of a second, before the orchestrator adjusts it.
    pub(crate) fn base_price(&self) -> BigRational {
        if self.offchain {
            return ratio(0, 1);
        }
        let one = BigInt::from(1);
        let scaling = if self.price_scaling == BigInt::ZERO { one } else { self.price_scaling.clone() };
        let unit = if self.price_in_eth { 1_000_000_000_000_000_000_u64 } else { 1 };
        ratio(&self.price_per_unit * unit, scaling)
    }

    /// The gas price that ticket parameters are made with.
    pub(crate) fn effective_gas_price(&self) -> &BigInt {
        (&self.gas_price).max(&self.min_gas_price)
    }

    /// What redeeming one winner costs.
    pub(crate) fn redeem_cost(&self) -> BigInt {
        &self.redeem_gas * self.effective_gas_price()
    }

    /// This orchestrator's share of the reserve, with which no ticket may be worth more (`pm/sendermonitor.go:maxFloat`);
    /// negative when more of it was taken.
    pub(crate) fn reserve_share(&self) -> BigInt {
        &self.reserve / &self.pool_size - self.share_in_use()
    }

    /// The smallest reserve that leaves a share of `share`.
    pub(crate) fn reserve_for(&self, share: &BigInt) -> BigInt {
        (share + self.share_in_use()) * &self.pool_size
    }

    /// Winners that are being redeemed count where the deposit may not pay for them.
    fn share_in_use(&self) -> BigInt {
        let pays = self.deposit >= &self.pending * 3_u32;
        if pays { self.claimed.clone() } else { &self.claimed + &self.pending }
    }
}
