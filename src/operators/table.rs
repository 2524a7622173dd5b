//! The hash table under the keyed operators: one slot per live key, found by the hash that the key carries.
//!
//! Nothing is hashed here: keys are hashed once, at the source. Two keys with one hash are two slots,
//! told apart by the key itself. Memory follows the live keys: a removed key leaves nothing behind, and a
//! table that has become mostly empty shrinks. There is no iteration, because its order would be that of
//! the table's past; only [`Table::drain`], whose callers do not depend on the order.
//!
//! [`state_row`] and [`read_state_row`] are the slots as rows of a checkpoint.

use crate::checkpoint::row::StateRow;
use crate::record::Text;
use hashbrown::{HashTable, hash_table::Entry};
use serde::{Serialize, de::DeserializeOwned};

/// Smallest capacity worth shrinking, in slots.
const SHRINK_FROM: usize = 64;

/// A live key and what belongs to it.
struct Slot<V> {
    hash: u64,
    key: Text,
    value: V,
}

impl<V> Slot<V> {
    fn is(&self, hash: u64, key: &str) -> bool {
        self.hash == hash && self.key == key
    }
}

/// Live keys and their values.
pub(crate) struct Table<V> {
    slots: HashTable<Slot<V>>,
}

impl<V> Table<V> {
    /// Without a key.
    pub fn new() -> Self {
        Table {
            slots: HashTable::new(),
        }
    }

    /// The value of a key.
    pub fn get(&self, hash: u64, key: &str) -> Option<&V> {
        self.slots
            .find(hash, |slot| slot.is(hash, key))
            .map(|slot| &slot.value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, hash: u64, key: &str) -> Option<&mut V> {
        self.slots
            .find_mut(hash, |slot| slot.is(hash, key))
            .map(|slot| &mut slot.value)
    }

    /// The value of a key, which gets `value` first if it has none.
    pub fn get_or_insert_with(&mut self, hash: u64, key: &Text, value: impl FnOnce() -> V) -> &mut V {
        let entry = self
            .slots
            .entry(hash, |slot| slot.is(hash, key), |slot| slot.hash);
        let slot = entry.or_insert_with(|| Slot {
            hash,
            key: key.clone(),
            value: value(),
        });
        &mut slot.into_mut().value
    }

    /// Sets the value of a key and gives the one before.
    pub fn insert(&mut self, hash: u64, key: &Text, value: V) -> Option<V> {
        match self
            .slots
            .entry(hash, |slot| slot.is(hash, key), |slot| slot.hash)
        {
            Entry::Occupied(mut slot) => Some(std::mem::replace(&mut slot.get_mut().value, value)),
            Entry::Vacant(slot) => {
                slot.insert(Slot {
                    hash,
                    key: key.clone(),
                    value,
                });
                None
            }
        }
    }

    /// Removes a key and gives its value.
    pub fn remove(&mut self, hash: u64, key: &str) -> Option<V> {
        let slot = self.slots.find_entry(hash, |slot| slot.is(hash, key)).ok()?;
        let (slot, _) = slot.remove();
        // Shrinking to twice the live keys moves an eighth of the capacity after at least that many removals.
        if self.slots.capacity() > SHRINK_FROM && self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to(2 * self.slots.len(), |slot| slot.hash);
        }
        Some(slot.value)
    }

    /// Takes out everything, in no particular order, and gives back the memory.
    pub fn drain(&mut self) -> impl Iterator<Item = (u64, Text, V)> {
        let slots = std::mem::take(&mut self.slots);
        slots.into_iter().map(|slot| (slot.hash, slot.key, slot.value))
    }

    /// Slots allocated.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }
}

/// A key's row in a checkpoint: its value, or none where the key is gone.
pub(crate) fn state_row<V: Serialize>(hash: u64, key: &Text, value: Option<&V>) -> StateRow {
    StateRow {
        operator: 0,
        hash,
        key: encode(key),
        value: value.map(encode),
    }
}

/// The key and the value of a row that [`state_row`] made; none where the key is gone.
pub(crate) fn read_state_row<V: DeserializeOwned>(row: &StateRow) -> Result<Option<(Text, V)>, String> {
    let Some(value) = &row.value else {
        return Ok(None);
    };
    let key = postcard::from_bytes(&row.key).map_err(|error| format!("its key: {error}"))?;
    let value = postcard::from_bytes(value).map_err(|error| format!("its value: {error}"))?;
    Ok(Some((key, value)))
}

fn encode<V: Serialize>(value: &V) -> Box<[u8]> {
    let bytes = postcard::to_stdvec(value).expect("rows in memory are of types that postcard writes");
    bytes.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One hash for all: keys are told apart by themselves.
    #[test]
    fn keys_of_one_hash_do_not_mix() {
        let mut table = Table::new();
        assert_eq!(table.insert(7, &"a".into(), 1), None);
        assert_eq!(table.insert(7, &"b".into(), 2), None);
        assert_eq!(table.insert(7, &"a".into(), 3), Some(1));
        assert_eq!(table.remove(7, "a"), Some(3));
        assert_eq!(table.remove(7, "a"), None);
        assert_eq!((table.get(7, "a"), table.get(7, "b")), (None, Some(&2)));
    }

    /// Ten thousand keys come and go; the table does not keep their room.
    #[test]
    fn memory_follows_the_live_keys() {
        let mut table = Table::new();
        let key = |number: u64| Text::from(number.to_string());
        for number in 0..10_000 {
            table.insert(number << 20, &key(number), number);
        }
        for number in 10..10_000 {
            assert_eq!(table.remove(number << 20, &key(number)), Some(number));
        }
        assert!(table.capacity() <= 2 * SHRINK_FROM, "{} slots", table.capacity());
        assert!((0..10).all(|number| table.get(number << 20, &key(number)) == Some(&number)));
    }
}
