//! Plans: how a reader takes what a writer has written, worked out once for each pair of schemas.
//!
//! ```text
//!   writer  {b: int, x: string, a: long}      reader  {a: long, b: long, c: null | long = null}
//!   plan    Record(out of order): read b (Int) · skip x · read a (Long) · default c
//! ```
//!
//! These are the resolution rules of the Avro specification: fields by name or by the reader's alias, in any
//! order; the writer's other fields are passed over, the reader's get their default; int, long, float and
//! double widen (whoever asks for a wider type takes a narrower one, so that needs no step of its own);
//! string and bytes stand for each other; a writer's union is resolved branch by branch, a reader's takes the
//! branch of the same type and name, else of the same type, else the first that resolves. Names of records and
//! enums decide nothing else: producers name their records as they like. Sizes of fixed types must agree.
//!
//! What does not resolve is a [`Step::Mismatch`] at its place, so that it is only INVALID where a value holds
//! it: a branch that is never taken does no harm. Pairs are resolved from a queue and known by their place,
//! so neither deep nor recursive schemas recurse here.
//!
//! A default is kept as a body of its own, written by the reader's schema.

use super::encode::{write_bytes, write_long};
use super::schema::{Field, Name, Node, NodeId, Schema};
use serde_json::Value;
use std::collections::BTreeMap;

/// A step's place in its plan.
pub(super) type StepId = usize;

/// How to read a value.
#[derive(Debug)]
pub(super) enum Step {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    Bytes,
    /// Bytes that are read as a string: INVALID where they are none.
    BytesAsText,
    /// A string that is read as bytes.
    TextAsBytes,
    Fixed(usize),
    /// For each symbol of the writer the reader's number and symbol, or the writer's that it does not know.
    Enum(Vec<Symbol>),
    /// The items; each takes at least so many bytes.
    Array(StepId, u64),
    /// The values; each takes at least so many bytes, its key not counted.
    Map(StepId, u64),
    /// The writer's branches.
    Union(Vec<StepId>),
    Record(Record),
    /// What is here cannot be what is wanted. The text starts with a dot where it names a field.
    Mismatch(Box<str>),
}

/// What a writer's symbol is for the reader.
pub(super) type Symbol = Result<(u64, Box<str>), Box<str>>;

/// How to read a record.
#[derive(Debug)]
pub(super) struct Record {
    pub moves: Vec<Move>,
    /// Whether the reader's fields come in the reader's order: then they need no names.
    pub in_order: bool,
}

/// What is next in a record.
#[derive(Debug)]
pub(super) enum Move {
    /// A field that the reader wants.
    Read(Box<str>, StepId),
    /// A field of the writer's that it does not.
    Skip(NodeId),
    /// A field that the writer does not have, and the body of its default.
    Default(Box<str>, StepId, Vec<u8>),
}

/// How to read a whole value.
#[derive(Debug)]
pub(super) struct Plan {
    steps: Vec<Step>,
    /// The step of a whole value.
    pub root: StepId,
}

impl Plan {
    /// Resolves a writer's schema against a reader's.
    pub fn new(writer: &Schema, reader: &Schema) -> Plan {
        let mut planner = Planner {
            writer,
            reader,
            steps: Vec::new(),
            known: BTreeMap::new(),
            queue: Vec::new(),
        };
        let root = planner.step(Pair(From::Writer, writer.root, reader.root));
        while let Some((id, pair)) = planner.queue.pop() {
            planner.steps[id] = planner.resolve(pair);
        }
        Plan {
            steps: planner.steps,
            root,
        }
    }

    /// The step at a place.
    #[inline]
    pub fn step(&self, id: StepId) -> &Step {
        &self.steps[id]
    }
}

/// Which schema the bytes are written by: the writer's, or for defaults the reader's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum From {
    Writer,
    Default,
}

/// What is written, and what is wanted: nodes of the writer's schema and of the reader's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair(From, NodeId, NodeId);

struct Planner<'s> {
    writer: &'s Schema,
    reader: &'s Schema,
    steps: Vec<Step>,
    known: BTreeMap<Pair, StepId>,
    /// Steps that have their place and are not yet resolved.
    queue: Vec<(StepId, Pair)>,
}

impl<'s> Planner<'s> {
    /// The place of a pair's step.
    fn step(&mut self, pair: Pair) -> StepId {
        *self.known.entry(pair).or_insert_with(|| {
            self.steps.push(Step::Null);
            self.queue.push((self.steps.len() - 1, pair));
            self.steps.len() - 1
        })
    }

    fn schema(&self, from: From) -> &'s Schema {
        match from {
            From::Writer => self.writer,
            From::Default => self.reader,
        }
    }

    fn resolve(&mut self, pair: Pair) -> Step {
        let Pair(from, written, wanted) = pair;
        let writer = self.schema(from);
        match (writer.node(written), self.reader.node(wanted)) {
            (Node::Union(branches), _) => {
                let branch = |branch: &NodeId| self.step(Pair(from, *branch, wanted));
                Step::Union(branches.iter().map(branch).collect())
            }
            (found, Node::Union(branches)) => match self.branch(found, branches) {
                Some(branch) => self.resolve(Pair(from, written, branch)), // which is no union
                None => mismatch(found, "null or another type"),
            },
            (Node::Array(item), Node::Array(of)) => {
                Step::Array(self.step(Pair(from, *item, *of)), writer.least(*item))
            }
            (Node::Map(item), Node::Map(of)) => {
                Step::Map(self.step(Pair(from, *item, *of)), writer.least(*item))
            }
            (Node::Record(_, fields), Node::Record(_, wanted)) => self.record(from, fields, wanted),
            (found, wanted) => scalar(found, wanted),
        }
    }

    /// The branch of a reader's union that takes what is found.
    fn branch(&self, found: &Node, branches: &[NodeId]) -> Option<NodeId> {
        let first = |fits: &dyn Fn(&Node) -> bool| {
            let fits = |branch: &&NodeId| fits(self.reader.node(**branch));
            branches.iter().find(fits).copied()
        };
        let is_same = |wanted: &Node| wanted.kind() == found.kind();
        first(&|wanted| is_same(wanted) && are_called_alike(found, wanted))
            .or_else(|| first(&is_same))
            .or_else(|| first(&|wanted| !matches!(scalar(found, wanted), Step::Mismatch(_))))
    }

    fn record(&mut self, from: From, fields: &[Field], wanted: &[Field]) -> Step {
        // Which of the reader's fields each of the writer's is.
        let mut place_of: Vec<Option<usize>> = vec![None; fields.len()];
        let mut defaults = Vec::new();
        for (place, field) in wanted.iter().enumerate() {
            let by_name = |name: &str| fields.iter().position(|written| *written.name == *name);
            let mut aliases = field.aliases.iter();
            let found = by_name(&field.name).or_else(|| aliases.find_map(|alias| by_name(alias)));
            match (found, &field.default) {
                (Some(found), _) if place_of[found].is_none() => place_of[found] = Some(place),
                (_, Some(default)) => defaults.push((place, default)),
                _ => return Step::Mismatch(format!(".{}: missing", field.name).into()),
            }
        }
        let places: Vec<usize> = place_of.iter().copied().flatten().collect();
        let in_order = places.is_sorted();
        let mut moves: Vec<(Option<usize>, Move)> = Vec::new();
        for (field, place) in fields.iter().zip(place_of) {
            moves.push(match place.map(|place| (place, &wanted[place])) {
                Some((place, into)) => {
                    let step = self.step(Pair(from, field.node, into.node));
                    (Some(place), Move::Read(into.name.clone(), step))
                }
                None => (None, Move::Skip(field.node)),
            });
        }
        for (place, default) in defaults {
            let into = &wanted[place];
            let mut body = Vec::new();
            if let Err(error) = write_default(self.reader, into.node, default, &mut body) {
                return Step::Mismatch(format!(".{}: its default: {error}", into.name).into());
            }
            let step = self.step(Pair(From::Default, into.node, into.node));
            // Defaults take no bytes of the body: they may stand wherever the reader's order wants them.
            let at = moves
                .iter()
                .position(|(other, _)| other.is_some_and(|other| other > place));
            let at = at.unwrap_or(moves.len());
            moves.insert(at, (Some(place), Move::Default(into.name.clone(), step, body)));
        }
        Step::Record(Record {
            moves: moves.into_iter().map(|(_, step)| step).collect(),
            in_order,
        })
    }
}

/// Types that hold no others.
fn scalar(found: &Node, wanted: &Node) -> Step {
    match (found, wanted) {
        (Node::Null, Node::Null) => Step::Null,
        (Node::Boolean, Node::Boolean) => Step::Boolean,
        (Node::Int, Node::Int | Node::Long | Node::Float | Node::Double) => Step::Int,
        (Node::Long, Node::Long | Node::Float | Node::Double) => Step::Long,
        (Node::Float, Node::Float | Node::Double) => Step::Float,
        (Node::Double, Node::Double) => Step::Double,
        (Node::Text, Node::Text) => Step::Text,
        (Node::Bytes, Node::Bytes) => Step::Bytes,
        (Node::Bytes, Node::Text) => Step::BytesAsText,
        (Node::Text, Node::Bytes) => Step::TextAsBytes,
        (Node::Fixed(_, size), Node::Fixed(_, wanted)) if size == wanted => Step::Fixed(*size),
        (Node::Enum(_, symbols, _), Node::Enum(_, wanted, default)) => {
            let mut taken_as = Vec::with_capacity(symbols.len());
            for symbol in symbols {
                let number = wanted.iter().position(|wanted| wanted == symbol).or(*default);
                let known = number.map(|number| (number as u64, wanted[number].clone()));
                taken_as.push(known.ok_or_else(|| symbol.clone()));
            }
            Step::Enum(taken_as)
        }
        _ => mismatch(found, wanted.kind()),
    }
}

fn mismatch(found: &Node, wanted: &str) -> Step {
    Step::Mismatch(format!("the writer's type is {}, expected {wanted}", found.kind()).into())
}

/// Whether two nodes of one kind have the same name, or none.
fn are_called_alike(found: &Node, wanted: &Node) -> bool {
    fn name(node: &Node) -> Option<&Name> {
        match node {
            Node::Fixed(name, _) | Node::Enum(name, ..) | Node::Record(name, _) => Some(name),
            _ => None,
        }
    }
    match (name(found), name(wanted)) {
        (Some(found), Some(wanted)) => found.plain == wanted.plain || wanted.aliases.contains(&found.plain),
        _ => true,
    }
}

/// Appends a default, which JSON writes in its own way: bytes as characters up to U+00FF, and of a union
/// always the first branch.
fn write_default(schema: &Schema, node: NodeId, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    let wrong = || format!("{value} is no {}", schema.node(node).kind());
    let integer = || value.as_i64().ok_or_else(wrong);
    match schema.node(node) {
        Node::Null if value.is_null() => {}
        Node::Boolean => out.push(u8::from(value.as_bool().ok_or_else(wrong)?)),
        Node::Int | Node::Long => write_long(integer()?, out),
        Node::Float => out.extend((value.as_f64().ok_or_else(wrong)? as f32).to_le_bytes()),
        Node::Double => out.extend(value.as_f64().ok_or_else(wrong)?.to_le_bytes()),
        Node::Text => write_bytes(value.as_str().ok_or_else(wrong)?.as_bytes(), out),
        Node::Bytes => write_bytes(&latin(value).ok_or_else(wrong)?, out),
        Node::Fixed(_, size) => {
            let bytes = latin(value).filter(|bytes| bytes.len() == *size);
            out.extend(bytes.ok_or_else(wrong)?);
        }
        Node::Enum(_, symbols, _) => {
            let symbol = value.as_str().ok_or_else(wrong)?;
            let number = symbols.iter().position(|known| **known == *symbol);
            write_long(number.ok_or_else(wrong)? as i64, out);
        }
        Node::Union(branches) => {
            write_long(0, out);
            write_default(schema, *branches.first().ok_or_else(wrong)?, value, out)?;
        }
        Node::Array(item) => {
            for value in value.as_array().ok_or_else(wrong)? {
                write_long(1, out);
                write_default(schema, *item, value, out)?;
            }
            write_long(0, out);
        }
        Node::Map(item) => {
            for (key, value) in value.as_object().ok_or_else(wrong)? {
                write_long(1, out);
                write_bytes(key.as_bytes(), out);
                write_default(schema, *item, value, out)?;
            }
            write_long(0, out);
        }
        Node::Record(_, fields) => {
            let values = value.as_object().ok_or_else(wrong)?;
            for field in fields {
                let value = values.get(&*field.name).or(field.default.as_ref());
                write_default(schema, field.node, value.ok_or_else(wrong)?, out)?;
            }
        }
        Node::Null => return Err(wrong()),
    }
    Ok(())
}

/// The bytes of a JSON default.
fn latin(value: &Value) -> Option<Vec<u8>> {
    let byte = |character: char| u8::try_from(u32::from(character)).ok();
    value.as_str()?.chars().map(byte).collect()
}
