//! A job over topics, from one description: what the oracle knows, what is written to the topics, and the job file.
//!
//! A message's offset is its number in its partition, where in a file it is that of its first byte; dead letters that
//! the oracle expects are brought to the former.

use super::producer::Producer;
use super::{Attached, Topics, admin, create, last, unique};
use crate::harness::Directory;
use crate::jobs::{self, outputs};
use crate::oracle::{Expected, Input, Job, compare, expected, json, message, order};
use crate::process::{Running, start};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tidegate::sink::progress_topic::Bound;

/// Far in the future, and still a time: what comes then closes every window.
const FAR_MS: i64 = 253_402_300_000_000;

/// A wait of so many looks tells what it waits for.
const TELL: usize = 20_000;

/// How a job is laid out.
#[derive(Clone, Debug)]
pub struct Layout {
    /// `host:port,...`
    pub brokers: String,
    /// Where the job comes to them, if elsewhere.
    pub through: Option<String>,
    /// Output shards.
    pub shards: u32,
    /// Partitions of each output.
    pub partitions: u32,
    /// Inputs and outputs that are files.
    pub files: Vec<&'static str>,
    /// More lines of `[kafka]`.
    pub kafka: String,
    /// Time between commits, milliseconds.
    pub epoch_ms: u64,
    /// Time between checkpoints, milliseconds.
    pub checkpoint_ms: u64,
    /// How long a partition stands at its end before it holds nothing back, milliseconds.
    pub idle_ms: u64,
}

impl Layout {
    /// Everything in topics, one shard, no partition ever idle.
    pub fn on(brokers: &str) -> Layout {
        Layout {
            brokers: brokers.to_owned(),
            through: None,
            shards: 1,
            partitions: 3,
            files: Vec::new(),
            kafka: String::new(),
            epoch_ms: 5,
            checkpoint_ms: 40,
            idle_ms: 3_600_000,
        }
    }
}

/// A message of an input: its key and its value.
type Sent = (Option<String>, Option<Vec<u8>>);

/// By input and partition: all its messages, and how many of them are in the topic.
type Inputs = BTreeMap<(String, usize), (Vec<Sent>, usize)>;

/// See the [module](self).
pub struct TopicJob {
    /// What the oracle knows.
    pub job: Job,
    /// How it is laid out.
    pub layout: Layout,
    /// Name of the job.
    pub name: String,
    /// Where the job file and the state are.
    pub directory: Directory,
    /// What it says.
    pub expected: Expected,
    messages: RefCell<Inputs>,
    producer: Producer,
    progress: Attached,
    /// By input, by its place in the plan, and partition: what is committed.
    committed: RefCell<BTreeMap<(usize, u32), u64>>,
}

/// All dataflows over a small generated day, each line of which means the same in a file and in a topic.
pub fn small_day(seed: u64, accounts: u32, more: &[&str]) -> Job {
    same_in_topics(jobs::day(seed, accounts, more))
}

/// The job with its lines changed so that each means the same in a file and in a topic.
pub fn same_in_topics(mut job: Job) -> Job {
    for (name, input) in &mut job.inputs {
        let longest = input.max_record_bytes;
        for bytes in &mut input.partitions {
            let lines = message::lines(bytes).into_iter();
            *bytes = lines
                .flat_map(|(_, line)| same_in_a_topic(line, longest, is_table(name)))
                .collect();
        }
    }
    job
}

/// The line without its time, which a topic has elsewhere; one that is no message is none as a value either. A table's
/// topic is compacted and takes no null key: there an empty one is as wrong.
fn same_in_a_topic(line: &[u8], longest: usize, is_table: bool) -> Vec<u8> {
    let Some(found) = message::message(line, longest) else {
        let is_value = std::str::from_utf8(line).is_ok_and(|line| json::whole(line).is_some());
        let broken = if is_value && line.len() <= longest {
            "x\n"
        } else {
            "\n"
        };
        return [line, broken.as_bytes()].concat();
    };
    let null = if is_table { "".into() } else { Value::Null };
    let key = found.key.map_or(null, Value::from);
    format!("{{\"key\":{key},\"value\":{}}}\n", found.value).into_bytes()
}

impl TopicJob {
    /// Creates its topics, and writes the job file. Nothing is in the topics yet.
    pub fn new(job: &Job, layout: Layout) -> TopicJob {
        let (name, directory) = (unique(), Directory::in_memory());
        let mut topics = vec![(format!("{name}-progress"), 1, true)];
        let mut messages = Inputs::new();
        for (input, content) in &job.inputs {
            let partitions = content.partitions.len() as u32;
            if layout.files.contains(&input.as_str()) {
                for partition in 0..content.partitions.len() {
                    directory.write(&jobs::input_file(input, partition), "");
                }
            } else {
                topics.push((format!("{name}.in.{input}"), partitions, is_table(input)));
            }
            for (partition, bytes) in content.partitions.iter().enumerate() {
                let sent = sent(input, content, bytes).chain(far(input, partition));
                messages.insert((input.clone(), partition), (sent.collect(), 0));
            }
        }
        for output in outputs(job)
            .iter()
            .filter(|output| !layout.files.contains(output))
        {
            topics.push((format!("{name}.out.{output}"), layout.partitions, false));
        }
        create(&layout.brokers, &topics);
        let made = TopicJob {
            expected: expected_of(job, &layout),
            producer: Producer::new(&layout.brokers),
            progress: Attached::new(
                &layout.brokers,
                &BTreeMap::from([(format!("{name}-progress"), 1)]),
            ),
            job: job.clone(),
            layout,
            name,
            directory,
            messages: RefCell::new(messages),
            committed: RefCell::default(),
        };
        made.write_job_file();
        made
    }

    /// The topic of an input.
    pub fn input(&self, input: &str) -> String {
        format!("{}.in.{input}", self.name)
    }

    /// The topic of an output.
    pub fn output(&self, output: &str) -> String {
        format!("{}.out.{output}", self.name)
    }

    /// The topics of its outputs, with their partitions.
    pub fn output_topics(&self) -> BTreeMap<String, u32> {
        let all = outputs(&self.job).into_iter();
        let topics = all.filter(|output| !self.layout.files.contains(output));
        topics
            .map(|output| (self.output(output), self.layout.partitions))
            .collect()
    }

    /// Writes the job file, as the layout is now.
    pub fn write_job_file(&self) {
        let Layout {
            brokers,
            through,
            shards,
            kafka,
            epoch_ms,
            checkpoint_ms,
            idle_ms,
            ..
        } = &self.layout;
        let brokers = through.as_ref().unwrap_or(brokers);
        let (name, job) = (&self.name, &self.job);
        let mut text = format!(
            "name = \"{name}\"\ndataflows = {:?}\nstate = \"state\"\nshards = {shards}\n\
             [kafka]\nbrokers = \"{brokers}\"\n{kafka}\n\
             [epoch]\ninterval_ms = {epoch_ms}\n[checkpoint]\ninterval_ms = {checkpoint_ms}\n",
            job.dataflows
        );
        for (name, input) in &job.inputs {
            let place = match self.layout.files.contains(&name.as_str()) {
                true => format!("file = \"data/{name}-*.jsonl\""),
                false => format!("kafka = \"{}\"", self.input(name)),
            };
            let longest = input.max_record_bytes;
            write!(
                text,
                "[inputs.{name}]\n{place}\nmax_record_bytes = {longest}\nidle_timeout_ms = {idle_ms}\n"
            )
            .expect("a string");
        }
        for output in outputs(job) {
            let place = match self.layout.files.contains(&output) {
                true => format!("file = \"out/{output}.jsonl\""),
                false => format!("kafka = \"{}\"", self.output(output)),
            };
            write!(text, "[outputs.{output}]\n{place}\n").expect("a string");
        }
        self.directory.write("job.toml", text);
    }

    /// Writes what is still missing of the first `part` of so many `parts` of every input. Tables come whole.
    pub fn feed(&self, part: usize, parts: usize) {
        for (input, content) in &self.job.inputs {
            for partition in 0..content.partitions.len() {
                let all = self.messages.borrow()[&(input.clone(), partition)].0.len();
                let wanted = if is_table(input) { all } else { all * part / parts };
                self.feed_to(input, partition, wanted);
            }
        }
        self.producer.flush();
    }

    /// Writes what is still missing of the first so many messages of a partition.
    pub fn feed_to(&self, input: &str, partition: usize, wanted: usize) {
        let mut messages = self.messages.borrow_mut();
        let (all, there) = messages
            .get_mut(&(input.to_owned(), partition))
            .expect("a partition");
        let wanted = wanted.min(all.len()).max(*there);
        if self.layout.files.contains(&input) {
            let lines: Vec<u8> = all[*there..wanted].iter().flat_map(line).collect();
            self.directory.append(&jobs::input_file(input, partition), lines);
        } else {
            let topic = self.input(input);
            for (key, value) in &all[*there..wanted] {
                self.producer
                    .send(&topic, partition, key.as_deref(), value.as_deref());
            }
            self.producer.flush();
        }
        *there = wanted;
    }

    /// Writes the last row of every key of a table once more: nothing changes.
    pub fn write_rows_again(&self, table: &str) {
        for ((input, partition), (all, there)) in self.messages.borrow_mut().iter_mut() {
            if input != table {
                continue;
            }
            let is_dead = |offset: usize| {
                let letters = &self.expected.outputs["dead_letters"];
                let at = (json!(input), json!(partition), json!(offset));
                letters.iter().map(|letter| &letter["value"]).any(|letter| {
                    (&letter["input"], &letter["partition"], &letter["offset"]) == (&at.0, &at.1, &at.2)
                })
            };
            let valid = all.iter().enumerate().filter(|(offset, _)| !is_dead(*offset));
            let last: BTreeMap<_, _> = valid
                .map(|(_, (key, value))| (key.clone(), value.clone()))
                .collect();
            for (key, value) in last {
                self.producer
                    .send(&self.input(table), *partition, key.as_deref(), value.as_deref());
                all.push((key, value));
                *there = all.len();
            }
        }
        self.producer.flush();
    }

    /// Gives an input another partition with these lines. None of them is in the topic yet.
    pub fn grow(&mut self, input: &str, bytes: &[u8]) {
        let content = self.job.inputs.get_mut(input).expect("an input");
        let (partition, messages) = (content.partitions.len(), sent(input, content, bytes).collect());
        content.partitions.push(bytes.to_vec());
        self.messages
            .borrow_mut()
            .insert((input.to_owned(), partition), (messages, 0));
        self.expected = expected_of(&self.job, &self.layout);
        // One that was there before asks for the new partition later.
        self.producer = Producer::new(&self.layout.brokers);
    }

    /// Writes the far message of a partition once more.
    pub fn write_far_again(&self, input: &str, partition: usize) {
        let mut messages = self.messages.borrow_mut();
        let (all, _) = messages
            .get_mut(&(input.to_owned(), partition))
            .expect("a partition");
        all.extend(far(input, partition));
        drop(messages);
        self.feed_to(input, partition, usize::MAX);
    }

    /// Starts a run on so many workers.
    pub fn start(&self, workers: usize, environment: &[(&str, &str)]) -> Running {
        self.start_with(&["--follow", "--workers", &workers.to_string()], environment)
    }

    /// Starts a run with these arguments.
    pub fn start_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        start(
            &self.directory,
            &[&["run", "job.toml"], arguments].concat(),
            environment,
        )
    }

    /// Whether everything that is in the inputs is committed.
    pub fn is_committed(&self) -> bool {
        self.uncommitted().is_empty()
    }

    /// The partitions of which not everything is committed, with what is and what is there.
    fn uncommitted(&self) -> Vec<(&'static str, usize, u64, u64)> {
        let mut committed = self.committed.borrow_mut();
        for message in self.progress.take() {
            let is_of_bindings = message.key.is_some_and(|key| key.starts_with("bindings/"));
            if !is_of_bindings || message.value.is_empty() {
                continue;
            }
            let bound: Bound = serde_json::from_str(&message.value).expect("a record of bindings");
            for share in bound.bindings.iter().flat_map(|binding| &binding.partitions) {
                let place = (usize::from(share.input), share.partition);
                let end = committed.entry(place).or_default();
                *end = share.end.max(*end);
            }
        }
        let messages = self.messages.borrow();
        let mut uncommitted = Vec::new();
        for (index, input) in self.input_names().into_iter().enumerate() {
            for partition in 0..self.job.inputs[input].partitions.len() {
                let (all, there) = &messages[&(input.to_owned(), partition)];
                let there = match self.layout.files.contains(&input) {
                    true => all[..*there].iter().map(|sent| line(sent).len() as u64).sum(),
                    false => *there as u64,
                };
                let end = committed.get(&(index, partition as u32)).copied().unwrap_or(0);
                if end < there {
                    uncommitted.push((input, partition, end, there));
                }
            }
        }
        uncommitted
    }

    /// The names of its inputs, in the order of the plan.
    fn input_names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for (dataflow, inputs, _) in jobs::DATAFLOWS {
            let is_run = self.job.dataflows.iter().any(|own| own == dataflow);
            for input in inputs
                .iter()
                .filter(|input| is_run && self.job.inputs.contains_key(**input))
            {
                if !names.contains(input) {
                    names.push(input);
                }
            }
        }
        names
    }

    /// Waits until everything that is in the inputs is committed.
    #[track_caller]
    pub fn until_committed(&self, running: &mut Running) {
        let mut looks = 0;
        let has_committed = running.until(|| {
            let uncommitted = self.uncommitted();
            looks += 1;
            if looks % TELL == 0 {
                eprintln!("{}: still to be committed: {uncommitted:?}", self.name);
            }
            uncommitted.is_empty()
        });
        assert!(has_committed, "it ended by itself:\n{}", running.log());
    }

    /// A run from here to where everything is committed; it drains and ends well.
    #[track_caller]
    pub fn run_to_the_end(&self, workers: usize, environment: &[(&str, &str)]) {
        self.feed(1, 1);
        let mut running = self.start(workers, environment);
        running.until_logged("started");
        self.until_committed(&mut running);
        running.signal(Signal::INT);
        running.wait().with_code(0);
    }

    /// Asserts that the outputs are what the oracle says, for a last reader and for one that was there throughout, and
    /// that nothing is left open.
    #[track_caller]
    pub fn hold(&self, attached: Option<&Attached>, story: &str) -> Topics {
        let there = last::read(&self.layout.brokers, &self.output_topics());
        if let Err(difference) = self.difference(&there) {
            panic!("{story}: {difference}");
        }
        if let Some(attached) = attached {
            let read = attached.all(&there);
            for (topic, partitions) in &there {
                assert!(
                    read[topic] == *partitions,
                    "{story}: {topic}: the attached reader was given others"
                );
            }
        }
        self.assert_closed(story);
        there
    }

    /// Asserts that no transaction is open: what is there can be read to its end.
    #[track_caller]
    pub fn assert_closed(&self, story: &str) {
        assert_eq!(
            self.open_topics(),
            [] as [String; 0],
            "{story}: a transaction is open in them"
        );
    }

    /// The topics in which a transaction is open.
    pub fn open_topics(&self) -> Vec<String> {
        let admin = admin(&self.layout.brokers);
        let mut topics = self.output_topics();
        topics.insert(format!("{}-progress", self.name), 1);
        topics.retain(|topic, partitions| {
            let bounds = admin.bounds(topic, *partitions).expect("the broker answers");
            bounds.iter().any(|bounds| bounds.end != bounds.high)
        });
        topics.into_keys().collect()
    }

    /// What differs from what the oracle says.
    pub fn difference(&self, there: &Topics) -> Result<(), String> {
        for output in outputs(&self.job) {
            let Some(partitions) = there.get(&self.output(output)) else {
                let text = jobs::output(&self.directory, output);
                compare::check(&self.job, &self.expected, output, &text)?;
                continue;
            };
            let lines = |messages: &Vec<super::Message>| {
                let line = |message: &super::Message| {
                    format!("{{\"key\":{},\"value\":{}}}\n", json!(message.key), message.value)
                };
                messages.iter().map(line).collect::<String>()
            };
            let texts: Vec<String> = partitions.iter().map(lines).collect();
            compare::check_rows(&self.job, &self.expected, output, &texts.concat())?;
            // What has an order by something else than the key has it within a partition.
            let by_key = ["aggregates", "enriched", "risk_alerts", "risk_timeouts", "counts"];
            if by_key.contains(&output) {
                order::check_order(&self.job, &self.expected, output, &texts.concat())?;
            } else {
                let check = |text| order::check_order(&self.job, &self.expected, output, text);
                texts.iter().try_for_each(|text| check(text))?;
            }
        }
        Ok(())
    }
}

/// Whether an input is a table.
fn is_table(input: &str) -> bool {
    ["authorizations", "settings", "devices"].contains(&input)
}

/// What the oracle says of the job, offsets of topics counted in messages.
fn expected_of(job: &Job, layout: &Layout) -> Expected {
    let mut expected = expected(job);
    let letters = expected
        .outputs
        .get_mut("dead_letters")
        .expect("every job has them");
    for letter in letters {
        let value = &mut letter["value"];
        let input = value["input"].as_str().expect("a name").to_owned();
        if !layout.files.contains(&input.as_str()) {
            let (partition, offset) = (&value["partition"], &value["offset"]);
            let (partition, offset) = (
                partition.as_u64().expect("a number"),
                offset.as_u64().expect("a number"),
            );
            let before = &job.inputs[&input].partitions[partition as usize][..offset as usize];
            value["offset"] = message::lines(before).len().into();
        }
    }
    expected
}

/// The lines of a partition as messages.
fn sent<'a>(name: &'a str, input: &'a Input, bytes: &'a [u8]) -> impl Iterator<Item = Sent> + 'a {
    message::lines(bytes)
        .into_iter()
        .map(|(_, line)| match message::message(line, input.max_record_bytes) {
            Some(found) => (found.key.clone(), found.value_bytes().map(<[u8]>::to_vec)),
            // A compacted topic takes it under a key only; which one does not matter.
            None => (is_table(name).then(|| "broken".to_owned()), Some(line.to_vec())),
        })
}

/// A message of an input as the line of a file. One that was broken stands as it was.
fn line((key, value): &Sent) -> Vec<u8> {
    let value = value.as_deref().unwrap_or(b"null");
    let is_value = std::str::from_utf8(value).is_ok_and(|value| json::whole(value).is_some());
    match is_value {
        true => [
            format!("{{\"key\":{},\"value\":", json!(key)).as_bytes(),
            value,
            b"}\n",
        ]
        .concat(),
        false => [value, b"\n"].concat(),
    }
}

/// The message that closes what the partition's others have opened. It is in no result: nothing closes it.
fn far(input: &str, partition: usize) -> Option<Sent> {
    let value = match input {
        "orders" => json!({"order_id": "far", "amount": 1, "currency": "EUR", "placed_at": FAR_MS}),
        // Not within reach of the orders' one.
        "payments" => {
            json!({"payment_id": "far", "amount": 1, "currency": "EUR", "paid_at": FAR_MS - 600_000})
        }
        "transactions" => json!({
            "transaction_id": "far", "user_id": format!("far-{partition}"), "amount": 1, "currency": "EUR",
            "location": "far", "occurred_at": FAR_MS,
        }),
        _ => return None,
    };
    let key = match input {
        "transactions" => format!("far-{partition}"),
        _ => "far".to_owned(),
    };
    Some((Some(key), Some(value.to_string().into_bytes())))
}
