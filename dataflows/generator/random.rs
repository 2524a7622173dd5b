//! Random numbers: SplitMix64, integers only, so that every machine draws the same.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The streams of a day. Each has its own, so that one does not depend on how much another draws.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// The bank's master data, per account or customer.
    Bank = 1,
    /// Account entries.
    Entries,
    /// Table changes: authorizations.
    Authorizations,
    /// Table changes: settings.
    Settings,
    /// Table changes: devices.
    Devices,
    /// Orders, and the payments that follow from them.
    Orders,
    /// What payments add of their own.
    Payments,
    /// Card transactions.
    Transactions,
    /// Events.
    Events,
    /// Which lines are bad.
    Faults,
}

impl Random {
    /// The stream of this name under a seed.
    pub fn new(seed: u64, stream: Stream) -> Random {
        Random(mixed(seed ^ (stream as u64) << 56))
    }

    /// A stream of its own for one thing (an account, say) and one version of it.
    pub fn of(seed: u64, stream: Stream, thing: u64, version: u64) -> Random {
        let Random(base) = Random::new(seed, stream);
        Random(mixed(base ^ mixed(thing ^ mixed(version))))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Less than `bound`, which is > 0; all as likely.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        (product >> 64) as u64 // the high half of 64 x 64 bits
    }

    /// From `least` to `greatest`, both included.
    pub fn within(&mut self, least: i64, greatest: i64) -> i64 {
        least + i64::try_from(self.below(greatest.abs_diff(least) + 1)).unwrap_or(0)
    }

    /// True this often in a thousand.
    pub fn permille(&mut self, share: u64) -> bool {
        self.below(1_000) < share
    }

    /// Less than `bound`, small numbers more often: the square of a uniform draw. Of a million, the first
    /// gets one in a thousand.
    pub fn skewed(&mut self, bound: u32) -> u32 {
        let uniform = u128::from(self.next() >> 32);
        let scaled = (uniform * uniform * u128::from(bound)) >> 64;
        u32::try_from(scaled).unwrap_or(0)
    }

    /// An amount of money, minor units: half are below 20.00, and each doubling is half as likely as the one
    /// before.
    pub fn amount(&mut self) -> i64 {
        let doublings = self.next().trailing_zeros().min(12);
        self.within(500, 1_999) << doublings
    }
}

/// SplitMix64's output function: a bijection that leaves no pattern.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
