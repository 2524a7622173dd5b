//! Bytes that are no records become dead letters, once, as the contract spells them; files that are no inputs
//! stop the job with their name and the byte. Nothing crashes it, nothing makes its memory follow the length
//! of a line.

mod lines;

use crate::harness::Directory;
use crate::jobs::{self, DATAFLOWS, hold, lay_out, output, rows, run};
use crate::oracle::{Input, Job, expected};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lines::Becomes::{self, Invalid, Undecodable};
use lines::{EVENTS, GOOD_AUTHORIZATION, GOOD_ENTRY, GOOD_EVENT, GOOD_SETTING, Parts};
use serde_json::{Value, json};
use std::fs::File;

/// A dead letter's value is cut here, bytes.
const SHOWN: usize = 512 * 1024;

/// A dead letter as its line says it, without the free text.
fn letter(input: &str, offset: usize, line: &[u8], becomes: Becomes) -> Value {
    let encoded = |bytes: &[u8]| STANDARD.encode(&bytes[..bytes.len().min(SHOWN)]);
    let (reason, key, value) = match becomes {
        Undecodable => ("UNDECODABLE", None, Some(line)),
        Invalid(key, value) => ("INVALID", key, value.map(str::as_bytes)),
    };
    let mut letter = json!({"input": input, "partition": 0, "offset": offset, "reason": reason});
    if let Some(key) = key {
        letter["key"] = encoded(key.as_bytes()).into();
    }
    if let Some(value) = value {
        letter["value"] = encoded(value).into();
    }
    json!({"key": key, "value": letter})
}

/// The dead letters of a job, each checked to say why, without that text and without null members.
fn dead_letters(directory: &Directory) -> Vec<Value> {
    let mut letters = rows(&output(directory, "dead_letters"));
    for letter in &mut letters {
        let members = letter["value"].as_object_mut().expect("a record");
        let error = members.remove("error");
        assert!(
            error.is_some_and(|error| error.as_str().is_some_and(|text| !text.is_empty())),
            "it says why"
        );
        members.retain(|_, member| !member.is_null());
    }
    letters
}

/// What the last row of `counts` says.
fn last_count(directory: &Directory) -> Option<Value> {
    rows(&output(directory, "counts"))
        .last()
        .map(|row| row["value"]["count"].clone())
}

/// One good line, the bad ones, and the good one again; with the dead letters they become.
fn between(input: &str, good: &str, bad: &[(Vec<u8>, Becomes)]) -> (Vec<u8>, Vec<Value>) {
    let mut bytes = format!("{good}\n").into_bytes();
    let mut letters = Vec::new();
    for (line, becomes) in bad {
        // Without a CR of its own a line ends with CR LF here and there: it belongs to the end.
        let end: &[u8] = if letters.len() % 2 == 0 { b"\n" } else { b"\r\n" };
        letters.push(letter(input, bytes.len(), line, *becomes));
        bytes.extend([line.as_slice(), end].concat());
    }
    bytes.extend_from_slice(good.as_bytes());
    (bytes, letters)
}

/// Lines made of parts, with what they become.
fn invalid(parts: &'static [Parts]) -> Vec<(Vec<u8>, Becomes)> {
    let line = |(key, value, tail): &Parts| format!("{{\"key\":{key},\"value\":{value}{tail}}}").into_bytes();
    let becomes = |(key, value, _): &'static Parts| {
        let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
        Invalid(key, (*value != "null").then_some(*value))
    };
    parts.iter().map(|parts| (line(parts), becomes(parts))).collect()
}

#[test]
fn every_kind_of_bad_line_becomes_one_dead_letter() {
    let events: Vec<_> = EVENTS
        .iter()
        .map(|(line, becomes)| (line.to_vec(), *becomes))
        .collect();
    let (event_bytes, event_letters) = between("events", GOOD_EVENT, &events);
    let (entry_bytes, entry_letters) = between("entries", GOOD_ENTRY, &invalid(lines::ENTRIES));
    let (setting_bytes, setting_letters) = between("settings", GOOD_SETTING, &invalid(lines::SETTINGS));
    let inputs = [
        ("events", event_bytes),
        ("entries", entry_bytes),
        ("settings", setting_bytes),
        ("authorizations", format!("{GOOD_AUTHORIZATION}\n").into_bytes()),
    ];
    let inputs = inputs.map(|(name, bytes)| (name, Input::new(name, vec![bytes])));
    let job = Job::new(&["alerts", "event_counts"], inputs.into());
    let wanted = [entry_letters, event_letters, setting_letters].concat();
    for workers in [1, 3] {
        let directory = lay_out(&job, "", "");
        run(&directory, workers);
        let mut letters = dead_letters(&directory);
        letters.sort_by_key(|row| (row["value"]["input"].to_string(), row["value"]["offset"].as_u64()));
        for (letter, wanted) in letters.iter().zip(&wanted) {
            assert_eq!(letter, wanted);
        }
        assert_eq!(letters.len(), wanted.len());
        hold(
            &job,
            &expected(&job),
            &jobs::all_outputs(&directory, &job),
            "the oracle agrees",
        );
        // The good ones counted, and the row of the table was left as it was: both entries find it.
        assert_eq!(last_count(&directory), Some(json!(2)));
        assert_eq!(output(&directory, "sms").lines().count(), 2);
        // Once: neither a start with nothing new nor one with more repeats them.
        let before = output(&directory, "dead_letters");
        directory.append(&jobs::input_file("events", 0), format!("\n{GOOD_EVENT}\n"));
        run(&directory, workers);
        assert_eq!(output(&directory, "dead_letters"), before);
    }
}

#[test]
fn what_is_odd_but_right_is_accepted() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let lines = [
        GOOD_EVENT.to_owned(),
        format!("{GOOD_EVENT}\r"),
        format!(" \t{GOOD_EVENT} "),
        r#"{"value":{"occurred_at":7,"event_id":""},"key":"\u006b","more":1}"#.to_owned(),
        r#"{"key":"k","value":{"event_id":"e","occurred_at":-0}}"#.to_owned(),
        r#"{"key":"k","value":{"event_id":"\u0000","occurred_at":253402300799999}}"#.to_owned(),
        format!(r#"{{"key":"k","deep":{deep},"value":{{"deep":{deep},"event_id":"e","occurred_at":7}}}}"#),
        r#"{"key":"k","timestamp":0,"value":{"event_id":"e","occurred_at":7,"x":1,"x":[]}}"#.to_owned(),
    ];
    let bytes = format!("{}\n", lines.join("\n")).into_bytes();
    let job = Job::new(
        &["event_counts"],
        vec![("events", Input::new("events", vec![bytes]))],
    );
    let directory = lay_out(&job, "", "");
    run(&directory, 1);
    assert_eq!(output(&directory, "dead_letters"), "");
    assert_eq!(last_count(&directory), Some(json!(lines.len())));
}

#[test]
fn late_records_carry_their_watermark() {
    let order = |time: i64, space: &str| {
        let value = format!(r#"{{"order_id":"o","amount":1,"currency":"EUR","placed_at":{time}}}"#);
        format!("{{\"key\":\"k\",\"value\":{space}{value}{space}}}\n")
    };
    let orders = order(70_000, "") + &order(9, " ");
    let inputs = [("orders", orders.into_bytes()), ("payments", Vec::new())];
    let inputs = inputs.map(|(name, bytes)| (name, Input::new(name, vec![bytes])));
    let job = Job::new(&["tumbling_aggregates", "enriched_orders"], inputs.into());
    let directory = lay_out(&job, "", "");
    run(&directory, 2);
    let late = |dataflow: &str| {
        json!({"key": "k", "value": {"input": "orders", "partition": 0, "offset": 83, "key": "aw==",
            "value": STANDARD.encode(r#"{"order_id":"o","amount":1,"currency":"EUR","placed_at":9}"#),
            "reason": "LATE", "dataflow": dataflow, "event_time": 9, "watermark": 70_000}})
    };
    assert_eq!(
        dead_letters(&directory),
        [late("enriched_orders"), late("tumbling_aggregates")]
    );
}

#[test]
fn long_values_are_cut_and_long_lines_undecodable() {
    let long = "x".repeat(600 * 1024);
    let quoted = format!("{{\"key\":\"k\",\"value\":\"{long}\"}}");
    let nested = format!(
        "{{\"key\":\"k\",\"value\":{}{}}}",
        "[".repeat(300_000),
        "]".repeat(300_000)
    );
    let unclosed = "[".repeat(600_000);
    let too_long = format!("{{\"key\":\"k\",\"value\":{{\"event_id\":\"{long}{long}\",\"occurred_at\":7}}}}");
    let accepted = too_long.replacen(&long, "", 1);
    let bytes = [&quoted, &nested, &unclosed, &too_long, &accepted, ""]
        .join("\n")
        .into_bytes();
    let mut input = Input::new("events", vec![bytes]);
    input.max_record_bytes = 1 << 20;
    let job = Job::new(&["event_counts"], vec![("events", input)]);
    let directory = lay_out(&job, "", "");
    run(&directory, 1);
    let letters = dead_letters(&directory);
    let sized = |letter: &Value| {
        let value = STANDARD
            .decode(letter["value"]["value"].as_str().expect("bytes"))
            .expect("base64");
        (letter["value"]["reason"].as_str().map(str::to_owned), value)
    };
    let line = |bytes: &str| bytes.as_bytes()[..SHOWN].to_vec();
    let wanted = [
        (Some("INVALID".to_owned()), line(&format!("\"{long}"))),
        (
            Some("INVALID".to_owned()),
            line(&nested["{\"key\":\"k\",\"value\":".len()..]),
        ),
        (Some("UNDECODABLE".to_owned()), line(&unclosed)),
        (Some("UNDECODABLE".to_owned()), line(&too_long)),
    ];
    assert!(
        letters.iter().map(sized).eq(wanted),
        "reasons and the first {SHOWN} bytes"
    );
    assert_eq!(
        output(&directory, "counts"),
        "{\"key\":\"k\",\"value\":{\"count\":1}}\n"
    );
}

#[test]
fn a_line_of_a_hundred_megabytes_takes_no_such_memory() {
    const LINE: usize = 100 << 20;
    let job = Job::new(
        &["event_counts"],
        vec![("events", Input::new("events", vec![Vec::new()]))],
    );
    let directory = lay_out(&job, "", "");
    let file = jobs::input_file("events", 0);
    directory.append(&file, format!("{GOOD_EVENT}\n"));
    let block = vec![b'x'; 1 << 20];
    (0..LINE / block.len()).for_each(|_| directory.append(&file, &block));
    directory.append(&file, format!("\n{GOOD_EVENT}\n"));
    let end = 2 * (GOOD_EVENT.len() + 1) + LINE + 1;

    // Followed, so that it still lives when all is committed, and can be asked for its greatest size.
    let mut running = directory.start(&["run", "job.toml", "--follow"]);
    running.wait_for_status("all is committed", |status| {
        status["inputs"][0]["committed_offset"] == end
    });
    let peak = running.process("VmHWM").expect("the program runs");
    let peak: usize = peak.trim_end_matches(" kB").parse().expect("a number of KiB");
    running.interrupt().succeeded();
    assert!(peak < LINE / 1024, "{peak} KiB for a line of {} KiB", LINE / 1024);

    let letters = dead_letters(&directory);
    assert_eq!(
        letters,
        [letter(
            "events",
            GOOD_EVENT.len() + 1,
            &block[..SHOWN],
            Undecodable
        )]
    );
    assert_eq!(last_count(&directory), Some(json!(2)));
}

/// A job of events with two partitions, the first of two lines.
fn two_partitions() -> (Job, Directory) {
    let partitions = vec![
        format!("{GOOD_EVENT}\n{GOOD_EVENT}\n").into_bytes(),
        format!("{GOOD_EVENT}\n").into_bytes(),
    ];
    let job = Job::new(
        &["event_counts"],
        vec![("events", Input::new("events", partitions))],
    );
    let directory = lay_out(&job, "", "");
    (job, directory)
}

/// Asserts that a text names all these.
#[track_caller]
fn names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_directory_is_no_input() {
    let (_, directory) = two_partitions();
    directory.write("data/events-002.jsonl/inside", "");
    let refused = directory.tidegate(&["run", "job.toml"]).failed(3);
    names(
        &refused,
        &[
            "job.toml:",
            "inputs.events.file",
            "data/events-002.jsonl is a directory",
        ],
    );
    assert!(
        !directory.root().join("state").exists(),
        "refused before anything starts"
    );
}

/// Cuts a file to this length in one step, or removes it.
fn spoil(directory: &Directory, file: &str, length: Option<u64>) {
    let path = directory.root().join(file);
    let cut = |length| File::options().write(true).open(&path)?.set_len(length);
    length
        .map_or_else(|| std::fs::remove_file(&path), cut)
        .expect("files can be spoilt");
}

#[test]
fn a_file_that_shrank_or_went_between_runs_is_refused() {
    for (length, what) in [(Some(52), "52 bytes"), (None, "gone")] {
        let (job, directory) = two_partitions();
        run(&directory, 2);
        let before = jobs::all_outputs(&directory, &job);
        let file = jobs::input_file("events", 0);
        spoil(&directory, &file, length);
        names(
            &directory.tidegate(&["run", "job.toml"]).failed(4),
            &[&file, what, "106 bytes"],
        );
        assert_eq!(jobs::all_outputs(&directory, &job), before);
        // Put back, the job goes on.
        directory.write(&file, format!("{GOOD_EVENT}\n").repeat(3));
        run(&directory, 1);
        assert_eq!(last_count(&directory), Some(json!(4)));
    }
}

#[test]
fn a_file_that_shrinks_or_goes_while_it_is_followed_stops_the_job() {
    for (length, what) in [(Some(2), "shorter (2 bytes)"), (None, "gone")] {
        let (_, directory) = two_partitions();
        let mut running = directory.start(&["run", "job.toml", "--follow", "--workers", "2"]);
        let read = GOOD_EVENT.len() * 2 + 2;
        running.wait_for_status("all is committed", |status| {
            status["inputs"][0]["committed_offset"] == read
                && status["inputs"][1]["committed_offset"] == read / 2
        });
        let file = jobs::input_file("events", 0);
        spoil(&directory, &file, length);
        names(
            &running.end().failed(4),
            &[&file, what, &format!("at byte {read}")],
        );
        // What was committed before stands, and the next start does not take the file for another either.
        assert_eq!(last_count(&directory), Some(json!(3)));
        names(&directory.tidegate(&["run", "job.toml"]).failed(4), &[&file]);
    }
}

#[test]
fn inputs_of_rubbish_alone_end_well() {
    // A seeded mess of bytes, with line ends among them, in every input at once.
    let mut state = 7_u64;
    let mut rubbish = |length: usize| -> Vec<u8> {
        let mut byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let byte = (state >> 56) as u8;
            if byte.is_multiple_of(16) {
                b"{}[]\",:\n\r\0"[usize::from(byte) / 26]
            } else {
                byte
            }
        };
        (0..length).map(|_| byte()).collect()
    };
    let names: Vec<&str> = DATAFLOWS
        .iter()
        .flat_map(|(_, inputs, _)| inputs.iter().copied())
        .collect();
    let inputs = names.into_iter().map(|name| {
        (
            name,
            Input::new(name, vec![rubbish(3_000), rubbish(1), Vec::new()]),
        )
    });
    let job = Job::new(&DATAFLOWS.map(|(name, ..)| name), inputs.collect());
    jobs::check(&job, 3, "", "", "rubbish");
}
