//! Every command that the README shows is run here, in order, in one directory, so that what a newcomer types
//! works.
//!
//! Commands stand in fenced blocks marked `sh` or `console`; in a `console` block only lines that begin with
//! `$ ` are commands, the rest is what they print. `cargo run --release --` is the program itself, with one
//! account in many where a demo of the full size would take its time. What cannot run inside a test is
//! skipped, and must be one of two kinds.

use crate::harness::Directory;

/// The commands of a Markdown text, comments and continued lines resolved.
fn commands(markdown: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut block = None;
    for line in markdown.lines().map(str::trim) {
        match (block, line.strip_prefix("```")) {
            (None, Some(language)) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (Some("sh" | "bash" | "console"), None) => {
                let command = match line.strip_prefix("$ ") {
                    Some(command) => command,
                    None if block == Some("console") => continue,
                    None => line,
                };
                let command = command.split(" #").next().unwrap_or_default().trim();
                if !command.is_empty() && !command.starts_with('#') {
                    commands.push(command.to_owned());
                }
            }
            _ => {}
        }
    }
    commands
}

/// The heading of the section that `kafka_readme` walks through.
pub const KAFKA: &str = "## Kafka quick start\n";

/// What stands before a section, and what behind it.
fn around<'a>(markdown: &'a str, heading: &str) -> (&'a str, &'a str) {
    let (before, rest) = markdown.split_once(heading).expect("the section is there");
    let after = rest.find("\n## ").map_or("", |at| &rest[at..]);
    (before, after)
}

/// The commands of one section of the README.
pub fn section(heading: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    let (before, after) = around(&readme, heading);
    commands(&readme[before.len()..readme.len() - after.len()])
}

/// The arguments of `tidegate` in a command; none if it runs something else.
fn arguments(command: &str) -> Option<Vec<&str>> {
    let built = [
        "cargo run --release --locked -- ",
        "cargo run --release -- ",
        "./target/release/tidegate ",
        "tidegate ",
    ];
    let arguments = built.iter().find_map(|prefix| command.strip_prefix(prefix))?;
    Some(arguments.split_whitespace().collect())
}

/// What runs for hours, or runs this very test.
fn is_skipped(command: &str) -> bool {
    command == "scripts/test" || command.starts_with("cargo run --release -p tidegate-bench")
}

#[test]
fn every_command_runs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    // The Kafka quick start needs a broker: `kafka_readme` walks through it.
    let (before, after) = around(&readme, KAFKA);
    let commands = [commands(before), commands(after)].concat();
    let directory = Directory::new();
    for command in commands.iter().filter(|command| !is_skipped(command)) {
        // A pipe into another program is that program's business.
        let own = command.split(" | ").next().unwrap_or_default();
        let steps: Vec<&str> = own.split(" && ").collect();
        for step in steps {
            let mut words = arguments(step).unwrap_or_else(|| panic!("no test runs `{step}`"));
            if words == ["demo"] {
                words.extend(["--accounts", "500"]);
            }
            assert!(!words.contains(&"--follow"), "`{step}` would not end");
            let outcome = directory.tidegate(&words);
            assert_eq!(outcome.code, Some(0), "`{step}`:\n{}", outcome.stderr);
        }
    }

    let shown = |wanted: &str| {
        assert!(
            commands.iter().any(|command| command == wanted),
            "`{wanted}` is not shown"
        )
    };
    shown("cargo run --release -- demo");
    shown("scripts/test");
    assert!(
        commands.iter().any(|command| command.contains("tidegate-bench")),
        "the benchmark is not shown"
    );
}

#[test]
fn commands_are_found_where_they_stand() {
    let markdown = "text `no`\n```sh\n# a comment\ntidegate check job.toml  # why\n$ tidegate demo\n\n```\n\
                    ```text\nno\n```\n```console\n$ scripts/test\nok\n```\n";
    assert_eq!(
        commands(markdown),
        ["tidegate check job.toml", "tidegate demo", "scripts/test"]
    );
    assert_eq!(
        arguments("cargo run --release -- run day/job.toml"),
        Some(vec!["run", "day/job.toml"])
    );
    assert_eq!(arguments("cargo test"), None);
    assert!(is_skipped(
        "cargo run --release -p tidegate-bench -- kills --count 500"
    ));
}
