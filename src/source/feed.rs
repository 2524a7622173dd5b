//! One worker's partitions of one input, and the timely input they fill.

use super::cache::Decoded;
use super::partition::{PartitionFeed, Start, Taken};
use super::{Arrival, Feed, Filling, Held, InputSettings, Place, Request, Take, UpdateHandle};
use crate::checkpoint::binding::PartitionBinding;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::record::{Record, Stamped, Write};
use crate::replay_log;
use crate::time::Epoch;
use std::collections::BTreeMap;
use std::time::Instant;

/// The timely input of an input, by what it is.
pub enum Entrance<R: Record> {
    /// Records with event time.
    Records(UpdateHandle<Stamped<R>>),
    /// Writes to a table.
    Writes(UpdateHandle<Write<R>>),
}

/// See the [module](self).
pub struct InputFeed<R: Record> {
    settings: InputSettings,
    entrance: Entrance<R>,
    partitions: BTreeMap<u32, PartitionFeed<R>>,
    /// Epochs are cut by the data and the end of a file is the end of its partition.
    finite: bool,
    /// Recorded epochs are being taken again, until [`Feed::begin`].
    replaying: bool,
    /// Messages a partition decodes ahead.
    ahead: usize,
    /// Of the record, for the replay log.
    layout: u64,
}

impl<R: Record> InputFeed<R> {
    /// A feed without partitions.
    pub fn new(settings: InputSettings, entrance: Entrance<R>, finite: bool, ahead: usize) -> Self {
        InputFeed {
            settings,
            entrance,
            partitions: BTreeMap::new(),
            finite,
            replaying: true,
            ahead,
            layout: replay_log::layout::<R>(),
        }
    }
}

impl<R: Record> Feed for InputFeed<R> {
    fn settings(&self) -> &InputSettings {
        &self.settings
    }

    fn add_partition(&mut self, partition: u32, from: Start, recorded: Vec<u64>) {
        let (finite, replaying) = (self.finite, self.replaying);
        let feed = PartitionFeed::new(partition, from, recorded, &self.settings, finite, replaying);
        self.partitions.insert(partition, feed);
    }

    fn begin(&mut self, declared: &[PartitionBinding]) {
        self.replaying = false;
        for (number, partition) in &mut self.partitions {
            let of =
                |share: &&PartitionBinding| (share.input, share.partition) == (self.settings.index, *number);
            partition.begin(declared.iter().find(of));
        }
    }

    fn arrived(&mut self, arrival: Arrival, now: Instant) {
        if let Some(partition) = self.partitions.get_mut(&arrival.partition) {
            debug_assert_eq!(partition.read_to, arrival.offset, "blocks arrive in order");
            partition.arrived(arrival.bytes, arrival.at_end, now, &self.settings);
        }
    }

    fn request(&mut self, requests: &mut Vec<Request>) {
        let bytes = (limits::READ_AHEAD_BYTES / self.partitions.len().max(1))
            .clamp(limits::BLOCK_BYTES_MIN, limits::BLOCK_BYTES);
        // What bindings keep is not asked for while they are replayed; nor is a log, before it is known how late
        // a record may be, for what no binding wants.
        let (replaying, settings) = (self.replaying, &self.settings);
        let waits = |partition: &PartitionFeed<R>| {
            replaying && (settings.keeps_messages() || settings.log.is_some() && !partition.is_recorded())
        };
        for partition in self.partitions.values_mut().filter(|partition| !waits(partition)) {
            if partition.asked || partition.queued() > self.ahead || partition.has_ended() {
                continue;
            }
            partition.asked = true;
            requests.push(Request {
                input: self.settings.index,
                partition: partition.number,
                path: partition.path.clone(),
                offset: partition.read_to,
                bytes,
                at_end: partition.at_end.is_some(),
                upto: None,
                log: partition.log_ask(self.layout, &self.settings),
            });
        }
    }

    fn held(&self, cap: usize, most: usize) -> Held {
        let each = self
            .partitions
            .values()
            .map(|partition| partition.held(cap, most, &self.settings));
        each.fold(Held::NOTHING, Held::join)
    }

    fn has(&mut self, recorded: &[PartitionBinding]) -> Result<bool> {
        for share in recorded.iter().filter(|share| share.input == self.settings.index) {
            let Some(partition) = self.partitions.get_mut(&share.partition) else {
                continue;
            };
            if self.settings.keeps_messages() {
                if !partition.replay_kept(share, &self.settings)? {
                    return Ok(false);
                }
                continue;
            }
            if partition.has(share.end) {
                continue;
            }
            if partition.at_end.is_some() {
                let (end, read) = (share.end, partition.read_to);
                let what = match partition.path.as_os_str().is_empty() {
                    true => format!("{}/{}", self.settings.name, share.partition),
                    false => partition.path.display().to_string(),
                };
                let message = format!(
                    "{what}: ends at {read}, but {end} of it was committed: truncated or replaced; restore it"
                );
                return Err(Error::new(Kind::InputGone, message));
            }
            return Ok(false);
        }
        Ok(true)
    }

    fn wakes(&self, take: Take<'_>) -> bool {
        let sleeping = self
            .partitions
            .values()
            .filter(|partition| partition.clock().idle);
        match take {
            Take::Recorded(_) => false,
            Take::Upto { place, .. } => sleeping.into_iter().any(|partition| partition.holds(place)),
            Take::Arrived { events, .. } => {
                (events || self.settings.is_table)
                    && sleeping.into_iter().any(|partition| partition.queued() > 0)
            }
        }
    }

    fn has_arrived(&self, now: Instant, events: bool) -> bool {
        let taken = events || self.settings.is_table;
        let news = |partition: &PartitionFeed<R>| {
            partition.queued() > 0 || partition.is_newly_idle(now, &self.settings)
        };
        taken && self.partitions.values().any(news)
    }

    fn backlog(&self) -> bool {
        self.settings.is_table && self.partitions.values().any(PartitionFeed::is_behind)
    }

    fn skipped(&mut self) -> u64 {
        let each = self.partitions.values_mut();
        each.map(|partition| std::mem::take(&mut partition.skipped)).sum()
    }

    fn decoded(&mut self) -> Vec<Decoded> {
        let input = self.settings.index;
        let each = self.partitions.values_mut().filter_map(|feed| {
            let partition = feed.number;
            let blocks = feed.recording.as_mut()?.take().into_iter();
            Some(blocks.map(move |block| Decoded {
                input,
                partition,
                block,
            }))
        });
        each.flatten().collect()
    }

    fn fill(&mut self, take: Take<'_>, filling: &mut Filling<'_>) -> usize {
        self.advance_to(filling.epoch);
        let (epoch, settings) = (filling.epoch, &self.settings);
        let mut taken = 0;
        for (number, partition) in &mut self.partitions {
            if partition.is_undeclared(epoch) {
                continue;
            }
            // The messages go out while the rest of the filling is only read.
            let mut letters = Vec::new();
            let entrance = &mut self.entrance;
            let each = |message| match (message, &mut *entrance) {
                (Taken::Record(record), Entrance::Records(handle)) => handle.send((record, epoch, 1)),
                (Taken::Write(write), Entrance::Writes(handle)) => handle.send((write, epoch, 1)),
                (Taken::Dead(letter), _) => letters.push(letter),
                (Taken::Record(_), Entrance::Writes(_)) | (Taken::Write(_), Entrance::Records(_)) => {
                    unreachable!("a table's items are writes, an event input's are records")
                }
            };
            let count = match take {
                Take::Recorded(recorded) => {
                    let mine = |share: &&PartitionBinding| {
                        (share.input, share.partition) == (settings.index, *number)
                    };
                    let Some(last) = recorded.iter().rfind(mine) else {
                        continue;
                    };
                    recorded
                        .iter()
                        .filter(mine)
                        .for_each(|share| partition.replay_floor(share));
                    let upto = last.end;
                    let (_, count) =
                        partition.take(|_, end| end <= upto, usize::MAX, false, filling, settings, each);
                    partition.replayed(last);
                    filling.share.extend(recorded.iter().filter(mine).cloned());
                    count
                }
                Take::Upto { place, cap } => {
                    let wanted = |at: Place, _| at <= place;
                    let unbound_end =
                        partition.has_ended() && partition.queued() == 0 && !partition.clock().ended;
                    if !partition.holds(place) && !unbound_end {
                        continue;
                    }
                    let (share, count) = partition.take(wanted, cap, false, filling, settings, each);
                    filling.share.extend(share);
                    count
                }
                Take::Arrived { cap, now, events } => {
                    let waits = partition.clock().idle
                        && partition.queued() > 0
                        && filling.watermark_before.is_none();
                    if waits || !(events || settings.is_table) {
                        continue;
                    }
                    let idle = partition.is_newly_idle(now, settings);
                    let (share, count) = partition.take(|_, _| true, cap, idle, filling, settings, each);
                    filling.share.extend(share);
                    count
                }
            };
            letters
                .into_iter()
                .for_each(|letter| filling.dead_letters.send(letter));
            taken += count;
        }
        taken
    }

    fn advance_to(&mut self, epoch: Epoch) {
        match &mut self.entrance {
            Entrance::Records(handle) if *handle.time() < epoch => handle.advance_to(epoch),
            Entrance::Writes(handle) if *handle.time() < epoch => handle.advance_to(epoch),
            Entrance::Records(_) | Entrance::Writes(_) => {}
        }
    }
}
