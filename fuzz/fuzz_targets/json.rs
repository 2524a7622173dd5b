//! A line: whatever it is, nothing panics, and the value of what is accepted comes back as itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::format::json::{decode_line, raw_value};
use tidegate::record::Record;
use tidegate_dataflows::records::{AccountEntry, CustomerAlertSettings, Event};

fn check<R: Record>(line: &[u8]) {
    let Ok(message) = decode_line::<R>(line, true) else {
        return;
    };
    assert!(raw_value(line).is_some(), "what is accepted has a value");
    let key = serde_json::to_string(message.key.as_str()).expect("a string is JSON");
    let value = serde_json::to_string(&message.value).expect("records are JSON");
    let again = decode_line::<R>(format!("{{\"key\":{key},\"value\":{value}}}").as_bytes(), true);
    let again = again.expect("what was written is accepted");
    assert_eq!((again.key, again.value), (message.key, message.value));
}

fuzz_target!(|line: &[u8]| {
    check::<AccountEntry>(line);
    check::<CustomerAlertSettings>(line);
    check::<Event>(line);
});
