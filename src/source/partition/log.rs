//! What a partition takes from the replay log, and when it asks.
//!
//! The log is asked for the block that begins where the partition is read on, by the watermark there. Its rows go
//! the way of decoded messages. It is not asked where an earlier run has cut a line in its middle, and no longer
//! once it gave rows that cannot be: of such a block the sound head is used, the source has the rest.

use super::super::item::Parts;
use super::super::recording;
use super::super::{InputSettings, LogAsk, Medium};
use super::PartitionFeed;
use crate::format::lines::Lines;
use crate::record::Record;
use crate::replay_log::{Block, Fault, Row};

impl<R: Record> PartitionFeed<R> {
    /// Recorded epochs hold some of it.
    pub(in crate::source) fn is_recorded(&self) -> bool {
        !self.recorded.is_empty()
    }

    /// What a request wants of the replay log.
    pub(in crate::source) fn log_ask(&self, layout: u64, settings: &InputSettings) -> Option<LogAsk> {
        let watermark = recording::watermark(self.front.greatest, self.least_watermark(settings), settings);
        // Where an earlier run has cut a line, only the source can be cut again.
        let is_cut = self.is_recorded() && matches!(settings.medium, Medium::Lines);
        let asks = settings.log.is_some() && !is_cut && !self.distrusts_log;
        asks.then_some(LogAsk { layout, watermark })
    }

    /// Messages that an earlier replay has decoded.
    pub(super) fn take_rows(&mut self, mut block: Block, settings: &InputSettings) {
        if let Some(recording) = &mut self.recording {
            recording.restart(block.end());
        }
        let end = block.end();
        // No block begins within a line; one that does is not this file's.
        let follows = self.lines.complete() == self.read_to || !matches!(settings.medium, Medium::Lines);
        let is_sound = follows && self.enqueue_rows(&mut block, settings).is_ok();
        // A block that cannot be is good up to its last good row; the source has the rest.
        self.distrusts_log |= !is_sound;
        let reached = if is_sound { end } else { self.decoded_to };
        if reached > self.read_to {
            self.read_to = reached;
            self.lines = Lines::new(reached, settings.max_record_bytes);
        }
    }

    fn enqueue_rows(&mut self, block: &mut Block, settings: &InputSettings) -> Result<(), Fault> {
        let (watermark, until) = (self.least_watermark(settings), self.until.unwrap_or(u64::MAX));
        for row in block.rows::<R>()? {
            let Row { original, outcome } = row?;
            if original.offset >= until {
                break;
            }
            let event_time = recording::event_time(&outcome);
            if let Some(recording) = &mut self.recording {
                recording.saw(event_time);
            }
            self.enqueue(Parts::Logged(original), outcome, watermark, settings);
        }
        Ok(())
    }
}
