//! What an adversarial reading of the first version found, one case each: every one failed before it was mended.

use crate::harness::Directory;
use serde_json::Value;

/// An order's line.
fn order(id: &str, time: i64) -> String {
    let value = format!(r#"{{"order_id":"{id}","amount":5,"currency":"EUR","placed_at":{time}}}"#);
    format!("{{\"key\":\"A\",\"value\":{value}}}\n")
}

/// A job of windows over `orders-*.jsonl`; `more` belongs to the input.
fn windows(more: &str) -> Directory {
    let directory = Directory::new();
    let job = format!(
        "name = \"a\"\ndataflows = [\"tumbling_aggregates\"]\nstate = \"state\"\n\
         [inputs.orders]\nfile = \"orders-*.jsonl\"\n{more}\n\
         [outputs.aggregates]\nfile = \"out/aggregates.jsonl\"\n\
         [outputs.dead_letters]\nfile = \"out/dead_letters.jsonl\"\n"
    );
    directory.write("job.toml", job);
    directory
}

fn run(directory: &Directory) {
    directory.tidegate(&["run", "job.toml"]).succeeded();
}

/// The values of an output's rows.
fn values(directory: &Directory, output: &str) -> Vec<Value> {
    let text = String::from_utf8(directory.read(&format!("out/{output}.jsonl"))).expect("UTF-8");
    let value = |line: &str| serde_json::from_str::<Value>(line).expect("a JSON line")["value"].clone();
    text.lines().map(value).collect()
}

/// Follows until every partition is as wanted.
fn follow_until(directory: &Directory, what: &str, wanted: impl Fn(&Value) -> bool, ends_well: bool) {
    let mut running = directory.start(&["run", "job.toml", "--follow"]);
    running.wait_for_status(what, |status| {
        let partitions = status["inputs"].as_array().expect("a list");
        !partitions.is_empty() && partitions.iter().all(&wanted)
    });
    if ends_well {
        running.interrupt().succeeded();
    } // else it is dropped, which is kill -9
}

#[test]
fn idle_partitions_end_too() {
    let directory = windows("idle_timeout_ms = 50");
    directory.write("orders-0.jsonl", order("o1", 1_000) + &order("o2", 2_000));
    follow_until(
        &directory,
        "it is idle",
        |partition| partition["idle"] == true,
        true,
    );
    run(&directory);
    let rows = values(&directory, "aggregates");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["count"], 2);
}

#[test]
fn a_replayed_epoch_does_not_end_a_partition() {
    let directory = windows("");
    let lines = order("o1", 1_000) + &order("o2", 2_000);
    directory.write("orders-0.jsonl", &lines);
    let all = lines.len();
    follow_until(
        &directory,
        "all is committed",
        |partition| partition["committed_offset"] == all,
        false,
    );
    run(&directory);
    let rows = values(&directory, "aggregates");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["count"], 2);
}

#[test]
fn an_idle_partition_that_grew_is_behind() {
    let directory = windows("idle_timeout_ms = 50");
    directory.write("orders-0.jsonl", order("a", 1_000));
    directory.write("orders-1.jsonl", order("b", 1_000));
    follow_until(
        &directory,
        "both are idle",
        |partition| partition["idle"] == true,
        true,
    );
    directory.append("orders-0.jsonl", order("c", 5_000));
    directory.append("orders-1.jsonl", order("d", 10_000) + &order("e", 200_000));
    run(&directory);
    assert_eq!(values(&directory, "dead_letters"), Vec::<Value>::new());
    let counts: Vec<_> = values(&directory, "aggregates")
        .iter()
        .map(|row| row["count"].clone())
        .collect();
    assert_eq!(counts, [4, 1]);
}

#[test]
fn one_file_is_not_written_by_two_jobs() {
    let directory = Directory::new();
    for name in ["one", "two"] {
        let job = format!(
            "name = \"{name}\"\ndataflows = [\"event_counts\"]\nstate = \"state-{name}\"\n\
             [inputs.events]\nfile = \"{name}.jsonl\"\n[outputs.counts]\nfile = \"out/counts.jsonl\"\n\
             [outputs.dead_letters]\nfile = \"out/dead-{name}.jsonl\"\n"
        );
        directory.write(&format!("{name}.toml"), job);
        let event = format!("{{\"key\":\"{name}\",\"value\":{{\"event_id\":\"e\",\"occurred_at\":1}}}}\n");
        directory.write(&format!("{name}.jsonl"), event);
    }
    let first = directory.start(&["run", "one.toml", "--follow"]);
    while !directory.path("out/counts.jsonl").exists() {
        assert!(first.process("Name").is_some(), "it ended by itself");
    }
    let refused = directory.tidegate(&["run", "two.toml", "--append"]).failed(6);
    assert!(
        refused.contains("out/counts.jsonl") && refused.contains("in use"),
        "{refused}"
    );
    drop(first);
}

#[test]
fn a_late_record_keeps_its_value_through_a_crash() {
    let calm = windows("");
    let crashed = windows("");
    let (before, after) = (order("o1", 1_000) + &order("o2", 100_000), order("o3", 3_000));
    for directory in [&calm, &crashed] {
        directory.write("orders-0.jsonl", &before);
        let environment: &[(&str, &str)] = match std::ptr::eq(directory, &crashed) {
            true => &[("TIDEGATE_CRASH_AT", "before-manifest:1")],
            false => &[],
        };
        let first = directory.tidegate_with(&["run", "job.toml"], environment);
        assert_eq!(
            first.code.is_none(),
            std::ptr::eq(directory, &crashed),
            "{}",
            first.stderr
        );
        directory.append("orders-0.jsonl", &after);
        run(directory);
    }
    let letters = values(&crashed, "dead_letters");
    assert_eq!(letters, values(&calm, "dead_letters"));
    assert!(
        letters.len() == 1 && letters[0]["value"].is_string(),
        "{letters:?}"
    );
}

#[test]
fn a_record_late_at_the_boundary_keeps_its_value() {
    let directory = Directory::new();
    directory.write(
        "job.toml",
        "name = \"a\"\ndataflows = [\"enriched_orders\"]\nstate = \"state\"\n\
         [inputs.orders]\nfile = \"orders.jsonl\"\n[inputs.payments]\nfile = \"payments.jsonl\"\n\
         [outputs.enriched]\nfile = \"out/enriched.jsonl\"\n\
         [outputs.dead_letters]\nfile = \"out/dead_letters.jsonl\"\n\
         [enriched_orders]\nwithin_ms = 0\ngrace_ms = 0\n",
    );
    directory.write("orders.jsonl", order("o1", 1_000) + &order("o2", 1_000));
    directory.write("payments.jsonl", "");
    run(&directory);
    let letters = values(&directory, "dead_letters");
    assert!(
        letters.len() == 1 && letters[0]["value"].is_string(),
        "{letters:?}"
    );
}

#[test]
fn a_job_is_the_same_by_any_path_and_wherever_it_is_moved() {
    let directory = Directory::new();
    let job = "name = \"g\"\ndataflows = [\"event_counts\"]\nstate = \"state\"\n\
               [inputs.events]\nfile = \"events.jsonl\"\n[outputs.counts]\nfile = \"o1/x.jsonl\"\n\
               [outputs.dead_letters]\nfile = \"o2/x.jsonl\"\n";
    directory.write("here/job.toml", job);
    directory.write("here/sub/empty", "");
    let event = "{\"key\":\"k\",\"value\":{\"event_id\":\"e\",\"occurred_at\":1}}\nbad\n";
    directory.write("here/events.jsonl", event);
    directory.tidegate(&["run", "here/job.toml"]).succeeded();
    directory.tidegate(&["run", "here/sub/../job.toml"]).succeeded();
    std::fs::rename(directory.path("here"), directory.path("there")).expect("a directory can be moved");
    directory.tidegate(&["run", "there/job.toml"]).succeeded();
    let status = directory
        .tidegate(&["status", "there/job.toml", "--json"])
        .succeeded();
    let status: Value = serde_json::from_str(&status).expect("JSON");
    for output in status["outputs"].as_array().expect("a list") {
        let path = output["file"].as_str().expect("a path");
        let length = std::fs::metadata(path).expect("an output").len();
        assert_eq!(output["committed_bytes"], length, "{path}");
    }
}

#[test]
fn a_job_does_not_write_its_own_files() {
    for own in ["job.toml", "state", "state/begun", "out/.a-0.progress", "out/"] {
        let directory = windows("");
        directory.write("orders-0.jsonl", "");
        let job = String::from_utf8(directory.read("job.toml")).expect("UTF-8");
        directory.write("job.toml", job.replace("out/aggregates.jsonl", own));
        let refused = directory.tidegate(&["run", "job.toml"]).failed(3);
        assert!(refused.contains("outputs.aggregates.file"), "{own}: {refused}");
        assert!(!directory.path("state").exists(), "{own}: nothing was started");
    }
}

/// Each of two outputs leads, by its own link, to one file that does not exist yet.
#[test]
fn two_links_to_one_missing_file_are_one_file() {
    let directory = windows("");
    directory.write("orders-0.jsonl", order("o1", 1_000));
    directory.write("out/deeper/empty", "");
    let link = |name: &str, target: &str| {
        std::os::unix::fs::symlink(target, directory.path(name)).expect("links can be made");
    };
    link("out/aggregates.jsonl", "deeper/../both.jsonl");
    link("out/dead_letters.jsonl", "chain");
    link(
        "out/chain",
        directory.path("out/both.jsonl").to_str().expect("UTF-8"),
    );
    let refused = directory.tidegate(&["run", "job.toml"]).failed(3);
    assert!(
        refused.contains("is also the file of `outputs.aggregates`"),
        "{refused}"
    );
    assert!(!directory.path("state").exists() && !directory.path("out/both.jsonl").exists());
    // A circle is no file, and no end of looking for one.
    std::fs::remove_file(directory.path("out/chain")).expect("a link");
    link("out/chain", "dead_letters.jsonl");
    let refused = directory.tidegate(&["run", "job.toml"]).failed(7);
    assert!(refused.contains("out/dead_letters.jsonl"), "{refused}");
}

#[test]
fn what_does_not_end_a_line_is_not_appended_to() {
    let directory = windows("");
    directory.write("orders-0.jsonl", order("o1", 1_000));
    directory.write("out/aggregates.jsonl", "{\"mine\":1}");
    let refused = directory.tidegate(&["run", "job.toml", "--append"]).failed(3);
    assert!(
        refused.contains("out/aggregates.jsonl") && refused.contains("last line has no end"),
        "{refused}"
    );
    assert_eq!(directory.read("out/aggregates.jsonl"), b"{\"mine\":1}");
    directory.append("out/aggregates.jsonl", "\n");
    directory.tidegate(&["run", "job.toml", "--append"]).succeeded();
    let text = String::from_utf8(directory.read("out/aggregates.jsonl")).expect("UTF-8");
    assert!(text.starts_with("{\"mine\":1}\n{\"key\":\"A\""), "{text}");
    assert_eq!(text.lines().count(), 2);
}
