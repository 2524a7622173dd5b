//! Where the per-record operators keep their state: slots found by a hash they carry, timers by event time,
//! state rows.
//!
//! ```text
//!  hash ─► table of links ─► slots: one per key ─► changed: those of the next checkpoint
//!                              ▲
//!  watermark ─► timers ────────┘  which slots have something due
//! ```
//!
//! Nothing here is visited unless it changed or became due, so a million open slots or pending timers cost an
//! epoch nothing. A freed slot is used again; a timer that outlives its slot only makes its operator look at
//! another one, which finds nothing due there.

use crate::checkpoint::row::StateRow;
use crate::time::Millis;
use hashbrown::HashTable;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

/// The state of one key, or of whatever an operator groups by. The default is a free slot: it holds nothing.
pub(super) trait Slot: Default {
    /// The hash it is found by.
    fn hash(&self) -> u64;
}

/// What the table holds of a slot.
struct Link {
    /// The high half of its hash. The table goes by the low half, so unlike slots hardly ever agree in both.
    tag: u32,
    slot: u32,
}

#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Slots by hash.
pub(super) struct Slots<S> {
    table: HashTable<Link>,
    slots: Vec<S>,
    free: Vec<u32>,
    /// The slots touched since the last checkpoint, each once: `listed` says which are in.
    changed: Vec<u32>,
    listed: Vec<bool>,
}

impl<S> Default for Slots<S> {
    fn default() -> Self {
        Slots {
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            changed: Vec::new(),
            listed: Vec::new(),
        }
    }
}

impl<S: Slot> Slots<S> {
    /// A slot whose hash agrees with this one as far as the table knows: almost always the one it is of. The
    /// slot itself is not looked at, so that many can be asked for before the first has to come from memory.
    #[inline]
    pub fn likely(&self, hash: u64) -> Option<u32> {
        let link = self.table.find(hash, |link| link.tag == tag(hash));
        link.map(|link| link.slot)
    }

    /// The slot of this hash that `is` the wanted one, or else the one that `make` gives.
    #[inline]
    pub fn find_or_insert(&mut self, hash: u64, is: impl Fn(&S) -> bool, make: impl FnOnce() -> S) -> u32 {
        let slots = &self.slots;
        match self.table.find(hash, |link| {
            link.tag == tag(hash) && is(&slots[link.slot as usize])
        }) {
            Some(link) => link.slot,
            None => self.insert(hash, make()),
        }
    }

    fn insert(&mut self, hash: u64, slot: S) -> u32 {
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.listed.push(false);
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 slots fit in memory")
            }
        };
        let (tag, slots) = (tag(hash), &self.slots);
        let link = Link { tag, slot: at };
        self.table
            .insert_unique(hash, link, |link| slots[link.slot as usize].hash());
        at
    }

    /// Frees a slot and gives what it held.
    pub fn remove(&mut self, at: u32) -> S {
        let hash = self.slots[at as usize].hash();
        if let Ok(entry) = self.table.find_entry(hash, |link| link.slot == at) {
            entry.remove();
            self.free.push(at);
        }
        std::mem::take(&mut self.slots[at as usize])
    }

    /// Takes all slots out, free ones too, and keeps their memory.
    pub fn drain(&mut self) -> impl Iterator<Item = S> {
        self.table.clear();
        self.free.clear();
        self.changed.clear();
        self.listed.clear();
        self.slots.drain(..)
    }

    /// Notes that a slot has changed since the last checkpoint.
    #[inline]
    pub fn touch(&mut self, at: u32) {
        if !std::mem::replace(&mut self.listed[at as usize], true) {
            self.changed.push(at);
        }
    }

    /// The slots touched since the last call, some of which may be free by now or used again.
    pub fn take_changed(&mut self) -> Vec<u32> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().for_each(|&at| self.listed[at as usize] = false);
        changed
    }
}

impl<S> Index<u32> for Slots<S> {
    type Output = S;
    #[inline]
    fn index(&self, at: u32) -> &S {
        &self.slots[at as usize]
    }
}

impl<S> IndexMut<u32> for Slots<S> {
    #[inline]
    fn index_mut(&mut self, at: u32) -> &mut S {
        &mut self.slots[at as usize]
    }
}

/// Which slots have something due when the watermark reaches an event time. Only what is due is ever looked
/// at.
#[derive(Default)]
pub(super) struct Timers(BTreeMap<Millis, Vec<u32>>);

impl Timers {
    /// The slot has something due at `time`.
    pub fn add(&mut self, time: Millis, slot: u32) {
        let slots = self.0.entry(time).or_default();
        if slots.last() != Some(&slot) {
            slots.push(slot);
        }
    }

    /// Takes the slots of the earliest time that `watermark` has reached; none when nothing is due any more.
    pub fn due(&mut self, watermark: Millis) -> Option<Vec<u32>> {
        let first = self.0.first_entry()?;
        (*first.key() <= watermark).then(|| first.remove())
    }
}

/// A state row as a core gives it; no value removes it.
pub(super) fn state_row<V: Serialize>(hash: u64, key: &impl Serialize, value: Option<&V>) -> StateRow {
    StateRow {
        operator: 0,
        hash,
        key: encode(key),
        value: value.map(encode),
    }
}

fn encode(value: &impl Serialize) -> Box<[u8]> {
    let bytes = postcard::to_stdvec(value).expect("state rows are plain data, which always encodes");
    bytes.into_boxed_slice()
}

/// The key and value of a restored row; none for one that says a row is gone.
pub(super) fn decode<K: DeserializeOwned, V: DeserializeOwned>(
    row: &StateRow,
) -> Result<Option<(K, V)>, String> {
    let Some(value) = &row.value else {
        return Ok(None);
    };
    let key = postcard::from_bytes(&row.key).map_err(|error| format!("the key of a state row: {error}"))?;
    let value = postcard::from_bytes(value).map_err(|error| format!("the value of a state row: {error}"))?;
    Ok(Some((key, value)))
}
