//! Kafka as a sink: outputs, progress and bindings of several epochs in one transaction.
//!
//! ```text
//!  take: new producer, initialise (fences earlier ones, settles what they left open)
//!        ─► read progress ─► decide ─► open: first record ─► commit, commit, ...
//!
//!  commit   begin ─► outputs ─► bindings, head ─► acknowledged ─► commit ─┬─ ok: committed
//!                                                                         └─ unknown: settle
//!  settle   new producer, initialise ─► a newer claim? ─ yes: stop, fenced
//!                                            └ no ─► read progress: there? committed. Not there? write it again.
//! ```
//!
//! A transaction is open only while it is written. The outcome of a call that failed or took too long is never
//! guessed: whatever happened, a new producer of the same id makes the old one's transaction end, and the
//! progress topic then says whether it was committed. Before that is believed, claims are listed again: a
//! process that slept while another one took over must not fence its successor and go on.
//!
//! A producer that has seen trouble is replaced before the next transaction even if its calls succeeded
//! ([`Producer::is_worn`] says why).
//!
//! **Turns.** A transaction whose commit is answered is durable, yet the broker goes on writing its markers, and
//! meanwhile lets the same id begin nothing: the client asks again after 20 ms. So a shard has [`TURNS`] ids with a
//! producer each, and every transaction is the next one's turn:
//!
//! ```text
//!  turn 0   begin ─ rows ─ commit ─┤ok · markers ·             begin ─ ...
//!  turn 1                          begin ─ rows ─ commit ─┤ok · markers ·
//! ```
//!
//! Nothing that was promised changes. A transaction begins only after the one before is answered, so in every
//! partition its messages lie behind, and readers, who see nothing past the first undecided message, see it later.
//! At most one outcome is unknown. And whoever settles or takes over initialises all ids before progress is read,
//! so that the markers of every turn are there.
//!
//! **The control arm** of the kill campaigns: with `TIDEGATE_CONTROL_ARM=1` outputs go through a producer
//! without transactions, so that they are no longer tied to progress.

use super::files::CONTROL_ARM;
use super::progress_topic::{self as progress, Head, Values};
use super::{SealedEpoch, Sink, message};
use crate::checkpoint::binding::Binding;
use crate::checkpoint::claim::{self, Claim};
use crate::checkpoint::decide::{Progress, ShardFacts};
use crate::checkpoint::progress::{Damage, Log};
use crate::checkpoint::store::Store;
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::kafka::Settings;
use crate::kafka::producer::{Failure, Message, Producer};
use crate::kafka::topics::Admin;
use crate::limits;
use crate::time::Epoch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Header of every output message: its epoch, in decimal.
pub const EPOCH_HEADER: &str = "tidegate-epoch";

/// Producers of a shard, in turn. Two, for a transaction takes longer than the markers of the one before.
pub const TURNS: usize = 2;

/// Header of an output message that comes from one input message: `input/partition/offset`.
pub const ORIGIN_HEADER: &str = "tidegate-origin";

/// One Kafka shard of a job: which topics it writes.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Name of the job.
    pub job: String,
    /// Number of the shard among the job's Kafka shards.
    pub shard: usize,
    /// Its topics, by index of the output in the plan.
    pub outputs: BTreeMap<u16, String>,
    /// How to reach the cluster.
    pub settings: Settings,
    /// A transaction that stays open longer is aborted by the broker.
    pub transaction_timeout: Duration,
}

impl Shard {
    /// Its transactional ids, one for each turn: without the generation, so that a later generation fences an
    /// earlier one. No job's name holds a slash, so none is another job's.
    pub fn transactional_ids(&self) -> [String; TURNS] {
        let (job, shard) = (&self.job, self.shard);
        std::array::from_fn(|turn| match turn {
            0 => format!("{job}-{shard}"),
            turn => format!("{job}-{shard}/{turn}"),
        })
    }

    /// New producers, one for each turn.
    fn producers(&self) -> Result<Vec<Producer>> {
        let new = |id: &String| Producer::new(&self.settings, id, self.transaction_timeout);
        self.transactional_ids().iter().map(new).collect()
    }
}

/// Takes the ids of these producers: earlier ones are fenced, and what they left open is settled.
fn initialise(producers: &[Producer]) -> Result<(), Failure> {
    producers.iter().try_for_each(Producer::initialise)
}

/// A shard whose earlier producers are fenced, with what they committed.
pub struct Found {
    shard: Shard,
    producers: Vec<Producer>,
    read: Result<Log, Damage>,
}

/// Makes earlier producers of these ids, of whatever claim, end; what they left open is settled.
pub fn fence(settings: &Settings, ids: &BTreeSet<String>, transaction_timeout: Duration) -> Result<()> {
    for id in ids {
        let producer = Producer::new(settings, id, transaction_timeout)?;
        producer.initialise().map_err(Error::from)?;
    }
    Ok(())
}

/// Takes a shard: fences its earlier producers, for good. Its progress is read later, by [`Found::new`].
pub fn take(shard: &Shard) -> Result<Vec<Producer>> {
    let producers = shard.producers()?;
    initialise(&producers).map_err(Error::from)?;
    crash::point("after-fence");
    Ok(producers)
}

impl Found {
    /// A taken shard, and the progress topic as read after that.
    pub fn new(shard: Shard, producers: Vec<Producer>, values: &Values) -> Found {
        let read = progress::log(values, shard.shard);
        Found {
            shard,
            producers,
            read,
        }
    }

    /// What the start decides on.
    pub fn facts(&self) -> ShardFacts {
        let progress = match &self.read {
            Err(damage) => Progress::Damaged {
                file: progress::name(&self.shard.job),
                offset: damage.offset,
                reason: damage.reason.clone(),
            },
            Ok(log) => match (log.records.first(), log.records.last()) {
                (Some(first), Some(last)) => Progress::Present {
                    generation: last.generation,
                    nonce: last.nonce,
                    plan_hash: last.plan_hash,
                    after: first.after,
                    upper: last.upper,
                },
                _ => Progress::Absent,
            },
        };
        ShardFacts {
            progress,
            outputs: Vec::new(),
        }
    }

    /// The bindings on record, ascending.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.read.iter().flat_map(Log::bindings)
    }

    /// Opens the shard for writing in the generation of this claim; commits the first record where there is
    /// none.
    pub fn open(self, claim: &Claim, store: Arc<dyn Store>) -> Result<Topics> {
        let read = self.read.map_err(|damage| Error::internal(damage.reason))?;
        let control_arm = std::env::var_os(CONTROL_ARM).is_some_and(|value| value == "1");
        let unbound = match control_arm {
            true => Some(Producer::without_transactions(&self.shard.settings)?),
            false => None,
        };
        let mut topics = Topics {
            progress: progress::name(&self.shard.job),
            head: Head {
                generation: claim.generation,
                nonce: claim.nonce,
                plan_hash: claim.plan_hash,
                upper: read.records.last().map_or(0, |last| last.upper),
            },
            bound: read.records.iter().map(|record| record.upper).collect(),
            covered: 0,
            shard: self.shard,
            producers: self.producers,
            turn: 0,
            unbound,
            store,
        };
        if read.records.is_empty() {
            let first = topics.head.clone();
            topics.write_until_settled(&[], &first)?;
        }
        Ok(topics)
    }
}

/// A Kafka shard that is open for writing.
pub struct Topics {
    shard: Shard,
    /// One for each turn.
    producers: Vec<Producer>,
    /// Whose turn it is.
    turn: usize,
    /// The control arm's producer for outputs.
    unbound: Option<Producer>,
    store: Arc<dyn Store>,
    /// Name of the progress topic.
    progress: String,
    /// What is committed.
    head: Head,
    /// Upper epochs of the records of bindings that are there, ascending.
    bound: Vec<Epoch>,
    /// Bindings up to here are needed no more.
    covered: Epoch,
}

impl Sink for Topics {
    fn committed(&self) -> Epoch {
        self.head.upper
    }

    fn commit(&mut self, mut epochs: Vec<SealedEpoch>) -> Result<()> {
        epochs.retain(|sealed| sealed.epoch > self.head.upper);
        let mut rest = epochs.as_slice();
        while !rest.is_empty() {
            let (group, later) = rest.split_at(within(rest, limits::TRANSACTION_BYTES));
            let upper = group.last().map_or(self.head.upper, |sealed| sealed.epoch);
            crash::point("before-data");
            let head = Head {
                upper,
                ..self.head.clone()
            };
            self.write_until_settled(group, &head)?;
            rest = later;
        }
        Ok(())
    }

    fn forget(&mut self, oldest: Epoch) -> Result<()> {
        // Their tombstones go with the next transaction.
        self.covered = self.covered.max(oldest);
        Ok(())
    }
}

impl Topics {
    fn write_until_settled(&mut self, epochs: &[SealedEpoch], head: &Head) -> Result<()> {
        loop {
            if self.producers.iter().any(Producer::is_worn) && self.settle()? != self.head.upper {
                return Err(Error::internal("progress changed while nothing was written"));
            }
            let bindings = epochs.iter().filter_map(SealedEpoch::effective_binding).collect();
            let bound = match epochs {
                [] => Vec::new(),
                _ => progress::records(self.head.upper, head.upper, bindings)?,
            };
            let forgotten: Vec<Epoch> = self
                .bound
                .iter()
                .copied()
                .filter(|upper| *upper <= self.covered)
                .collect();
            let written = self.write(epochs, head, &bound, &forgotten);
            match written {
                Ok(()) => {}
                Err(Failure::Unknown(reason)) => {
                    let Shard { job, shard, .. } = &self.shard;
                    tracing::warn!("{job}, shard {shard}: {reason}; looking what is committed");
                    let there = self.settle()?;
                    // The first record may be written twice: it says the same.
                    if epochs.is_empty() || there == self.head.upper {
                        continue;
                    }
                    if there != head.upper {
                        let message = format!("progress says epoch {there}, which nobody here has committed");
                        return Err(Error::new(Kind::StateDamaged, message));
                    }
                }
                Err(other) => return Err(other.into()),
            }
            crash::point("after-commit");
            self.bound.retain(|upper| *upper > self.covered);
            self.bound.extend(bound.iter().map(|(upper, _)| *upper));
            self.head = head.clone();
            self.turn = (self.turn + 1) % self.producers.len();
            return Ok(());
        }
    }

    /// One transaction.
    fn write(
        &self,
        epochs: &[SealedEpoch],
        head: &Head,
        bound: &[(Epoch, Vec<u8>)],
        forgotten: &[Epoch],
    ) -> Result<(), Failure> {
        let producer = &self.producers[self.turn];
        producer.begin()?;
        self.produce(epochs)?;
        crash::point("after-data");
        let shard = self.shard.shard;
        let record = |key: &str, value: Option<&[u8]>| {
            producer.send(&Message {
                topic: &self.progress,
                partition: 0,
                key: Some(key.as_bytes()),
                value,
                headers: &[],
            })
        };
        for (upper, value) in bound {
            record(&progress::bound_key(shard, *upper), Some(value))?;
        }
        for upper in forgotten {
            record(&progress::bound_key(shard, *upper), None)?;
        }
        let head = progress::json(head).map_err(|error| Failure::Denied(error.message))?;
        record(&progress::head_key(shard), Some(&head))?;
        producer.delivered_all()?;
        crash::point("before-commit");
        producer.commit()
    }

    fn produce(&self, epochs: &[SealedEpoch]) -> Result<(), Failure> {
        let producer = self.unbound.as_ref().unwrap_or(&self.producers[self.turn]);
        for sealed in epochs {
            let epoch = sealed.epoch.to_string();
            for (output, bytes) in sealed.ordered() {
                let (Some(topic), Some(message)) = (self.shard.outputs.get(&output), message::read(bytes))
                else {
                    return Err(Failure::Denied(format!(
                        "output {output} is not one of this shard"
                    )));
                };
                let headers = [(EPOCH_HEADER, epoch.as_bytes()), (ORIGIN_HEADER, message.origin)];
                let with_origin = if message.origin.is_empty() { 1 } else { 2 };
                producer.send(&Message {
                    topic,
                    partition: message.partition,
                    key: message.key,
                    value: Some(message.value),
                    headers: &headers[..with_origin],
                })?;
            }
        }
        match &self.unbound {
            Some(producer) => producer.delivered_all(),
            None => Ok(()),
        }
    }

    /// Makes the transaction of unknown outcome end, and gives what is committed.
    fn settle(&mut self) -> Result<Epoch> {
        loop {
            // Who slept must not fence a successor ...
            self.refuse_newer_claims()?;
            let producers = self.shard.producers()?;
            match initialise(&producers) {
                Ok(()) => {
                    end_aside(std::mem::replace(&mut self.producers, producers));
                    break;
                }
                Err(Failure::Unknown(reason)) => {
                    let Shard { job, shard, .. } = &self.shard;
                    tracing::warn!("{job}, shard {shard}: {reason}; trying again");
                }
                Err(other) => return Err(other.into()),
            }
        }
        // ... and one that claimed meanwhile was fenced by us, or we by it: it starts again, we do not.
        self.refuse_newer_claims()?;
        let admin = Admin::new(&self.shard.settings)?;
        let values = progress::read(&self.shard.settings, &admin, &self.progress)?;
        let log = progress::log(&values, self.shard.shard);
        let log = log.map_err(|damage| {
            Error::new(
                Kind::StateDamaged,
                format!("{}: {}", self.progress, damage.reason),
            )
        })?;
        Ok(log.records.last().map_or(0, |last| last.upper))
    }

    fn refuse_newer_claims(&self) -> Result<()> {
        let claims = claim::all(self.store.as_ref())?;
        let newest = claims.last().map_or(0, |(generation, _)| *generation);
        if newest <= self.head.generation {
            return Ok(());
        }
        let own = self.head.generation;
        Err(Error::new(
            Kind::Fenced,
            format!("generation {newest} has taken the job over from {own}"),
        ))
    }
}

/// How many epochs, at least one, fit into so many bytes.
fn within(epochs: &[SealedEpoch], most_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |sealed: &&SealedEpoch| {
        bytes += sealed.rows.iter().map(|rows| rows.bytes.len()).sum::<usize>();
        bytes <= most_bytes
    };
    epochs.iter().take_while(fits).count().max(1)
}

/// Ends producers on a thread of their own: with their broker gone that may take long, and nothing waits for it.
fn end_aside(producers: Vec<Producer>) {
    let ended = std::thread::Builder::new()
        .name("old-producer".to_owned())
        .spawn(move || drop(producers));
    if let Err(error) = ended {
        tracing::warn!("a thread cannot be started: {error}");
    }
}
