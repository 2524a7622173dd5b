//! The three tables: a snapshot of the night before, then changes all day, some of them tombstones.
//!
//! Message times never fall within a partition. A change draws its row anew; a row that a tombstone removed
//! comes back with its next change.

use super::bank::{self, SNAPSHOT};
use super::clock::{HOUR, ORDINARY, arrival};
use super::random::{Random, Stream};
use super::{Day, Message};
use crate::records::{AccountAuthorizations, CustomerAlertSettings, CustomerDevices};
use tidegate::record::Text;

/// Who may see an account.
pub fn authorizations(day: Day) -> impl Iterator<Item = Message<AccountAuthorizations>> {
    table(
        day,
        Stream::Authorizations,
        day.changes * 2 / 10,
        bank::account_id,
        bank::authorizations,
    )
}

/// What customers want to hear of.
pub fn settings(day: Day) -> impl Iterator<Item = Message<CustomerAlertSettings>> {
    table(
        day,
        Stream::Settings,
        day.changes * 6 / 10,
        bank::customer_id,
        bank::settings,
    )
}

/// Customers' devices.
pub fn devices(day: Day) -> impl Iterator<Item = Message<CustomerDevices>> {
    table(
        day,
        Stream::Devices,
        day.changes * 2 / 10,
        bank::customer_id,
        bank::devices,
    )
}

/// The table whose rows `row` draws, with this many changes.
fn table<R>(
    day: Day,
    stream: Stream,
    changes: u64,
    key: fn(u32) -> Text,
    row: fn(Day, u32, u64) -> R,
) -> impl Iterator<Item = Message<R>> {
    let message = move |index: u32, timestamp, value| Message {
        partition: index % day.table_partitions,
        key: key(index),
        timestamp: Some(timestamp),
        value,
    };
    let snapshot =
        (0..day.accounts).map(move |index| message(index, day.start - HOUR, Some(row(day, index, SNAPSHOT))));
    let mut random = Random::new(day.seed, stream);
    let changes = (0..changes).map(move |change| {
        let timestamp = day.start + arrival(&ORDINARY, change, changes, &mut random);
        let index = random.skewed(day.accounts);
        let value = (!random.permille(100)).then(|| row(day, index, 1 + change));
        message(index, timestamp, value)
    });
    snapshot.chain(changes)
}
