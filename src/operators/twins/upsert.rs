//! `upsert` against a replay of all writes in the order (epoch, origin) into a map.

use super::{Random, Restart, Script, for_seeds, run_restarting};
use crate::operators::drive::Batch;
use crate::operators::upsert::{Row, Upsert};
use crate::record::{Origin, Record, Text, Write, key_hash};
use crate::replay_log::Flat;
use crate::replay_log::row::{Places, Strings};
use crate::time::Millis;
use differential_dataflow::consolidation::consolidate_updates;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A row with little in it, so that writes often change nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Setting(u64);

impl Flat for Setting {
    type Row = [u64; 1];
    const LAYOUT: &'static str = "Setting";
    fn to_row(&self, _strings: &mut Strings) -> Self::Row {
        [self.0]
    }
    fn from_row(row: &Self::Row, _strings: &Places<'_>) -> Option<Self> {
        Some(Setting(row[0]))
    }
}

impl Record for Setting {
    const NAME: &'static str = "Setting";
    const SCHEMA: &'static str = r#""long""#;
    fn event_time(&self) -> Option<Millis> {
        None
    }
    fn check(&self, _key: &str) -> Result<(), String> {
        Ok(())
    }
}

/// Writes to few keys, tombstones among them; offsets rise with the epochs in most seeds, but need not.
fn script(random: &mut Random) -> Script<Write<Setting>, ()> {
    let (epochs, keys, colliding) = (1 + random.below(8), 1 + random.below(5), random.percent(30));
    let in_order = random.percent(70);
    let mut offsets: Vec<u64> = (0..random.below(60)).collect();
    if !in_order {
        random.shuffle(&mut offsets);
    }
    let mut at: Vec<u64> = offsets.iter().map(|_| random.below(epochs)).collect();
    at.sort_unstable();
    let mut left = Vec::new();
    for (offset, epoch) in offsets.into_iter().zip(at) {
        let key = Text::from(format!("key {}", random.below(keys)));
        let hash = if colliding {
            key_hash(key.as_bytes()) & (1 << 32)
        } else {
            key_hash(key.as_bytes())
        };
        // A key stands in one partition, in most seeds.
        let partition = if in_order { hash >> 63 } else { random.below(3) };
        let origin = Origin {
            partition: partition as u32,
            offset,
        };
        let value = random.percent(70).then(|| Setting(random.below(3)));
        left.push((
            Write {
                key,
                hash,
                origin,
                value,
            },
            epoch,
            1,
        ));
    }
    Script {
        left,
        right: Vec::new(),
        watermarks: Vec::new(),
        epochs,
    }
}

/// The replay: after every epoch, the map's rows that were not there before, and those that are no more.
fn twin(script: &Script<Write<Setting>, ()>) -> Batch<Row<Setting>> {
    let mut writes: Vec<_> = script
        .left
        .iter()
        .map(|(write, epoch, _)| (epoch, write))
        .collect();
    writes.sort_by_key(|(epoch, write)| (**epoch, write.origin));
    let mut rows = BTreeMap::<(u64, Text), Setting>::new();
    let mut updates = Vec::new();
    for epoch in 0..script.epochs {
        let before = rows.clone();
        for (_, write) in writes.iter().filter(|(at, _)| **at == epoch) {
            let key = (write.hash, write.key.clone());
            match &write.value {
                Some(value) => rows.insert(key, value.clone()),
                None => rows.remove(&key),
            };
        }
        for (rows, diff) in [(&before, -1), (&rows, 1)] {
            for ((hash, key), value) in rows.clone() {
                updates.push((
                    Row {
                        hash,
                        key,
                        value: Arc::new(value),
                    },
                    epoch,
                    diff,
                ));
            }
        }
    }
    consolidate_updates(&mut updates);
    updates
}

#[test]
fn upserts_as_a_replay_does() {
    for_seeds(|random| {
        let script = script(random);
        let updates = run_restarting(Upsert::new, &script, Restart::Repeats, random);
        assert_eq!(updates, twin(&script));
    });
}
