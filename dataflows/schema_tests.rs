//! The messages of the contract and their Avro schemas agree: another library reads from what is written by
//! the schema the same names, symbols and values that stand in the JSON.

use crate::alerts::{Alert, Criterion, DeviceMessage, OutboundMessage};
use crate::enriched_orders::EnrichedOrder;
use crate::event_counts::CountResult;
use crate::records::{AccountEntry, Device, Direction, Order, Payment, Transaction};
use crate::risk_pattern::{RiskAlert, RiskStatus, RiskTimeout};
use crate::tumbling_aggregates::OrderStats;
use serde_json::Value;
use std::sync::Arc;
use tidegate::format::avro::{Encoder, body};
use tidegate::record::{Origin, Output};

/// Checks a message against its schema, which has this name.
#[track_caller]
fn check<O: Output>(name: &str, message: O) {
    let mut bytes = Vec::new();
    Encoder::new(O::SCHEMA, 7)
        .expect("a schema")
        .encode(&message, &mut bytes);
    let schema = apache_avro::Schema::parse_str(O::SCHEMA).expect("Avro");
    let name_of = schema.name().expect("a named type").fullname(None);
    assert_eq!(name_of, format!("tidegate.{name}"));
    let mut rest = body(&bytes);
    let value = apache_avro::from_avro_datum(&schema, &mut rest, None).expect("a value");
    assert!(rest.is_empty(), "{} bytes after the value", rest.len());
    let json = serde_json::to_value(&message).expect("messages are JSON");
    assert_eq!(Value::try_from(value).expect("a value is JSON"), json);
    let mut again = Vec::new();
    Encoder::new(O::SCHEMA, 7)
        .expect("a schema")
        .encode(&message, &mut again);
    assert_eq!(again, bytes, "equal messages are equal bytes");
}

fn entry(counterparty: Option<&str>) -> AccountEntry {
    AccountEntry {
        entry_id: "E1".into(),
        account_id: "A1".into(),
        booked_at: 1_000,
        direction: Direction::Credit,
        amount: i64::MAX,
        currency: "EUR".into(),
        balance_after: i64::MIN,
        counterparty: counterparty.map(Into::into),
    }
}

fn transaction(id: &str) -> Transaction {
    Transaction {
        transaction_id: id.into(),
        user_id: "U1".into(),
        amount: 1_000_001,
        currency: "EUR".into(),
        location: "Lyon".into(),
        occurred_at: 7,
    }
}

#[test]
fn alerts() {
    let long = "x".repeat(100);
    for (counterparty, criterion) in [
        (None, Criterion::BalanceAbove(i64::MIN)),
        (Some("B/2"), Criterion::BalanceBelow(0)),
        (None, Criterion::CreditedAbove(-5)),
        (Some(""), Criterion::DebitedAbove(5)),
        (Some(long.as_str()), Criterion::CreditedFrom(long.as_str().into())),
    ] {
        let alert = Arc::new(Alert {
            entry: entry(counterparty),
            origin: Origin::default(),
            customer_id: "C1".into(),
            criterion,
        });
        let address = "c1@mail.example".into();
        check(
            "OutboundMessage",
            OutboundMessage {
                alert: alert.clone(),
                address,
            },
        );
        let device = Device {
            push_id: "P1".into(),
            device_type: "phone".into(),
        };
        check("DeviceMessage", DeviceMessage { alert, device });
    }
}

#[test]
fn orders() {
    let order = Order {
        order_id: "O1".into(),
        amount: 5,
        currency: "EUR".into(),
        placed_at: 6,
    };
    let payment = Payment {
        payment_id: "P1".into(),
        amount: 5,
        currency: "EUR".into(),
        paid_at: 7,
    };
    let key = "any".into();
    check("EnrichedOrder", EnrichedOrder { key, order, payment });
    let stats = OrderStats {
        key: "any".into(),
        window_start: -60_000,
        window_end: 0,
        count: 2,
        sum: i64::MAX,
        min: 3,
        max: 4,
    };
    check("OrderStats", stats);
}

#[test]
fn risks_and_counts() {
    for status in [RiskStatus::Raised, RiskStatus::Withdrawn, RiskStatus::Final] {
        let alert = RiskAlert {
            status,
            first: transaction("T1"),
            second: transaction("T2"),
            origin: Origin::default(),
        };
        check("RiskAlert", alert);
    }
    let timeout = RiskTimeout {
        user_id: "U1".into(),
        first: transaction("T1"),
        expired_at: 300_007,
        origin: Origin::default(),
    };
    check("RiskTimeout", timeout);
    let key = "any".into();
    check("CountResult", CountResult { key, count: 1 });
}
