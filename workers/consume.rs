//! `tidegate consume`: the committed messages of a topic as JSON lines, the form in which `produce` takes them.
//!
//! It reads all partitions from their first message on, in a group of no one, and leaves no trace. What was
//! aborted is not shown, nor is what belongs to a transaction that is still open. Partitions are shown as they
//! arrive: order holds within each one. It goes on until Ctrl-C, or as far as it was told.
//!
//! A value that is not JSON, such as one in Avro, is shown as base64 under `value_base64`.

use crate::arguments::ConsumeArguments;
use crate::job::Job;
use crate::print::print_on;
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;
use tidegate::error::{Error, Kind, Result};
use tidegate::kafka::Settings;
use tidegate::kafka::consumer::{Consumer, Event, Failure};
use tidegate::kafka::topics::Admin;

/// How long one call waits for messages.
const POLL: Duration = Duration::from_millis(200);

/// A message as a line.
#[derive(Serialize)]
struct Line<'a> {
    key: Option<Cow<'a, str>>,
    value: Option<&'a RawValue>,
}

/// One whose value is not JSON.
#[derive(Serialize)]
struct Bytes<'a> {
    key: Option<Cow<'a, str>>,
    #[serde(with = "tidegate::format::bytes")]
    value_base64: Option<Box<[u8]>>,
}

/// Prints the messages of the topic of the command line.
pub fn consume(arguments: &ConsumeArguments) -> Result<()> {
    let (settings, topic) = topic(arguments)?;
    let admin = Admin::new(&settings)?;
    let partitions = admin.partitions(&topic)?;
    if partitions == 0 {
        let message = format!("Kafka at {}: topic {topic} does not exist", settings.brokers);
        return Err(Error::new(Kind::Configuration, message));
    }
    let bounds = admin.bounds(&topic, partitions)?;
    let mut consumer = Consumer::new(&settings)?;
    for (partition, bounds) in (0..).zip(&bounds) {
        consumer.assign(&topic, partition, bounds.first)?;
    }
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut ended = vec![false; partitions as usize];
    while left > 0 && !(arguments.to_end && ended.iter().all(|ended| *ended)) {
        let (mut text, mut failure) = (String::new(), None);
        consumer.poll(POLL, |event| match event {
            Event::Message { key, value, .. } if left > 0 => {
                left -= 1;
                text.push_str(&line(key, value));
                text.push('\n');
            }
            Event::Message { .. } => {}
            Event::End { partition, .. } => ended[partition as usize] = true,
            Event::Failed {
                partition,
                failure: why,
                ..
            } => failure = Some((partition, why)),
        });
        let is_read = print_on(&text)?;
        if let Some(refused) = consumer.trouble().refused() {
            let message = format!("Kafka at {}: {refused}", settings.brokers);
            return Err(Error::new(Kind::Unreachable, message));
        }
        match failure {
            None => {}
            Some((partition, Failure::Other(text))) => tracing::warn!("{topic}/{partition}: {text}"),
            Some((partition, why)) => {
                let kind = match why {
                    Failure::Denied => Kind::Unreachable,
                    Failure::OutOfRange | Failure::Gone | Failure::Other(_) => Kind::InputGone,
                };
                return Err(Error::new(kind, format!("{topic}/{partition}: {}", says(&why))));
            }
        }
        if !is_read {
            break; // `| head` has seen enough
        }
    }
    Ok(())
}

fn says(failure: &Failure) -> &str {
    match failure {
        Failure::OutOfRange => "messages went while they were read (retention)",
        Failure::Gone => "it does not exist any more",
        Failure::Denied => "we are not allowed to read it",
        Failure::Other(text) => text,
    }
}

/// Where the topic is, and its name.
fn topic(arguments: &ConsumeArguments) -> Result<(Settings, String)> {
    if let Some(brokers) = &arguments.brokers {
        let settings = Settings {
            brokers: brokers.clone(),
            job: "tidegate-consume".to_owned(),
            ..Settings::default()
        };
        return Ok((settings, arguments.target.clone()));
    }
    let job = Job::read(Path::new(&arguments.target))?;
    let settings = job.cluster()?.settings.clone();
    let name = arguments.name.as_deref().unwrap_or_default();
    let outputs = job
        .outputs
        .iter()
        .map(|output| (output.spec.name, output.topic()));
    let inputs = job.inputs.iter().map(|input| (input.spec.name, input.topic()));
    let topics: Vec<_> = outputs
        .chain(inputs)
        .filter_map(|(name, topic)| Some((name, topic?)))
        .collect();
    match topics.iter().find(|(known, _)| *known == name) {
        Some((_, topic)) => Ok((settings, (*topic).to_owned())),
        None => {
            let names: Vec<_> = topics.iter().map(|(name, _)| *name).collect();
            let message = format!("`{name}` is none of the job's topics: {}", names.join(", "));
            Err(Error::new(Kind::Usage, message))
        }
    }
}

/// A message as a line without its end.
fn line(key: Option<&[u8]>, value: Option<&[u8]>) -> String {
    let key = key.map(String::from_utf8_lossy);
    let json = value.map(serde_json::from_slice::<&RawValue>).transpose();
    let is_line = |json: &Option<&RawValue>| json.is_none_or(|json| !json.get().contains('\n'));
    let line = match json.ok().filter(is_line) {
        Some(value) => serde_json::to_string(&Line { key, value }),
        None => serde_json::to_string(&Bytes {
            key,
            value_base64: value.map(Box::from),
        }),
    };
    line.unwrap_or_default() // strings are JSON, whatever they hold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_produce_takes() {
        assert_eq!(
            line(Some(b"a\"b"), Some(b"{\"x\":1.0}")),
            r#"{"key":"a\"b","value":{"x":1.0}}"#
        );
        assert_eq!(line(None, None), r#"{"key":null,"value":null}"#);
        assert_eq!(
            line(Some(b"k"), Some(&[0, 1])),
            r#"{"key":"k","value_base64":"AAE="}"#
        );
        assert_eq!(line(Some(b"k"), Some(b"")), r#"{"key":"k","value_base64":""}"#);
    }
}
