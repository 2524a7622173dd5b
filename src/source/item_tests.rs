//! Messages of topics, good and bad: what each becomes, and which bytes its dead letter shows.

use super::super::batch::Message;
use super::super::{InputSettings, Medium};
use super::*;
use crate::time::Millis;

crate::strict_record! {
    /// A record with nothing but its time.
    pub struct Tick {
        /// Event time.
        pub at: Millis,
    }
}

impl Record for Tick {
    const NAME: &'static str = "Tick";
    const SCHEMA: &'static str = r#"{"type":"record","name":"Tick","fields":[{"name":"at","type":"long"}]}"#;

    fn event_time(&self) -> Option<Millis> {
        Some(self.at)
    }

    fn check(&self, key: &str) -> Result<(), String> {
        (key != "wrong")
            .then_some(())
            .ok_or_else(|| "Tick: wrong key".to_owned())
    }
}

fn settings(is_table: bool) -> InputSettings {
    InputSettings {
        name: "ticks".to_owned(),
        index: 0,
        medium: Medium::Json,
        is_table,
        max_out_of_orderness_ms: 0,
        idle_timeout: None,
        max_jump_ms: Some(500),
        max_record_bytes: 40,
        replay_tick_ms: 10,
        span: None,
        log: None,
    }
}

fn decoded(key: Option<&[u8]>, value: Option<&[u8]>, is_table: bool) -> Item<Tick> {
    let message = Message {
        offset: 7,
        timestamp: Some(3),
        key,
        value,
    };
    let mut front = Front {
        greatest: Some(100),
        ..Front::default()
    };
    let (raw, settings) = (Raw::Message(message), settings(is_table));
    let decoded = raw.decode(&mut front, &settings);
    judge(Parts::Raw(raw), decoded, 2, &mut front, 100, &settings).expect("there is no span")
}

/// Reason, key and value of a dead letter.
fn dead(key: Option<&[u8]>, value: Option<&[u8]>, is_table: bool) -> (DeadLetterReason, bool, bool) {
    match decoded(key, value, is_table).content {
        Content::Dead(letter) => {
            let same = |letter: &Option<Box<[u8]>>, bytes: Option<&[u8]>| letter.as_deref() == bytes;
            assert_eq!((letter.partition, letter.offset), (2, 7));
            (letter.reason, same(&letter.key, key), same(&letter.value, value))
        }
        Content::Record { .. } | Content::Write(_) => panic!("{key:?} {value:?} is no dead letter"),
    }
}

#[test]
fn bytes_that_do_not_parse_are_undecodable_whatever_the_key() {
    let bad: [&[u8]; 6] = [
        b"",
        b"{",
        b"{\"at\":1} x",
        b"\xff",
        b"nul",
        b"{\"at\":1                                   }",
    ];
    for value in bad {
        for key in [Some(b"k".as_slice()), None, Some(b"\xff")] {
            // The key is not shown, the value is; without a key there is none to hide.
            let expected = (DeadLetterReason::Undecodable, key.is_none(), true);
            assert_eq!(dead(key, Some(value), false), expected, "{value:?}");
        }
    }
}

#[test]
fn what_parses_and_breaks_the_contract_is_invalid_with_its_bytes() {
    let good = b"{\"at\":1}".as_slice();
    let cases: [(_, Option<&[u8]>); 9] = [
        (None, Some(good)),
        (Some(b"\xff".as_slice()), Some(good)),
        (Some(b"wrong"), Some(good)),
        (Some(b"k"), None),
        (Some(b"k"), Some(b"null")),
        (Some(b"k"), Some(b"5")),
        (Some(b"k"), Some(b"[1]")),
        (Some(b"k"), Some(b"{}")),
        (Some(b"k"), Some(b"{\"at\":601}")), // 501 ahead of 100
    ];
    for (key, value) in cases {
        assert_eq!(
            dead(key, value, false),
            (DeadLetterReason::Invalid, true, true),
            "{key:?} {value:?}"
        );
    }
    assert_eq!(
        dead(None, None, true),
        (DeadLetterReason::Invalid, true, true),
        "a table needs a key too"
    );
}

#[test]
fn a_record_keeps_its_bytes_only_where_it_may_be_late() {
    for (value, is_kept) in [(b"{\"at\":100}", true), (b"{\"at\":101}", false)] {
        match decoded(Some(b"k"), Some(value), false).content {
            Content::Record { raw, offset, .. } => {
                assert_eq!((raw.as_deref(), offset), (is_kept.then_some(value.as_slice()), 7));
            }
            Content::Write(_) | Content::Dead(_) => panic!("{value:?} is a record"),
        }
    }
}

#[test]
fn what_a_table_takes_is_kept_for_a_replay() {
    for value in [Some(b"{\"at\":1}".as_slice()), None, Some(b"{")] {
        let item = decoded(Some(b"k"), value, true);
        let kept = item.kept.expect("the message");
        assert_eq!(
            (kept.offset, kept.key.as_deref(), kept.value.as_deref()),
            (7, Some(b"k".as_slice()), value)
        );
        assert_eq!(item.end, 8);
    }
    assert!(
        decoded(Some(b"k"), Some(b"{\"at\":1}"), false).kept.is_none(),
        "events are read again"
    );
}
