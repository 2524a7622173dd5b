//! What a job file becomes: defaults, places, and the plan that results depend on. What is refused is in
//! tests/cases.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};
use tidegate_dataflows::catalogue::DEFAULTS;

const TEXT: &str = r#"
name = "orders"
dataflows = ["enriched_orders", "tumbling_aggregates"]
state = "state"
[inputs.payments]
file = "payments.jsonl"
[inputs.orders]
file = "orders.jsonl"
[outputs.enriched]
file = "out/enriched.jsonl"
[outputs.aggregates]
file = "out/aggregates.jsonl"
[outputs.dead_letters]
file = "./out/dead"
"#;

/// A directory with the inputs of [`TEXT`]; removed when dropped.
struct Inputs(PathBuf);

impl Inputs {
    fn new() -> Inputs {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-job-{}-[{number}]", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files");
        for name in ["payments.jsonl", "orders.jsonl"] {
            std::fs::write(path.join(name), "").expect("files can be written");
        }
        Inputs(path)
    }

    fn decide(&self, text: &str) -> Result<Job> {
        let environment = |name: &str| (name == "OUT").then(|| "out".to_owned());
        Job::decide("job.toml", self.0.join("job.toml"), text, &environment)
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_job_has_every_default_and_the_order_of_the_catalogue() {
    let inputs = Inputs::new();
    let job = inputs.decide(TEXT).expect("a right job");
    assert_eq!(
        job.dataflows,
        [Dataflow::TumblingAggregates, Dataflow::EnrichedOrders]
    );
    assert_eq!(
        job.inputs.iter().map(|input| input.spec.name).collect::<Vec<_>>(),
        ["orders", "payments"]
    );
    let outputs: Vec<_> = job.outputs.iter().map(|output| output.spec.name).collect();
    assert_eq!(outputs, ["aggregates", "enriched", "dead_letters"]);
    assert_eq!(job.outputs[2].dataflow, None);
    assert_eq!(job.settings, DEFAULTS);
    assert_eq!(
        (job.shards, job.append, has_devices(&job.inputs)),
        (1, false, false)
    );
    assert_eq!(
        (
            job.epoch_interval_ms,
            job.replay_tick_ms,
            job.checkpoint_interval_ms
        ),
        (10, 1_000, 10_000)
    );
    assert_eq!(job.state, State::Directory(inputs.0.join("state")));
    // The directory's own name has brackets; they are no pattern.
    assert_eq!(job.inputs[0].files()[0].name, "orders.jsonl");
    assert_eq!(job.inputs[0].files()[0].path, inputs.0.join("orders.jsonl"));
}

#[test]
fn outputs_of_several_shards_are_numbered_files() {
    let inputs = Inputs::new();
    let job = inputs
        .decide(&TEXT.replace("state =", "shards = 2\nstate ="))
        .expect("a right job");
    let names = |output: usize| -> Vec<_> {
        let name = |file: &PathBuf| file.strip_prefix(&inputs.0).expect("below").display().to_string();
        job.outputs[output].files().iter().map(name).collect()
    };
    assert_eq!(names(0), ["out/aggregates-0.jsonl", "out/aggregates-1.jsonl"]);
    assert_eq!(names(2), ["out/dead-0", "out/dead-1"]);
}

#[test]
fn new_files_of_a_followed_input_are_found() {
    let inputs = Inputs::new();
    let job = inputs
        .decide(&TEXT.replace("\"orders.jsonl", "\"orders*.jsonl"))
        .expect("a right job");
    std::fs::write(inputs.0.join("orders-2.jsonl"), "{}").expect("files can be written");
    let names: Vec<_> = matching(job.directory(), job.inputs[0].location())
        .expect("still there")
        .into_iter()
        .map(|file| file.name)
        .collect();
    assert_eq!(names, ["orders-2.jsonl", "orders.jsonl"]); // `-` before `.`
}

#[test]
fn the_plan_hash_changes_with_what_results_depend_on_and_with_nothing_else() {
    let inputs = Inputs::new();
    let hash = |from: &str, to: &str| {
        assert!(TEXT.contains(from));
        inputs
            .decide(&TEXT.replacen(from, to, 1))
            .expect("a right job")
            .plan_hash()
    };
    let plan = hash("", "");
    for (from, to) in [
        ("state =", "append = true\nstate ="),
        ("\"state\"", "\"elsewhere\""),
        (
            "[\"enriched_orders\", \"tumbling_aggregates\"]",
            "[\"tumbling_aggregates\", \"enriched_orders\"]",
        ),
        (
            "[inputs.payments]",
            "[epoch]\ninterval_ms = 50\n[inputs.payments]",
        ),
        (
            "[inputs.payments]",
            "[checkpoint]\ninterval_ms = 50\n[inputs.payments]",
        ),
        ("[inputs.payments]", "[inputs.payments]\nidle_timeout_ms = 50"),
        ("\"orders.jsonl", "\"orders*.jsonl"),
        ("\"./out/dead", "\"${OUT}/dead"),
        (
            "[inputs.payments]",
            "[tumbling_aggregates]\ngrace_ms = 10_000\n[inputs.payments]",
        ),
    ] {
        assert_eq!(hash(from, to), plan, "{to}");
    }
    for (from, to) in [
        ("\"orders\"", "\"orders-2\""),
        ("state =", "shards = 2\nstate ="),
        ("out/aggregates", "out/windows"),
        (
            "[inputs.payments]",
            "[epoch]\nreplay_tick_ms = 50\n[inputs.payments]",
        ),
        (
            "[inputs.payments]",
            "[inputs.payments]\nmax_out_of_orderness_ms = 50",
        ),
        ("[inputs.payments]", "[inputs.payments]\nmax_jump_ms = 50"),
        ("[inputs.payments]", "[inputs.payments]\nmax_record_bytes = 50"),
        (
            "[inputs.payments]",
            "[tumbling_aggregates]\nemit = \"changes\"\n[inputs.payments]",
        ),
        (
            "[inputs.payments]",
            "[enriched_orders]\nwithin_ms = 1\n[inputs.payments]",
        ),
    ] {
        assert_ne!(hash(from, to), plan, "{to}");
    }
}

#[test]
fn results_depend_on_topics_and_not_on_how_they_are_reached() {
    let inputs = Inputs::new();
    let base = TEXT.replace("file = \"orders.jsonl\"", "kafka = \"orders\"");
    let kafka = "[kafka]\nbrokers = \"b:1\"\n";
    let decide = |text: String| inputs.decide(&text).expect("a right job");
    let job = decide(format!("{base}{kafka}"));
    assert_eq!(job.inputs[0].topic(), Some("orders"));
    assert_eq!(
        (job.inputs[0].idle_timeout_ms, job.inputs[1].idle_timeout_ms),
        (Some(10_000), None)
    );
    assert!(job.reads_topics() && job.cluster().is_ok());
    assert!(decide(TEXT.to_owned()).cluster().is_err());
    let same = format!("{base}{kafka}compression.codec = \"zstd\"\ntransaction_timeout_ms = 20000\n");
    let later = base.replace("\"orders\"\n[out", "\"orders\"\nfrom = \"latest\"\n[out") + kafka;
    for text in [same.replace("b:1", "c:2"), later] {
        assert_eq!(decide(text).plan_hash(), job.plan_hash());
    }
    let other = base.replace("kafka = \"orders\"", "kafka = \"orders-2\"");
    assert_ne!(decide(format!("{other}{kafka}")).plan_hash(), job.plan_hash());
    // Properties may be written as TOML likes, and are never shown with their values by `Debug`.
    let nested = format!(
        "{base}[kafka]\nbrokers = \"b:1\"\n\"sasl.password\" = \"${{OUT}}\"\nsasl.mechanism = \"PLAIN\"\n"
    );
    let kafka = decide(nested).kafka.expect("it has a section");
    let names: Vec<_> = kafka.settings.properties.keys().map(String::as_str).collect();
    assert_eq!(names, ["sasl.mechanism", "sasl.password"]);
    assert_eq!(kafka.settings.properties["sasl.password"], "out");
    assert!(!format!("{:?}", kafka.settings).contains("out"));
    let hidden = ("kafka.sasl.password".to_owned(), "<not shown>".to_owned());
    assert!(kafka.settings_shown().contains(&hidden));
}

#[test]
fn devices_and_device_push_come_together() {
    let inputs = Inputs::new();
    let base = "name = \"a\"\ndataflows = [\"alerts\"]\nstate = \"s\"\n";
    let input = |name| format!("[inputs.{name}]\nfile = \"orders.jsonl\"\n");
    let output = |name| format!("[outputs.{name}]\nfile = \"out/{name}\"\n");
    let required = ["entries", "authorizations", "settings"].map(input).concat();
    let outputs = ["email", "sms", "push", "dead_letters"].map(output).concat();
    let findings = |extra: &str| {
        let text = format!("{base}{required}{outputs}{extra}");
        inputs
            .decide(&text)
            .map(|job| has_devices(&job.inputs))
            .map_err(|error| error.message)
    };
    assert_eq!(findings(""), Ok(false));
    assert_eq!(findings(&(input("devices") + &output("device_push"))), Ok(true));
    let missing = "job.toml:10: outputs.device_push: missing: alerts writes it";
    assert_eq!(findings(&input("devices")), Err(missing.to_owned()));
    let alone = "job.toml:18: outputs.device_push: only with `inputs.devices`";
    assert_eq!(findings(&output("device_push")), Err(alone.to_owned()));
}

#[test]
fn variables_that_are_not_closed_or_not_set_are_refused() {
    let inputs = Inputs::new();
    let error = |path: &str| {
        inputs
            .decide(&TEXT.replace("./out/dead", path))
            .expect_err("a wrong job")
            .message
    };
    assert_eq!(
        error("${OUT/dead"),
        "job.toml:14: outputs.dead_letters.file: `${` without `}`"
    );
    let unset = |name: &str| {
        format!("job.toml:14: outputs.dead_letters.file: the environment variable `{name}` is not set")
    };
    assert_eq!(
        error("${OUT}/${NO}/${NE}"),
        format!("{}\n{}", unset("NO"), unset("NE"))
    );
}

#[test]
fn no_text_makes_it_panic() {
    let inputs = Inputs::new();
    // Every prefix of a right file, every line of it alone, and every byte of it replaced by what TOML cares
    // about.
    for at in 0..TEXT.len() {
        let _ = inputs.decide(&TEXT[..at]);
        for odd in ["\"", "[", "]", "=", ".", "\n", "${", "0", "\u{e9}"] {
            let _ = inputs.decide(&format!("{}{odd}{}", &TEXT[..at], &TEXT[at + 1..]));
        }
    }
    let quoted = inputs
        .decide(&TEXT.replace("name = \"orders\"", "\"na\\nme\" = \"a\""))
        .expect_err("a wrong job")
        .message;
    assert!(
        quoted.lines().all(|line| line.starts_with("job.toml:")),
        "{quoted}"
    );
}

#[test]
fn a_cluster_section_is_decided_or_refused_line_by_line() {
    let inputs = Inputs::new();
    let decide = |section: &str| {
        let environment = |name: &str| match name {
            "LONG" => Some("sixteen bytes or more".to_owned()),
            "SHORT" => Some("short".to_owned()),
            _ => None,
        };
        let text = format!("{TEXT}[cluster]\n{section}");
        Job::decide("job.toml", inputs.0.join("job.toml"), &text, &environment)
    };
    let job = decide(
        "secret = \"${LONG}\"\ncertificate = \"tls/own.pem\"\nkey = \"tls/own.key\"\n\
         authority = \"/etc/ca.pem\"\nstart_timeout_ms = 5000\nstall_timeout_ms = 700\n",
    );
    let processes = job.expect("a right section").processes;
    let secret = processes.secret.expect("a secret");
    assert_eq!(secret.reveal(), "sixteen bytes or more");
    let certificates = processes.certificates.expect("certificates");
    assert_eq!(certificates.key, inputs.0.join("tls/own.key"));
    assert_eq!(certificates.authority, Path::new("/etc/ca.pem"));
    assert_eq!(processes.start_timeout.as_millis(), 5_000);
    assert_eq!(processes.stall_timeout.as_millis(), 700);
    for (section, finding) in [
        (
            "secret = \"in clear, long enough\"\n",
            "cluster.secret: a secret must not stand",
        ),
        (
            "secret = \"${SHORT}\"\n",
            "cluster.secret: it has fewer than 16 bytes",
        ),
        (
            "secret = \"${NONE}\"\n",
            "the environment variable `NONE` is not set",
        ),
        ("key = \"own.key\"\n", "cluster.certificate: missing: TLS takes"),
        ("start_timeout_ms = 0\n", "cluster.start_timeout_ms: "),
        (
            "stall_timeout = 1\n",
            "cluster.stall_timeout: unknown (did you mean",
        ),
    ] {
        let refused = decide(section).expect_err(section).message;
        assert!(refused.contains(finding), "{refused}");
        assert!(!refused.contains("in clear, long"), "{refused}");
    }
    // Nothing of it changes results.
    assert_eq!(
        decide("start_timeout_ms = 1\n").map(|job| job.plan_hash()).ok(),
        inputs.decide(TEXT).map(|job| job.plan_hash()).ok()
    );
}
