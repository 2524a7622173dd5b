//! One worker's loop: fill epochs, close them, step the dataflow.
//!
//! ```text
//!  restored rows at C ─► recorded epochs (C, committed] ─► declarations ─► new epochs (finite | live) ─► the end
//! ```
//!
//! The loop never blocks: it parks for at most [`limits::PARK`], in a live run until the next epoch is due, and
//! is woken by its reader and by [`Pace`].
//! It takes nothing new while too much of what it took is not committed yet.

use super::handover::owner_of;
use super::recover::declaration;
use super::wiring::Entrances;
use super::{Plan, Recovered, Shared, now};
use crate::checkpoint::binding::{Binding, Kept, PartitionBinding, Share};
use crate::checkpoint::row::StateRow;
use crate::crash;
use crate::error::Result;
use crate::limits;
use crate::pace::Cutting;
use crate::source::cache::Asked;
use crate::source::partition::Start;
use crate::source::{Answer, Feed, Filling, Held, Request, Take, owner};
use crate::time::{Epoch, PartitionClock};
use crate::watchdog;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;
use timely::worker::Worker;

/// The ways to a worker's readers; a reader ends when its way is dropped.
#[derive(Default)]
pub struct Requests {
    /// To the reader of files.
    pub files: Option<Sender<Request>>,
    /// To the reader of topics.
    pub topics: Option<Sender<Request>>,
    /// By index: inputs that are topics.
    pub is_topic: Vec<bool>,
    /// To the replay log, which then has the ways to the readers.
    pub log: Option<Sender<Asked>>,
}

impl Requests {
    fn send(&self, request: Request) {
        if let Some(log) = &self.log {
            let _ = log.send(Asked::Request(request));
            return;
        }
        let reader = match self.is_topic[usize::from(request.input)] {
            true => &self.topics,
            false => &self.files,
        };
        if let Some(reader) = reader {
            // A reader ends only when this sender does, or after it has said why.
            let _ = reader.send(request);
        }
    }

    /// Hands what a feed has decoded to the replay log, if there is one.
    fn log(&self, feed: &mut dyn Feed) {
        if let Some(log) = &self.log {
            for decoded in feed.decoded() {
                let _ = log.send(Asked::Decoded(decoded));
            }
        }
    }
}

/// What one worker's loop needs.
pub struct Station<'a> {
    /// The timely worker.
    pub worker: &'a mut Worker,
    /// The plan of the job.
    pub plan: &'a Plan,
    /// What all workers share.
    pub shared: &'a Shared,
    /// The ways into the dataflow.
    pub entrances: Entrances,
    /// To the worker's readers.
    pub requests: Requests,
    /// From the worker's readers.
    pub answers: Receiver<Answer>,
    /// The open epoch's share of the binding.
    share: Vec<PartitionBinding>,
    /// The last epoch of which this worker has given its share.
    closed: Option<Epoch>,
    /// Epochs that are taken and not sealed, with their messages.
    in_flight: VecDeque<(Epoch, usize)>,
    records_in_flight: usize,
}

/// The job has failed elsewhere or here; whoever failed has said why.
pub struct Stopped;

impl<'a> Station<'a> {
    /// A loop that has not started.
    pub fn new(
        worker: &'a mut Worker,
        plan: &'a Plan,
        shared: &'a Shared,
        entrances: Entrances,
        requests: Requests,
        answers: Receiver<Answer>,
    ) -> Self {
        let (share, closed, in_flight) = (Vec::new(), None, VecDeque::new());
        Station {
            worker,
            plan,
            shared,
            entrances,
            requests,
            answers,
            share,
            closed,
            in_flight,
            records_in_flight: 0,
        }
    }

    /// Runs to the end of the job.
    pub fn run(mut self, recovered: &Recovered) -> std::result::Result<(), Stopped> {
        self.restore(recovered)?;
        for (count, binding) in (1..).zip(&recovered.recorded) {
            self.replay(binding)?;
            if count % limits::ANNOUNCED_EPOCHS == 0 {
                self.turn(false)?;
            }
        }
        let cutting = self.shared.pace.cutting();
        if cutting != Cutting::Recorded {
            self.declare(recovered);
        }
        match cutting {
            Cutting::Recorded => {}
            Cutting::Finite => self.finite()?,
            Cutting::Live { .. } => self.live()?,
        }
        let Station {
            worker,
            shared,
            mut entrances,
            requests,
            answers,
            ..
        } = self;
        for feed in &mut entrances.feeds {
            requests.log(feed.as_mut());
        }
        drop(entrances);
        while worker.has_dataflows() {
            if shared.has_failed() {
                return Err(Stopped);
            }
            watchdog::stepping();
            worker.step_or_park(Some(limits::PARK));
        }
        if requests.log.is_some() {
            // It publishes what it has and ends with the readers: until then the process stays.
            drop(requests);
            answers.iter().for_each(drop);
        }
        Ok(())
    }

    /// Feeds the checkpoint's rows that belong to this worker's operators, at the checkpoint's epoch.
    fn restore(&mut self, recovered: &Recovered) -> std::result::Result<(), Stopped> {
        let (index, peers) = (self.worker.index(), self.worker.peers());
        let is_mine = |row: &&StateRow| owner_of(row, peers) == index;
        if let (Some(checkpoint), Some(mut restored)) = (recovered.checkpoint, self.entrances.restored.take())
        {
            restored.advance_to(checkpoint);
            for row in recovered.rows.iter().filter(is_mine) {
                restored.send(row.clone());
            }
            crash::point("during-restore");
        }
        self.entrances.restored = None;
        self.advance_to(recovered.first_epoch());
        self.turn(false)
    }

    /// Takes a recorded epoch again: the same messages, the same decisions.
    fn replay(&mut self, binding: &Binding) -> std::result::Result<(), Stopped> {
        self.advance_to(binding.epoch);
        loop {
            let has = self
                .entrances
                .feeds
                .iter_mut()
                .map(|feed| feed.has(&binding.partitions));
            match has.collect::<Result<Vec<_>>>() {
                Ok(has) if has.iter().all(|has| *has) => break,
                Ok(_) => self.turn(true)?,
                Err(error) => return self.fail(error),
            }
        }
        while !self.may_take() {
            self.turn(true)?;
        }
        self.fill(binding.epoch, Take::Recorded(&binding.partitions));
        self.close(binding.epoch, false);
        crash::point("during-replay");
        match self.records_in_flight >= limits::IN_FLIGHT_RECORDS / self.worker.peers() {
            true => self.turn(false),
            false => Ok(()),
        }
    }

    /// Names partitions that no binding has named, in the first new epoch, before anything is taken of them.
    /// What was replayed is checkpointed with it, so that a process that is killed again and again still gets
    /// further.
    fn declare(&mut self, recovered: &Recovered) {
        self.advance_to(recovered.base);
        for feed in &mut self.entrances.feeds {
            feed.begin(&recovered.declarations);
        }
        if self.worker.index() == 0 {
            self.share.clone_from(&recovered.declarations);
        }
        self.close(recovered.base, !recovered.recorded.is_empty());
        self.advance_to(recovered.base + 1);
    }

    fn finite(&mut self) -> std::result::Result<(), Stopped> {
        let cap = self.plan.partition_cap();
        for round in 0.. {
            let announced = loop {
                if self.may_take() {
                    let held = self
                        .entrances
                        .feeds
                        .iter()
                        .map(|feed| feed.held(cap, limits::ANNOUNCED_EPOCHS));
                    let held = held.fold(Held::NOTHING, Held::join);
                    if let Some(round) = self.shared.pace.report(self.worker.index(), round, held, now()) {
                        break round;
                    }
                }
                self.turn(true)?;
            };
            for epoch in &announced.epochs {
                self.advance_to(epoch.epoch);
                if let Some(place) = epoch.place {
                    let take = Take::Upto { place, cap };
                    while self.wakes(take) && self.entrances.clocks.borrow().complete < epoch.epoch {
                        self.turn(true)?;
                    }
                    self.fill(epoch.epoch, take);
                }
                self.close(epoch.epoch, epoch.cut);
                if self.records_in_flight >= limits::IN_FLIGHT_RECORDS / self.worker.peers() {
                    self.turn(false)?;
                }
            }
            self.turn(false)?;
            if announced.is_last {
                return Ok(());
            }
        }
        Ok(())
    }

    fn live(&mut self) -> std::result::Result<(), Stopped> {
        let (index, pace) = (self.worker.index(), &self.shared.pace);
        let (cap, epoch_cap) = (
            self.plan.partition_cap(),
            limits::EPOCH_RECORDS / self.worker.peers(),
        );
        let mut epoch = *self.entrances.shares.time();
        let (mut tables_done, mut events, mut found) = (false, false, 0);
        // Messages in the open epoch.
        let mut count = 0;
        loop {
            let now = now();
            if !tables_done && !self.entrances.feeds.iter().any(|feed| feed.backlog()) {
                tables_done = true;
                pace.backlog_done();
            }
            if self.shared.found_count.load(Ordering::Acquire) > found {
                found = self.take_up_found(epoch, found);
            }
            let (bound, draining) = (pace.tables_are_bound(), pace.is_draining());
            let take = Take::Arrived { cap, now, events };
            let has_arrived = !draining
                && self
                    .entrances
                    .feeds
                    .iter()
                    .any(|feed| feed.has_arrived(now, events));
            let takes = has_arrived && count < epoch_cap && self.may_take();
            if takes {
                count += self.fill(epoch, take);
            }
            let wakes = !draining && self.wakes(take) && self.entrances.clocks.borrow().complete < epoch;
            if wakes {
                // The floor of a partition that wakes in this epoch is known when everybody has closed the one before.
                pace.want(epoch);
                self.turn(true)?;
                continue;
            }
            // Once everything is bound, an epoch is wanted that may take events.
            let holds = !self.share.is_empty() || (bound && !events);
            let Some(advance) = pace.advance(index, holds, now) else {
                // What has arrived and may not be taken yet is no reason to stay awake.
                self.turn(!takes)?;
                continue;
            };
            if !self.share.is_empty() || advance.cut == Some(epoch) {
                self.close(epoch, advance.cut == Some(epoch));
            }
            if let Some(cut) = advance.cut.filter(|cut| *cut > epoch) {
                self.advance_to(cut);
                self.close(cut, true);
            }
            // Everything up to the new epoch is closed, whether or not there was anything in it.
            if self.closed.is_none_or(|closed| closed < advance.to - 1) {
                self.advance_to(advance.to - 1);
                self.close(advance.to - 1, false);
            }
            self.advance_to(advance.to);
            (epoch, count, events) = (advance.to, 0, advance.events);
            if advance.is_last {
                return Ok(());
            }
            self.turn(false)?;
        }
    }

    /// Live: partitions found since `known` of them were taken up. The first worker declares them in its open
    /// epoch; their owners read them for later ones. Gives how many are taken up now.
    fn take_up_found(&mut self, epoch: Epoch, known: usize) -> usize {
        let (index, peers) = (self.worker.index(), self.worker.peers());
        let mut found = self.shared.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken_up = known;
        for partition in found.iter_mut().skip(known) {
            let input = &self.plan.inputs[usize::from(partition.input)];
            if index == 0 {
                self.share
                    .push(declaration(input, partition.partition, &partition.name, 0, true));
                partition.declared = Some(epoch);
                self.shared.declared(partition);
            }
            if partition.declared.is_none() {
                break;
            }
            taken_up += 1;
            if owner(partition.input, partition.partition, peers) == index {
                let clock = PartitionClock {
                    idle: true,
                    ..PartitionClock::default()
                };
                let (path, declared) = (input.place.path(&partition.name), partition.declared);
                let start = Start {
                    path,
                    clock,
                    declared,
                    ..Start::default()
                };
                let of_input = |feed: &&mut Box<dyn Feed>| feed.settings().index == partition.input;
                if let Some(feed) = self.entrances.feeds.iter_mut().find(of_input) {
                    feed.add_partition(partition.partition, start, Vec::new());
                }
            }
        }
        taken_up
    }

    /// Takes in what the reader has, asks for more, and steps the dataflow; `may_park` if there is nothing
    /// else to do.
    fn turn(&mut self, may_park: bool) -> std::result::Result<(), Stopped> {
        let mut arrived = false;
        while let Ok(answer) = self.answers.try_recv() {
            arrived = true;
            match answer {
                Ok(arrival) => {
                    let of_input = |feed: &&mut Box<dyn Feed>| feed.settings().index == arrival.input;
                    if let Some(feed) = self.entrances.feeds.iter_mut().find(of_input) {
                        feed.arrived(arrival, now());
                    }
                }
                Err(error) => return self.fail(error),
            }
        }
        let mut requests = Vec::new();
        for feed in &mut self.entrances.feeds {
            self.requests.log(feed.as_mut());
            feed.request(&mut requests);
            let skipped = feed.skipped();
            if skipped > 0 {
                self.shared.metrics.skipped.fetch_add(skipped, Ordering::Relaxed);
            }
        }
        for request in requests {
            self.requests.send(request);
        }
        if self.shared.has_failed() {
            return Err(Stopped);
        }
        let park = match may_park && !arrived {
            true => self.park(),
            false => Duration::ZERO,
        };
        watchdog::stepping();
        self.worker.step_or_park(Some(park));
        if !park.is_zero() {
            // A call that may park schedules nothing.
            self.worker.step();
        }
        watchdog::turned();
        let sealed = self.shared.metrics.sealed.load(Ordering::Relaxed);
        while let Some((epoch, count)) = self.in_flight.front() {
            if *epoch > sealed {
                break;
            }
            self.records_in_flight -= count;
            self.in_flight.pop_front();
        }
        Ok(())
    }

    /// How long there may be nothing to do. Live, only the clock comes without a wake-up, and room in the
    /// pipeline, which may wait as long.
    fn park(&self) -> Duration {
        match self.shared.pace.until_due(now()) {
            Some(due) => due.min(limits::PARK_LIVE),
            None => limits::PARK,
        }
    }

    /// Whether the pipeline has room for more.
    fn may_take(&self) -> bool {
        let queued = self.shared.metrics.queued_bytes.load(Ordering::Relaxed);
        self.records_in_flight < limits::IN_FLIGHT_RECORDS / self.worker.peers()
            && self.in_flight.len() < limits::IN_FLIGHT_EPOCHS
            && queued < limits::IN_FLIGHT_BYTES
            && self.shared.metrics.waiting.load(Ordering::Relaxed) < limits::IN_FLIGHT_EPOCHS
    }

    fn wakes(&self, take: Take<'_>) -> bool {
        self.entrances.feeds.iter().any(|feed| feed.wakes(take))
    }

    /// Fills the open epoch; gives the number of messages.
    fn fill(&mut self, epoch: Epoch, take: Take<'_>) -> usize {
        let Entrances {
            feeds,
            dead_letters,
            clocks,
            ..
        } = &mut self.entrances;
        let clocks = clocks.borrow();
        let mut count = 0;
        for feed in feeds {
            let watermark_before = clocks.before(epoch, feed.settings().index);
            let mut filling = Filling {
                epoch,
                watermark_before,
                dead_letters,
                share: &mut self.share,
            };
            count += feed.fill(take, &mut filling);
        }
        if count > 0 {
            if self.in_flight.back().is_none_or(|(last, _)| *last != epoch) {
                self.shared.taken(epoch);
            }
            self.shared
                .metrics
                .messages_in
                .fetch_add(count as u64, Ordering::Relaxed);
            let latest = self
                .share
                .iter()
                .filter_map(|share| share.as_of)
                .max()
                .unwrap_or(i64::MIN);
            self.shared
                .metrics
                .event_time
                .fetch_max(latest, Ordering::Relaxed);
            self.records_in_flight += count;
            self.in_flight.push_back((epoch, count));
        }
        count
    }

    /// Says what the open epoch contains.
    fn close(&mut self, epoch: Epoch, cut: bool) {
        let partitions = joined(std::mem::take(&mut self.share));
        let worker = u32::try_from(self.worker.index()).unwrap_or(u32::MAX);
        self.entrances.shares.send(Share {
            epoch,
            worker,
            partitions,
            cut,
        });
        self.closed = Some(epoch);
    }

    /// Closes all epochs below.
    fn advance_to(&mut self, epoch: Epoch) {
        self.entrances
            .feeds
            .iter_mut()
            .for_each(|feed| feed.advance_to(epoch));
        if *self.entrances.dead_letters.time() < epoch {
            self.entrances.dead_letters.advance_to(epoch);
        }
        if *self.entrances.shares.time() < epoch {
            self.entrances.shares.advance_to(epoch);
        }
    }

    fn fail<T>(&self, error: crate::error::Error) -> std::result::Result<T, Stopped> {
        self.shared.fail(error);
        Err(Stopped)
    }
}

/// One entry per partition, from the first start to the last end.
fn joined(shares: Vec<PartitionBinding>) -> Vec<PartitionBinding> {
    let mut joined = BTreeMap::<_, PartitionBinding>::new();
    for share in shares {
        match joined.entry((share.input, share.partition)) {
            Entry::Vacant(entry) => drop(entry.insert(share)),
            Entry::Occupied(mut entry) => {
                let so_far = entry.get_mut();
                so_far.end = share.end;
                so_far.greatest = share.greatest;
                so_far.as_of = share.as_of;
                so_far.floor = so_far.floor.max(share.floor);
                so_far.idle = share.idle;
                so_far.ended |= share.ended;
                match (&mut so_far.kept, share.kept) {
                    (Some(Kept::Inline(texts)), Some(Kept::Inline(more))) => texts.extend(more),
                    (so_far, more) => *so_far = so_far.take().or(more),
                }
            }
        }
    }
    joined.into_values().collect()
}
