//! Jobs over topics of a real broker: laid out, fed, read back, and held against the oracle.
//!
//! ```text
//!  day ─► TopicJob ─► feed: a plain producer ─► input topics ─► tidegate run ─► output topics
//!           │                                                                     │ final.rs: rdkafka, Java
//!           └─► the oracle ─► expected ─► hold ◄── by output, by partition ◄──────┘ attached.rs: throughout
//! ```
//!
//! Every job has a name of its own, and its topics begin with it, so that all cases may share one broker. A live job
//! closes a window only when something later comes: the last message of every partition is far in the future, and is
//! itself in no result. Of tables nothing changes once entries come, for what an entry meets depends on when it is
//! read; their messages are all there before the first start.

pub mod attached;
pub mod job;
pub mod last;
pub mod producer;

pub use attached::Attached;
pub use job::{Layout, TopicJob, same_in_topics, small_day};

use crate::broker::{Brokers, class, tool};
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tidegate::kafka::Settings;
use tidegate::kafka::topics::{Admin, Missing};

/// A message of an output as a reader got it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Its key.
    pub key: Option<String>,
    /// Its value; outputs have no tombstones.
    pub value: String,
    /// Its headers by name.
    pub headers: BTreeMap<String, String>,
}

/// The messages of topics: by name, then by partition, in order.
pub type Topics = BTreeMap<String, Vec<Vec<Message>>>;

/// The broker that cases share which leave it as it is.
pub fn shared() -> &'static str {
    let brokers = Brokers::for_tests().expect("a broker starts");
    brokers.bootstrap()
}

/// A name that no other case has, on this broker or another, in this run or another.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("case-{}-{number}", std::process::id())
}

/// Asks this cluster.
pub fn admin(brokers: &str) -> Admin {
    let settings = Settings {
        brokers: brokers.to_owned(),
        job: "test".to_owned(),
        ..Settings::default()
    };
    Admin::new(&settings).expect("a client")
}

/// Creates topics with so many partitions each, as often replicated as the cluster has brokers.
pub fn create(brokers: &str, topics: &[(String, u32, bool)]) {
    let replication = brokers.split(',').count() as u32;
    let missing = topics.iter().map(|(name, partitions, compacted)| Missing {
        name: name.clone(),
        partitions: *partitions,
        replication,
        compacted: *compacted,
    });
    let (admin, missing) = (admin(brokers), missing.collect::<Vec<_>>());
    // A broker that gets no time to breathe is out of its cluster for a moment.
    until("topics are created", || admin.create(&missing).is_ok());
}

/// Runs one of Kafka's own tools against this cluster.
#[track_caller]
pub fn ask(brokers: &str, class: &str, words: &[&str]) -> String {
    let all = [&["--bootstrap-server", brokers], words].concat();
    tool(class, &all, "").expect("the tool does it")
}

/// Waits until something holds that a broker does by itself.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if holds() {
            return;
        }
        std::thread::park_timeout(LOOK);
    }
    panic!("never: {what}");
}

/// Looks before a case gives up: many times what a slow machine needs.
const LOOKS: usize = 1_200;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Deletes a topic and creates it again with so many partitions and these settings.
pub fn create_anew(brokers: &str, topic: &str, partitions: u32, settings: &[&str]) {
    ask(brokers, class::TOPICS, &["--delete", "--topic", topic]);
    let partitions = partitions.to_string();
    let mut words = vec!["--create", "--topic", topic, "--partitions", &partitions];
    words.extend(settings.iter().flat_map(|setting| ["--config", setting]));
    // The broker gives the name free a moment after it has said that the topic is gone.
    let all = [&["--bootstrap-server", brokers], &words[..]].concat();
    until("the topic is created again", || {
        tool(class::TOPICS, &all, "").is_ok()
    });
}

/// A client without secrets, for this cluster.
fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    // A broker that was killed is looked for again soon.
    config.set("reconnect.backoff.max.ms", "500");
    config
}
