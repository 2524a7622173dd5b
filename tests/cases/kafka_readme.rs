//! The README's Kafka quick start, line by line in one shell, against a broker that is really there.
//!
//! The lines are taken from the README as they are. Only `scripts/kafka` is a stand-in, which names the broker of
//! this test instead of building the program that starts one; `tidegate` is the one under test.

use super::readme::{KAFKA, section};
use crate::broker::{Brokers, Options};
use crate::harness::Directory;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

#[test]
fn the_quick_start_shows_alerts() {
    let commands = section(KAFKA);
    let brokers = Brokers::start(&Options::default()).expect("a broker starts");
    let directory = Directory::new();
    let stand_in = format!(
        "#!/bin/sh\ncase $1 in up) echo KAFKA={} ;; down) echo down ;; *) exit 2 ;; esac\n",
        brokers.bootstrap()
    );
    directory.write("scripts/kafka", stand_in);
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path("scripts/kafka"), executable).expect("it is ours");

    let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let program = program.parent().expect("it lies in a directory").display();
    let path = format!("{program}:{}", std::env::var("PATH").expect("there is a PATH"));
    // Each line says before what it prints which line it is; one that never ends fails the case.
    let lines = commands
        .iter()
        .map(|line| format!("echo '$ {}'\n{line}\n", line.replace('\'', "'\\''")));
    let script = format!("set -e\n{}", lines.collect::<String>());
    let output = Command::new("timeout")
        .args(["600", "sh", "-c", &script])
        .env("PATH", path)
        .current_dir(directory.root())
        .output()
        .expect("a shell");
    let (printed, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}\n{printed}\n{log}", output.status);

    let printed_by = |begins: &str| {
        let from = printed
            .find(&format!("$ {begins}"))
            .unwrap_or_else(|| panic!("{begins} is not shown"));
        let rest = printed[from..].split_once('\n').map_or("", |(_, rest)| rest);
        rest.split("\n$ ").next().unwrap_or_default().to_owned()
    };
    let topics = printed_by("tidegate topics");
    for topic in [
        "account-entries",
        "email-messages",
        "dead-letters",
        "bank-day-progress",
    ] {
        assert!(topics.contains(topic), "{topics}");
    }
    let alerts = printed_by("tidegate consume");
    assert_eq!(alerts.lines().count(), 10, "{alerts}");
    for alert in alerts.lines() {
        let alert: Value = serde_json::from_str(alert).expect("a JSON line");
        assert!(
            alert["value"]["alert_id"].is_string() && alert["key"].is_string(),
            "{alert}"
        );
    }
    let status = printed_by("tidegate status");
    assert!(
        status.contains("alive") && status.contains("email-messages"),
        "{status}"
    );
    let ended = printed_by("kill");
    assert!(
        ended.contains("epochs committed"),
        "it drained and told what it did:\n{ended}"
    );
}
