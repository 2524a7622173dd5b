//! Schemas: the JSON of a schema as an arena of nodes.
//!
//! ```text
//!   {"type":"record",...}  --parse-->  nodes: [Record(a: 1, b: 2), Long, Union(3, 0), Null]   least: [2, 1, 1, 0]
//!                                              a child is its place in the arena, so types may be recursive
//! ```
//!
//! `least` is the number of bytes that a value of the node takes at least; it bounds what a count in a body
//! may claim. A node takes no bytes at all exactly when its least is 0 (null, records of such, a fixed of
//! size 0), which is what lets a reader pass over any number of them at once.
//!
//! Logical types are their underlying types; `doc`, `order` and what else is unknown is ignored. Names are
//! not checked for their letters: the registry has accepted them. **Refuses** what cannot be decoded by: a
//! name that nothing defines, one defined twice, a union in a union, a field named twice, a type without any
//! finite value (a record that must hold itself), and more than [`SCHEMA_NODES`] nodes.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Most nodes of a schema. The contract's largest has under 30.
const SCHEMA_NODES: usize = 10_000;

/// A node's place in its schema.
pub(super) type NodeId = usize;

/// A parsed schema.
#[derive(Clone, Debug)]
pub(super) struct Schema {
    nodes: Vec<Node>,
    /// Bytes, for each node.
    least: Vec<u64>,
    /// The type of a whole value.
    pub root: NodeId,
}

/// A type.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    /// So many bytes.
    Fixed(Name, usize),
    /// One of the symbols; the default's place is what a reader takes for a symbol that it does not know.
    Enum(Name, Vec<Box<str>>, Option<usize>),
    /// Its items' type.
    Array(NodeId),
    /// Its values' type; keys are strings.
    Map(NodeId),
    /// Its branches, none of them a union.
    Union(Vec<NodeId>),
    /// Its fields, in the order of their bytes.
    Record(Name, Vec<Field>),
}

/// What a named type is called. Resolution compares names without their namespaces, as the specification asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Name {
    pub plain: Box<str>,
    pub aliases: Vec<Box<str>>,
}

/// A field of a record.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub name: Box<str>,
    pub aliases: Vec<Box<str>>,
    pub node: NodeId,
    /// The value of a field that the writer does not have.
    pub default: Option<Value>,
}

impl Schema {
    /// Parses a schema; the error says what is wrong with it.
    pub fn parse(json: &str) -> Result<Schema, String> {
        Schema::parse_with(json, &[])
    }

    /// The same, where names may stand in other schemas, each after those whose names it uses.
    pub fn parse_with(json: &str, definitions: &[String]) -> Result<Schema, String> {
        let mut parser = Parser::default();
        for definition in definitions {
            parser.parse_json(definition)?;
        }
        let root = parser.parse_json(json)?;
        let least = least(&parser.nodes);
        match least.iter().position(|bytes| *bytes == u64::MAX) {
            None => Ok(Schema {
                nodes: parser.nodes,
                least,
                root,
            }),
            Some(endless) => Err(format!("{} has no finite value", parser.nodes[endless].kind())),
        }
    }

    /// The node at a place.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The bytes that a value of the node takes at least.
    pub fn least(&self, id: NodeId) -> u64 {
        self.least[id]
    }
}

impl Node {
    /// The type's name in the specification, for error texts.
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Boolean => "boolean",
            Node::Int => "int",
            Node::Long => "long",
            Node::Float => "float",
            Node::Double => "double",
            Node::Bytes => "bytes",
            Node::Text => "string",
            Node::Fixed(..) => "fixed",
            Node::Enum(..) => "enum",
            Node::Array(_) => "array",
            Node::Map(_) => "map",
            Node::Union(_) => "union",
            Node::Record(..) => "record",
        }
    }
}

/// The least size of every node, in bytes; `u64::MAX` for one without a finite value. Sizes only fall, and a
/// child mostly stands behind its parent: going backwards, few rounds suffice.
fn least(nodes: &[Node]) -> Vec<u64> {
    let mut least = vec![u64::MAX; nodes.len()];
    loop {
        let mut changed = false;
        for (id, node) in nodes.iter().enumerate().rev() {
            let bytes = match node {
                Node::Null => 0,
                Node::Fixed(_, size) => *size as u64,
                Node::Float => 4,
                Node::Double => 8,
                Node::Union(branches) => branches
                    .iter()
                    .map(|branch| least[*branch].saturating_add(1))
                    .min()
                    .unwrap_or(u64::MAX),
                Node::Record(_, fields) => fields
                    .iter()
                    .fold(0, |sum: u64, field| sum.saturating_add(least[field.node])),
                // A number, a length, a count, a symbol.
                _ => 1,
            };
            changed |= bytes < least[id];
            least[id] = bytes;
        }
        if !changed {
            return least;
        }
    }
}

/// What has been parsed so far.
#[derive(Default)]
struct Parser {
    nodes: Vec<Node>,
    /// The named types, by full name.
    named: BTreeMap<String, NodeId>,
}

impl Parser {
    /// Parses a whole schema.
    fn parse_json(&mut self, json: &str) -> Result<NodeId, String> {
        // A bare name is a schema too.
        let is_json = json.trim_start().starts_with(['"', '{', '[']);
        if !is_json {
            return self.refer(json.trim(), "");
        }
        let value: Value = serde_json::from_str(json).map_err(|error| format!("not JSON: {error}"))?;
        self.parse(&value, "")
    }

    /// Parses a type that stands within `namespace` (empty for none).
    fn parse(&mut self, value: &Value, namespace: &str) -> Result<NodeId, String> {
        match value {
            Value::String(name) => self.refer(name, namespace),
            Value::Array(branches) => {
                let id = self.push(Node::Null)?;
                let branches: Vec<NodeId> = branches
                    .iter()
                    .map(|branch| self.parse(branch, namespace))
                    .collect::<Result<_, _>>()?;
                if branches
                    .iter()
                    .any(|branch| matches!(self.nodes[*branch], Node::Union(_)))
                {
                    return Err("a union in a union".to_owned());
                }
                self.nodes[id] = Node::Union(branches);
                Ok(id)
            }
            Value::Object(attributes) => self.complex(attributes, namespace),
            other => Err(format!("{other} is no type")),
        }
    }

    /// Gives a node its place.
    fn push(&mut self, node: Node) -> Result<NodeId, String> {
        if self.nodes.len() == SCHEMA_NODES {
            return Err(format!("more than {SCHEMA_NODES} types"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// A primitive type, or one defined before.
    fn refer(&mut self, name: &str, namespace: &str) -> Result<NodeId, String> {
        let primitive = match name {
            "null" => Node::Null,
            "boolean" => Node::Boolean,
            "int" => Node::Int,
            "long" => Node::Long,
            "float" => Node::Float,
            "double" => Node::Double,
            "bytes" => Node::Bytes,
            "string" => Node::Text,
            _ => {
                let (full, _) = full_name(name, namespace);
                let found = self.named.get(&full).or_else(|| self.named.get(name));
                return found
                    .copied()
                    .ok_or_else(|| format!("nothing defines the type '{name}'"));
            }
        };
        self.push(primitive)
    }

    /// A type with attributes: perhaps a primitive one.
    fn complex(&mut self, attributes: &Map<String, Value>, namespace: &str) -> Result<NodeId, String> {
        let kind = attributes.get("type").ok_or("a type without \"type\"")?;
        let Some(kind) = kind.as_str() else {
            return self.parse(kind, namespace); // {"type": {...}}: the inner one, perhaps annotated
        };
        match kind {
            "record" | "error" | "enum" | "fixed" => self.define(kind, attributes, namespace),
            "array" | "map" => {
                let id = self.push(Node::Null)?;
                let of = if kind == "array" { "items" } else { "values" };
                let of = attributes
                    .get(of)
                    .ok_or_else(|| format!("an {kind} without \"{of}\""))?;
                let of = self.parse(of, namespace)?;
                self.nodes[id] = if kind == "array" {
                    Node::Array(of)
                } else {
                    Node::Map(of)
                };
                Ok(id)
            }
            name => self.refer(name, namespace),
        }
    }

    /// A named type. Its name is known within it, so that it may refer to itself.
    fn define(
        &mut self,
        kind: &str,
        attributes: &Map<String, Value>,
        namespace: &str,
    ) -> Result<NodeId, String> {
        let name = text(attributes, "name").ok_or_else(|| format!("a {kind} without a name"))?;
        let namespace = text(attributes, "namespace").unwrap_or(namespace);
        let (full, namespace) = full_name(name, namespace);
        let id = self.push(Node::Null)?;
        if self.named.insert(full.clone(), id).is_some() {
            return Err(format!("'{full}' is defined twice"));
        }
        let aliases = texts(attributes, "aliases")?.unwrap_or_default();
        let name = Name {
            plain: plain(name).into(),
            aliases: aliases.iter().map(|alias| plain(alias).into()).collect(),
        };
        self.nodes[id] = match kind {
            "fixed" => {
                let size = attributes.get("size").and_then(Value::as_u64);
                let size = size.and_then(|size| usize::try_from(size).ok());
                Node::Fixed(name, size.ok_or_else(|| format!("'{full}' has no size"))?)
            }
            "enum" => {
                let symbols = texts(attributes, "symbols")?;
                let symbols = symbols.ok_or_else(|| format!("'{full}' has no symbols"))?;
                let default = text(attributes, "default");
                let default =
                    default.and_then(|default| symbols.iter().position(|symbol| **symbol == *default));
                Node::Enum(name, symbols, default)
            }
            _ => Node::Record(name, self.fields(attributes, &full, &namespace)?),
        };
        Ok(id)
    }

    /// The fields of a record, in their order.
    fn fields(
        &mut self,
        attributes: &Map<String, Value>,
        record: &str,
        namespace: &str,
    ) -> Result<Vec<Field>, String> {
        let values = attributes.get("fields").and_then(Value::as_array);
        let mut fields: Vec<Field> = Vec::new();
        for value in values.ok_or_else(|| format!("'{record}' has no fields"))? {
            let attributes = value.as_object().ok_or_else(|| format!("{value} is no field"))?;
            let name =
                text(attributes, "name").ok_or_else(|| format!("a field of '{record}' without a name"))?;
            if fields.iter().any(|field| *field.name == *name) {
                return Err(format!("'{record}.{name}' is defined twice"));
            }
            let of = attributes.get("type");
            let of = of.ok_or_else(|| format!("'{record}.{name}' has no type"))?;
            fields.push(Field {
                name: name.into(),
                aliases: texts(attributes, "aliases")?.unwrap_or_default(),
                node: self.parse(of, namespace)?,
                default: attributes.get("default").cloned(),
            });
        }
        Ok(fields)
    }
}

/// A name with its namespace, and the namespace.
fn full_name(name: &str, namespace: &str) -> (String, String) {
    match name.rsplit_once('.') {
        Some((namespace, _)) => (name.to_owned(), namespace.to_owned()),
        None if namespace.is_empty() => (name.to_owned(), String::new()),
        None => (format!("{namespace}.{name}"), namespace.to_owned()),
    }
}

/// A name without its namespace.
fn plain(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, plain)| plain)
}

fn text<'a>(attributes: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    attributes.get(name).and_then(Value::as_str)
}

/// An array of strings, where there is one.
fn texts(attributes: &Map<String, Value>, name: &str) -> Result<Option<Vec<Box<str>>>, String> {
    let Some(value) = attributes.get(name) else {
        return Ok(None);
    };
    let text = |value: &Value| value.as_str().map(Box::from);
    let texts = value
        .as_array()
        .and_then(|values| values.iter().map(text).collect());
    texts
        .map(Some)
        .ok_or_else(|| format!("\"{name}\": {value} is no list of strings"))
}
