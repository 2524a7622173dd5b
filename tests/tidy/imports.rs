//! The import laws of the rooms: a table, and the scan that holds the source text to it.
//!
//! What a whole package may use is held by its manifest. Within the engine and the dataflows the manifests
//! are too coarse, so every file belongs to a row here, the first whose prefix it has. Test modules are free.

use super::source::Source;

/// What the files of a room may name.
struct Room {
    /// The files: those whose path starts with this.
    prefix: &'static str,
    /// Modules of the engine, in the engine by `crate::`, elsewhere by `tidegate::`.
    engine: &'static [&'static str],
    /// Crates; `std` is free but for what [`CLOSED`] rooms may not use.
    crates: &'static [&'static str],
    /// Modules of the same package, in packages other than the engine.
    own: &'static [&'static str],
    /// Whether clocks, files, sockets, threads and the environment are out of bounds.
    is_closed: bool,
}

/// Modules of `std` that reach out of the process, or to other threads.
const REACHING_OUT: &[&str] = &["fs", "net", "thread", "env", "process"];

const BASE: &[&str] = &["record", "time", "frontier", "limits", "error", "secret"];

/// A row for files of the engine.
const fn room(
    prefix: &'static str,
    engine: &'static [&'static str],
    crates: &'static [&'static str],
) -> Room {
    Room {
        prefix,
        engine,
        crates,
        own: &[],
        is_closed: false,
    }
}

/// A row for files of the engine that are closed: no clocks, files, sockets, threads.
const fn closed(
    prefix: &'static str,
    engine: &'static [&'static str],
    crates: &'static [&'static str],
) -> Room {
    Room {
        prefix,
        engine,
        crates,
        own: &[],
        is_closed: true,
    }
}

/// A row for files of the dataflows, all closed.
const fn dataflow(prefix: &'static str, own: &'static [&'static str]) -> Room {
    // `run` only for the wiring that the catalogue is handed.
    const ENGINE: &[&str] = &[
        "record",
        "time",
        "limits",
        "error",
        "format",
        "operators",
        "run",
        "strict_enum",
        "strict_record",
    ];
    const CRATES: &[&str] = &[
        "timely",
        "differential_dataflow",
        "serde",
        "serde_json",
        "compact_str",
        "smallvec",
        "tidegate",
    ];
    Room {
        prefix,
        engine: ENGINE,
        crates: CRATES,
        own,
        is_closed: true,
    }
}

const LAWS: &[Room] = &[
    // The base. Bindings are what clocks are folded from; dead letters hold bytes as base64; a record has a row.
    closed(
        "src/record.rs",
        &["format", "replay_log"],
        &[
            "timely",
            "differential_dataflow",
            "serde",
            "compact_str",
            "xxhash_rust",
        ],
    ),
    closed("src/time.rs", &["checkpoint"], &["serde"]),
    closed("src/frontier.rs", &[], &["timely", "serde"]),
    closed("src/limits.rs", &[], &[]),
    closed("src/error.rs", &[], &["thiserror"]),
    closed("src/secret.rs", &[], &[]),
    // The registry's client and its thread; every other format is a function of bytes.
    room(
        "src/format/registry",
        &["format"],
        &["serde", "serde_json", "base64", "tracing", "ureq", "url"],
    ),
    closed("src/columns.rs", &[], &[]),
    // The macros that make a record make its row too.
    closed(
        "src/format/",
        &["format", "replay_log"],
        &["serde", "serde_json", "base64", "memchr", "compact_str"],
    ),
    // Operators see state rows and nothing else of checkpoints.
    closed(
        "src/operators/",
        &["operators", "checkpoint", "watchdog"],
        &[
            "timely",
            "differential_dataflow",
            "serde",
            "postcard",
            "hashbrown",
            "smallvec",
            "compact_str",
            "xxhash_rust",
        ],
    ),
    // Decisions are pure; only the store talks to object stores, which `objects` names and builds.
    closed("src/checkpoint/decide.rs", &["checkpoint"], &["serde"]),
    closed("src/checkpoint/binding.rs", &["checkpoint"], &["serde"]),
    closed("src/checkpoint/row.rs", &["checkpoint"], &["serde"]),
    room(
        "src/checkpoint/store.rs",
        &["checkpoint", "crash"],
        &["object_store", "tokio", "tracing", "serde", "thiserror", "url"],
    ),
    room(
        "src/checkpoint/objects.rs",
        &["checkpoint"],
        &["object_store", "rustls", "url"],
    ),
    room(
        "src/checkpoint/",
        &["checkpoint", "crash"],
        &[
            "chrono",
            "serde",
            "serde_json",
            "postcard",
            "crc32fast",
            "rustix",
            "tracing",
            "memchr",
            "thiserror",
        ],
    ),
    room(
        "src/source/",
        &["source", "format", "checkpoint", "crash", "kafka", "replay_log"],
        &[
            "timely",
            "differential_dataflow",
            "serde",
            "memchr",
            "rustix",
            "tracing",
            "hashbrown",
            "base64",
            "postcard",
            "xxhash_rust",
        ],
    ),
    room(
        "src/sink/",
        &["sink", "format", "checkpoint", "crash", "kafka", "watchdog"],
        &[
            "timely",
            "serde",
            "serde_json",
            "crc32fast",
            "memchr",
            "rustix",
            "tracing",
            "compact_str",
        ],
    ),
    // It wakes the workers, and is told the time.
    room("src/pace", &["pace", "source"], &["serde"]),
    // It is told the time; the thread that looks is the program's.
    closed("src/watchdog.rs", &[], &[]),
    room("src/crash.rs", &[], &["rustix", "tracing"]),
    // The one room that makes a Kafka client; rustls to learn what is wrong with a certificate.
    room(
        "src/kafka",
        &["kafka"],
        &["rdkafka", "rustls", "tokio", "tracing"],
    ),
    // Segments are files; blocks and rows are functions of bytes. Nobody else may name abomonation.
    room(
        "src/replay_log/segments.rs",
        &["replay_log"],
        &["rustix", "tracing"],
    ),
    closed(
        "src/replay_log",
        &["replay_log", "format"],
        &[
            "abomonation",
            "bytemuck",
            "crc32fast",
            "hashbrown",
            "postcard",
            "serde",
            "xxhash_rust",
        ],
    ),
    room("src/metrics.rs", &[], &["hdrhistogram", "timely", "serde"]),
    // Sockets for timely, and links beside it; knows nothing of what a job is made of.
    room(
        "src/cluster/",
        &["cluster"],
        &[
            "crc32fast",
            "postcard",
            "ring",
            "rustix",
            "rustls",
            "serde",
            "timely",
            "tracing",
        ],
    ),
    // The top of the engine puts the rooms together; below it nobody may name it.
    room(
        "src/run",
        &[
            "run",
            "pace",
            "metrics",
            "operators",
            "source",
            "sink",
            "checkpoint",
            "cluster",
            "watchdog",
            "format",
            "crash",
            "kafka",
            "replay_log",
            "verify",
        ],
        &[
            "timely",
            "differential_dataflow",
            "serde",
            "serde_json",
            "tracing",
            "hdrhistogram",
            "postcard",
        ],
    ),
    // It reads what sinks have written.
    room(
        "src/verify/",
        &["verify", "checkpoint", "sink", "kafka"],
        &["serde", "serde_json"],
    ),
    room("src/lib.rs", &[], &[]),
    // Dataflows: one does not name another; the catalogue names them all.
    dataflow("dataflows/lib.rs", &[]),
    dataflow("dataflows/records", &["records"]),
    dataflow(
        "dataflows/catalogue",
        &[
            "records",
            "catalogue",
            "alerts",
            "tumbling_aggregates",
            "enriched_orders",
            "risk_pattern",
            "event_counts",
        ],
    ),
    dataflow("dataflows/generator", &["records", "generator"]),
    dataflow("dataflows/values", &["records"]),
    dataflow("dataflows/alerts", &["records", "alerts"]),
    dataflow(
        "dataflows/tumbling_aggregates",
        &["records", "catalogue", "tumbling_aggregates"],
    ),
    dataflow(
        "dataflows/enriched_orders",
        &["records", "catalogue", "enriched_orders"],
    ),
    dataflow(
        "dataflows/risk_pattern",
        &["records", "catalogue", "risk_pattern"],
    ),
    dataflow("dataflows/event_counts", &["records", "event_counts"]),
];

/// Crates of the workspace's manifest, as code names them; a root that is none of these is a type or a
/// module.
const CRATES: &[&str] = &[
    "abomonation",
    "apache_avro",
    "base64",
    "bytemuck",
    "chrono",
    "clap",
    "compact_str",
    "crc32fast",
    "differential_dataflow",
    "glob",
    "hashbrown",
    "hdrhistogram",
    "indicatif",
    "memchr",
    "mimalloc",
    "object_store",
    "postcard",
    "rdkafka",
    "ring",
    "rustix",
    "rustls",
    "serde",
    "serde_json",
    "smallvec",
    "strsim",
    "thiserror",
    "tidegate",
    "tidegate_dataflows",
    "timely",
    "tokio",
    "toml",
    "tracing",
    "tracing_subscriber",
    "ureq",
    "url",
    "xxhash_rust",
];

/// What a file names and may not, one line each.
pub fn breaches(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") && !source.path.starts_with("dataflows/") {
        return Vec::new(); // their manifests say it all
    }
    if source.is_test() {
        return Vec::new();
    }
    let Some(law) = LAWS.iter().find(|law| source.path.starts_with(law.prefix)) else {
        return vec![format!("{}: belongs to no room: give it a row", source.path)];
    };
    let is_engine = source.path.starts_with("src/");
    // In `src/x.rs` and `src/x/mod.rs`, `super` is the crate.
    let is_top = source.path.ends_with("/mod.rs") || source.path.matches('/').count() == 1;
    let in_engine = |module: &str| BASE.contains(&module) || law.engine.contains(&module);
    let may = |root: &str, module: &str| match root {
        "crate" | "super" if root == "super" && !is_top => true,
        "crate" | "super" if is_engine => in_engine(module),
        "crate" | "super" => law.own.contains(&module),
        "tidegate" => in_engine(module),
        "std" => !law.is_closed || !REACHING_OUT.contains(&module),
        _ => !CRATES.contains(&root) || law.crates.contains(&root),
    };
    let mut breaches = Vec::new();
    for (line, root, module) in named(source.production()) {
        if !may(&root, &module) {
            breaches.push(format!("{}:{line}: {root}::{module}", source.path));
        }
    }
    breaches
}

/// Every path in the code: its line, its root and what follows, each member of a group for itself.
fn named(code: &str) -> Vec<(usize, String, String)> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut named = Vec::new();
    let mut line = 1;
    let mut from = 0;
    while let Some(found) = code[from..].find("::") {
        let at = from + found;
        line += code[from..at].matches('\n').count();
        from = at + 2;
        let root = code[..at]
            .rsplit(|letter| !is_word(letter))
            .next()
            .unwrap_or_default();
        let before = &code[..at - root.len()];
        if root.is_empty() || before.ends_with("::") || before.ends_with('.') {
            continue; // further inside a path
        }
        let rest = &code[from..];
        let members = match rest.strip_prefix('{') {
            None => vec![rest],
            Some(group) => members(group),
        };
        for member in members {
            let member: String = member
                .trim_start()
                .chars()
                .take_while(|letter| is_word(*letter))
                .collect();
            named.push((line, root.to_owned(), member));
        }
    }
    named
}

/// The members of a `{group}`, without those of groups within.
fn members(group: &str) -> Vec<&str> {
    let (mut members, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members.retain(|member| !member.trim().is_empty());
    members
}

/// A file with this path and code breaks these laws.
#[cfg(test)]
#[track_caller]
fn check(path: &str, code: &str, expected: &[&str]) {
    let (path, code) = (path.to_owned(), code.to_owned());
    let source = Source {
        path,
        text: String::new(),
        code,
        comments: String::new(),
    };
    assert_eq!(breaches(&source), expected);
}

#[test]
fn the_scan_finds_what_is_named() {
    check(
        "src/operators/x.rs",
        "use crate::record::Text;\nuse super::Core;\nuse std::collections::BTreeMap;",
        &[],
    );
    check(
        "src/operators/x.rs",
        "use crate::{time::Epoch, sink::{a, b}, source};",
        &[
            "src/operators/x.rs:1: crate::sink",
            "src/operators/x.rs:1: crate::source",
        ],
    );
    check(
        "src/operators/x.rs",
        "fn a() {\n std::fs::read(b); rustix::x() }",
        &["src/operators/x.rs:2: std::fs", "src/operators/x.rs:2: rustix::x"],
    );
    check(
        "src/operators/mod.rs",
        "use super::sink::Sink;",
        &["src/operators/mod.rs:1: super::sink"],
    );
    check(
        "src/checkpoint/decide.rs",
        "use object_store::path;",
        &["src/checkpoint/decide.rs:1: object_store::path"],
    );
    check(
        "dataflows/alerts.rs",
        "use crate::risk_pattern::Config;",
        &["dataflows/alerts.rs:1: crate::risk_pattern"],
    );
    check(
        "dataflows/alerts.rs",
        "use tidegate::sink::Sink;",
        &["dataflows/alerts.rs:1: tidegate::sink"],
    );
    check(
        "src/operators/x.rs",
        "use crate::time::Diff;\n#[cfg(test)]\nmod tests {\n use std::fs::read;\n}",
        &[],
    );
    check(
        "src/new.rs",
        "",
        &["src/new.rs: belongs to no room: give it a row"],
    );
}
