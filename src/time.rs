//! Time: epochs, event time and watermarks.
//!
//! Two times never mix. The **epoch** (`u64`) is the one timely timestamp of every dataflow; it says which
//! records are committed together. **Event time** (`i64`, milliseconds since the Unix epoch) stays in the
//! data; it says to which window a record belongs and whether it is late.
//!
//! [`InputClock`] is the fold of bindings into one input's *global watermark*. It is pure: the watermark
//! operator of every worker, the checkpointer and `tidegate status` all apply the same bindings and see the
//! same watermark.

use crate::checkpoint::binding::PartitionBinding;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The timely timestamp: a group of records that commit together. Numbered from a base, never reused.
pub type Epoch = u64;

/// The multiplicity of an update: how many copies of a row appear (positive) or disappear (negative).
pub type Diff = i64;

/// Event time or watermark, milliseconds since the Unix epoch.
pub type Millis = i64;

/// The watermark before the first record: nothing is late.
pub const BEFORE_ALL: Millis = i64::MIN;

/// The watermark of a partition that has ended, and of an input all of whose partitions have.
pub const AFTER_ALL: Millis = i64::MAX;

/// The event times a record may carry: 0 ..= 9999-12-31T23:59:59.999Z.
pub const EVENT_TIMES: std::ops::RangeInclusive<Millis> = 0..=253_402_300_799_999;

/// What is known of one partition after some epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionClock {
    /// Greatest event time among its valid records; none before the first.
    pub greatest: Option<Millis>,
    /// The floor it got when it last woke: the input's global watermark of the epoch before.
    pub floor: Option<Millis>,
    /// Stands at its end for longer than the idle timeout, or was found after the start and has no record
    /// yet.
    pub idle: bool,
    /// A finite partition read to its end; its watermark is [`AFTER_ALL`] from then on.
    pub ended: bool,
}

impl PartitionClock {
    /// The watermark that the next record of the partition carries.
    pub fn watermark(&self, max_out_of_orderness_ms: Millis) -> Millis {
        if self.ended {
            return AFTER_ALL;
        }
        let own = self.greatest.map_or(BEFORE_ALL, |greatest| {
            greatest.saturating_sub(max_out_of_orderness_ms)
        });
        own.max(self.floor.unwrap_or(BEFORE_ALL))
    }
}

/// The clock of one input: its partitions and its global watermark, which never falls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputClock {
    /// The input's setting, milliseconds.
    pub max_out_of_orderness_ms: Millis,
    /// By partition number.
    pub partitions: BTreeMap<u32, PartitionClock>,
    global: Millis,
}

impl InputClock {
    /// The clock before any binding.
    pub fn new(max_out_of_orderness_ms: Millis) -> Self {
        InputClock {
            max_out_of_orderness_ms,
            partitions: BTreeMap::new(),
            global: BEFORE_ALL,
        }
    }

    /// Takes in one partition's share of an epoch's binding. [`InputClock::close_epoch`] ends the epoch.
    pub fn apply(&mut self, share: &PartitionBinding) {
        let clock = self.partitions.entry(share.partition).or_default();
        clock.greatest = clock.greatest.max(share.greatest);
        if share.floor.is_some() {
            clock.floor = clock.floor.max(share.floor);
        }
        clock.idle = share.idle;
        clock.ended |= share.ended;
    }

    /// Ends an epoch: the minimum over the active partitions, never less than before. With no active
    /// partition it stays.
    pub fn close_epoch(&mut self) -> Millis {
        let bound = self.max_out_of_orderness_ms;
        // An ended partition counts, idle or not: it is what lifts the input to the end.
        let active = self
            .partitions
            .values()
            .filter(|clock| !clock.idle || clock.ended);
        if let Some(least) = active.map(|clock| clock.watermark(bound)).min() {
            self.global = self.global.max(least);
        }
        self.global
    }

    /// The global watermark after the last closed epoch.
    pub fn global(&self) -> Millis {
        self.global
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(partition: u32, greatest: Millis) -> PartitionBinding {
        PartitionBinding {
            partition,
            greatest: Some(greatest),
            ..PartitionBinding::default()
        }
    }

    /// Applies the shares of one epoch and gives the global watermark after it.
    fn epoch(clock: &mut InputClock, shares: &[PartitionBinding]) -> Millis {
        shares.iter().for_each(|share| clock.apply(share));
        clock.close_epoch()
    }

    #[test]
    fn the_global_watermark_is_the_least_of_the_active_partitions() {
        let mut clock = InputClock::new(10);
        assert_eq!(
            epoch(
                &mut clock,
                &[
                    share(0, 100),
                    PartitionBinding {
                        partition: 1,
                        ..share(1, 0)
                    }
                ]
            ),
            -10
        );
        assert_eq!(epoch(&mut clock, &[share(1, 50)]), 40);
        assert_eq!(
            epoch(&mut clock, &[share(1, 500)]),
            90,
            "now partition 0 is the least"
        );
        assert_eq!(
            epoch(&mut clock, &[share(1, 300)]),
            90,
            "a lower event time moves nothing"
        );
    }

    #[test]
    fn a_partition_without_a_record_holds_it_back_unless_idle() {
        let mut clock = InputClock::new(0);
        let silent = PartitionBinding {
            partition: 1,
            ..PartitionBinding::default()
        };
        assert_eq!(epoch(&mut clock, &[share(0, 100), silent.clone()]), BEFORE_ALL);
        assert_eq!(
            epoch(&mut clock, &[PartitionBinding { idle: true, ..silent }]),
            100
        );
    }

    #[test]
    fn it_never_falls_and_stays_when_all_are_idle() {
        let mut clock = InputClock::new(0);
        assert_eq!(epoch(&mut clock, &[share(0, 100)]), 100);
        let found = PartitionBinding {
            partition: 1,
            idle: true,
            ..PartitionBinding::default()
        };
        assert_eq!(epoch(&mut clock, &[found]), 100);
        let asleep = PartitionBinding {
            idle: true,
            ..share(0, 100)
        };
        assert_eq!(epoch(&mut clock, &[asleep]), 100, "nobody is active");
        // Partition 1 wakes behind: its floor is the watermark of the epoch before.
        let woken = PartitionBinding {
            floor: Some(100),
            ..share(1, 7)
        };
        assert_eq!(epoch(&mut clock, &[woken]), 100);
        assert_eq!(clock.partitions[&1].watermark(0), 100);
    }

    #[test]
    fn an_idle_partition_that_ends_lifts_the_input() {
        let mut clock = InputClock::new(0);
        let idle = PartitionBinding {
            idle: true,
            ..share(0, 100)
        };
        assert_eq!(epoch(&mut clock, std::slice::from_ref(&idle)), BEFORE_ALL);
        assert_eq!(
            epoch(&mut clock, &[PartitionBinding { ended: true, ..idle }]),
            AFTER_ALL
        );
    }

    #[test]
    fn an_ended_partition_is_after_all() {
        let mut clock = InputClock::new(0);
        let ended = PartitionBinding {
            ended: true,
            ..share(0, 100)
        };
        assert_eq!(epoch(&mut clock, &[ended, share(1, 5)]), 5);
        let ended = PartitionBinding {
            ended: true,
            ..share(1, 9)
        };
        assert_eq!(epoch(&mut clock, &[ended]), AFTER_ALL);
        assert_eq!(
            epoch(&mut clock, &[share(1, 9)]),
            AFTER_ALL,
            "what is appended later does not bring it back"
        );
    }
}
