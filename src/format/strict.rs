//! Strict reading: how record types take their fields from a self-describing format such as JSON.
//!
//! [`strict_record!`](crate::strict_record) and [`strict_enum!`](crate::strict_enum) define a type together
//! with its `Serialize` and `Deserialize`. What they refuse, where serde's own derive would accept it: an
//! array in the place of a record, `{"DEBIT":null}` in the place of a symbol, a nullable field that is absent
//! without `= None` saying so. A known field given twice, a missing one and a wrong type are refused too;
//! unknown fields are ignored, whatever they hold. Field order in the input does not matter.
//!
//! An error names the path to the field: each record on the way out puts `.field` in front ([`within`]), the
//! reader of the whole message puts the record's name first:
//! `CustomerAlertSettings.accounts.currency: missing`.
//!
//! The macros also give a record its row in the replay log ([`crate::replay_log::row`]).
//!
//! Formats that are not self-describing (postcard, in checkpoints) get the fields as a sequence in order of
//! definition, and symbols as their number in that order: there, reordering changes the format.

use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::{Deserialize, Serializer};
use std::fmt;

/// Defines records: every field must be there once, except those with `= default` (the nullable ones).
///
/// ```
/// use tidegate::record::Text;
/// tidegate::strict_record! {
///     /// A reading.
///     pub struct Reading {
///         /// Where.
///         pub place: Text,
///         /// Who took it, where known.
///         pub reader: Option<Text> = None,
///     }
/// }
/// assert!(serde_json::from_str::<Reading>(r#"{"place":"A","note":[1]}"#).is_ok());
/// assert!(serde_json::from_str::<Reading>(r#"["A",null]"#).is_err());
/// ```
#[macro_export]
macro_rules! strict_record {
    ($(
        $(#[$about:meta])*
        pub struct $Record:ident {
            $( $(#[$says:meta])* pub $field:ident : $Type:ty $(= $absent:expr)? ),* $(,)?
        }
    )*) => { $(
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub struct $Record { $( $(#[$says])* pub $field: $Type, )* }

        impl<'de> serde::Deserialize<'de> for $Record {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::{MapAccess, SeqAccess, Visitor};
                use $crate::format::strict;

                #[allow(non_camel_case_types, reason = "the fields' own names")]
                enum Field { $($field,)* Unknown }
                const FIELDS: &[&str] = &[$( strict::plain(stringify!($field)) ),*];

                fn named(name: &str) -> Field {
                    $( if name == const { strict::plain(stringify!($field)) } { return Field::$field; } )*
                    Field::Unknown
                }

                struct Fields;
                impl<'de> Visitor<'de> for Fields {
                    type Value = $Record;

                    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        formatter.write_str(concat!("a record ", stringify!($Record)))
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$Record, A::Error> {
                        $( let mut $field: Option<$Type> = None; )*
                        while let Some(field) = map.next_key_seed(strict::Name(named))? {
                            match field {
                                $( Field::$field => {
                                    strict::put(&mut $field, strict::plain(stringify!($field)), &mut map)?;
                                } )*
                                Field::Unknown => strict::skip(&mut map)?,
                            }
                        }
                        $( let $field = $field $(.or(Some($absent)))?; )*
                        Ok($Record { $(
                            $field: strict::present($field, strict::plain(stringify!($field)))?,
                        )* })
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<$Record, A::Error> {
                        Ok($Record { $(
                            $field: strict::next(&mut fields, strict::plain(stringify!($field)))?,
                        )* })
                    }
                }

                // Asked for a struct, a JSON reader also offers an array; asked for a map, it does not.
                if deserializer.is_human_readable() {
                    deserializer.deserialize_map(Fields)
                } else {
                    deserializer.deserialize_struct(stringify!($Record), FIELDS, Fields)
                }
            }
        }

        impl $crate::replay_log::Flat for $Record {
            type Row = [u64; 0 $( + <$Type as $crate::replay_log::Cell>::WORDS )*];
            const LAYOUT: &'static str =
                concat!($( stringify!($field), ":", stringify!($Type), " " ),*);

            fn to_row(&self, strings: &mut $crate::replay_log::row::Strings) -> Self::Row {
                let mut row = [0; 0 $( + <$Type as $crate::replay_log::Cell>::WORDS )*];
                let rest = row.as_mut_slice();
                $( let rest = $crate::replay_log::row::put(&self.$field, rest, strings); )*
                let _ = rest;
                row
            }

            #[inline]
            fn from_row(
                row: &Self::Row,
                strings: &$crate::replay_log::row::Places<'_>,
            ) -> Option<Self> {
                let mut rest = row.as_slice();
                let record = $Record { $( $field: $crate::replay_log::row::take(&mut rest, strings)?, )* };
                Some(record)
            }
        }
    )* };
}

/// Defines closed sets of symbols: strings in self-describing formats, their number in others.
///
/// ```
/// tidegate::strict_enum! {
///     /// A side.
///     pub enum Side {
///         /// The left one.
///         Left = "LEFT",
///         /// The right one.
///         Right = "RIGHT",
///     }
/// }
/// assert_eq!(serde_json::from_str::<Side>(r#""LEFT""#).ok(), Some(Side::Left));
/// assert_eq!(Side::Right.symbol(), "RIGHT");
/// ```
#[macro_export]
macro_rules! strict_enum {
    ($(
        $(#[$about:meta])*
        pub enum $Enum:ident { $( $(#[$says:meta])* $Variant:ident = $symbol:literal ),* $(,)? }
    )*) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $Enum { $( $(#[$says])* $Variant, )* }

        impl $Enum {
            const ALL: &[($Enum, &str)] = &[$( ($Enum::$Variant, $symbol) ),*];

            /// The symbol as the contract writes it.
            pub const fn symbol(self) -> &'static str {
                match self { $( $Enum::$Variant => $symbol, )* }
            }
        }

        impl serde::Serialize for $Enum {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::format::strict::write_symbol(self.symbol(), *self as u8, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $Enum {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::format::strict::read_symbol($Enum::ALL, deserializer)
            }
        }

        impl $crate::replay_log::Cell for $Enum {
            const WORDS: usize = 1;

            fn put(&self, words: &mut [u64], _strings: &mut $crate::replay_log::row::Strings) {
                words[0] = *self as u64;
            }

            #[inline]
            fn take(words: &[u64], _strings: &$crate::replay_log::row::Places<'_>) -> Option<Self> {
                $Enum::ALL.get(usize::try_from(words[0]).ok()?).map(|(value, _)| *value)
            }
        }
    )* };
}

/// The name without the `r#` that lets a keyword be a field: `r#type` is `type`.
pub const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// Puts a field's name in front of an error, so that it grows into the path to what is wrong.
pub fn within<E: Error>(name: &str, error: E) -> E {
    let text = error.to_string();
    // Text that starts with a dot is a path already: it comes from a record in this field.
    let separator = if text.starts_with('.') { "" } else { ": " };
    E::custom(format_args!(".{name}{separator}{text}"))
}

/// Reads a field's value into its slot, which must be empty.
pub fn put<'de, T, A>(slot: &mut Option<T>, name: &'static str, map: &mut A) -> Result<(), A::Error>
where
    T: Deserialize<'de>,
    A: MapAccess<'de>,
{
    if slot.is_some() {
        return Err(A::Error::custom(format_args!(".{name}: given twice")));
    }
    *slot = Some(map.next_value().map_err(|error| within(name, error))?);
    Ok(())
}

/// Passes over the value of an unknown field.
pub fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// The value of a field that must be there.
pub fn present<T, E: Error>(slot: Option<T>, name: &'static str) -> Result<T, E> {
    slot.ok_or_else(|| E::custom(format_args!(".{name}: missing")))
}

/// The next field of a format that is not self-describing.
pub fn next<'de, T, A>(fields: &mut A, name: &'static str) -> Result<T, A::Error>
where
    T: Deserialize<'de>,
    A: SeqAccess<'de>,
{
    let value = fields.next_element().map_err(|error| within(name, error))?;
    present(value, name)
}

/// Reads a field's name and looks it up, without keeping the string.
pub struct Name<F>(pub F);

impl<'de, Field, F: FnOnce(&str) -> Field> DeserializeSeed<'de> for Name<F> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<Field, F: FnOnce(&str) -> Field> Visitor<'_> for Name<F> {
    type Value = Field;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Field, E> {
        Ok((self.0)(name))
    }
}

/// Writes a symbol: itself where people read it, else its number.
pub fn write_symbol<S: Serializer>(symbol: &str, number: u8, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(symbol)
    } else {
        serializer.serialize_u8(number)
    }
}

/// Reads what [`write_symbol`] wrote: one of `all`, by its symbol or its place.
pub fn read_symbol<'de, E: Copy + 'static, D: Deserializer<'de>>(
    all: &'static [(E, &'static str)],
    deserializer: D,
) -> Result<E, D::Error> {
    if deserializer.is_human_readable() {
        return deserializer.deserialize_str(Symbol(all));
    }
    let number = u8::deserialize(deserializer)?;
    let found = all.get(usize::from(number)).map(|(value, _)| *value);
    found.ok_or_else(|| D::Error::custom(format_args!("{number} is no symbol's number")))
}

/// Accepts the symbols of a set, and nothing but strings.
struct Symbol<E: 'static>(&'static [(E, &'static str)]);

impl<E: Copy> Visitor<'_> for Symbol<E> {
    type Value = E;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("one of")?;
        self.0
            .iter()
            .try_for_each(|(_, symbol)| write!(formatter, " {symbol}"))
    }

    fn visit_str<X: Error>(self, text: &str) -> Result<E, X> {
        let found = self
            .0
            .iter()
            .find(|(_, symbol)| *symbol == text)
            .map(|(value, _)| *value);
        found.ok_or_else(|| X::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
#[path = "strict_tests.rs"]
pub(crate) mod tests;
