//! A table of the job file, taken apart key by key, that remembers where everything stands.
//!
//! ```text
//!  text ─toml─► spanned tree ─► Table ─ string(), integer(), symbol(), table() ... ─► plain values
//!                                 └── finish(): whatever nobody asked for is an unknown key ──► Findings
//! ```
//!
//! Nothing here stops at the first error: a value that is missing or wrong is noted in [`Findings`] and read
//! as absent, so that one run names everything that is wrong with a file. Every finding is one line,
//! `file:line: key: what`, with a suggestion where a known word is near. `${NAME}` in a string takes an
//! environment variable, `${file:PATH}` the text of a file, relative to the job file; neither is looked at again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

/// Looks an environment variable up; a parameter, so that tests need not change the process's own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Everything found wrong so far.
pub struct Findings<'a> {
    file: &'a str,
    text: &'a str,
    environment: Environment<'a>,
    lines: RefCell<Vec<(usize, String)>>,
}

/// A value and the byte of the file where it, or its key, stands.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Byte offset in the job file.
    pub at: usize,
}

impl<'a> Findings<'a> {
    /// No findings yet about `text`, which stands in `file`.
    pub fn new(file: &'a str, text: &'a str, environment: Environment<'a>) -> Self {
        Findings {
            file,
            text,
            environment,
            lines: RefCell::default(),
        }
    }

    /// Notes that `key`, which stands at byte `at`, is wrong. A finding stays on one line, whatever it
    /// quotes.
    pub fn add(&self, at: usize, key: &str, what: impl Display) {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        let finding = format!("{}:{line}: {key}: {what}", self.file).replace('\n', "\\n");
        self.lines.borrow_mut().push((line, finding));
    }

    /// One line per finding, in the order of the file; none if all is well.
    pub fn into_message(self) -> Option<String> {
        let mut lines = self.lines.into_inner();
        lines.sort_by_key(|(line, _)| *line); // stable: findings of one line keep their order
        let lines: Vec<String> = lines.into_iter().map(|(_, text)| text).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// Parses the file. What TOML itself refuses (syntax, a key given twice) is noted, and the rest read all
    /// the same.
    pub fn root(&'a self) -> Table<'a> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let span = error.span().unwrap_or_default();
            let message = error.message().replace('\n', " ");
            let key = self
                .text
                .get(span.clone())
                .filter(|key| !key.is_empty() && !key.contains('\n'));
            self.add(span.start, key.unwrap_or("syntax"), message);
        }
        Table::new(self, String::new(), 0, root.into_inner())
    }

    /// The text of a file that holds a secret, without the line end behind it.
    fn file_text(&self, at: usize, key: &str, path: &str) -> Option<String> {
        let directory = std::path::Path::new(self.file)
            .parent()
            .unwrap_or(std::path::Path::new(""));
        let path = directory.join(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => {
                self.add(at, key, format!("{}: {error}", path.display()));
                None
            }
        }
    }

    /// `${NAME}` and `${file:PATH}` in a string value. A variable that is not set and a file that cannot be read
    /// are noted; the string is absent then.
    fn expand(&self, at: usize, key: &str, value: &str) -> Option<String> {
        let (mut expanded, mut rest, mut complete) = (String::new(), value, true);
        while let Some((before, after)) = rest.split_once("${") {
            expanded.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.add(at, key, "`${` without `}`");
                return None;
            };
            let found = match name.strip_prefix("file:") {
                Some(path) => self.file_text(at, key, path),
                None => (self.environment)(name),
            };
            match found {
                Some(text) => expanded.push_str(&text),
                None if name.starts_with("file:") => complete = false,
                None => {
                    self.add(at, key, format!("the environment variable `{name}` is not set"));
                    complete = false;
                }
            }
            rest = after;
        }
        expanded.push_str(rest);
        complete.then_some(expanded)
    }
}

/// A key's place and value.
type Entry<'a> = (usize, Spanned<DeValue<'a>>);

/// One table of the file: its entries that nobody has asked for yet, and the keys asked for so far.
pub struct Table<'a> {
    findings: &'a Findings<'a>,
    /// Its own key, empty for the root.
    path: String,
    /// Where its key stands.
    pub at: usize,
    entries: BTreeMap<String, Entry<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    fn new(findings: &'a Findings<'a>, path: String, at: usize, table: DeTable<'a>) -> Self {
        let entry =
            |(key, value): (Spanned<_>, _)| (String::from(key.get_ref() as &str), (key.span().start, value));
        Table {
            findings,
            path,
            at,
            entries: table.into_iter().map(entry).collect(),
            known: Vec::new(),
        }
    }

    /// The full name of one of its keys.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes something about one of its keys.
    pub fn add(&self, at: usize, key: &str, what: impl Display) {
        self.findings.add(at, &self.key(key), what);
    }

    /// Whether this key is there and nobody has asked for it yet.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Where this key stands; the table itself where it does not.
    pub fn place(&self, key: &str) -> usize {
        self.entries.get(key).map_or(self.at, |(at, _)| *at)
    }

    fn take(&mut self, key: &'static str) -> Option<Entry<'a>> {
        self.known.push(key);
        self.entries.remove(key)
    }

    fn wrong_type(&self, at: usize, key: &str, wanted: &str, value: &DeValue<'_>) {
        self.add(
            at,
            key,
            format!("wrong type: {wanted} is wanted, not {}", described(value)),
        );
    }

    /// A string, with `${NAME}` replaced.
    pub fn string(&mut self, key: &'static str) -> Option<Located<String>> {
        let (at, value) = self.take(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(at, key, "a string", value.get_ref());
            return None;
        };
        self.findings
            .expand(at, &self.key(key), text)
            .map(|value| Located { value, at })
    }

    /// A string that must be there.
    pub fn required(&mut self, key: &'static str) -> Option<Located<String>> {
        if !self.has(key) {
            self.add(self.at, key, "missing");
        }
        self.string(key)
    }

    /// An array of strings that must be there and hold something, each with `${NAME}` replaced.
    pub fn strings(&mut self, key: &'static str) -> Vec<Located<String>> {
        let Some((at, value)) = self.take(key) else {
            self.add(self.at, key, "missing");
            return Vec::new();
        };
        let mut strings = Vec::new();
        match value.get_ref().as_array() {
            None => self.wrong_type(at, key, "an array of strings", value.get_ref()),
            Some(array) if array.is_empty() => self.add(at, key, "empty"),
            Some(array) => {
                for element in array.iter() {
                    let at = element.span().start;
                    match element.get_ref().as_str() {
                        None => self.wrong_type(at, key, "an array of strings", element.get_ref()),
                        Some(text) => {
                            let text = self.findings.expand(at, &self.key(key), text);
                            strings.extend(text.map(|value| Located { value, at }));
                        }
                    }
                }
            }
        }
        strings
    }

    /// An integer within a range.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let (at, value) = self.take(key)?;
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(at, key, "an integer", value.get_ref());
            return None;
        };
        let number = parsed(integer).filter(|number| range.contains(number));
        if number.is_none() {
            self.add(
                at,
                key,
                format!("{integer} is not within {} ..= {}", range.start(), range.end()),
            );
        }
        number
    }

    /// True or false.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let (at, value) = self.take(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(at, key, "true or false", value.get_ref());
        }
        boolean
    }

    /// One of a few words.
    pub fn symbol<T: Copy>(&mut self, key: &'static str, symbols: &[(&str, T)]) -> Option<T> {
        let word = self.string(key)?;
        let symbol = symbols.iter().find(|(name, _)| *name == word.value);
        if symbol.is_none() {
            let names: Vec<_> = symbols.iter().map(|(name, _)| *name).collect();
            let suggestion = suggestion(&word.value, &names);
            self.add(
                word.at,
                key,
                format!("`{}` is none of {}{suggestion}", word.value, names.join(", ")),
            );
        }
        symbol.map(|(_, value)| *value)
    }

    /// A table within it.
    pub fn table(&mut self, key: &'static str) -> Option<Table<'a>> {
        let (at, value) = self.take(key)?;
        match value.into_inner() {
            DeValue::Table(table) => Some(Table::new(self.findings, self.key(key), at, table)),
            other => {
                self.wrong_type(at, key, "a table", &other);
                None
            }
        }
    }

    /// A table that must be there; an empty one is read where it is not.
    pub fn required_table(&mut self, key: &'static str) -> Table<'a> {
        if !self.has(key) {
            self.add(self.at, key, "missing");
        }
        self.table(key)
            .unwrap_or_else(|| Table::new(self.findings, self.key(key), self.at, DeTable::new()))
    }

    /// What nobody has asked for, as dotted names: `a.b` stands for a table within it too.
    pub fn leaves(&self) -> Vec<(String, usize)> {
        let mut leaves = Vec::new();
        for (key, (at, value)) in &self.entries {
            collect_leaves(key, *at, value.get_ref(), &mut leaves);
        }
        leaves
    }

    /// The value of a dotted name as text, with `${NAME}` replaced: a string, an integer, true or false.
    pub fn leaf(&mut self, name: &str) -> Option<Located<String>> {
        let (at, value) = self.find(name)?;
        let text = match value {
            DeValue::String(text) => return self.expanded(at, name, text),
            DeValue::Integer(integer) => integer.as_str().to_owned(),
            DeValue::Boolean(truth) => truth.to_string(),
            other => {
                self.wrong_type(at, name, "a string", other);
                return None;
            }
        };
        Some(Located { value: text, at })
    }

    /// Whether the value of a dotted name is one `${...}` and nothing else.
    pub fn is_reference(&self, name: &str) -> bool {
        let text = self.find(name).and_then(|(_, value)| value.as_str());
        text.is_some_and(|text| text.starts_with("${") && text.find('}') == Some(text.len() - 1))
    }

    /// Whether the value of a dotted name holds a `${...}`.
    pub fn has_reference(&self, name: &str) -> bool {
        let text = self.find(name).and_then(|(_, value)| value.as_str());
        text.is_some_and(|text| text.contains("${"))
    }

    fn find(&self, name: &str) -> Option<(usize, &DeValue<'a>)> {
        let (at, value) = self.entries.iter().find_map(|(key, (at, value))| {
            let found = find_leaf(key, value.get_ref(), name)?;
            Some((*at, found))
        })?;
        Some((at, value))
    }

    fn expanded(&self, at: usize, name: &str, text: &str) -> Option<Located<String>> {
        self.findings
            .expand(at, &self.key(name), text)
            .map(|value| Located { value, at })
    }

    /// All that is left has been read by its dotted name.
    pub fn finish_leaves(mut self) {
        self.entries.clear();
        self.finish();
    }

    /// Refuses a key that is known but has no place here.
    pub fn refuse(&mut self, key: &'static str, why: &str) {
        if let Some((at, _)) = self.take(key) {
            self.add(at, key, why);
        }
    }

    /// Ends the reading: what is left are unknown keys.
    pub fn finish(self) {
        for (key, (at, _)) in &self.entries {
            self.add(*at, key, format!("unknown{}", suggestion(key, &self.known)));
        }
    }
}

fn collect_leaves(name: &str, at: usize, value: &DeValue<'_>, leaves: &mut Vec<(String, usize)>) {
    match value {
        DeValue::Table(table) => {
            for (key, value) in table {
                let name = format!("{name}.{}", key.get_ref());
                collect_leaves(&name, key.span().start, value.get_ref(), leaves);
            }
        }
        _ => leaves.push((name.to_owned(), at)),
    }
}

fn find_leaf<'v, 'a>(name: &str, value: &'v DeValue<'a>, wanted: &str) -> Option<&'v DeValue<'a>> {
    if let DeValue::Table(table) = value {
        let rest = wanted.strip_prefix(name)?.strip_prefix('.')?;
        return table
            .iter()
            .find_map(|(key, value)| find_leaf(key.get_ref(), value.get_ref(), rest));
    }
    (name == wanted).then_some(value)
}

fn parsed(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The type of a value, with its article.
fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The known word that is near enough to be meant: about a third of the letters differ at most.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(word, known);
    let nearest = *known.iter().min_by_key(|known| distance(known))?;
    (distance(&nearest) <= 1 + word.len().min(nearest.len()) / 4).then_some(nearest)
}

/// ` (did you mean ...?)` where there is a nearest word.
pub fn suggestion(word: &str, known: &[&str]) -> String {
    nearest(word, known)
        .map(|nearest| format!(" (did you mean `{nearest}`?)"))
        .unwrap_or_default()
}
