//! Laws of the source text that neither the compiler nor clippy can hold.
//!
//! ```text
//!  *.rs of the four packages ─► source.rs: code, comments, strings apart ─┬─► imports.rs: who may name whom
//!  Cargo.toml of the four ────────────────────────────────────────────────┴─► here: sizes, leftovers, manifests
//! ```
//!
//! Every law lists all its breaches, not the first one. The figures it measures are printed (`--nocapture`).
//! The scan knows Rust's comments, strings and braces and nothing more: it can be fooled, but not by
//! accident.

mod imports;
mod source;

use source::{Source, root, sources};

/// Hard limit of a file, lines.
const FILE_LINES_MAX: usize = 800;
/// Nine files in ten are no longer.
const FILE_LINES_P90: usize = 450;
/// Half the files should be no longer; reported, not enforced.
const FILE_LINES_MEDIAN: usize = 150;
/// A longer function is an exception ...
const FUNCTION_LINES: usize = 70;
/// ... of which there are fewer than this, in a hundred functions.
const LONG_FUNCTIONS_PERCENT: usize = 2;
/// Longest line, characters. rustfmt keeps code shorter; this is for what it leaves alone.
const LINE_CHARACTERS: usize = 120;
/// Lines of the engine that are comments, in a hundred: what is wanted ...
const COMMENTS_WANTED: std::ops::RangeInclusive<usize> = 20..=35;
/// ... and what is refused.
const COMMENTS_ALLOWED: std::ops::RangeInclusive<usize> = 15..=40;

/// Where a thread may sleep, and why. Waiting for another thread or process is not a reason.
const MAY_SLEEP: &[(&str, &str)] = &[
    (
        "src/checkpoint/lock.rs",
        "another process holds a lock; nobody tells when it lets go",
    ),
    (
        "bench/kafka/load.rs",
        "messages are due by a schedule fixed beforehand",
    ),
    ("bench/kills_run.rs", "looks whether the moment to kill has come"),
    (
        "bench/generation.rs",
        "looks whether processes have ended, which nobody tells of several at once",
    ),
];

/// What a package may not depend on, and why.
const FORBIDDEN_DEPENDENCIES: &[(&str, &[&str], &str)] = &[
    (
        "Cargo.toml",
        &[
            "tidegate-dataflows",
            "tidegate-workers",
            "tidegate-bench",
            "clap",
            "toml",
            "indicatif",
        ],
        "the engine knows no dataflow, no command line and no job file",
    ),
    (
        "dataflows/Cargo.toml",
        &[
            "rdkafka",
            "tokio",
            "object_store",
            "rustix",
            "clap",
            "toml",
            "tracing-subscriber",
            "tidegate-workers",
            "tidegate-bench",
        ],
        "a dataflow opens nothing",
    ),
    ("workers/Cargo.toml", &["tidegate-bench"], "arrows only go down"),
    (
        "bench/Cargo.toml",
        &["tidegate-workers"],
        "the bench drives the program from outside",
    ),
];

/// Fails with all breaches, one a line.
#[track_caller]
fn none(law: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{law}:\n{}", breaches.join("\n"));
}

#[test]
fn rooms_name_only_what_they_may() {
    let breaches: Vec<String> = sources().iter().flat_map(imports::breaches).collect();
    none("a room names what it may not (tests/tidy/imports.rs)", &breaches);
}

#[test]
fn files_are_short() {
    let sources = sources();
    let mut lengths: Vec<(usize, &str)> = sources
        .iter()
        .map(|source| (source.text.lines().count(), source.path.as_str()))
        .collect();
    lengths.sort_unstable();
    let share = |percent: usize| lengths[(lengths.len() - 1) * percent / 100].0;
    let (median, p90) = (share(50), share(90));
    let above = if median > FILE_LINES_MEDIAN {
        format!(" (above {FILE_LINES_MEDIAN})")
    } else {
        String::new()
    };
    eprintln!(
        "{} files; lines: median {median}{above}, 90th percentile {p90}",
        lengths.len()
    );
    let too_long = lengths.iter().filter(|(lines, _)| *lines > FILE_LINES_MAX);
    let breaches: Vec<String> = too_long
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    none("files over the hard limit: split by meaning", &breaches);
    assert!(
        p90 <= FILE_LINES_P90,
        "the 90th percentile of file lengths is {p90}, more than {FILE_LINES_P90}"
    );
}

#[test]
fn functions_are_short() {
    let (mut count, mut long) = (0, Vec::new());
    for source in sources() {
        for (line, name, lines) in source.functions() {
            count += 1;
            if lines > FUNCTION_LINES {
                long.push(format!("{}:{line}: {name}: {lines} lines", source.path));
            }
        }
    }
    eprintln!(
        "{count} functions, {} over {FUNCTION_LINES} lines\n{}",
        long.len(),
        long.join("\n")
    );
    assert!(
        long.len() * 100 < LONG_FUNCTIONS_PERCENT * count,
        "too many long functions:\n{}",
        long.join("\n")
    );
}

#[test]
fn nothing_is_left_behind() {
    let mut breaches = Vec::new();
    for source in sources() {
        for (number, (code, comment)) in (1..).zip(source.code.lines().zip(source.comments.lines())) {
            let mut left = |word: &str| breaches.push(format!("{}:{number}: {word}", source.path));
            ["dbg!", "todo!", "unimplemented!"]
                .into_iter()
                .filter(|word| code.contains(word))
                .for_each(&mut left);
            ["TODO", "FIXME", "XXX"]
                .into_iter()
                .filter(|word| comment.contains(word))
                .for_each(&mut left);
        }
    }
    none("left behind", &breaches);
}

#[test]
fn nobody_sleeps() {
    let mut breaches = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| MAY_SLEEP.iter().all(|(path, _)| *path != source.path))
    {
        for (number, code) in (1..).zip(source.code.lines()) {
            if code.contains("thread::sleep") || code.contains(" sleep(") {
                breaches.push(format!("{}:{number}", source.path));
            }
        }
    }
    none(
        "a sleep waits too long or not long enough: wait for the thing itself",
        &breaches,
    );
}

#[test]
fn lines_are_short_and_code_is_ascii() {
    let mut breaches = Vec::new();
    for source in sources() {
        for (number, (text, code)) in (1..).zip(source.text.lines().zip(source.code.lines())) {
            let length = text.chars().count();
            // rustfmt leaves attributes alone, and clap's say much.
            if length > LINE_CHARACTERS && !text.trim_start().starts_with("#[") {
                breaches.push(format!("{}:{number}: {length} characters", source.path));
            }
            if !code.is_ascii() || text.contains('\t') {
                breaches.push(format!("{}:{number}: not ASCII, or a tab", source.path));
            }
        }
    }
    none("lines", &breaches);
}

#[test]
fn every_file_says_what_it_is() {
    let silent = |source: &&Source| !source.text.starts_with("//! ");
    let breaches: Vec<String> = sources()
        .iter()
        .filter(silent)
        .map(|source| source.path.clone())
        .collect();
    none("files that do not start with a module doc", &breaches);
}

#[test]
fn the_engine_is_commented_and_not_drowned() {
    let (mut comments, mut lines) = (0, 0);
    // Test modules stand at the end of a file; their names say what they show.
    for source in sources().iter().filter(|source| source.path.starts_with("src/")) {
        let production = source.text.lines().take(source.production().lines().count());
        for line in production.map(str::trim_start).filter(|line| !line.is_empty()) {
            lines += 1;
            comments += usize::from(line.starts_with("//"));
        }
    }
    let share = comments * 100 / lines;
    let wanted = if COMMENTS_WANTED.contains(&share) {
        ""
    } else {
        ", which is not what is wanted"
    };
    eprintln!("{share} % of {lines} lines of the engine are comments{wanted} ({COMMENTS_WANTED:?})");
    assert!(
        COMMENTS_ALLOWED.contains(&share),
        "{share} % comments, not within {COMMENTS_ALLOWED:?}"
    );
}

#[test]
fn the_workspace_is_four_packages_that_depend_downwards() {
    let read = |path: &str| -> toml::Table {
        let text = std::fs::read_to_string(root().join(path)).expect("a manifest of the workspace");
        text.parse().expect("a manifest is TOML")
    };
    let members = read("Cargo.toml")["workspace"]["members"].clone();
    assert_eq!(
        members,
        toml::Value::from(vec![".", "dataflows", "workers", "bench"])
    );
    let mut breaches = Vec::new();
    for (path, forbidden, reason) in FORBIDDEN_DEPENDENCIES {
        let manifest = read(path);
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(kind).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, value) in dependencies {
                if forbidden.contains(&name.as_str()) && kind == "dependencies" {
                    breaches.push(format!("{path}: {name}: {reason}"));
                }
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    breaches.push(format!(
                        "{path}: {name}: its version belongs into the workspace's manifest"
                    ));
                }
            }
        }
    }
    none("dependencies", &breaches);
}
