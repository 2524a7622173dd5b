//! The slow twin of [`decode_line`](super::decode_line): a JSON grammar written out by hand, a tree, and the
//! contract's rules one after the other. Seeded lines, made of the right parts put together wrongly and then
//! damaged, must meet the same end in both.

use super::{Message, Rejected, decode_line};
use crate::format::strict::tests::{Color, Part, Reading};
use crate::record::{Record, Text};
use crate::time::EVENT_TIMES;

/// A seeded generator (splitmix64): the same numbers for the same seed, for ever.
pub(crate) struct Random(pub u64);

impl Random {
    /// A number in `0 .. bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A JSON value. A string with half a surrogate pair is none.
#[derive(Debug)]
enum Node {
    Null,
    Bool,
    Number(String),
    String(Option<String>),
    List(Vec<Node>),
    Object(Vec<Member>),
}

/// A name, its value, and the value as it stands.
#[derive(Debug)]
struct Member(Option<String>, Node, String);

/// A recursive descent over what is left of the text; none where the grammar ends.
struct Parser<'a>(&'a str);

impl Parser<'_> {
    fn space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(token)?;
        Some(())
    }

    /// A value with the space around it.
    fn value(&mut self) -> Option<Node> {
        self.space();
        let node = match self.0.chars().next()? {
            'n' => self.take("null").map(|()| Node::Null)?,
            't' => self.take("true").map(|()| Node::Bool)?,
            'f' => self.take("false").map(|()| Node::Bool)?,
            '"' => Node::String(self.string()?),
            '[' => Node::List(self.items('[', ']', |parser| parser.value())?),
            '{' => Node::Object(self.items('{', '}', Self::member)?),
            _ => Node::Number(self.number()?),
        };
        self.space();
        Some(node)
    }

    fn items<T>(&mut self, open: char, close: char, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        self.0 = self.0.strip_prefix(open)?;
        self.space();
        while !self.0.starts_with(close) {
            if !items.is_empty() {
                self.take(",")?;
            }
            items.push(item(self)?);
        }
        self.0 = self.0.strip_prefix(close)?;
        Some(items)
    }

    fn member(&mut self) -> Option<Member> {
        self.space();
        let name = self.string()?;
        self.space();
        self.take(":")?;
        let before = self.0;
        let node = self.value()?;
        Some(Member(
            name,
            node,
            before[..before.len() - self.0.len()].trim().to_owned(),
        ))
    }

    fn digits(&mut self) -> Option<()> {
        let rest = self.0.trim_start_matches(|c: char| c.is_ascii_digit());
        (rest.len() < self.0.len()).then(|| self.0 = rest)
    }

    fn number(&mut self) -> Option<String> {
        let before = self.0;
        let _ = self.take("-");
        self.take("0").or_else(|| self.digits())?;
        if self.take(".").is_some() {
            self.digits()?;
        }
        if self.take("e").or_else(|| self.take("E")).is_some() {
            let _ = self.take("+").or_else(|| self.take("-"));
            self.digits()?;
        }
        Some(before[..before.len() - self.0.len()].to_owned())
    }

    fn string(&mut self) -> Option<Option<String>> {
        self.take("\"")?;
        let mut units: Vec<u16> = Vec::new();
        loop {
            let c = self.0.chars().next()?;
            self.0 = &self.0[c.len_utf8()..];
            match c {
                '"' => return Some(String::from_utf16(&units).ok()),
                '\\' => units.push(self.escape()?),
                '\0'..='\u{1f}' => return None,
                _ => units.extend(c.encode_utf16(&mut [0; 2]).iter()),
            }
        }
    }

    fn escape(&mut self) -> Option<u16> {
        let c = self.0.chars().next()?;
        self.0 = &self.0[c.len_utf8()..];
        if c != 'u' {
            let at = "\"\\/bfnrt".find(c)?;
            return Some(u16::from(b"\"\\/\x08\x0c\n\r\t"[at]));
        }
        let digits = self
            .0
            .get(..4)
            .filter(|digits| digits.chars().all(|digit| digit.is_ascii_hexdigit()))?;
        self.0 = &self.0[4..];
        u16::from_str_radix(digits, 16).ok()
    }
}

/// The known fields of an object, each at most once; none where it is no object, or has a name that is no
/// string.
fn fields<'a>(node: &'a Node, known: &[&str]) -> Option<Vec<Option<&'a Node>>> {
    let Node::Object(members) = node else { return None };
    let mut found: Vec<Option<&Node>> = vec![None; known.len()];
    for Member(name, node, _) in members {
        let name = name.as_ref()?;
        if let Some(at) = known.iter().position(|known| known == name)
            && found[at].replace(node).is_some()
        {
            return None;
        }
    }
    Some(found)
}

fn string(node: &Node) -> Option<Text> {
    if let Node::String(Some(text)) = node {
        Some(text.into())
    } else {
        None
    }
}

fn integer(node: &Node) -> Option<i64> {
    if let Node::Number(digits) = node {
        digits.parse().ok()
    } else {
        None
    }
}

fn color(node: &Node) -> Option<Color> {
    [Color::Red, Color::Blue]
        .into_iter()
        .find(|color| string(node).is_some_and(|text| text == color.symbol()))
}

fn list<T>(node: &Node, item: impl Fn(&Node) -> Option<T>) -> Option<Vec<T>> {
    if let Node::List(items) = node {
        items.iter().map(item).collect()
    } else {
        None
    }
}

/// A field that may be absent or null.
fn nullable<T>(node: Option<&Node>, read: impl Fn(&Node) -> Option<T>) -> Option<Option<T>> {
    match node {
        None | Some(Node::Null) => Some(None),
        Some(node) => read(node).map(Some),
    }
}

fn part(node: &Node) -> Option<Part> {
    let found = fields(node, &["type", "weight"])?;
    Some(Part {
        r#type: color(found[0]?)?,
        weight: nullable(found[1], integer)?,
    })
}

fn reading(node: &Node) -> Option<Reading> {
    let found = fields(node, &["id", "at", "level", "unit", "color", "parts"])?;
    Some(Reading {
        id: string(found[0]?)?,
        at: integer(found[1]?)?,
        level: integer(found[2]?)?,
        unit: nullable(found[3], string)?,
        color: color(found[4]?)?,
        parts: list(found[5]?, part)?,
    })
}

/// Section 1 of the contract. Error texts are empty.
fn judge(line: &[u8], is_table: bool) -> Result<Message<Reading>, Rejected> {
    let undecodable = || Rejected::Undecodable { error: String::new() };
    let text = std::str::from_utf8(line).map_err(|_| undecodable())?;
    let mut parser = Parser(text);
    let Some(Node::Object(members)) = parser.value().filter(|_| parser.0.is_empty()) else {
        return Err(undecodable());
    };
    let named = |wanted: &str| -> Vec<&Member> {
        members
            .iter()
            .filter(|Member(name, ..)| name.as_deref() == Some(wanted))
            .collect()
    };
    let whole_names = members.iter().all(|Member(name, ..)| name.is_some());
    let ([Member(_, key, _)], [Member(_, value, raw)], true) =
        (&*named("key"), &*named("value"), whole_names)
    else {
        return Err(undecodable());
    };
    let key = match key {
        Node::Null => None,
        key => Some(string(key).ok_or_else(undecodable)?),
    };
    let invalid = || Rejected::Invalid {
        key: key.as_ref().map(|key| key.as_bytes().into()),
        value: (raw != "null").then(|| raw.as_bytes().into()),
        error: String::new(),
    };
    let timestamp = match &*named("timestamp") {
        [] => None,
        [Member(_, time, _)] => Some(
            integer(time)
                .filter(|time| EVENT_TIMES.contains(time))
                .ok_or_else(invalid)?,
        ),
        _ => return Err(invalid()),
    };
    let key = key.clone().ok_or_else(invalid)?;
    let value = match value {
        Node::Null if is_table => None,
        value => Some(
            reading(value)
                .filter(|value| value.check(&key).is_ok())
                .ok_or_else(invalid)?,
        ),
    };
    Ok(Message {
        key,
        timestamp,
        value,
    })
}

/// Mostly right members, some wrong, in any order, some absent, some twice.
fn object(random: &mut Random, members: &[(&str, &[&str])]) -> String {
    let mut written = Vec::new();
    for (name, values) in members {
        // The first value is the right one.
        let value = if random.below(12) > 0 {
            values[0]
        } else {
            random.pick(values)
        };
        let copies = random.pick(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 2]);
        for _ in 0..copies {
            written.insert(random.below(written.len() + 1), format!("\"{name}\":{value}"));
        }
    }
    format!("{{{}}}", written.join(random.pick(&[",", ", ", " ,"])))
}

const INTEGERS: &[&str] = &[
    "5",
    "-0",
    "0",
    "1.0",
    "1e3",
    "-1",
    "9223372036854775808",
    "null",
    "\"5\"",
    "-0.0",
    "[-0]",
];
const STRINGS: &[&str] = &[
    "\"k\"",
    "\"\\u006b\"",
    "\"\"",
    "null",
    "5",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "{\"k\":1}",
];
const COLORS: &[&str] = &[
    "\"RED\"",
    "\"BLUE\"",
    "\"R\\u0045D\"",
    "\"GREEN\"",
    "null",
    "{\"RED\":null}",
    "0",
];
const OTHERS: &[&str] = &[
    "0",
    "null",
    "[[{\"id\":[]}],-0]",
    "\"\\ud800\"",
    "1e999",
    "{\"\":0,\"\":\"-0\"}",
];

fn line(random: &mut Random) -> Vec<u8> {
    let part = object(random, &[("type", COLORS), ("weight", INTEGERS), ("x", OTHERS)]);
    let parts = format!("[{part}]");
    let parts = &[parts.as_str(), "[]", "[null]", "[[\"RED\",5]]", "{}"];
    let mut members = vec![
        ("id", STRINGS),
        ("at", INTEGERS),
        ("level", INTEGERS),
        ("unit", STRINGS),
    ];
    members.extend([("color", COLORS), ("parts", parts), ("x", OTHERS)]);
    if random.below(40) == 0 {
        members.push(("\\ud800", OTHERS)); // half a surrogate pair
    }
    let value = object(random, &members);
    let values = &[value.as_str(), "null", " null ", "[]", "\"k\""];
    let envelope = &[
        ("key", STRINGS),
        ("value", values),
        ("timestamp", INTEGERS),
        ("x", OTHERS),
    ];
    object(random, envelope).into_bytes()
}

/// Damages some bytes: replaced, inserted, removed, repeated.
fn damage(random: &mut Random, line: &mut Vec<u8>) {
    let tokens: &[&[u8]] = &[
        b"\"", b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b".", b" ", b"\0", b"\xff", b"e",
    ];
    for _ in 0..random.below(3) {
        let at = random.below(line.len());
        let end = (at + random.below(4)).min(line.len());
        let token = match random.below(3) {
            0 => Vec::new(),
            1 => random.pick(tokens).to_vec(),
            _ => line[at..end].repeat(2),
        };
        line.splice(at..end, token);
    }
}

fn without_text(rejected: Rejected) -> Rejected {
    match rejected {
        Rejected::Undecodable { .. } => Rejected::Undecodable { error: String::new() },
        Rejected::Invalid { key, value, .. } => Rejected::Invalid {
            key,
            value,
            error: String::new(),
        },
    }
}

#[test]
fn every_line_meets_the_same_end_in_the_twin() {
    let mut outcomes = [0; 4];
    for seed in 0..20_000 {
        let mut random = Random(seed);
        let mut line = line(&mut random);
        damage(&mut random, &mut line);
        let is_table = random.below(2) == 0;
        let decoded = decode_line::<Reading>(&line, is_table).map_err(without_text);
        let outcome = match &decoded {
            Ok(Message { value: Some(_), .. }) => 0,
            Ok(_) => 1,
            Err(Rejected::Invalid { .. }) => 2,
            Err(Rejected::Undecodable { .. }) => 3,
        };
        outcomes[outcome] += 1;
        assert_eq!(
            decoded,
            judge(&line, is_table),
            "seed {seed}: {}",
            line.escape_ascii()
        );
    }
    assert!(
        outcomes.iter().all(|&count| count > 100),
        "every outcome is met often: {outcomes:?}"
    );
}
