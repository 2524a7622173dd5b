//! The `[kafka]` section, and the topics that inputs and outputs name.
//!
//! Whatever is no key of ours is a property of librdkafka and passed on; what correctness fixes is refused by
//! name with its reason, and so is what librdkafka does not know or take. A secret stands in no job file: its
//! value comes from `${NAME}` or `${file:PATH}`. Values that came so are never shown, neither here nor by `check`.

use super::table::{Located, Table};
use super::{From, Job};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tidegate::error::{Error, Kind, Result};
use tidegate::format::registry;
use tidegate::kafka::{self, Settings};
use tidegate::secret::Secret;

/// Default of `transaction_timeout_ms`: well above what a commit may take, well below what readers put up with.
const TRANSACTION_TIMEOUT_MS: u64 = 15_000;

/// A transaction must outlast a commit that is just about given up; a broker allows 15 minutes by default.
const TRANSACTION_TIMEOUTS_MS: std::ops::RangeInclusive<i64> = 10_000..=900_000;

/// Longest name of a topic, bytes; the broker's own limit.
const TOPIC_BYTES: usize = 249;

/// Said of a secret that stands in the job file.
pub const IN_CLEAR: &str = "a secret must not stand in the job file: write ${NAME} or ${file:PATH}";

/// Properties whose values are secrets; `sasl.oauthbearer.config` may hold one.
const SECRETS: [&str; 8] = [
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
];

/// What is shown for a value that came from elsewhere.
const HIDDEN: &str = "<not shown>";

/// How a job reaches its cluster.
#[derive(Clone, Debug, Default)]
pub struct Kafka {
    /// Brokers and properties.
    pub settings: Settings,
    /// A transaction that stays open longer is aborted by the broker, milliseconds.
    pub transaction_timeout_ms: u64,
    /// The schema registry.
    pub registry: Option<registry::Settings>,
    /// Outputs' schemas are registered; otherwise they must be there.
    pub register_schemas: bool,
    /// Properties as they may be shown.
    shown: BTreeMap<String, String>,
}

impl Kafka {
    /// Every setting in force, by its key in the job file; no value that may be a secret.
    pub fn settings_shown(&self) -> Vec<(String, String)> {
        let mut settings = vec![
            ("kafka.brokers".to_owned(), self.settings.brokers.clone()),
            (
                "kafka.transaction_timeout_ms".to_owned(),
                self.transaction_timeout_ms.to_string(),
            ),
        ];
        if let Some(registry) = &self.registry {
            settings.push(("kafka.schema_registry".to_owned(), registry.url.clone()));
            let register = self.register_schemas.to_string();
            settings.push(("kafka.register_schemas".to_owned(), register));
        }
        let properties = self.shown.iter();
        settings.extend(properties.map(|(name, value)| (format!("kafka.{name}"), value.clone())));
        settings
    }
}

/// Reads `[kafka]`.
pub fn kafka(mut section: Table<'_>, job: &str) -> Kafka {
    let brokers = section.required("brokers").map(|brokers| brokers.value);
    let timeout = section.integer("transaction_timeout_ms", TRANSACTION_TIMEOUTS_MS);
    let registry = registry(&mut section);
    let register_schemas = section.boolean("register_schemas").unwrap_or(true);
    let (mut properties, mut shown) = (BTreeMap::new(), BTreeMap::new());
    for (name, at) in section.leaves() {
        if let Some(reason) = kafka::refused(&name) {
            section.add(at, &name, format!("fixed by Tidegate: {reason}"));
            continue;
        }
        let Some(Located { value, at }) = section.leaf(&name) else {
            continue;
        };
        if SECRETS.contains(&name.as_str()) && !section.is_reference(&name) {
            section.add(at, &name, IN_CLEAR);
            continue;
        }
        let is_hidden = section.has_reference(&name);
        if let Some(fault) = kafka::fault(&name, &value) {
            let hidden = "librdkafka does not take its value, which is not shown".to_owned();
            let quotes = is_hidden && fault.contains(&value);
            section.add(at, &name, if quotes { hidden } else { fault });
            continue;
        }
        let seen = if is_hidden {
            HIDDEN.to_owned()
        } else {
            value.clone()
        };
        shown.insert(name.clone(), seen);
        properties.insert(name, value);
    }
    section.finish_leaves();
    Kafka {
        settings: Settings {
            brokers: brokers.unwrap_or_default(),
            properties,
            job: format!("tidegate-{job}"),
        },
        transaction_timeout_ms: timeout
            .and_then(|timeout| u64::try_from(timeout).ok())
            .unwrap_or(TRANSACTION_TIMEOUT_MS),
        registry,
        register_schemas,
        shown,
    }
}

/// The keys that begin with `schema_registry`.
fn registry(section: &mut Table<'_>) -> Option<registry::Settings> {
    let is_secret = section.is_reference("schema_registry_password");
    let mut text = |key: &'static str| section.string(key).map(|found| found.value);
    let url = text("schema_registry");
    let (user, authorities) = (text("schema_registry_user"), text("schema_registry_ca"));
    let (certificate, key) = (text("schema_registry_certificate"), text("schema_registry_key"));
    let password = section.string("schema_registry_password");
    if let Some(password) = &password
        && !is_secret
    {
        section.add(password.at, "schema_registry_password", IN_CLEAR);
    }
    let password = password.map(|password| Secret::new(password.value));
    Some(registry::Settings {
        user: user.zip(password),
        authorities: authorities.map(PathBuf::from),
        identity: certificate.map(PathBuf::from).zip(key.map(PathBuf::from)),
        ..registry::Settings::new(url?)
    })
}

/// The topic that an input or output names; noted if it can be none, or is the job's own `progress`.
pub fn topic(section: &mut Table<'_>, progress: &str) -> Option<Located<String>> {
    let topic = section.string("kafka")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let name = topic.value.as_str();
    if name.is_empty()
        || name.len() > TOPIC_BYTES
        || [".", ".."].contains(&name)
        || !name.bytes().all(allowed)
    {
        let what = format!(
            "`{name}` is no name of a topic: letters, digits, `.`, `_` and `-`, {TOPIC_BYTES} at most"
        );
        section.add(topic.at, "kafka", what);
        return None;
    }
    if name == progress {
        let what = format!("`{name}` is the job's own: it holds what is committed");
        section.add(topic.at, "kafka", what);
        return None;
    }
    Some(topic)
}

/// Where the first start begins to read a topic.
pub fn from(section: &mut Table<'_>) -> From {
    let Some(from) = section.string("from") else {
        return From::default();
    };
    match from.value.as_str() {
        "earliest" => From::Earliest,
        "latest" => From::Latest,
        time => match chrono::DateTime::parse_from_rfc3339(time) {
            Ok(time) => From::Time(time.timestamp_millis()),
            Err(_) => {
                let what =
                    format!("`{time}` is none of earliest, latest, and a time such as 2026-01-31T00:00:00Z");
                section.add(from.at, "from", what);
                From::default()
            }
        },
    }
}

impl Job {
    /// How it reaches its cluster; refused where no input or output is a topic.
    pub fn cluster(&self) -> Result<&Kafka> {
        let none = || {
            let file = self.file.display();
            Error::new(
                Kind::Configuration,
                format!("{file}: no input or output is a topic"),
            )
        };
        self.kafka.as_ref().ok_or_else(none)
    }

    /// Whether it reads a topic: then it goes on until it is stopped.
    pub fn reads_topics(&self) -> bool {
        self.inputs.iter().any(|input| input.topic().is_some())
    }
}
