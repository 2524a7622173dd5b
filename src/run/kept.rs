//! Messages that bindings keep: small ones in the binding, large ones as objects of the state store.
//!
//! A table's topic is compacted, so the messages of a recorded epoch may be gone when it is replayed. They are
//! durable before any shard commits the epoch: the committer puts what is too large for a record
//! ([`INLINE_BYTES`]) into the store first, under a name of its own (generation, epoch, input, partition), and
//! the binding then names the object.

use crate::checkpoint::binding::{Binding, Kept};
use crate::checkpoint::store::{self, Published, Store};
use crate::error::{Error, Kind, Result};
use crate::sink::SealedEpoch;
use crate::time::Epoch;

/// Kept messages of an epoch's partition up to this size stay in the binding, bytes of text.
const INLINE_BYTES: usize = 32 << 10;

/// Where they lie in the store: `kept/{epoch}-{generation}-{input}-{partition}`.
const FOLDER: &str = "kept";

/// Puts what is too large for a record into the store.
pub fn put_away(store: &dyn Store, generation: u64, epochs: &mut [SealedEpoch]) -> Result<()> {
    for sealed in epochs {
        let epoch = sealed.epoch;
        for share in &mut sealed.binding.partitions {
            let Some(Kept::Inline(texts)) = &share.kept else {
                continue;
            };
            if texts.iter().map(String::len).sum::<usize>() <= INLINE_BYTES {
                continue;
            }
            let name = format!(
                "{FOLDER}/{epoch:020}-{generation}-{}-{}",
                share.input, share.partition
            );
            // Another shard's committer puts the same bytes.
            if store::publish(store, &name, texts.join("\n").as_bytes())? == Published::Theirs {
                return Err(Error::new(
                    Kind::AnotherInstance,
                    format!("{name} was written by another instance"),
                ));
            }
            share.kept = Some(Kept::Object(name));
        }
    }
    Ok(())
}

/// Fetches what was put away, for a replay.
pub fn fetch(store: &dyn Store, bindings: &mut [Binding]) -> Result<()> {
    for share in bindings.iter_mut().flat_map(|binding| &mut binding.partitions) {
        if let Some(Kept::Object(name)) = &share.kept {
            let missing = || {
                Error::new(
                    Kind::StateDamaged,
                    format!("{name}, which a binding names, is missing"),
                )
            };
            let bytes = store::fetch(store, name)?.ok_or_else(missing)?;
            let text = String::from_utf8(bytes).map_err(|_| missing())?;
            share.kept = Some(Kept::Inline(text.lines().map(str::to_owned).collect()));
        }
    }
    Ok(())
}

/// Deletes what was kept of epochs up to this one.
pub fn collect(store: &dyn Store, oldest: Epoch) -> Result<()> {
    for name in store::names(store, FOLDER)? {
        let epoch = name
            .split('-')
            .next()
            .and_then(|epoch| epoch.parse::<Epoch>().ok());
        if epoch.is_some_and(|epoch| epoch <= oldest) {
            // One that is left over is deleted next time.
            let _ = store.delete(&format!("{FOLDER}/{name}"));
        }
    }
    Ok(())
}
