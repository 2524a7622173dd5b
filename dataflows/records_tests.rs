//! The records of the contract: lines in, what becomes of them out, and what no damage brings about.

use super::*;
use serde::Serialize;
use tidegate::format::avro::{self, Encoder, Writer};
use tidegate::format::json::{Message, Rejected, decode_line, write_line};
use tidegate::record::{Output, Rank, key_hash};

const ENTRY: &str = concat!(
    r#"{"key":"A1","value":{"entry_id":"E1","account_id":"A1","booked_at":725846400000,"#,
    r#""direction":"DEBIT","amount":12050,"currency":"CZK","balance_after":-7,"#,
    r#""counterparty":"B/2"}}"#,
);
const AUTHORIZATIONS: &str =
    r#"{"key":"A1","value":{"account_id":"A1","customers":["C1","C2"]},"timestamp":5}"#;
const SETTINGS: &str = concat!(
    r#"{"key":"C1","value":{"customer_id":"C1","addresses":[{"channel":"EMAIL","#,
    r#""address":"c1@mail.example"},{"channel":"PUSH","address":"C1"}],"#,
    r#""accounts":[{"account_id":"A1","currency":"CZK","alerts":[{"type":"BALANCE_BELOW","#,
    r#""threshold":-100,"channels":["SMS","PUSH"]},{"type":"CREDITED_FROM","threshold":null,"#,
    r#""counterparty":"B/2","channels":[]}]}]}}"#,
);
const DEVICES: &str =
    r#"{"key":"C1","value":{"customer_id":"C1","devices":[{"push_id":"P1","device_type":"phone"}]}}"#;
const ORDER: &str = r#"{"key":"any","value":{"order_id":"O1","amount":5,"currency":"EUR","placed_at":0}}"#;
const PAYMENT: &str =
    r#"{"key":"any","value":{"payment_id":"P1","amount":5,"currency":"EUR","paid_at":253402300799999}}"#;
const TRANSACTION: &str = concat!(
    r#"{"key":"U1","value":{"transaction_id":"T1","user_id":"U1","amount":1000001,"#,
    r#""currency":"EUR","location":"Lyon","occurred_at":7}}"#,
);
const EVENT: &str = r#"{"key":"","value":{"event_id":"V1","occurred_at":7}}"#;

/// What becomes of a line, as one text.
fn outcome<R: Record>(line: &str, is_table: bool) -> String {
    match decode_line::<R>(line.as_bytes(), is_table) {
        Ok(Message {
            value: Some(value), ..
        }) => format!("at {:?}", value.event_time()),
        Ok(Message { value: None, .. }) => "tombstone".to_owned(),
        Err(Rejected::Undecodable { error }) => format!("UNDECODABLE {error}"),
        Err(Rejected::Invalid { error, .. }) => format!("INVALID {error}"),
    }
}

/// A good line, one replacement in it, and how the outcome starts.
#[track_caller]
fn check<R: Record>(line: &str, old: &str, new: &str, expected: &str) {
    assert!(line.contains(old), "{old} is not in {line}");
    let line = line.replacen(old, new, 1);
    let outcome = outcome::<R>(&line, true);
    assert!(
        outcome.starts_with(expected),
        "{line}\n  gave {outcome}\n  not  {expected}"
    );
}

#[test]
fn good_lines() {
    check::<AccountEntry>(ENTRY, "", "", "at Some(725846400000)");
    check::<AccountEntry>(ENTRY, r#","counterparty":"B/2""#, "", "at Some");
    check::<AccountEntry>(ENTRY, r#""B/2""#, "null", "at Some");
    check::<AccountEntry>(ENTRY, "12050", "0", "at Some");
    check::<AccountEntry>(ENTRY, "12050", "9223372036854775807", "at Some");
    check::<AccountEntry>(ENTRY, "-7", "-9223372036854775808", "at Some");
    check::<AccountAuthorizations>(AUTHORIZATIONS, "", "", "at None");
    check::<CustomerAlertSettings>(SETTINGS, "", "", "at None");
    check::<CustomerDevices>(DEVICES, "", "", "at None");
    check::<Order>(ORDER, "", "", "at Some(0)");
    check::<Payment>(PAYMENT, "", "", "at Some(253402300799999)");
    check::<Event>(EVENT, "", "", "at Some(7)");
    check::<AccountAuthorizations>(r#"{"key":"A1","value":null}"#, "", "", "tombstone");
    assert!(
        outcome::<AccountEntry>(r#"{"key":"A1","value":null}"#, false)
            .starts_with("INVALID AccountEntry: a tombstone")
    );
}

#[test]
fn ranges() {
    check::<AccountEntry>(
        ENTRY,
        "12050",
        "-1",
        "INVALID AccountEntry.amount: -1 is negative",
    );
    check::<AccountEntry>(
        ENTRY,
        "725846400000",
        "-1",
        "INVALID AccountEntry.booked_at: -1 is outside",
    );
    check::<AccountEntry>(
        ENTRY,
        "725846400000",
        "253402300800000",
        "INVALID AccountEntry.booked_at: 2534",
    );
    check::<Order>(
        ORDER,
        "\"placed_at\":0",
        "\"placed_at\":-1",
        "INVALID Order.placed_at: -1",
    );
    check::<Payment>(
        PAYMENT,
        "253402300799999",
        "253402300800000",
        "INVALID Payment.paid_at: 2534",
    );
    check::<Transaction>(TRANSACTION, ":7", ":-7", "INVALID Transaction.occurred_at: -7");
    check::<Order>(ORDER, ":5,", ":-5,", "INVALID Order.amount: -5 is negative");
    check::<Payment>(PAYMENT, ":5,", ":-5,", "INVALID Payment.amount: -5 is negative");
    check::<Transaction>(
        TRANSACTION,
        "1000001",
        "-1",
        "INVALID Transaction.amount: -1 is negative",
    );
    check::<Event>(EVENT, ":7", ":-7", "INVALID Event.occurred_at: -7");
    check::<AccountEntry>(ENTRY, "12050", "12050.0", "INVALID AccountEntry.amount: ");
    check::<AccountEntry>(ENTRY, "-7", "1e3", "INVALID AccountEntry.balance_after: ");
    check::<AccountEntry>(
        ENTRY,
        "-7",
        "-9223372036854775809",
        "INVALID AccountEntry.balance_after: ",
    );
    check::<AccountEntry>(
        ENTRY,
        "725846400000",
        "\"725846400000\"",
        "INVALID AccountEntry.booked_at: ",
    );
}

#[test]
fn keys_agree_with_key_fields() {
    check::<AccountEntry>(ENTRY, "A1", "A1x", "INVALID key 'A1x' but account_id 'A1'");
    check::<AccountAuthorizations>(AUTHORIZATIONS, "A1", "", "INVALID key '' but account_id 'A1'");
    check::<CustomerAlertSettings>(SETTINGS, "C1", "C", "INVALID key 'C' but customer_id 'C1'");
    check::<CustomerDevices>(DEVICES, "C1", "c1", "INVALID key 'c1' but customer_id 'C1'");
    check::<Transaction>(TRANSACTION, "U1", "U1 ", "INVALID key 'U1 ' but user_id 'U1'");
    check::<AccountEntry>(ENTRY, "A1", "\\u00411", "at Some");
    check::<AccountEntry>(ENTRY, "\"A1\"", "null", "INVALID key: null");
}

#[test]
fn rules_have_their_parameter() {
    let missing = |rule: &str| {
        format!("INVALID CustomerAlertSettings.accounts.alerts: a {rule} rule without its parameter")
    };
    check::<CustomerAlertSettings>(SETTINGS, "-100", "null", &missing("BALANCE_BELOW"));
    check::<CustomerAlertSettings>(SETTINGS, r#""threshold":-100,"#, "", &missing("BALANCE_BELOW"));
    check::<CustomerAlertSettings>(
        SETTINGS,
        "-100",
        r#"null,"counterparty":"B/2""#,
        &missing("BALANCE_BELOW"),
    );
    check::<CustomerAlertSettings>(SETTINGS, "\"B/2\"", "null", &missing("CREDITED_FROM"));
    check::<CustomerAlertSettings>(
        SETTINGS,
        r#"null,"counterparty":"B/2""#,
        "5",
        &missing("CREDITED_FROM"),
    );
    for rule in ["BALANCE_ABOVE", "CREDITED_ABOVE", "DEBITED_ABOVE"] {
        check::<CustomerAlertSettings>(SETTINGS, "BALANCE_BELOW", rule, "at None");
        check::<CustomerAlertSettings>(SETTINGS, "CREDITED_FROM", rule, &missing(rule));
    }
}

#[test]
fn errors_name_the_path() {
    let threshold = "INVALID CustomerAlertSettings.accounts.alerts.threshold: invalid type: string \"100\"";
    check::<CustomerAlertSettings>(SETTINGS, "-100", "\"100\"", threshold);
    let missing = "INVALID CustomerAlertSettings.accounts.currency: missing";
    check::<CustomerAlertSettings>(SETTINGS, r#""currency":"CZK","#, "", missing);
    let channels = concat!(
        "INVALID CustomerAlertSettings.accounts.alerts.channels: ",
        "invalid value: string \"FAX\", expected one of EMAIL SMS PUSH"
    );
    check::<CustomerAlertSettings>(SETTINGS, "\"SMS\"", "\"FAX\"", channels);
    check::<CustomerAlertSettings>(
        SETTINGS,
        "\"EMAIL\"",
        "{\"EMAIL\":null}",
        "INVALID CustomerAlertSettings.addresses.channel: ",
    );
    check::<CustomerAlertSettings>(
        SETTINGS,
        "BALANCE_BELOW",
        "balance_below",
        "INVALID CustomerAlertSettings.accounts.alerts.type: ",
    );
    check::<CustomerDevices>(
        DEVICES,
        r#""device_type":"phone""#,
        r#""x":0"#,
        "INVALID CustomerDevices.devices.device_type: missing",
    );
    check::<AccountAuthorizations>(
        AUTHORIZATIONS,
        "\"C2\"",
        "2",
        "INVALID AccountAuthorizations.customers: invalid type: integer `2`",
    );
    check::<AccountAuthorizations>(AUTHORIZATIONS, ":5}", ":5.0}", "INVALID timestamp: ");
    check::<AccountEntry>(
        ENTRY,
        "DEBIT\"",
        "DEBIT\",\"direction\":\"DEBIT\"",
        "INVALID AccountEntry.direction: given twice",
    );
}

/// Every field of every record: missing, null, given twice, of a type that no field has.
#[test]
fn every_field_is_held_to_its_type() {
    fn each_field<R: Record>(line: &str, nullable: &[&str]) {
        let value = &line[line.find("\"value\"").expect("a value") + 9..];
        let mut names = 0;
        // Field names are the strings before a colon.
        for name in value
            .split("\":")
            .filter_map(|part| part.rsplit('"').next())
            .filter(|name| name.contains('_'))
        {
            let quoted = format!("\"{name}\":");
            if !value.contains(&quoted) || value.matches(&quoted).count() > 1 {
                continue;
            }
            names += 1;
            let is_nullable = nullable.contains(&name);
            let expected = if is_nullable { "at" } else { "INVALID" };
            check::<R>(line, &quoted, "\"x\":", expected);
            check::<R>(line, &quoted, &format!("{quoted}null,\"x\":"), expected);
            check::<R>(line, &quoted, &format!("{quoted}true,\"x\":"), "INVALID");
            check::<R>(line, &quoted, &format!("{quoted}1.0,\"x\":"), "INVALID");
            check::<R>(line, &quoted, &format!("{quoted}{{}},\"x\":"), "INVALID");
            check::<R>(line, &quoted, &format!("{quoted}null,{quoted}"), "INVALID");
        }
        assert!(names > 0, "no field found in {line}");
    }
    each_field::<AccountEntry>(ENTRY, &["counterparty"]);
    each_field::<AccountAuthorizations>(AUTHORIZATIONS, &[]);
    each_field::<CustomerAlertSettings>(SETTINGS, &[]);
    each_field::<CustomerDevices>(DEVICES, &[]);
    each_field::<Order>(ORDER, &[]);
    each_field::<Payment>(PAYMENT, &[]);
    each_field::<Transaction>(TRANSACTION, &[]);
    each_field::<Event>(EVENT, &[]);
}

/// A decoded message, to be written again.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
struct Echo<R> {
    #[serde(skip)]
    key: Text,
    value: Option<R>,
}

impl<R: Record> Output for Echo<R> {
    const SCHEMA: &'static str = R::SCHEMA;

    fn key(&self) -> Option<&str> {
        Some(&self.key)
    }

    fn rank(&self) -> Rank {
        Rank::default()
    }
}

/// An accepted message comes back as itself from JSON, and its record from a checkpoint's row format.
fn check_round_trip<R: Record>(message: &Message<R>, what: &str) {
    let mut line = Vec::new();
    write_line(
        &Echo {
            key: message.key.clone(),
            value: message.value.clone(),
        },
        &mut line,
    );
    let again = decode_line::<R>(line.strip_suffix(b"\n").expect("a line ends with LF"), true);
    let expected = Message {
        timestamp: None,
        ..message.clone()
    };
    assert_eq!(again, Ok(expected), "{what}: {}", line.escape_ascii());
    let row = postcard::to_allocvec(&message.value).expect("rows serialize");
    let value: Option<R> = postcard::from_bytes(&row).expect("and come back");
    assert_eq!(value, message.value, "{what}");
}

/// Damages a good line in up to three places, the same for the same seed.
fn damaged(line: &str, seed: u64) -> Vec<u8> {
    let mut drawn = 0_u64;
    let mut below = |bound: usize| {
        drawn += 1;
        (key_hash(&[seed.to_le_bytes(), drawn.to_le_bytes()].concat()) % bound as u64) as usize
    };
    let tokens: [&[u8]; 16] = [
        b"\"", b"\\", b"{", b"}", b"[", b"]", b",", b":", b"7", b"-", b"null", b"\0", b"\xff", b"e",
        b"\\u00e9", b".0",
    ];
    let mut line = line.as_bytes().to_vec();
    for _ in 0..=below(3) {
        let at = below(line.len());
        let end = (at + below(3)).min(line.len());
        let token = match below(3) {
            0 => vec![below(256) as u8],
            1 => tokens[below(tokens.len())].to_vec(),
            _ => line[at..end].repeat(2),
        };
        line.splice(at..end, token);
    }
    line
}

#[test]
fn whatever_is_accepted_comes_back_as_itself() {
    fn seeds<R: Record>(line: &str) {
        let good = decode_line::<R>(line.as_bytes(), true).expect("a good line");
        check_round_trip(&good, "undamaged");
        let mut accepted = 0;
        for seed in 0..3000 {
            if let Ok(message) = decode_line::<R>(&damaged(line, seed), true) {
                check_round_trip(&message, &format!("{} seed {seed}", R::NAME));
                accepted += 1;
            }
        }
        assert!(
            (50..2950).contains(&accepted),
            "{accepted} of 3000 damaged lines were accepted"
        );
    }
    seeds::<AccountEntry>(ENTRY);
    seeds::<AccountAuthorizations>(AUTHORIZATIONS);
    seeds::<CustomerAlertSettings>(SETTINGS);
    seeds::<CustomerDevices>(DEVICES);
    seeds::<Order>(ORDER);
    seeds::<Payment>(PAYMENT);
    seeds::<Transaction>(TRANSACTION);
    seeds::<Event>(EVENT);
}

/// An accepted record comes back as itself from Avro, by its own schema: the type and its schema agree.
fn check_avro<R: Record>(line: &str) {
    let record = decode_line::<R>(line.as_bytes(), true)
        .expect("a good line")
        .value;
    let record = record.expect("a record");
    let mut message = Vec::new();
    Encoder::new(R::SCHEMA, 7)
        .expect("a schema")
        .encode(&record, &mut message);
    let writer = Writer::parse(R::SCHEMA, &[]).expect("a schema");
    assert_eq!(
        avro::decode::<R>(&writer, avro::body(&message)),
        Ok(record.clone())
    );
    // Another library reads the same names and symbols.
    let schema = apache_avro::Schema::parse_str(R::SCHEMA).expect("Avro");
    let value = apache_avro::from_avro_datum(&schema, &mut avro::body(&message), None).expect("a value");
    let json = serde_json::to_value(&record).expect("records are JSON");
    assert_eq!(serde_json::Value::try_from(value).expect("a value is JSON"), json);
    let name_of = schema.name().expect("a named type").fullname(None);
    assert_eq!(name_of, format!("tidegate.{}", R::NAME));
}

#[test]
fn records_and_their_schemas_agree() {
    check_avro::<AccountEntry>(ENTRY);
    check_avro::<AccountEntry>(&ENTRY.replace("DEBIT", "CREDIT").replace("\"B/2\"", "null"));
    check_avro::<AccountAuthorizations>(AUTHORIZATIONS);
    check_avro::<CustomerAlertSettings>(SETTINGS);
    for (_, symbol) in RuleType::ALL {
        let line = SETTINGS.replace("BALANCE_BELOW", symbol);
        check_avro::<CustomerAlertSettings>(&line.replace("-100,", "-100,\"counterparty\":\"x\","));
    }
    for (_, symbol) in Channel::ALL {
        check_avro::<CustomerAlertSettings>(&SETTINGS.replace("EMAIL", symbol));
    }
    check_avro::<CustomerDevices>(DEVICES);
    check_avro::<Order>(ORDER);
    check_avro::<Payment>(PAYMENT);
    check_avro::<Transaction>(TRANSACTION);
    check_avro::<Event>(EVENT);
}
