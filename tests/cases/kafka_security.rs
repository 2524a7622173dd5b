//! Security against a real broker: the right settings run to a committed output, every wrong one stops with its
//! cause in one line, and no secret is in anything that the program wrote.
//!
//! One secure cluster for all of it: [`crate::broker::secure`] says what each of its listeners is there to show.

use crate::broker::secure::{ALICE, MALLORY, Secure, User};
use crate::broker::{Brokers, Options, class, tool};
use crate::harness::Directory;
use crate::process;
use rustix::process::Signal;
use std::path::Path;
use std::sync::OnceLock;

/// A job's topics: input, outputs and progress.
const TOPICS: [&str; 4] = ["in", "counts", "dead", "case-progress"];

/// The cluster of all cases here.
fn brokers() -> &'static Brokers {
    static SHARED: OnceLock<Brokers> = OnceLock::new();
    SHARED.get_or_init(|| {
        let options = Options {
            secure: true,
            ..Options::default()
        };
        let brokers = Brokers::start(&options).expect("a secure broker starts");
        // Anonymous is a super user: topics are not what is shown here.
        let directory = Directory::new();
        directory.write("job.toml", job(brokers.bootstrap(), ""));
        let create = ["topics", "job.toml", "--create", "--partitions", "1"];
        directory.tidegate(&create).succeeded();
        brokers
    })
}

/// A job at these brokers, with more lines in `[kafka]`.
fn job(brokers: &str, lines: &str) -> String {
    let [input, counts, dead, _] = TOPICS;
    format!(
        "name = \"case\"\ndataflows = [\"event_counts\"]\nstate = \"state\"\n\
         [inputs.events]\nkafka = \"{input}\"\n[outputs.counts]\nkafka = \"{counts}\"\n\
         [outputs.dead_letters]\nkafka = \"{dead}\"\n[kafka]\nbrokers = \"{brokers}\"\n{lines}\n"
    )
}

fn secure() -> Secure {
    brokers().secure().expect("it is secure")
}

/// The lines of `[kafka]` by which a user logs in; the password stands in a file.
fn login(user: User, mechanism: &str, authority: &Path) -> String {
    format!(
        "security.protocol = \"SASL_SSL\"\nsasl.mechanism = \"{mechanism}\"\nsasl.username = \"{}\"\n\
         sasl.password = \"${{file:password}}\"\nssl.ca.location = \"{}\"\n",
        user.name,
        authority.display()
    )
}

/// A directory with a job and a user's password.
fn directory(brokers: &str, lines: &str, password: &str) -> Directory {
    let directory = Directory::new();
    directory.write("job.toml", job(brokers, lines));
    directory.write("password", password);
    directory
}

/// An operation, a kind of resource as the tool wants it, and its name.
type Right = (&'static str, &'static str, &'static str);

/// Gives a user rights.
fn grant(user: User, rights: &[Right]) {
    let principal = format!("User:{}", user.name);
    for (operation, kind, name) in rights {
        let words = [
            "--bootstrap-server",
            brokers().bootstrap(),
            "--add",
            "--allow-principal",
            &principal,
        ];
        let what = ["--operation", operation, kind, name];
        tool(class::ACLS, &[&words[..], &what].concat(), "").expect("rights can be given");
    }
}

#[test]
fn whom_the_broker_lets_in_runs_to_a_committed_output() {
    let Secure {
        scram,
        mutual,
        authority,
        client_certificate,
        client_key,
        ..
    } = secure();
    let certificate = format!(
        "security.protocol = \"SSL\"\nssl.ca.location = \"{}\"\nssl.certificate.location = \"{}\"\n\
         ssl.key.location = \"{}\"\n",
        authority.display(),
        client_certificate.display(),
        client_key.display()
    );
    let cases = [
        ("sha-256", &scram, login(ALICE, "SCRAM-SHA-256", &authority)),
        ("sha-512", &scram, login(ALICE, "SCRAM-SHA-512", &authority)),
        ("certificate", &mutual, certificate),
    ];
    for (key, brokers, lines) in cases {
        let directory = directory(brokers, &lines, ALICE.password);
        // Each case is a job of its own on the same topics, but for its progress.
        let text = String::from_utf8(directory.read("job.toml")).expect("UTF-8");
        directory.write("job.toml", text.replace("\"case\"", &format!("\"case-{key}\"")));
        directory
            .tidegate(&["topics", "job.toml", "--create"])
            .succeeded();
        directory.write(
            "lines.jsonl",
            format!("{{\"key\":\"{key}\",\"value\":{{\"event_id\":\"e\",\"occurred_at\":1}}}}\n"),
        );
        directory
            .tidegate(&["produce", "job.toml", "events", "lines.jsonl"])
            .succeeded();
        let mut running = process::start(&directory, &["run", "job.toml"], &[]);
        let counted = || {
            let consume = ["consume", "job.toml", "counts", "--to-end"];
            let counts = directory.tidegate(&consume).succeeded();
            counts.contains(&format!("{{\"key\":\"{key}\",\"value\":{{\"count\":1}}}}"))
        };
        assert!(running.until(counted), "{key}:\n{}", running.log());
        running.signal(Signal::INT);
        running.wait().with_code(0);
    }
}

#[test]
fn whatever_is_wrong_stops_the_program_with_its_cause_in_one_line() {
    let secure = secure();
    let sha256 = |authority: &Path| login(ALICE, "SCRAM-SHA-256", authority);
    let good = sha256(&secure.authority);
    let untrusted = sha256(&secure.other_authority);
    // What is wrong; where, as whom, with which password; words of the cause.
    let cases = [
        ("password", &secure.scram, &good, "guessed", "uthentication"),
        (
            "authority",
            &secure.scram,
            &untrusted,
            ALICE.password,
            "of no authority",
        ),
        (
            "host",
            &secure.wrong_host,
            &good,
            ALICE.password,
            "is of another host",
        ),
        ("expired", &secure.expired, &good, ALICE.password, "has expired"),
    ];
    for (case, brokers, lines, password, words) in cases {
        let directory = directory(brokers, lines, password);
        for command in ["topics", "run"] {
            let outcome = directory.tidegate(&[command, "job.toml", "--log", "off"]);
            assert_eq!(outcome.stdout, "", "{case}, {command}");
            let cause = outcome.failed(9);
            assert_eq!(cause.lines().count(), 1, "{case}, {command}: {cause}");
            assert!(cause.contains(words), "{case}, {command}: {cause}");
            assert!(!cause.contains(password), "{case}, {command}: {cause}");
        }
    }
}

#[test]
fn a_missing_right_is_named_with_its_resource() {
    let Secure { scram, authority, .. } = secure();
    let lines = login(MALLORY, "SCRAM-SHA-512", &authority);
    let topics: Vec<_> = TOPICS
        .iter()
        .map(|topic| ("Describe", "--topic", *topic))
        .collect();
    let settings: Vec<_> = TOPICS
        .iter()
        .map(|topic| ("DescribeConfigs", "--topic", *topic))
        .collect();
    let ids = [
        ("Write", "--transactional-id", "case-0"),
        ("Describe", "--transactional-id", "case-0"),
        ("Write", "--transactional-id", "case-0/1"),
        ("Describe", "--transactional-id", "case-0/1"),
    ];
    let progress = [
        ("Write", "--topic", "case-progress"),
        ("Write", "--topic", "dead"),
    ];
    // Each step grants what the one before was refused for. The first start writes before it reads. No step
    // grants anything on a group: nobody joins one.
    let steps: [(&[Right], i32, &str); 6] = [
        (&[], 9, "uthorization failed"),
        (&[&topics[..], &settings].concat(), 7, "ransactional"),
        (&ids, 7, "case-progress"),
        (&progress, 9, "in: we are not allowed to read it"),
        (&[("Read", "--topic", "in")], 9, "case-progress"),
        (&[("Read", "--topic", "case-progress")], 7, "counts"),
    ];
    let directory = directory(&scram, &lines, MALLORY.password);
    directory.write(
        "lines.jsonl",
        "{\"key\":\"m\",\"value\":{\"event_id\":\"e\",\"occurred_at\":1}}\n",
    );
    let produce = ["produce", "--brokers", brokers().bootstrap(), "in", "lines.jsonl"];
    directory.tidegate(&produce).succeeded();
    for (rights, code, words) in steps {
        grant(MALLORY, rights);
        let outcome = directory.tidegate(&["run", "job.toml", "--log", "off"]);
        let cause = outcome.failed(code);
        assert_eq!(cause.lines().count(), 1, "{cause}");
        assert!(cause.contains(words), "{words}: {cause}");
    }
}

#[test]
fn no_secret_is_in_anything_that_is_written() {
    let Secure { scram, authority, .. } = secure();
    let lines = login(ALICE, "SCRAM-SHA-256", &authority).replace("${file:password}", "${CANARY}");
    let directory = directory(&scram, &format!("{lines}debug = \"all\"\n"), "");
    let text = String::from_utf8(directory.read("job.toml")).expect("UTF-8");
    directory.write(
        "job.toml",
        text.replace("\"case\"", "\"case-canary\"")
            .replace("kafka = \"counts\"", "file = \"out.jsonl\""),
    );
    let environment = [("CANARY", ALICE.password)];
    let mut seen = String::new();
    let command = |words: &[&str]| {
        let words = [words, &["--log", "trace"]].concat();
        let outcome = directory.tidegate_with(&words, &environment);
        assert_eq!(outcome.code, Some(0), "{words:?}:\n{}", outcome.stderr);
        outcome.stdout + &outcome.stderr
    };
    seen += &command(&["topics", "job.toml", "--create"]);
    seen += &command(&["check", "job.toml"]);
    seen += &command(&["check", "job.toml", "--json"]);
    directory.write(
        "lines.jsonl",
        "{\"key\":\"c\",\"value\":{\"event_id\":\"e\",\"occurred_at\":1}}\nbroken\n",
    );
    seen += &command(&["produce", "job.toml", "events", "lines.jsonl", "--send-broken"]);
    let run = ["run", "job.toml", "--log", "trace"];
    let mut running = process::start(&directory, &run, &environment);
    let written =
        || std::fs::read_to_string(directory.path("out.jsonl")).is_ok_and(|text| text.contains("\"c\""));
    assert!(running.until(written), "{}", running.log());
    // What `ps` shows is what stands there.
    let arguments = std::fs::read(format!("/proc/{}/cmdline", running.pid())).expect("it runs");
    seen += &String::from_utf8_lossy(&arguments);
    seen += &command(&["status", "job.toml"]);
    running.signal(Signal::INT);
    seen += &running.wait().with_code(0);
    seen += &command(&["consume", "job.toml", "dead_letters", "--to-end"]);
    assert!(
        seen.contains("SASL_SSL") && seen.contains(ALICE.name),
        "the log says who logs in how"
    );
    assert!(
        !seen.contains(ALICE.password),
        "a secret is in what the program printed"
    );

    let mut files = 0;
    each_file(directory.root(), &mut |path, bytes| {
        files += 1;
        let holds = bytes
            .windows(ALICE.password.len())
            .any(|window| window == ALICE.password.as_bytes());
        assert!(!holds, "a secret is in {}", path.display());
    });
    assert!(files > 5, "state, outputs and logs were looked at: {files}");
}

fn each_file(directory: &Path, each: &mut impl FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => each_file(&path, each),
            false => each(&path, &std::fs::read(&path).expect("a file")),
        }
    }
}
