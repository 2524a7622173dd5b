//! The COST baseline: the same results by plain loops on one thread, without any engine.
//!
//! ```text
//!  Share: decoded records ─────────────┐
//!                                      ├─► Loops: one per dataflow ─► Out: digests, or encoded lines
//!  LineInput: lines ─► decode ─► stamp ┘   epoch by epoch, tables first
//! ```
//!
//! Decoder and encoder are the engine's, the key hash too; all else is written for the purpose: no
//! frontiers, no batches,
//! no retractions, no state to restore. What it gives must equal what the engine gives, or the run fails.

use crate::baseline_alerts::{Alerts, Interest, Rule};
use crate::baseline_keys::{Counts, Finding, Patterns};
use crate::baseline_orders::{Joins, Windows};
use crate::baseline_out::Out;
use crate::engine::Run;
use crate::process::{cpu_seconds, now};
use crate::workload::{Epochs, Events, LineInput, Part, Share, Steps, Watermarks, bound};
use tidegate::format::json::{Message, decode_line, raw_value};
use tidegate::format::lines::Lines;
use tidegate::limits::MAX_RECORD_BYTES;
use tidegate::record::{Origin, Record, Stamped, Write, key_hash};
use tidegate::time::{AFTER_ALL, BEFORE_ALL, Millis};
use tidegate_dataflows::catalogue::Dataflow;
use tidegate_dataflows::generator::Input;
use tidegate_dataflows::records::{AccountEntry, Address, Event, Order, Payment, Transaction};

/// All loops; those that a part does not need stay empty.
struct Loops {
    dataflows: Vec<Dataflow>,
    alerts: Alerts,
    windows: Windows,
    joins: Joins,
    patterns: Patterns,
    counts: Counts,
    out: Out,
}

impl Loops {
    fn new(part: Part, out: Out) -> Self {
        Loops {
            dataflows: part.dataflows(),
            alerts: Alerts::default(),
            windows: Windows::default(),
            joins: Joins::default(),
            patterns: Patterns::default(),
            counts: Counts::default(),
            out,
        }
    }

    fn has(&self, dataflow: Dataflow) -> bool {
        self.dataflows.contains(&dataflow)
    }

    fn entries(&mut self, entries: &[Stamped<AccountEntry>]) {
        let out = &mut self.out;
        let give = |entry: &Stamped<AccountEntry>, interest: &Interest, rule: &Rule, address: &Address| {
            out.alert(entry, interest, rule, address);
        };
        self.alerts.entries(entries, give);
    }

    fn order(&mut self, order: &Stamped<Order>) {
        if self.has(Dataflow::TumblingAggregates) && !self.windows.order(order) {
            self.out.late("orders", Dataflow::TumblingAggregates, order);
        }
        if self.has(Dataflow::EnrichedOrders) {
            let out = &mut self.out;
            if !self
                .joins
                .order(order, |first, second| out.pair(&order.key, first, second))
            {
                self.out.late("orders", Dataflow::EnrichedOrders, order);
            }
        }
    }

    fn payment(&mut self, payment: &Stamped<Payment>) {
        let out = &mut self.out;
        if !self.joins.payment(payment, |order, payment_of| {
            out.pair(&payment.key, order, payment_of)
        }) {
            self.out.late("payments", Dataflow::EnrichedOrders, payment);
        }
    }

    fn transaction(&mut self, transaction: &Stamped<Transaction>) {
        if !self.patterns.transaction(transaction) {
            self.out.late("transactions", Dataflow::RiskPattern, transaction);
        }
    }

    fn event(&mut self, event: &Stamped<Event>, epoch: usize) {
        self.counts.event(event, epoch);
    }

    /// Ends an epoch, after which the global watermarks are these.
    fn finish(&mut self, orders: Millis, payments: Millis, transactions: Millis) {
        let out = &mut self.out;
        self.windows
            .close(orders, |start, figures| out.window(start, &figures));
        self.joins.watermarks(orders, payments);
        self.patterns.pass(transactions, |finding| match finding {
            Finding::Match(first, second) => out.risk(first, second),
            Finding::Timeout(first) => out.timeout(first),
        });
        self.counts.finish(|key, count| out.count(key, count));
    }
}

/// One input's messages, taken epoch by epoch.
struct Cursor<D> {
    steps: Steps<D>,
    taken: usize,
}

impl<D> Cursor<D> {
    fn new(steps: Steps<D>) -> Self {
        Cursor { steps, taken: 0 }
    }

    fn next(&mut self, epoch: usize) -> &[D] {
        let upto = self.steps.cuts.get(epoch).copied().unwrap_or(self.taken);
        let from = std::mem::replace(&mut self.taken, upto);
        &self.steps.messages[from..upto]
    }
}

/// A watermark as it stands: the last one told.
fn stands(watermark: &mut Millis, told: &Watermarks, epoch: usize) -> Millis {
    *watermark = told.get(epoch).copied().flatten().unwrap_or(*watermark);
    *watermark
}

/// Runs a part's loops on decoded records, all in one share.
pub fn run_decoded(part: Part, epochs: &Epochs, share: Share) -> Run {
    fn split<R>(events: Events<R>) -> (Cursor<Stamped<R>>, Watermarks, Millis) {
        (Cursor::new(events.steps), events.watermarks, BEFORE_ALL)
    }
    let mut loops = Loops::new(part, Out::digests());
    let (mut authorizations, mut settings) = (Cursor::new(share.authorizations), Cursor::new(share.settings));
    let mut entries = Cursor::new(share.entries.steps);
    let mut orders = split(share.orders);
    let mut payments = split(share.payments);
    let mut transactions = split(share.transactions);
    let mut events = Cursor::new(share.events.steps);
    timed(epochs, loops_tally, &mut loops, |loops, epoch| {
        authorizations
            .next(epoch)
            .iter()
            .for_each(|write| loops.alerts.authorize(write));
        settings
            .next(epoch)
            .iter()
            .for_each(|write| loops.alerts.settings(write));
        loops.entries(entries.next(epoch));
        orders.0.next(epoch).iter().for_each(|order| loops.order(order));
        payments
            .0
            .next(epoch)
            .iter()
            .for_each(|payment| loops.payment(payment));
        transactions
            .0
            .next(epoch)
            .iter()
            .for_each(|transaction| loops.transaction(transaction));
        events
            .next(epoch)
            .iter()
            .for_each(|event| loops.event(event, epoch));
        loops.finish(
            stands(&mut orders.2, &orders.1, epoch),
            stands(&mut payments.2, &payments.1, epoch),
            stands(&mut transactions.2, &transactions.1, epoch),
        );
    })
}

fn loops_tally(loops: &Loops) -> crate::digest::Tally {
    loops.out.tally()
}

/// Times the epochs of a run.
fn timed<S>(
    epochs: &Epochs,
    tally: fn(&S) -> crate::digest::Tally,
    state: &mut S,
    mut each: impl FnMut(&mut S, usize),
) -> Run {
    let (mut started, mut cpu) = (now(), cpu_seconds());
    let mut epoch_nanos = Vec::new();
    for epoch in 0..epochs.messages.len() {
        if epoch == epochs.loading {
            (started, cpu) = (now(), cpu_seconds());
        }
        let begun = now();
        each(state, epoch);
        if epoch >= epochs.loading {
            epoch_nanos.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
    let (seconds, cpu_seconds) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    Run {
        tally: tally(state),
        epoch_nanos,
        seconds,
        cpu_seconds,
    }
}

/// What is known of a partition.
struct Partition {
    number: u32,
    lines: crate::workload::Lines,
    splitter: Lines,
    greatest: Option<Millis>,
    ended: bool,
}

/// An input read from its lines.
struct Reader {
    input: Input,
    bound: Millis,
    partitions: Vec<Partition>,
}

impl Reader {
    fn new(input: LineInput) -> Self {
        let partition = |(number, lines)| {
            let splitter = Lines::new(0, MAX_RECORD_BYTES);
            Partition {
                number,
                lines,
                splitter,
                greatest: None,
                ended: false,
            }
        };
        let partitions = (0..).zip(input.partitions).map(partition).collect();
        Reader {
            input: input.input,
            bound: bound(input.input),
            partitions,
        }
    }

    /// The global watermark.
    fn watermark(&self) -> Millis {
        let own = |partition: &Partition| {
            if partition.ended {
                AFTER_ALL
            } else {
                partition.watermark(self.bound)
            }
        };
        self.partitions.iter().map(own).min().unwrap_or(BEFORE_ALL)
    }

    /// Decodes an epoch's lines of a table.
    fn writes<R: Record>(&mut self, epoch: usize, mut each: impl FnMut(&Write<R>)) {
        for partition in &mut self.partitions {
            partition.decode::<R>(epoch, true, |partition, offset, message, _| {
                let (hash, origin) = (
                    key_hash(message.key.as_bytes()),
                    Origin {
                        partition: partition.0,
                        offset,
                    },
                );
                each(&Write {
                    key: message.key,
                    hash,
                    origin,
                    value: message.value,
                });
            });
        }
    }

    /// Decodes and stamps an epoch's lines of an event input.
    fn records<R: Record>(&mut self, epoch: usize, mut each: impl FnMut(&Stamped<R>)) {
        let bound = self.bound;
        for partition in &mut self.partitions {
            partition.decode::<R>(epoch, false, |partition, offset, message, line| {
                let Some(value) = message.value else { return };
                let watermark = partition
                    .1
                    .map_or(BEFORE_ALL, |greatest| greatest.saturating_sub(bound));
                let time = value.event_time();
                let raw = time
                    .filter(|time| *time < watermark)
                    .and_then(|_| raw_value(line))
                    .map(Box::from);
                *partition.1 = (*partition.1).max(time);
                let (hash, origin) = (
                    key_hash(message.key.as_bytes()),
                    Origin {
                        partition: partition.0,
                        offset,
                    },
                );
                each(&Stamped {
                    key: message.key,
                    hash,
                    origin,
                    watermark,
                    raw,
                    value,
                });
            });
        }
    }
}

impl Partition {
    fn watermark(&self, bound: Millis) -> Millis {
        self.greatest
            .map_or(BEFORE_ALL, |greatest| greatest.saturating_sub(bound))
    }

    /// Splits and decodes an epoch's lines; `each` gets (number, greatest time so far), offset, message and
    /// line.
    fn decode<R: Record>(
        &mut self,
        epoch: usize,
        is_table: bool,
        mut each: impl FnMut((u32, &mut Option<Millis>), u64, Message<R>, &[u8]),
    ) {
        let Partition {
            number,
            lines,
            splitter,
            greatest,
            ended,
        } = self;
        *ended = epoch + 1 == lines.cuts.len();
        splitter.feed(&lines.bytes[lines.of(epoch)], |line| {
            let message = decode_line::<R>(line.bytes, is_table).expect("generated lines are good");
            each((*number, greatest), line.offset, message, line.bytes);
        });
    }
}

/// Runs a part's loops from lines to lines.
pub fn run_bytes(part: Part, epochs: &Epochs, inputs: Vec<LineInput>) -> Run {
    let mut loops = Loops::new(part, Out::lines());
    let mut readers: Vec<Reader> = inputs.into_iter().map(Reader::new).collect();
    timed(epochs, loops_tally, &mut loops, |loops, epoch| {
        let (mut orders, mut payments, mut transactions) = (BEFORE_ALL, BEFORE_ALL, BEFORE_ALL);
        // Tables come first in every list of inputs.
        for reader in &mut readers {
            match reader.input {
                Input::Authorizations => reader.writes(epoch, |write| loops.alerts.authorize(write)),
                Input::Settings => reader.writes(epoch, |write| loops.alerts.settings(write)),
                Input::Entries => reader.records(epoch, |entry| loops.entries(std::slice::from_ref(entry))),
                Input::Orders => reader.records(epoch, |order| loops.order(order)),
                Input::Payments => reader.records(epoch, |payment| loops.payment(payment)),
                Input::Transactions => reader.records(epoch, |transaction| loops.transaction(transaction)),
                Input::Events => reader.records(epoch, |event| loops.event(event, epoch)),
                Input::Devices => unreachable!("no part reads devices"),
            }
            match reader.input {
                Input::Orders => orders = reader.watermark(),
                Input::Payments => payments = reader.watermark(),
                Input::Transactions => transactions = reader.watermark(),
                _ => {}
            }
        }
        loops.finish(orders, payments, transactions);
    })
}
