//! Bad lines, and what the contract makes of each: written by hand, byte for byte.
//!
//! ```text
//!  EVENTS             what any input can have wrong, as the whole line
//!  ENTRIES, SETTINGS  what only these records can have wrong: every line is {"key":KEY,"value":VALUE TAIL}
//! ```

/// What a bad line becomes.
#[derive(Clone, Copy)]
pub enum Becomes {
    /// The whole line is the value.
    Undecodable,
    /// Key and value as they stand in it.
    Invalid(Option<&'static str>, Option<&'static str>),
}
use Becomes::{Invalid, Undecodable};

/// Lines of `events`.
pub const EVENTS: &[(&[u8], Becomes)] = &[
    (b"", Undecodable),
    (b" ", Undecodable),
    (b"\0", Undecodable),
    (b"hello", Undecodable),
    (b"null", Undecodable),
    (b"{", Undecodable),
    (b"{}", Undecodable),
    (
        br#"[{"key":"k","value":{"event_id":"e","occurred_at":7}}]"#,
        Undecodable,
    ),
    (br#"{"key":"k","value":{"event_id":"e","occurred_a"#, Undecodable),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":7}"#,
        Undecodable,
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":7}}}"#,
        Undecodable,
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":7}}{}"#,
        Undecodable,
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":07}}"#,
        Undecodable,
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":NaN}}"#,
        Undecodable,
    ),
    (
        br#"{"key":"k","value":{"event_id":'e',"occurred_at":7}}"#,
        Undecodable,
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":7,}}"#,
        Undecodable,
    ),
    (br#"{"key":"k"}"#, Undecodable),
    (br#"{"value":{"event_id":"e","occurred_at":7}}"#, Undecodable),
    (
        br#"{"key":"k","key":"k","value":{"event_id":"e","occurred_at":7}}"#,
        Undecodable,
    ),
    (
        br#"{"key":"k","value":null,"value":{"event_id":"e","occurred_at":7}}"#,
        Undecodable,
    ),
    (
        br#"{"key":7,"value":{"event_id":"e","occurred_at":7}}"#,
        Undecodable,
    ),
    (
        b"\xef\xbb\xbf{\"key\":\"k\",\"value\":{\"event_id\":\"e\",\"occurred_at\":7}}",
        Undecodable,
    ),
    (
        b"{\"key\":\"\xff\",\"value\":{\"event_id\":\"e\",\"occurred_at\":7}}",
        Undecodable,
    ),
    (
        b"{\"key\":\"\xc0\xaf\",\"value\":{\"event_id\":\"e\",\"occurred_at\":7}}",
        Undecodable,
    ),
    (
        b"{\"key\":\"k\",\"value\":{\"event_id\":\"e\",\"occurred_at\":7,\"more\":\"\xed\xa0\x80\"}}",
        Undecodable,
    ),
    (
        b"{\"key\":\"k\",\"value\":{\"event_id\":\"\0\",\"occurred_at\":7}}",
        Undecodable,
    ),
    (
        b"{\"key\":\"k\",\"value\":{\"event_id\":\"e\",\"occurred_at\":7}}\0",
        Undecodable,
    ),
    (
        br#"{"key":"\ud800","value":{"event_id":"e","occurred_at":7}}"#,
        Undecodable,
    ),
    (
        br#"{"key":null,"value":{"event_id":"e","occurred_at":7}}"#,
        Invalid(None, Some(r#"{"event_id":"e","occurred_at":7}"#)),
    ),
    (br#"{"key":"k","value":null}"#, Invalid(Some("k"), None)),
    (br#"{"key":"k","value":7}"#, Invalid(Some("k"), Some("7"))),
    (
        br#"{"key":"k","value": [ 1 ] }"#,
        Invalid(Some("k"), Some("[ 1 ]")),
    ),
    (
        br#"{"key":"k","value":["e",7]}"#,
        Invalid(Some("k"), Some(r#"["e",7]"#)),
    ),
    (
        br#"{"key":"k","value":"{}"}"#,
        Invalid(Some("k"), Some(r#""{}""#)),
    ),
    (br#"{"key":"k","value":{}}"#, Invalid(Some("k"), Some("{}"))),
    (
        br#"{"key":"k","value":{"event_id":"e"}}"#,
        Invalid(Some("k"), Some(r#"{"event_id":"e"}"#)),
    ),
    (
        br#"{"key":"k","value":{"event_id":7,"occurred_at":7}}"#,
        Invalid(Some("k"), Some(r#"{"event_id":7,"occurred_at":7}"#)),
    ),
    (
        br#"{"key":"k","value":{"event_id":null,"occurred_at":7}}"#,
        Invalid(Some("k"), Some(r#"{"event_id":null,"occurred_at":7}"#)),
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":"7"}}"#,
        Invalid(Some("k"), Some(r#"{"event_id":"e","occurred_at":"7"}"#)),
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":true}}"#,
        Invalid(Some("k"), Some(r#"{"event_id":"e","occurred_at":true}"#)),
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":7.0}}"#,
        Invalid(Some("k"), Some(r#"{"event_id":"e","occurred_at":7.0}"#)),
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":7e3}}"#,
        Invalid(Some("k"), Some(r#"{"event_id":"e","occurred_at":7e3}"#)),
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":-1}}"#,
        Invalid(Some("k"), Some(r#"{"event_id":"e","occurred_at":-1}"#)),
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":253402300800000}}"#,
        Invalid(
            Some("k"),
            Some(r#"{"event_id":"e","occurred_at":253402300800000}"#),
        ),
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":9223372036854775808}}"#,
        Invalid(
            Some("k"),
            Some(r#"{"event_id":"e","occurred_at":9223372036854775808}"#),
        ),
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","occurred_at":1e999}}"#,
        Invalid(Some("k"), Some(r#"{"event_id":"e","occurred_at":1e999}"#)),
    ),
    (
        br#"{"key":"k","value":{"event_id":"e","event_id":"e","occurred_at":7}}"#,
        Invalid(
            Some("k"),
            Some(r#"{"event_id":"e","event_id":"e","occurred_at":7}"#),
        ),
    ),
    (
        br#" { "value" : { "event_id" : "e" } , "key" : "\u006b" } "#,
        Invalid(Some("k"), Some(r#"{ "event_id" : "e" }"#)),
    ),
    (
        br#"{"key":"k","timestamp":-1,"value":{"event_id":"e","occurred_at":7}}"#,
        Invalid(Some("k"), Some(r#"{"event_id":"e","occurred_at":7}"#)),
    ),
];

/// A line that is INVALID: its key as JSON, its value, and what stands behind the value.
pub type Parts = (&'static str, &'static str, &'static str);

/// Lines of `entries`.
pub const ENTRIES: &[Parts] = &[
    (
        r#""A""#,
        concat!(
            r#"{"entry_id":"e","account_id":"A","booked_at":7,"direction":"DEBIT","amount":-1,"#,
            r#""currency":"EUR","balance_after":0}"#
        ),
        "",
    ),
    (
        r#""A""#,
        concat!(
            r#"{"entry_id":"e","account_id":"A","booked_at":7,"direction":"debit","amount":1,"#,
            r#""currency":"EUR","balance_after":0}"#
        ),
        "",
    ),
    (
        r#""B""#,
        concat!(
            r#"{"entry_id":"e","account_id":"A","booked_at":7,"direction":"DEBIT","amount":1,"#,
            r#""currency":"EUR","balance_after":0}"#
        ),
        "",
    ),
];

/// Lines of `settings`: rules, channels, message times. All concern the customer whose row they must leave
/// alone.
pub const SETTINGS: &[Parts] = &[
    (
        r#""C""#,
        concat!(
            r#"{"customer_id":"C","addresses":[],"accounts":[{"account_id":"A","currency":"EUR","#,
            r#""alerts":[{"type":"CREDITED_ABOVE","channels":[]}]}]}"#
        ),
        "",
    ),
    (
        r#""C""#,
        concat!(
            r#"{"customer_id":"C","addresses":[],"accounts":[{"account_id":"A","currency":"EUR","#,
            r#""alerts":[{"type":"CREDITED_FROM","threshold":1,"channels":[]}]}]}"#
        ),
        "",
    ),
    (
        r#""C""#,
        r#"{"customer_id":"C","addresses":[{"channel":"FAX","address":"x"}],"accounts":[]}"#,
        "",
    ),
    (
        r#""D""#,
        r#"{"customer_id":"C","addresses":[],"accounts":[]}"#,
        "",
    ),
    (r#""C""#, "null", r#","timestamp":1.0"#),
    (r#""C""#, "null", r#","timestamp":253402300800000"#),
    (r#""C""#, "null", r#","timestamp":"7""#),
    ("null", "null", ""),
];

/// The good lines around the bad ones.
pub const GOOD_EVENT: &str = r#"{"key":"k","value":{"event_id":"e","occurred_at":7}}"#;

/// Hits the rule of [`GOOD_SETTING`].
pub const GOOD_ENTRY: &str = concat!(
    r#"{"key":"A","value":{"entry_id":"e","account_id":"A","booked_at":7,"direction":"CREDIT","amount":9,"#,
    r#""currency":"EUR","balance_after":9}}"#
);

/// One address, one rule.
pub const GOOD_SETTING: &str = concat!(
    r#"{"key":"C","value":{"customer_id":"C","addresses":[{"channel":"SMS","address":"+1"}],"#,
    r#""accounts":[{"account_id":"A","currency":"EUR","alerts":[{"type":"CREDITED_ABOVE","threshold":5,"#,
    r#""channels":["SMS"]}]}]}}"#
);

/// The owner of the account.
pub const GOOD_AUTHORIZATION: &str = r#"{"key":"A","value":{"account_id":"A","customers":["C"]}}"#;
