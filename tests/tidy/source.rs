//! The source text of the workspace, with code, comments and strings told apart.

use std::path::{Path, PathBuf};

/// The folders that hold source text: the rooms.
const ROOMS: [&str; 5] = ["src", "dataflows", "workers", "bench", "tests"];

/// One file.
pub struct Source {
    /// Its path from the root of the workspace, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
    /// The code: comments, strings and characters blanked, every line still in its place.
    pub code: String,
    /// The comments: everything else blanked.
    pub comments: String,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("workers/ stands in the workspace")
        .to_path_buf()
}

/// All source files, by path.
pub fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for room in ROOMS {
        collect(&root().join(room), &mut paths);
    }
    paths.sort();
    let source = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("source text is UTF-8");
        let path = path
            .strip_prefix(root())
            .expect("below the root")
            .display()
            .to_string();
        let (code, comments) = split(&text);
        Source {
            path,
            text,
            code,
            comments,
        }
    };
    let sources: Vec<Source> = paths.into_iter().map(source).collect();
    assert!(
        sources.len() > 20,
        "only {} files found: the scan looks in the wrong place",
        sources.len()
    );
    sources
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a room of the workspace") {
        let path = entry.expect("a readable room").path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Test code whose path does not say so.
const TEST_FILES: [&str; 6] = [
    "src/scratch.rs",
    "src/operators/twins/",
    "src/checkpoint/decide_table.rs",
    "src/format/json_model.rs",
    "src/format/avro/model.rs",
    "dataflows/trial.rs",
];

impl Source {
    /// Whether the whole file is there for tests only.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let says_so = name == "tests.rs" || name.ends_with("_tests.rs") || name.ends_with("_test.rs");
        let in_tests = self.path.starts_with("tests/") || self.path.contains("/tests/");
        says_so || in_tests || TEST_FILES.iter().any(|test| self.path.starts_with(test))
    }

    /// The code that is not there for tests only: nothing of a test file, and the rest without its inline
    /// test module.
    pub fn production(&self) -> &str {
        if self.is_test() {
            return "";
        }
        let mut from = 0;
        while let Some(at) = self.code[from..].find("#[cfg(test)]") {
            let module = self.code[from + at..]
                .lines()
                .skip(1)
                .find(|line| !line.trim_start().starts_with('#'));
            if module.is_some_and(|line| line.starts_with("mod ") && line.trim_end().ends_with('{')) {
                return &self.code[..from + at];
            }
            from += at + 1;
        }
        &self.code
    }

    /// Every function with a body: the line it starts in, its name, its length in lines.
    pub fn functions(&self) -> Vec<(usize, String, usize)> {
        let mut functions = Vec::new();
        let (mut from, mut line) = (0, 1);
        while let Some(found) = self.code[from..].find("fn ") {
            let at = from + found;
            line += self.code[from..at].matches('\n').count();
            from = at + 3;
            let is_word = self.code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
            let name: String = self.code[from..]
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                .collect();
            if !is_word && !name.is_empty() {
                functions.extend(body_lines(&self.code[at..]).map(|lines| (line, name, lines)));
            }
        }
        functions
    }
}

/// How many lines the function takes that starts here; none if it has no body.
fn body_lines(code: &str) -> Option<usize> {
    let (mut lines, mut brackets, mut braces) = (1, 0_i32, 0_i32);
    for letter in code.chars() {
        match letter {
            '\n' => lines += 1,
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => continue,
        }
        if letter == '}' && braces == 0 {
            return Some(lines);
        }
    }
    None
}

/// What a stretch of source text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

/// Code and comments, each with everything else blanked.
fn split(text: &str) -> (String, String) {
    let letters: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let mut at = 0;
    while at < letters.len() {
        let (part, length) = stretch(&letters[at..], at.checked_sub(1).map(|before| letters[before]));
        for letter in &letters[at..at + length] {
            let blank = if *letter == '\n' { '\n' } else { ' ' };
            code.push(if part == Part::Code { *letter } else { blank });
            comments.push(if part == Part::Comment { *letter } else { blank });
        }
        at += length;
    }
    (code, comments)
}

/// What starts here, and how many letters it takes. `before` is the letter before it.
fn stretch(letters: &[char], before: Option<char>) -> (Part, usize) {
    let until = |end: &[char], from: usize| {
        let found = letters[from.min(letters.len())..]
            .windows(end.len())
            .position(|window| window == end);
        found.map_or(letters.len(), |at| from + at + end.len())
    };
    let is_word = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    match letters {
        ['/', '/', ..] => (Part::Comment, until(&['\n'], 0)),
        ['/', '*', ..] => (Part::Comment, until(&['*', '/'], 2)),
        ['r', '"' | '#', ..] if !is_word || before == Some('b') => {
            let hashes = letters[1..].iter().take_while(|letter| **letter == '#').count();
            if letters.get(1 + hashes) != Some(&'"') {
                return (Part::Code, 1 + hashes); // a raw identifier
            }
            let end: Vec<char> = std::iter::once('"')
                .chain(std::iter::repeat_n('#', hashes))
                .collect();
            (Part::Literal, until(&end, 2 + hashes))
        }
        ['"', ..] => (Part::Literal, quoted(letters, '"')),
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => (Part::Literal, quoted(letters, '\'')),
        _ => (Part::Code, 1),
    }
}

/// The length of a literal from its quote to its quote.
fn quoted(letters: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < letters.len() && letters[at] != quote {
        at += if letters[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(letters.len())
}

#[test]
fn code_comments_and_literals_are_told_apart() {
    let text =
        "let a = \"fn // b\"; // fn c\nlet d = ['\"', '\\'']; /* e\nf */ r#\"g\"h\"#; r#type: &'i str\n";
    let (code, comments) = split(text);
    assert_eq!(
        code,
        "let a =          ;        \nlet d = [   ,     ];     \n             ; r#type: &'i str\n"
    );
    assert_eq!(
        comments.split_whitespace().collect::<Vec<_>>(),
        ["//", "fn", "c", "/*", "e", "f", "*/"]
    );
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn functions_are_measured() {
    let code = "fn one(a: [u8; 2]) {\n    if a { b }\n}\ntrait T { fn two(&self); }\npub fn three() { }\n"
        .to_owned();
    let source = Source {
        path: String::new(),
        text: String::new(),
        code,
        comments: String::new(),
    };
    assert_eq!(
        source.functions(),
        [(1, "one".to_owned(), 3), (5, "three".to_owned(), 1)]
    );
}
