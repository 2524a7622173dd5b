//! A real schema registry: schemas registered, looked up, refused and fetched, and what we say of it.

use crate::broker::{Brokers, Options};
use std::sync::Arc;
use std::sync::mpsc::channel;
use tidegate::format::avro::Writer;
use tidegate::format::registry::{Schemas, Settings, State};

/// The schema of an id once it is settled; and the client.
fn fetched(settings: &Settings, id: u32) -> (Schemas, Option<Result<Arc<Writer>, String>>) {
    let schemas = Schemas::start(settings).expect("settings");
    let (send, woken) = channel();
    schemas.on_change(move || send.send(()).unwrap_or_default()); // the case may be over
    if !schemas.settled(id) {
        woken.recv().expect("woken");
    }
    let known = schemas.get(id);
    (schemas, known)
}

#[test]
fn a_real_registry_answers_so() {
    // One of its own: what is compatible is set for all of it.
    let options = Options {
        registry: true,
        ..Options::default()
    };
    let brokers = Brokers::start(&options).expect("a broker and a registry start");
    let url = brokers.registry_url().expect("it has a registry").to_owned();
    let settings = Settings::new(&url);
    let schemas = Schemas::start(&settings).expect("settings");
    let subject = format!("test {}/{}-value", std::process::id(), u32::MAX);
    let schema =
        |kind: &str| format!(r#"{{"type":"record","name":"X","fields":[{{"name":"a","type":"{kind}"}}]}}"#);
    let unregistered = schemas.look_up(&subject, &schema("long")).expect_err("unknown");
    let way_out = "register it, or let Tidegate do so";
    assert!(unregistered.message.ends_with(way_out), "{unregistered}");
    let id = schemas.register(&subject, &schema("long")).expect("an id");
    assert_eq!(schemas.register(&subject, &schema("long")).ok(), Some(id));
    assert_eq!(schemas.look_up(&subject, &schema("long")).ok(), Some(id));

    // What is compatible is the registry's to say.
    let put = ureq::put(&format!("{url}/config")).header("Content-Type", "application/json");
    put.send(r#"{"compatibility":"BACKWARD"}"#).expect("a setting");
    let refused = |schema: &str, words: &str| {
        let error = schemas.register(&subject, schema).expect_err("refused");
        assert!(error.message.contains(words), "{error}");
    };
    refused(&schema("string"), "incompatible with an earlier one");
    refused("{\"type\":\"recrd\"}", "was not accepted");

    assert!(matches!(fetched(&settings, id).1, Some(Ok(_))));
    let unknown = fetched(&settings, 987_654).1.expect("settled").map(|_| ());
    assert_eq!(
        unknown,
        Err("the schema registry has no schema 987654".to_owned())
    );
    let (elsewhere, known) = fetched(&Settings::new(format!("{url}/elsewhere")), 1);
    assert!(known.is_none());
    match elsewhere.state() {
        State::Refused(error) => assert!(error.message.ends_with("is the URL right?"), "{error}"),
        other => panic!("{other:?}"),
    }
}
