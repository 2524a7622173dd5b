//! Decoding: a plan run over a body, straight into a record type.
//!
//! ```text
//!   plan step ──┐
//!               ├──► visitor of the field's type          (no tree of values in between)
//!   body bytes ─┘
//! ```
//!
//! The plan says what is there and a type's visitor takes it or does not; what a type asks for matters only
//! for options and symbols. A record in the reader's order is given as a sequence, which compares no names;
//! one in another order as a map. Symbols are given by their number in the reader's schema where a number is
//! asked for (`strict_enum!` does), else by their text.
//!
//! The small functions of this path are `#[inline]`: record types are defined in other crates, and there the
//! path is compiled.
//!
//! Strings and bytes are lent from the body. Records that hold records go at most [`DEPTH`] deep.

use super::body::{Body, Failure, Result, skip};
use super::plan::{Move, Plan, Record, Step, StepId, Symbol};
use super::schema::Schema;
use serde::Deserialize;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};

/// How deep records, arrays and maps may hold each other. The contract's deepest is 6.
const DEPTH: usize = 64;

/// Reads a whole body: nothing may be left of it.
pub(super) fn read<'de, T: Deserialize<'de>>(
    writer: &'de Schema,
    plan: &'de Plan,
    bytes: &'de [u8],
) -> Result<T> {
    let mut run = Run {
        writer,
        plan,
        body: Body::new(bytes),
        depth: 0,
    };
    let value = T::deserialize(Value {
        step: plan.root,
        run: &mut run,
    })?;
    match run.body.left() {
        0 => Ok(value),
        left => Err(Failure(format!("{left} bytes after the value"))),
    }
}

/// A body on its way through a plan.
struct Run<'de> {
    /// For the fields that are passed over.
    writer: &'de Schema,
    plan: &'de Plan,
    body: Body<'de>,
    /// How many records, arrays and maps are open.
    depth: usize,
}

/// The value that is next in the body.
struct Value<'r, 'de> {
    step: StepId,
    run: &'r mut Run<'de>,
}

impl<'de> Value<'_, 'de> {
    /// What the plan says of it.
    #[inline]
    fn step(&self) -> &'de Step {
        self.run.plan.step(self.step)
    }

    /// The value itself, where the writer has a union.
    #[inline]
    fn chosen(mut self) -> Result<Self> {
        if let Step::Union(branches) = self.step() {
            self.step = branches[self.run.body.place(branches.len())?];
        }
        Ok(self)
    }

    /// The symbol that is next, as the reader knows it.
    #[inline]
    fn symbol(&mut self, symbols: &'de [Symbol]) -> Result<&'de (u64, Box<str>)> {
        let symbol = &symbols[self.run.body.place(symbols.len())?];
        symbol
            .as_ref()
            .map_err(|symbol| Failure(format!("unknown symbol {symbol}")))
    }

    /// Reads what holds other values.
    fn nested<T>(self, read: impl FnOnce(&mut Run<'de>) -> Result<T>) -> Result<T> {
        if self.run.depth == DEPTH {
            return Err(Failure(format!("nested more than {DEPTH} deep")));
        }
        self.run.depth += 1;
        let value = read(self.run)?;
        self.run.depth -= 1;
        Ok(value)
    }
}

impl<'de> Deserializer<'de> for Value<'_, 'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value> {
        let body = &mut self.run.body;
        match self.run.plan.step(self.step) {
            Step::Long => visitor.visit_i64(body.long()?),
            Step::Text => visitor.visit_borrowed_str(body.text()?),
            Step::Int => visitor.visit_i64(body.int()?),
            Step::Null => visitor.visit_unit(),
            Step::Boolean => visitor.visit_bool(body.boolean()?),
            Step::Float => visitor.visit_f32(body.float()?),
            Step::Double => visitor.visit_f64(body.double()?),
            Step::Bytes => visitor.visit_borrowed_bytes(body.bytes()?),
            Step::TextAsBytes => visitor.visit_borrowed_bytes(body.text()?.as_bytes()),
            Step::BytesAsText => {
                let text = std::str::from_utf8(body.bytes()?);
                visitor.visit_borrowed_str(text.map_err(Failure::custom)?)
            }
            Step::Fixed(size) => visitor.visit_borrowed_bytes(body.take(*size)?),
            Step::Enum(symbols) => visitor.visit_borrowed_str(&self.symbol(symbols)?.1),
            Step::Union(_) => self.chosen()?.deserialize_any(visitor),
            Step::Array(item, least) => self.nested(|run| {
                let mut items = Items::new(run, *item, *least)?;
                let value = visitor.visit_seq(&mut items)?;
                items.end(value)
            }),
            Step::Map(item, least) => self.nested(|run| {
                let mut items = Items::new(run, *item, least + 1)?;
                let value = visitor.visit_map(&mut items)?;
                items.end(value)
            }),
            Step::Record(record) => self.nested(|run| {
                let mut fields = Fields { run, record, at: 0 };
                let value = if record.in_order {
                    visitor.visit_seq(&mut fields)?
                } else {
                    visitor.visit_map(&mut fields)?
                };
                match fields.next()? {
                    None => Ok(value),
                    Some(_) => Err(Failure("fields that the type does not take".to_owned())),
                }
            }),
            Step::Mismatch(text) => Err(Failure(text.to_string())),
        }
    }

    // A union says which it is; what is no union is there.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = self.chosen()?;
        match value.step() {
            Step::Null => visitor.visit_none(),
            _ => visitor.visit_some(value),
        }
    }

    /// A symbol's number, for types that keep nothing else of it.
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let mut value = self.chosen()?;
        match value.step() {
            Step::Enum(symbols) => visitor.visit_u64(value.symbol(symbols)?.0),
            _ => value.deserialize_any(visitor),
        }
    }

    /// A symbol by its text, for enums that derive `Deserialize`.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let mut value = self.chosen()?;
        match value.step() {
            Step::Enum(symbols) => visitor.visit_enum((&*value.symbol(symbols)?.1).into_deserializer()),
            _ => value.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// The fields of a record, those before `at` read or passed over.
struct Fields<'r, 'de> {
    run: &'r mut Run<'de>,
    record: &'de Record,
    at: usize,
}

impl<'de> Fields<'_, 'de> {
    /// The next field that the reader wants; what it does not want before it is passed over.
    #[inline]
    fn next(&mut self) -> Result<Option<&'de Move>> {
        while let Some(step) = self.record.moves.get(self.at) {
            match step {
                Move::Skip(node) => skip(self.run.writer, *node, &mut self.run.body)?,
                Move::Read(..) | Move::Default(..) => return Ok(Some(step)),
            }
            self.at += 1;
        }
        Ok(None)
    }

    /// Reads the field that [`Fields::next`] has found.
    fn read<S: DeserializeSeed<'de>>(&mut self, step: &'de Move, seed: S) -> Result<S::Value> {
        self.at += 1;
        match step {
            Move::Read(_, step) => seed.deserialize(Value {
                step: *step,
                run: self.run,
            }),
            Move::Default(_, step, body) => {
                let interrupted = std::mem::replace(&mut self.run.body, Body::new(body));
                let value = seed.deserialize(Value {
                    step: *step,
                    run: self.run,
                });
                self.run.body = interrupted;
                value
            }
            Move::Skip(_) => Err(Failure("a field that nobody reads".to_owned())), // next() gives none
        }
    }
}

impl<'de> SeqAccess<'de> for Fields<'_, 'de> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        match self.next()? {
            Some(step) => self.read(step, seed).map(Some),
            None => Ok(None),
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'_, 'de> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        match self.next()? {
            Some(Move::Read(name, _) | Move::Default(name, ..)) => {
                seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        match self.next()? {
            Some(step) => self.read(step, seed),
            None => Err(Failure("a value without a name".to_owned())),
        }
    }
}

/// The items of an array, or the entries of a map, block by block.
struct Items<'r, 'de> {
    run: &'r mut Run<'de>,
    item: StepId,
    /// The bytes that an item, or an entry, takes at least.
    least: u64,
    /// Items left in this block; none is the end, for a block without items ends them all.
    left: u64,
}

impl<'r, 'de> Items<'r, 'de> {
    /// Reads the count of the first block.
    fn new(run: &'r mut Run<'de>, item: StepId, least: u64) -> Result<Self> {
        let left = run.body.block(least)?;
        Ok(Items {
            run,
            item,
            least,
            left,
        })
    }

    /// Reads an item, or an entry's value, and after the last one of a block the count of the next.
    fn item<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let value = seed.deserialize(Value {
            step: self.item,
            run: self.run,
        })?;
        self.left -= 1;
        if self.left == 0 {
            self.left = self.run.body.block(self.least)?;
        }
        Ok(value)
    }

    /// Gives the value if it has taken all items.
    fn end<T>(self, value: T) -> Result<T> {
        match self.left {
            0 => Ok(value),
            _ => Err(Failure("more items than the type takes".to_owned())),
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.item(seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok() // it fits the rest of the body
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        let key = self.run.body.text()?;
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        self.item(seed)
    }
}
