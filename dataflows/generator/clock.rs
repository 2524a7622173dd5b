//! When things arrive: a day's curve, and how far behind their arrival some event times are.

use super::random::Random;
use tidegate::time::Millis;

/// Milliseconds of an hour.
pub const HOUR: Millis = 3_600_000;

/// How much of the day's traffic each hour has, in parts of their sum.
pub type Curve = [u64; 24];

/// An ordinary day: quiet nights, a lunch hour, an evening.
pub const ORDINARY: Curve = [
    4, 3, 2, 2, 3, 6, 14, 26, 38, 44, 48, 54, 60, 52, 46, 44, 48, 56, 58, 50, 38, 26, 16, 8,
];

/// The hour of the salary run.
pub const SALARY_HOUR: usize = 6;

/// Month's end: the same, and a fifth of the day's entries between six and seven.
pub const SALARIES: Curve = {
    let mut curve = ORDINARY;
    curve[SALARY_HOUR] = 180;
    curve
};

/// Parts are cut this fine, so that many messages of one hour still differ in time.
const FINE: u128 = 1 << 32;

/// The arrival, milliseconds after midnight, of the `index`-th of `count` messages; never falls with `index`.
pub fn arrival(curve: &Curve, index: u64, count: u64, random: &mut Random) -> Millis {
    let whole = u128::from(curve.iter().sum::<u64>()) * FINE;
    let within_slot = u128::from(random.next() >> 32); // of FINE
    let mut position = (u128::from(index) * FINE + within_slot) * (whole / FINE) / u128::from(count.max(1));
    for (hour, part) in (0..).zip(curve) {
        let part = u128::from(*part) * FINE;
        if position < part {
            let within_hour = position * (HOUR as u128) / part;
            return hour * HOUR + Millis::try_from(within_hour).unwrap_or(0);
        }
        position -= part;
    }
    24 * HOUR - 1
}

/// How far behind its arrival a record's event time may be.
#[derive(Clone, Copy, Debug)]
pub struct Disorder {
    /// 5 % are behind by up to this, milliseconds: within what the contract's defaults let pass.
    pub within_bounds_ms: Millis,
    /// One in a thousand is behind by minutes.
    pub some_late: bool,
}

impl Disorder {
    /// Draws how far behind this record is.
    pub fn behind(self, random: &mut Random) -> Millis {
        match random.below(1_000) {
            0 if self.some_late => random.within(180_000, 900_000),
            0..50 => random.within(1, self.within_bounds_ms),
            _ => 0,
        }
    }
}
