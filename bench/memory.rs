//! Memory follows the live rows: tables are rewritten again and again, and the process stays as large as
//! after the first
//! load. Through the real alerts dataflow: upserts, arrangements, their join and the index.

use crate::process::{Resident, resident};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use tidegate::operators::Context;
use tidegate::record::{Messages, Origin, Record, Records, Text, Updates, Write, key_hash};
use tidegate::source::UpdateHandle;
use tidegate::time::Epoch;
use tidegate_dataflows::alerts;
use tidegate_dataflows::generator::{Day, authorizations, settings};
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::{Input as _, Probe as _};

/// A line of progress after this many rewrites.
const PROGRESS: u64 = 1_000;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// Rows of each table.
    pub rows: u32,
    /// Rewrites of every row.
    pub rewrites: u64,
    /// After the first load.
    pub loaded: Resident,
    /// After the last rewrite.
    pub rewritten: Resident,
}

impl Growth {
    /// Resident memory at the end as a multiple of that after the first load.
    pub fn ratio(&self) -> f64 {
        self.rewritten.now as f64 / self.loaded.now.max(1) as f64
    }
}

/// Loads settings and authorizations of so many customers and accounts, then rewrites every row so many
/// times, each
/// time with a different value, an epoch for each rewrite.
pub fn rewrite(seed: u64, rows: u32, rewrites: u64) -> Growth {
    timely::execute_directly(move |worker| {
        let (mut settings_in, mut authorizations_in) = (UpdateHandle::new(), UpdateHandle::new());
        let probe = worker.dataflow::<Epoch, _, _>(|scope| {
            let nothing: Messages<'_, _> = empty(scope);
            let inputs = alerts::Inputs {
                entries: Records {
                    updates: Updates::new(empty(scope)),
                    watermark: nothing,
                },
                authorizations: Updates::new(scope.input_from(&mut authorizations_in)),
                settings: Updates::new(scope.input_from(&mut settings_in)),
                devices: None,
            };
            alerts::build(&Context::without_checkpoints(scope), inputs)
                .email
                .probe()
                .0
        });
        let mut loaded = Resident::default();
        for version in 0..=rewrites {
            // Another seed draws other rules, addresses and co-holders for the same keys.
            let day = Day {
                changes: 0,
                ..Day::new(seed + version, rows)
            };
            let both = (&mut settings_in, &mut authorizations_in);
            settings(day)
                .zip(0..)
                .for_each(|(row, number)| both.0.send((write(row.key, row.value, number), version, 1)));
            authorizations(day)
                .zip(0..)
                .for_each(|(row, number)| both.1.send((write(row.key, row.value, number), version, 1)));
            settings_in.advance_to(version + 1);
            authorizations_in.advance_to(version + 1);
            while probe.less_than(&(version + 1)) {
                worker.step();
            }
            if version == 0 {
                loaded = resident();
            } else if version % PROGRESS == 0 {
                let now = resident().now;
                // Progress is for whoever watches.
                let _ = writeln!(std::io::stderr(), "{version} rewrites: {} MB resident", now >> 20);
            }
        }
        Growth {
            rows,
            rewrites,
            loaded,
            rewritten: resident(),
        }
    })
}

fn write<R: Record>(key: Text, value: Option<R>, offset: u64) -> Write<R> {
    let hash = key_hash(key.as_bytes());
    Write {
        key,
        hash,
        origin: Origin { partition: 0, offset },
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_rewrites_are_counted() {
        let growth = rewrite(1, 50, 3);
        assert_eq!((growth.rows, growth.rewrites), (50, 3));
        assert!(growth.loaded.now > 0 && growth.ratio() > 0.0);
    }
}
