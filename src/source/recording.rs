//! A partition's part in the replay log: what was decoded goes in, full blocks come out.
//!
//! A record may be late in one replay and in time in another: that depends on the span, and here nothing may.
//! So the bytes of every record are kept that lies at or behind a watermark no replay exceeds that begins no
//! earlier: that of *all* records since here, in the span or not. Where a floor or `max_jump_ms` may turn
//! anyone away, everything is kept; so is what bindings keep of a table's topic.
//!
//! What is not logged: a line that a finite run counts without its LF, and what follows it. Where the file has
//! grown since, another reader sees another line there.

use super::InputSettings;
use super::item::Raw;
use crate::format::json::{self, Rejected};
use crate::limits::DEAD_LETTER_VALUE_BYTES;
use crate::record::Record;
use crate::replay_log::{Builder, Encoded, Original};
use crate::time::{AFTER_ALL, Millis};

/// See the [module](self).
pub(super) struct Recording<R: Record> {
    builder: Builder<R>,
    /// Greatest event time of all valid records since here, and of what was taken before.
    greatest: Option<Millis>,
    /// Blocks that wait to be fetched.
    blocks: Vec<Encoded>,
}

impl<R: Record> Recording<R> {
    /// Of a partition from this offset on; `greatest`: among the records before it, where that is known.
    pub(super) fn new(start: u64, greatest: Option<Millis>) -> Self {
        Recording {
            builder: Builder::new(start),
            greatest,
            blocks: Vec::new(),
        }
    }

    /// A message was decoded. `least`: its watermark is not below.
    pub(super) fn push(
        &mut self,
        raw: Raw<'_>,
        outcome: &Result<json::Message<R>, Rejected>,
        least: Millis,
        settings: &InputSettings,
    ) {
        let watermark = watermark(self.greatest, least, settings);
        let event_time = event_time(outcome);
        let is_kept = settings.keeps_messages() || event_time.is_some_and(|time| time <= watermark);
        let shown = |value: Option<&'_ [u8]>| -> usize {
            let most = if settings.keeps_messages() {
                usize::MAX
            } else {
                DEAD_LETTER_VALUE_BYTES
            };
            value.map_or(0, <[u8]>::len).min(most)
        };
        let (key, value) = match (raw, outcome) {
            (Raw::Message(message), Err(_)) => {
                let length = shown(message.value);
                (message.key, message.value.map(|value| &value[..length]))
            }
            (Raw::Line(line), Err(Rejected::Undecodable { .. })) => {
                (None, Some(&line.bytes[..shown(Some(line.bytes))]))
            }
            (Raw::Line(_), Err(Rejected::Invalid { key, value, .. })) => (key.as_deref(), value.as_deref()),
            (Raw::Message(_) | Raw::Line(_), Ok(_)) if is_kept => (None, raw.value()),
            (Raw::Message(_) | Raw::Line(_), Ok(_)) => (None, None),
        };
        let timestamp = match raw {
            // Only tables go by it.
            _ if !settings.is_table => None,
            Raw::Message(message) => message.timestamp,
            Raw::Line(_) => outcome.as_ref().ok().and_then(|message| message.timestamp),
        };
        let (offset, end) = (raw.offset(), raw.end());
        let original = Original {
            offset,
            end,
            timestamp,
            key,
            value,
        };
        self.builder.push(original, outcome, watermark);
        self.saw(event_time);
        if self.builder.is_full() {
            self.finish();
        }
    }

    /// A valid record of this event time has passed.
    pub(super) fn saw(&mut self, event_time: Option<Millis>) {
        self.greatest = self.greatest.max(event_time);
    }

    /// There is no message up to this offset that was not pushed.
    pub(super) fn reach(&mut self, end: u64) {
        self.builder.reach(end);
    }

    /// Whatever is pushed next begins at this offset; between here and there the log has a hole.
    pub(super) fn restart(&mut self, start: u64) {
        self.finish();
        self.builder.restart(start);
    }

    /// Closes the block that is being written.
    pub(super) fn finish(&mut self) {
        self.blocks.extend(self.builder.finish());
    }

    /// The blocks that were finished since this was last asked.
    pub(super) fn take(&mut self) -> Vec<Encoded> {
        std::mem::take(&mut self.blocks)
    }
}

/// The event time of a valid record.
pub(super) fn event_time<R: Record>(outcome: &Result<json::Message<R>, Rejected>) -> Option<Millis> {
    outcome.as_ref().ok()?.value.as_ref()?.event_time()
}

/// A watermark that the next message's is not above, given the greatest event time before it.
pub(super) fn watermark(greatest: Option<Millis>, least: Millis, settings: &InputSettings) -> Millis {
    if settings.max_jump_ms.is_some() {
        return AFTER_ALL;
    }
    let own = greatest.map(|time| time.saturating_sub(settings.max_out_of_orderness_ms));
    own.map_or(least, |own| own.max(least))
}
