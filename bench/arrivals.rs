//! From the generator's messages to a workload: merged, cut into epochs, stamped, split among workers.
//!
//! ```text
//!  generator ─► Arrivals per input ─► merged by as-of time ─► epochs ─┬─► Share per worker: decoded
//!               a table's snapshot first, in epochs of LOAD_STEP,     └─► LineInput: JSON lines
//!               then every `step` messages
//! ```
//!
//! Watermarks are those the engine's clock would give: per epoch, the least over the partitions of the
//! greatest event time
//! minus the input's bound. The last epoch is empty and ends every partition. Messages keep the order in
//! which the
//! generator gives them; between inputs, the lesser as-of time comes first, and tables where they tie.

use crate::workload::{Epochs, Events, LineInput, Lines, Part, Share, Size, Steps, Watermarks, bound};
use serde::Serialize;
use std::sync::Arc;
use tidegate::record::{Origin, Record, Stamped, Write, key_hash};
use tidegate::time::{AFTER_ALL, BEFORE_ALL, Millis};
use tidegate_dataflows::generator::{self, Day, Input, Message};
use tidegate_dataflows::records::{
    AccountAuthorizations, AccountEntry, CustomerAlertSettings, Event, Order, Payment, Transaction,
};

/// Messages in an epoch while the tables' snapshots are loaded.
const LOAD_STEP: usize = 100_000;

/// The messages of one input in the order of arrival, as the generator gave them.
struct Arrivals<R> {
    input: Input,
    messages: Vec<Message<R>>,
    /// The greatest time up to and including each message.
    as_of: Vec<Millis>,
}

impl<R: Record> Arrivals<R> {
    fn new(part: Part, input: Input, messages: impl Iterator<Item = Message<R>>) -> Self {
        let messages: Vec<_> = if part.reads(input) {
            messages.collect()
        } else {
            Vec::new()
        };
        let mut greatest = BEFORE_ALL;
        let as_of = messages.iter().map(|message| {
            let time = message
                .timestamp
                .or_else(|| message.value.as_ref().and_then(R::event_time));
            greatest = greatest.max(time.unwrap_or(BEFORE_ALL));
            greatest
        });
        let as_of = as_of.collect();
        Arrivals {
            input,
            messages,
            as_of,
        }
    }
}

/// Cuts inputs into epochs. `as_of`: by input, tables first, the as-of times of its messages, ascending.
/// Gives, by input, its cuts.
fn cut(as_of: &[&[Millis]], day: Day, step: usize) -> (Epochs, Vec<Vec<usize>>) {
    let mut taken = vec![0; as_of.len()];
    let mut cuts = vec![Vec::new(); as_of.len()];
    let mut epochs = Epochs {
        loading: 0,
        messages: Vec::new(),
    };
    let mut count = 0;
    let mut close = |taken: &[usize], count: &mut usize| {
        cuts.iter_mut()
            .zip(taken)
            .for_each(|(cuts, taken)| cuts.push(*taken));
        epochs.messages.push(std::mem::take(count));
        epochs.messages.len()
    };
    let (mut loading, mut loaded) = (0, false);
    loop {
        // The first of those with the least time: tables stand before events.
        let nexts = as_of
            .iter()
            .zip(&taken)
            .map(|(times, taken)| times.get(*taken).copied());
        let Some((next, time)) = nexts
            .enumerate()
            .filter_map(|(at, time)| Some((at, time?)))
            .min_by_key(|next| next.1)
        else {
            break;
        };
        if !loaded && time >= day.start {
            loaded = true;
            loading = if count > 0 {
                close(&taken, &mut count)
            } else {
                loading
            };
        }
        taken[next] += 1;
        count += 1;
        if count == if loaded { step } else { LOAD_STEP } {
            let closed = close(&taken, &mut count);
            loading = if loaded { loading } else { closed };
        }
    }
    if count > 0 {
        close(&taken, &mut count);
    }
    close(&taken, &mut count);
    epochs.loading = loading;
    (epochs, cuts)
}

/// Splits a table's messages among workers.
fn table<R: Record>(
    arrivals: Arrivals<R>,
    cuts: &[usize],
    shares: &mut [Share],
    of: fn(&mut Share) -> &mut Steps<Write<R>>,
) {
    let mut offset = 0;
    let mut messages = arrivals.messages.into_iter();
    for length in lengths(cuts) {
        for Message {
            partition,
            key,
            value,
            ..
        } in messages.by_ref().take(length)
        {
            let worker = partition as usize % shares.len();
            let (hash, origin) = (key_hash(key.as_bytes()), Origin { partition, offset });
            of(&mut shares[worker]).messages.push(Write {
                key,
                hash,
                origin,
                value,
            });
            offset += 1;
        }
        for share in &mut *shares {
            let steps = of(share);
            steps.cuts.push(steps.messages.len());
        }
    }
}

/// Stamps the records of an event input, splits them among workers, and says how its global watermark rises.
fn events<R: Record>(
    arrivals: Arrivals<R>,
    cuts: &[usize],
    partitions: u32,
    shares: &mut [Share],
    of: fn(&mut Share) -> &mut Events<R>,
) {
    let bound = bound(arrivals.input);
    let mut greatest = vec![None::<Millis>; partitions as usize];
    let own =
        |greatest: Option<Millis>| greatest.map_or(BEFORE_ALL, |greatest| greatest.saturating_sub(bound));
    let (mut offset, mut global) = (0, BEFORE_ALL);
    let mut watermarks = Vec::new();
    let mut messages = arrivals.messages.into_iter();
    for length in lengths(cuts) {
        for Message {
            partition,
            key,
            value,
            ..
        } in messages.by_ref().take(length)
        {
            let Some(value) = value else { continue };
            let so_far = &mut greatest[partition as usize];
            let (time, watermark) = (value.event_time(), own(*so_far));
            let raw = time
                .filter(|time| *time < watermark)
                .and_then(|_| serde_json::to_vec(&value).ok());
            *so_far = (*so_far).max(time);
            let (hash, origin) = (key_hash(key.as_bytes()), Origin { partition, offset });
            let worker = partition as usize % shares.len();
            let raw = raw.map(Vec::into_boxed_slice);
            of(&mut shares[worker]).steps.messages.push(Stamped {
                key,
                hash,
                origin,
                watermark,
                raw,
                value,
            });
            offset += 1;
        }
        for share in &mut *shares {
            let steps = &mut of(share).steps;
            steps.cuts.push(steps.messages.len());
        }
        let least = greatest
            .iter()
            .map(|greatest| own(*greatest))
            .min()
            .unwrap_or(BEFORE_ALL);
        watermarks.push((least > global).then_some(least));
        global = global.max(least);
    }
    if let Some(last) = watermarks.last_mut() {
        *last = Some(AFTER_ALL);
    }
    let watermarks: Watermarks = watermarks.into();
    shares
        .iter_mut()
        .for_each(|share| of(share).watermarks = Arc::clone(&watermarks));
}

/// Cuts as lengths.
fn lengths(cuts: &[usize]) -> impl Iterator<Item = usize> {
    let befores = [0].into_iter().chain(cuts.iter().copied());
    cuts.iter().zip(befores).map(|(cut, before)| cut - before)
}

/// All inputs of a part as they arrive.
struct Arrived {
    authorizations: Arrivals<AccountAuthorizations>,
    settings: Arrivals<CustomerAlertSettings>,
    entries: Arrivals<AccountEntry>,
    orders: Arrivals<Order>,
    payments: Arrivals<Payment>,
    transactions: Arrivals<Transaction>,
    events: Arrivals<Event>,
}

impl Arrived {
    fn new(part: Part, day: Day) -> Self {
        Arrived {
            authorizations: Arrivals::new(part, Input::Authorizations, generator::authorizations(day)),
            settings: Arrivals::new(part, Input::Settings, generator::settings(day)),
            entries: Arrivals::new(part, Input::Entries, generator::entries(day)),
            orders: Arrivals::new(part, Input::Orders, generator::orders(day)),
            payments: Arrivals::new(part, Input::Payments, generator::payments(day)),
            transactions: Arrivals::new(part, Input::Transactions, generator::transactions(day)),
            events: Arrivals::new(part, Input::Events, generator::events(day)),
        }
    }

    /// By input, tables first.
    fn as_of(&self) -> [&[Millis]; 7] {
        [
            &self.authorizations.as_of,
            &self.settings.as_of,
            &self.entries.as_of,
            &self.orders.as_of,
            &self.payments.as_of,
            &self.transactions.as_of,
            &self.events.as_of,
        ]
    }
}

/// The decoded inputs of a part, one share per worker.
pub fn decoded(part: Part, size: Size, workers: usize) -> (Epochs, Vec<Share>) {
    let day = size.day();
    let arrived = Arrived::new(part, day);
    let (epochs, cuts) = cut(&arrived.as_of(), day, size.step);
    let mut shares = vec![Share::default(); workers];
    table(arrived.authorizations, &cuts[0], &mut shares, |share| {
        &mut share.authorizations
    });
    table(arrived.settings, &cuts[1], &mut shares, |share| {
        &mut share.settings
    });
    events(arrived.entries, &cuts[2], day.partitions, &mut shares, |share| {
        &mut share.entries
    });
    events(arrived.orders, &cuts[3], day.partitions, &mut shares, |share| {
        &mut share.orders
    });
    events(arrived.payments, &cuts[4], day.partitions, &mut shares, |share| {
        &mut share.payments
    });
    events(
        arrived.transactions,
        &cuts[5],
        day.partitions,
        &mut shares,
        |share| &mut share.transactions,
    );
    events(arrived.events, &cuts[6], day.partitions, &mut shares, |share| {
        &mut share.events
    });
    (epochs, shares)
}

/// The inputs of a part as JSON lines, in the order of a plan: events may come before tables.
pub fn lines(part: Part, size: Size) -> (Epochs, Vec<LineInput>) {
    let day = size.day();
    let arrived = Arrived::new(part, day);
    let (epochs, cuts) = cut(&arrived.as_of(), day, size.step);
    let inputs = vec![
        written(arrived.authorizations, &cuts[0], day),
        written(arrived.settings, &cuts[1], day),
        written(arrived.entries, &cuts[2], day),
        written(arrived.orders, &cuts[3], day),
        written(arrived.payments, &cuts[4], day),
        written(arrived.transactions, &cuts[5], day),
        written(arrived.events, &cuts[6], day),
    ];
    (
        epochs,
        inputs
            .into_iter()
            .filter(|input| part.reads(input.input))
            .collect(),
    )
}

/// A message as a line of an input.
#[derive(Serialize)]
struct Line<'a, R> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Millis>,
    value: Option<&'a R>,
}

fn written<R: Record>(arrivals: Arrivals<R>, cuts: &[usize], day: Day) -> LineInput {
    let mut partitions = vec![Lines::default(); arrivals.input.partitions(day) as usize];
    let mut messages = arrivals.messages.into_iter();
    for length in lengths(cuts) {
        for message in messages.by_ref().take(length) {
            let bytes = &mut partitions[message.partition as usize].bytes;
            let line = Line {
                key: &message.key,
                timestamp: message.timestamp,
                value: message.value.as_ref(),
            };
            serde_json::to_writer(&mut *bytes, &line).expect("records of the contract are JSON");
            bytes.push(b'\n');
        }
        partitions
            .iter_mut()
            .for_each(|lines| lines.cuts.push(lines.bytes.len()));
    }
    LineInput {
        input: arrivals.input,
        partitions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_loaded_first_and_epochs_are_full() {
        let day = Day {
            start: 1_000,
            ..Day::new(1, 100)
        };
        let table = [0, 0, 0, 1_500];
        let events = [1_000, 1_400, 1_500, 1_600, 1_700];
        let (epochs, cuts) = cut(&[&table, &events], day, 2);
        assert_eq!(
            epochs,
            Epochs {
                loading: 1,
                messages: vec![3, 2, 2, 2, 0]
            }
        );
        assert_eq!(cuts, [vec![3, 3, 4, 4, 4], vec![0, 2, 3, 5, 5]]);
        assert_eq!(epochs.measured(), 6);
    }

    #[test]
    fn without_tables_nothing_is_loaded() {
        let day = Day::new(1, 100);
        let times = [day.start, day.start + 1, day.start + 2];
        let (epochs, _) = cut(&[&[], &times], day, 2);
        assert_eq!(
            epochs,
            Epochs {
                loading: 0,
                messages: vec![2, 1, 0]
            }
        );
    }

    #[test]
    fn shares_add_up_and_watermarks_end_in_the_end_of_time() {
        let size = Size {
            seed: 1,
            accounts: 100,
            records: 1_000,
            step: 100,
        };
        let (epochs, shares) = decoded(Part::Joins, size, 3);
        let held = |share: &Share| share.orders.steps.messages.len() + share.payments.steps.messages.len();
        assert_eq!(shares.iter().map(held).sum::<usize>() as u64, epochs.measured());
        for share in &shares {
            let watermarks: Vec<_> = share.orders.watermarks.iter().flatten().collect();
            assert!(watermarks.is_sorted() && watermarks.len() > 2, "{watermarks:?}");
            assert_eq!(watermarks.last(), Some(&&AFTER_ALL));
            assert_eq!(share.orders.steps.cuts.len(), epochs.messages.len());
        }
    }

    #[test]
    fn lines_hold_what_is_decoded() {
        let size = Size {
            seed: 1,
            accounts: 100,
            records: 1_000,
            step: 100,
        };
        let (epochs, inputs) = lines(Part::Alerts, size);
        assert_eq!(inputs.len(), 3, "entries and two tables");
        let count = |lines: &Lines| lines.bytes.iter().filter(|byte| **byte == b'\n').count();
        let total: usize = inputs.iter().flat_map(|input| &input.partitions).map(count).sum();
        assert_eq!(total, epochs.messages.iter().sum::<usize>());
    }
}
