//! One partition: bytes in, decoded items in a queue, items out by position, place or arrival.
//!
//! Two clocks run here. The **front** follows what was decoded (it decides INVALID by `max_jump_ms`, and the
//! place of messages without a time of their own); the **taken** clock follows what was given to epochs (it
//! is what bindings record, and its floor is part of the watermark that records carry). Both are pure
//! functions of the log and of recorded wake-ups.

mod log;

use super::batch::{Batch, Message};
use super::item::{Content, Front, Item, Parts, Raw, judge};
use super::recording::{self, Recording};
use super::{Bytes, Filling, InputSettings, Place};
use crate::checkpoint::binding::{Kept, PartitionBinding};
use crate::error::{Error, Kind, Result};
use crate::format::json::{self, Rejected};
use crate::format::lines::{Line, Lines};
use crate::record::{DeadLetter, Origin, Record, Stamped, Write, key_hash};
use crate::time::{Millis, PartitionClock};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Instant;

/// Where a partition is read on.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Start {
    /// The file; empty for a topic.
    pub path: PathBuf,
    /// Next byte, or offset.
    pub offset: u64,
    /// Greatest as-of time before it.
    pub as_of: Option<Millis>,
    /// Its clock before it.
    pub clock: PartitionClock,
    /// Found while running: nothing is taken for epochs up to this one, which declares the partition.
    pub declared: Option<crate::time::Epoch>,
    /// Live: the table's backlog that is bound before the first event, a position.
    pub backlog: u64,
    /// The byte before `offset` is no LF: an earlier finite run counted its last line without one.
    pub mid_line: bool,
    /// Replays, of a topic: the partition ends before this offset.
    pub until: Option<u64>,
}

/// What an item becomes when an epoch takes it.
pub(super) enum Taken<R> {
    /// A record of an event input.
    Record(Stamped<R>),
    /// A write to a table.
    Write(Write<R>),
    /// A dead letter.
    Dead(DeadLetter),
}

/// See the [module](self).
pub(super) struct PartitionFeed<R: Record> {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    backlog: u64,
    lines: Lines,
    queue: VecDeque<Item<R>>,
    /// How many queued items share a place, in order.
    places: VecDeque<(Place, usize)>,
    front: Front,
    /// Position after the last decoded message.
    decoded_to: u64,
    /// Position after the last byte that was read.
    pub(super) read_to: u64,
    /// A block was asked for and is not here.
    pub(super) asked: bool,
    /// Since when the partition stands at its end.
    pub(super) at_end: Option<Instant>,
    /// A line that was counted without its LF ends here: if the file goes on with that LF, it is no line of
    /// its own.
    counted_to: Option<u64>,
    /// Positions at which a finite run has cut the last line; replay cuts there again.
    recorded: VecDeque<u64>,
    /// The clock of what was taken.
    clock: PartitionClock,
    as_of: Option<Millis>,
    taken_to: u64,
    declared: Option<crate::time::Epoch>,
    /// A replay's end of a topic's partition.
    until: Option<u64>,
    /// Messages outside the span, since the feed last asked.
    pub(super) skipped: u64,
    /// Recorded epochs are being taken again.
    replaying: bool,
    /// A finite run: the end of the file is the end of the partition.
    finite: bool,
    /// Replays with a log: what goes into it.
    pub(super) recording: Option<Recording<R>>,
    /// The log gave rows that cannot be: it is not asked again.
    distrusts_log: bool,
}

impl<R: Record> PartitionFeed<R> {
    pub(super) fn new(
        number: u32,
        start: Start,
        recorded: Vec<u64>,
        settings: &InputSettings,
        finite: bool,
        replaying: bool,
    ) -> Self {
        let greatest = start.clock.greatest;
        PartitionFeed {
            number,
            path: start.path,
            backlog: start.backlog,
            lines: Lines::new(start.offset, settings.max_record_bytes),
            queue: VecDeque::new(),
            places: VecDeque::new(),
            front: Front {
                greatest: start.clock.greatest,
                as_of: start.as_of,
                writer: None,
                // Whatever was taken of a partition was in the span, and so is what goes with it.
                in_span: start.offset > 0 || settings.span.is_none_or(|span| span.from.is_none()),
            },
            decoded_to: start.offset,
            read_to: start.offset,
            asked: false,
            at_end: None,
            counted_to: start.mid_line.then_some(start.offset),
            recorded: recorded.into(),
            clock: start.clock,
            as_of: start.as_of,
            taken_to: start.offset,
            declared: start.declared,
            until: start.until,
            skipped: 0,
            replaying,
            finite,
            recording: settings
                .log
                .as_ref()
                .map(|_| Recording::new(start.offset, greatest)),
            distrusts_log: false,
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn clock(&self) -> &PartitionClock {
        &self.clock
    }

    /// Everything up to this position is decoded.
    pub(super) fn has(&self, end: u64) -> bool {
        self.decoded_to >= end
    }

    /// Found while running, and its declaration is not older than this epoch.
    pub(super) fn is_undeclared(&self, epoch: crate::time::Epoch) -> bool {
        self.declared.is_some_and(|declared| epoch <= declared)
    }

    /// Decodes what has arrived.
    pub(super) fn arrived(&mut self, bytes: Bytes, at_end: bool, now: Instant, settings: &InputSettings) {
        self.asked = false;
        let is_empty = bytes.is_empty();
        match bytes {
            Bytes::Lines(bytes) => self.decode_lines(&bytes, at_end, settings),
            Bytes::Messages(batch) => self.decode_batch(&batch, settings),
            Bytes::Rows(block) => self.take_rows(block, settings),
        }
        let at_end = at_end || self.until.is_some_and(|until| self.read_to >= until);
        if is_empty || !at_end {
            self.at_end = at_end.then_some(self.at_end.unwrap_or(now));
        } else {
            self.at_end = Some(now);
        }
        if let Some(recording) = self.recording.as_mut().filter(|_| at_end) {
            recording.finish();
        }
    }

    /// Of a table's topic: an epoch's messages as its binding has kept them, for the topic may have lost them.
    /// False: schemas that it takes are on their way.
    pub(super) fn replay_kept(
        &mut self,
        recorded: &PartitionBinding,
        settings: &InputSettings,
    ) -> Result<bool> {
        let (input, number) = (&settings.name, self.number);
        let damaged = || {
            let message = format!(
                "the messages kept of {input}/{number} up to {} are damaged",
                recorded.end
            );
            Error::new(Kind::StateDamaged, message)
        };
        if recorded.end <= self.read_to {
            return Ok(true);
        }
        match &recorded.kept {
            Some(Kept::Inline(texts)) => {
                let batches = texts
                    .iter()
                    .map(|text| Batch::from_text(text).ok_or_else(damaged));
                let batches = batches.collect::<Result<Vec<_>>>()?;
                let mut values = batches
                    .iter()
                    .flat_map(|batch| batch.messages().map(|message| message.value));
                if !values.all(|value| settings.medium.is_settled(value)) {
                    return Ok(false);
                }
                batches
                    .iter()
                    .for_each(|batch| self.decode_batch(batch, settings));
            }
            Some(Kept::Object(_)) => return Err(damaged()),
            None => {}
        }
        self.read_to = recorded.end;
        Ok(true)
    }

    /// At the end of a finite partition the last line counts without its LF.
    fn decode_lines(&mut self, bytes: &[u8], at_end: bool, settings: &InputSettings) {
        let mut rest = bytes;
        // Positions that a run before has cut are cut again, wherever the file has grown since.
        while let Some(&cut) = self.recorded.front() {
            let upto = cut.saturating_sub(self.read_to);
            if upto > rest.len() as u64 {
                break;
            }
            self.recorded.pop_front();
            let (head, tail) = rest.split_at(usize::try_from(upto).unwrap_or(rest.len()));
            self.cut_lines(head, true, settings);
            rest = tail;
        }
        let is_last = at_end && self.finite && self.recorded.is_empty();
        self.cut_lines(rest, is_last, settings);
    }

    fn decode_batch(&mut self, batch: &Batch, settings: &InputSettings) {
        let watermark = self.least_watermark(settings);
        let until = self.until.unwrap_or(u64::MAX);
        for message in batch.messages().take_while(|message| message.offset < until) {
            self.decode(Raw::Message(message), watermark, true, settings);
        }
        self.read_to = self.read_to.max(batch.end);
        if let Some(recording) = &mut self.recording {
            recording.reach(batch.end.min(until));
        }
    }

    /// Whoever may turn out late keeps its bytes: a floor that is not known yet may make anyone late.
    fn least_watermark(&self, settings: &InputSettings) -> Millis {
        match self.replaying || self.clock.idle {
            true => crate::time::AFTER_ALL,
            false => self.clock.watermark(settings.max_out_of_orderness_ms),
        }
    }

    /// `is_logged`: another reader of the partition would see the same message there.
    fn decode(&mut self, raw: Raw<'_>, watermark: Millis, is_logged: bool, settings: &InputSettings) {
        let decoded = raw.decode::<R>(&mut self.front, settings);
        match &mut self.recording {
            Some(recording) if is_logged => recording.push(raw, &decoded, watermark, settings),
            Some(recording) => {
                recording.saw(recording::event_time(&decoded));
                recording.restart(raw.end());
            }
            None => {}
        }
        self.enqueue(Parts::Raw(raw), decoded, watermark, settings);
    }

    fn enqueue(
        &mut self,
        parts: Parts<'_>,
        decoded: std::result::Result<json::Message<R>, Rejected>,
        watermark: Millis,
        settings: &InputSettings,
    ) {
        self.decoded_to = parts.end();
        let judged = judge::<R>(parts, decoded, self.number, &mut self.front, watermark, settings);
        let Some(item) = judged else {
            self.skipped += 1;
            return;
        };
        match self.places.back_mut() {
            Some((place, count)) if *place == item.place => *count += 1,
            _ => self.places.push_back((item.place, 1)),
        }
        self.queue.push_back(item);
    }

    fn cut_lines(&mut self, bytes: &[u8], is_last: bool, settings: &InputSettings) {
        self.read_to += bytes.len() as u64;
        let mut lines = std::mem::replace(&mut self.lines, Lines::new(0, 0));
        let watermark = self.least_watermark(settings);
        let mut each = |line: Line<'_>, has_end: bool| {
            let follows_counted = self.counted_to == Some(line.offset);
            if line.bytes.is_empty() && follows_counted {
                self.decoded_to = line.end;
                if let Some(recording) = &mut self.recording {
                    recording.restart(line.end);
                }
                return;
            }
            self.decode(Raw::Line(line), watermark, has_end && !follows_counted, settings);
        };
        lines.feed(bytes, |line| each(line, true));
        if is_last {
            let before = lines.complete();
            lines.end(|line| each(line, false));
            if lines.complete() > before {
                self.counted_to = Some(lines.complete());
            }
        }
        self.lines = lines;
    }

    /// No more will come: everything is decoded and the end of the finite partition is known.
    pub(super) fn has_ended(&self) -> bool {
        self.finite && self.at_end.is_some()
    }

    /// Places whose messages are all here and fit into one epoch of `cap`, and the first of which that is not
    /// known.
    pub(super) fn held(&self, cap: usize, most: usize, settings: &InputSettings) -> super::Held {
        let mut complete = Vec::new();
        for (index, (place, count)) in self.places.iter().enumerate() {
            let is_complete = index + 1 < self.places.len() || self.has_ended();
            if !is_complete || *count > cap || complete.len() == most {
                return super::Held {
                    complete,
                    next: *place,
                    ready: is_complete || *count > cap,
                };
            }
            complete.push(*place);
        }
        if self.has_ended() {
            if self.queue.is_empty() && !self.clock.ended {
                // Its end is news, even if no message of it ever was: it is bound with the run's first place.
                complete.push(settings.place(None));
            }
            return super::Held {
                complete,
                next: Place::END,
                ready: true,
            };
        }
        // Nothing decoded, not at the end: whatever comes is not before the last taken message.
        let next = settings.place(self.as_of);
        super::Held {
            complete,
            next,
            ready: false,
        }
    }

    /// Whether an epoch up to `place` takes anything.
    pub(super) fn holds(&self, place: Place) -> bool {
        self.queue.front().is_some_and(|item| item.place <= place)
    }

    /// Live: messages of the backlog at start are not yet taken.
    pub(super) fn is_behind(&self) -> bool {
        let unread = self.read_to < self.backlog && self.at_end.is_none();
        unread || self.queue.front().is_some_and(|item| item.end <= self.backlog)
    }

    /// Live: the partition should be declared idle.
    pub(super) fn is_newly_idle(&self, now: Instant, settings: &InputSettings) -> bool {
        let timed_out = |since: Instant| {
            settings
                .idle_timeout
                .is_some_and(|limit| now.duration_since(since) >= limit)
        };
        !self.finite && !self.clock.idle && self.queue.is_empty() && self.at_end.is_some_and(timed_out)
    }

    /// Takes at most `cap` items that satisfy `wanted`, and gives the partition's share of the binding, none
    /// if nothing changed. `idle`: the partition is idle from this epoch on.
    pub(super) fn take(
        &mut self,
        wanted: impl Fn(Place, u64) -> bool,
        cap: usize,
        idle: bool,
        filling: &Filling<'_>,
        settings: &InputSettings,
        mut each: impl FnMut(Taken<R>),
    ) -> (Option<PartitionBinding>, usize) {
        let start = self.taken_to;
        let mut floor = None;
        let mut kept = Batch::default();
        let mut count = 0;
        while count < cap {
            if !self
                .queue
                .front()
                .is_some_and(|item| wanted(item.place, item.end))
            {
                break;
            }
            if self.clock.idle {
                self.clock.idle = false;
                floor = filling.watermark_before;
                self.clock.floor = self.clock.floor.max(floor);
            }
            let Some(item) = self.queue.pop_front() else { break };
            count += 1;
            if let Some((_, left)) = self.places.front_mut() {
                *left -= 1;
                if *left == 0 {
                    self.places.pop_front();
                }
            }
            self.clock.greatest = item.greatest_before;
            let watermark = self.clock.watermark(settings.max_out_of_orderness_ms);
            (self.clock.greatest, self.as_of, self.taken_to) = (item.greatest, item.as_of, item.end);
            if let Some(parts) = item.kept.filter(|_| !self.replaying) {
                kept.push(Message {
                    offset: parts.offset,
                    timestamp: item.timestamp,
                    key: parts.key.as_deref(),
                    value: parts.value.as_deref(),
                });
            }
            each(match item.content {
                Content::Record {
                    key,
                    offset,
                    raw,
                    value,
                } => {
                    let raw = raw.filter(|_| value.event_time().is_some_and(|time| time <= watermark));
                    let origin = Origin {
                        partition: self.number,
                        offset,
                    };
                    Taken::Record(Stamped {
                        hash: key_hash(key.as_bytes()),
                        key,
                        origin,
                        watermark,
                        raw,
                        value,
                    })
                }
                Content::Write(write) => Taken::Write(write),
                Content::Dead(letter) => Taken::Dead(letter),
            });
        }
        // A recorded epoch ends a partition only if it did then.
        let ended = !self.replaying && self.has_ended() && self.queue.is_empty() && !self.clock.ended;
        self.clock.ended |= ended;
        self.clock.idle |= idle;
        let changed = count > 0 || ended || idle;
        let binding = PartitionBinding {
            input: settings.index,
            partition: self.number,
            start,
            end: self.taken_to,
            greatest: self.clock.greatest,
            as_of: self.as_of,
            floor,
            idle: self.clock.idle,
            ended,
            path: None,
            kept: (!kept.is_empty()).then(|| Kept::Inline(vec![kept.to_text()])),
        };
        (changed.then_some(binding), count)
    }

    /// All recorded epochs are taken. `declared`: what the first new epoch says of the partition.
    pub(super) fn begin(&mut self, declared: Option<&PartitionBinding>) {
        self.replaying = false;
        if let Some(declared) = declared {
            self.clock.idle = declared.idle;
            self.clock.floor = self.clock.floor.max(declared.floor);
        }
    }

    /// Takes over what a recorded binding says beside its messages.
    pub(super) fn replayed(&mut self, recorded: &PartitionBinding) {
        self.clock.idle = recorded.idle;
        self.clock.ended |= recorded.ended;
    }

    /// Before a recorded epoch is taken: the floor that the wake-up got then.
    pub(super) fn replay_floor(&mut self, recorded: &PartitionBinding) {
        self.clock.floor = self.clock.floor.max(recorded.floor);
        self.clock.idle = false;
    }
}
