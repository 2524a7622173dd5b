//! Encoding: a type's `Serialize` run over its own schema, straight into the output.
//!
//! The schema says how a value is written, the value must fit it: fields and symbols in the schema's order,
//! integers within the node's bits, an option where there is a union of null and one other type. Maps are
//! written in the order in which the type gives their entries, so equal messages are equal bytes. What does
//! not fit is a bug of the type or its schema; the error names it.

use super::body::{Failure, Result};
use super::schema::{Field, Node, Schema};
use serde::ser::{self, Serialize, Serializer};
use std::fmt::{self, Display};

/// Appends a value as the schema says.
pub(super) fn write<T: Serialize + ?Sized>(schema: &Schema, value: &T, out: &mut Vec<u8>) -> Result<()> {
    let node = schema.node(schema.root);
    value.serialize(Place { schema, node, out })
}

/// Appends an integer: the sign in the lowest bit, then seven bits a byte, the least first.
pub(super) fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut bits = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

/// Appends bytes or a string's, with their length.
pub(super) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

/// Where a value is to be written, and as what.
struct Place<'a> {
    schema: &'a Schema,
    node: &'a Node,
    out: &'a mut Vec<u8>,
}

impl<'a> Place<'a> {
    /// The error of a value that its schema does not have: a bug of ours.
    fn misfit<T>(&self, what: impl Display) -> Result<T> {
        Err(Failure(format!(
            "{what} does not fit the schema's {}",
            self.node.kind()
        )))
    }

    /// Writes the branch of a nullable union that is null, or the other one, which is given.
    fn branch(mut self, is_null: bool) -> Result<Self> {
        let Node::Union(branches) = self.node else {
            return self.misfit("an option");
        };
        let [first, second] = branches[..] else {
            return self.misfit("an option");
        };
        let is_wanted = |node: &Node| matches!(node, Node::Null) == is_null;
        let branches = [self.schema.node(first), self.schema.node(second)];
        let Some(place) = branches.iter().position(|node| is_wanted(node)) else {
            return self.misfit("an option");
        };
        write_long(place as i64, self.out);
        self.node = branches[place];
        Ok(self)
    }

    /// Writes a symbol of an enum, by its place.
    fn symbol(self, number: Option<usize>, symbol: impl Display) -> Result<()> {
        match number {
            Some(number) => {
                write_long(number as i64, self.out);
                Ok(())
            }
            None => self.misfit(symbol),
        }
    }

    /// Writes the count of a block; none where there are no items, for no block is then written.
    fn block(self, length: Option<usize>) -> Result<Items<'a>> {
        let (Node::Array(item) | Node::Map(item), Some(length)) = (self.node, length) else {
            return self.misfit("a sequence or map");
        };
        if length > 0 {
            write_long(length as i64, self.out);
        }
        Ok(Items {
            schema: self.schema,
            item: self.schema.node(*item),
            left: length,
            out: self.out,
        })
    }

    /// Goes into a record, which has no bytes of its own.
    fn fields(self) -> Result<Fields<'a>> {
        let Node::Record(_, fields) = self.node else {
            return self.misfit("a struct");
        };
        Ok(Fields {
            schema: self.schema,
            fields,
            out: self.out,
        })
    }
}

/// Methods for types that no schema of ours has, or that are written as another one.
macro_rules! same_as {
    ($($method:ident($Type:ty) => $other:ident as $Other:ty),* $(,)?) => {
        $(fn $method(self, value: $Type) -> Result<()> {
            match <$Other>::try_from(value) {
                Ok(value) => self.$other(value),
                Err(_) => self.misfit(value),
            }
        })*
    };
}

impl<'a> Serializer for Place<'a> {
    type Ok = ();
    type Error = Failure;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = ser::Impossible<(), Failure>;
    type SerializeTupleStruct = ser::Impossible<(), Failure>;
    type SerializeTupleVariant = ser::Impossible<(), Failure>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = ser::Impossible<(), Failure>;

    fn serialize_i64(self, value: i64) -> Result<()> {
        let fits = match self.node {
            Node::Long => true,
            Node::Int => i32::try_from(value).is_ok(),
            // A symbol by its number.
            Node::Enum(_, symbols, _) => usize::try_from(value).is_ok_and(|number| number < symbols.len()),
            _ => false,
        };
        if !fits {
            return self.misfit(value);
        }
        write_long(value, self.out);
        Ok(())
    }

    same_as! {
        serialize_i8(i8) => serialize_i64 as i64,
        serialize_i16(i16) => serialize_i64 as i64,
        serialize_i32(i32) => serialize_i64 as i64,
        serialize_i128(i128) => serialize_i64 as i64,
        serialize_u8(u8) => serialize_i64 as i64,
        serialize_u16(u16) => serialize_i64 as i64,
        serialize_u32(u32) => serialize_i64 as i64,
        serialize_u64(u64) => serialize_i64 as i64,
        serialize_u128(u128) => serialize_i64 as i64,
    }

    fn serialize_bool(self, value: bool) -> Result<()> {
        if !matches!(self.node, Node::Boolean) {
            return self.misfit(value);
        }
        self.out.push(u8::from(value));
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<()> {
        match self.node {
            Node::Float => self.out.extend(value.to_le_bytes()),
            _ => return self.serialize_f64(value.into()),
        }
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        if !matches!(self.node, Node::Double) {
            return self.misfit(value);
        }
        self.out.extend(value.to_le_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<()> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<()> {
        match self.node {
            Node::Text => write_bytes(value.as_bytes(), self.out),
            Node::Enum(_, symbols, _) => {
                let number = symbols.iter().position(|symbol| **symbol == *value);
                return self.symbol(number, value);
            }
            _ => return self.misfit("a string"),
        }
        Ok(())
    }

    /// Writes the text in place and its length, mostly one byte, before it.
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<()> {
        if !matches!(self.node, Node::Text) {
            return self.serialize_str(&value.to_string());
        }
        let start = self.out.len();
        fmt::write(&mut Text(self.out), format_args!("{value}"))
            .map_err(|error| Failure(error.to_string()))?;
        let length = self.out.len() - start;
        write_long(length as i64, self.out);
        let prefix = self.out.len() - start - length;
        self.out[start..].rotate_right(prefix);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<()> {
        match self.node {
            Node::Bytes => write_bytes(value, self.out),
            Node::Fixed(_, size) if *size == value.len() => self.out.extend_from_slice(value),
            _ => return self.misfit("bytes"),
        }
        Ok(())
    }

    fn serialize_none(self) -> Result<()> {
        self.branch(true).map(|_| ())
    }

    // The branch's number, then the value as the branch says.
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self.branch(false)?)
    }

    fn serialize_unit(self) -> Result<()> {
        match self.node {
            Node::Null => Ok(()),
            _ => self.misfit("null"),
        }
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<()> {
        self.serialize_unit()
    }

    // Variants without content are symbols, by their names.
    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Result<()> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _value: &T,
    ) -> Result<()> {
        self.misfit(variant)
    }

    // Lengths must be known before: what we write is one block.
    fn serialize_seq(self, length: Option<usize>) -> Result<Items<'a>> {
        self.block(length)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Items<'a>> {
        self.block(length)
    }

    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<Fields<'a>> {
        self.fields()
    }

    // Nothing in Avro is a tuple, or a variant with content.
    fn serialize_tuple(self, _length: usize) -> Result<Self::SerializeTuple> {
        self.misfit("a tuple")
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Self::SerializeTupleStruct> {
        self.misfit(name)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        self.misfit(variant)
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeStructVariant> {
        self.misfit(variant)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Text that is appended as it is formatted.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The items of an array or the entries of a map: one block, its count already written.
struct Items<'a> {
    schema: &'a Schema,
    item: &'a Node,
    /// How many are to come.
    left: usize,
    out: &'a mut Vec<u8>,
}

impl Items<'_> {
    /// Writes an item, or an entry's value.
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(Failure("more items than were announced".to_owned()));
        };
        self.left = left;
        value.serialize(Place {
            schema: self.schema,
            node: self.item,
            out: self.out,
        })
    }

    /// Writes the end: a block of no items.
    fn finish(self) -> Result<()> {
        if self.left > 0 {
            return Err(Failure("fewer items than were announced".to_owned()));
        }
        write_long(0, self.out);
        Ok(())
    }
}

impl ser::SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Failure;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.item(value)
    }

    fn end(self) -> Result<()> {
        self.finish()
    }
}

impl ser::SerializeMap for Items<'_> {
    type Ok = ();
    type Error = Failure;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        key.serialize(Place {
            schema: self.schema,
            node: &Node::Text,
            out: self.out,
        })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.item(value)
    }

    fn end(self) -> Result<()> {
        self.finish()
    }
}

/// The fields of a record that are still to be written.
struct Fields<'a> {
    schema: &'a Schema,
    fields: &'a [Field],
    out: &'a mut Vec<u8>,
}

impl ser::SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Failure;

    // In the schema's order, for the bytes hold no names.
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
        match self.fields.split_first() {
            Some((field, rest)) if *field.name == *name => {
                self.fields = rest;
                value.serialize(Place {
                    schema: self.schema,
                    node: self.schema.node(field.node),
                    out: self.out,
                })
            }
            _ => Err(Failure(format!("'{name}' is not the schema's next field"))),
        }
    }

    fn end(self) -> Result<()> {
        match self.fields {
            [] => Ok(()),
            [field, ..] => Err(Failure(format!("nothing was given for '{}'", field.name))),
        }
    }
}
