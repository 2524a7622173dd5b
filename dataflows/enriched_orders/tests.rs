//! Partners at most 30 apart, with a grace of 10: who meets whom, who is late, and who is still waited for.

use super::*;
use crate::trial::{Trial, check};
use tidegate::time::Millis;

fn order(_key: &str, placed_at: Millis, rest: &[&str]) -> Order {
    Order {
        order_id: rest[0].into(),
        amount: 1,
        currency: "EUR".into(),
        placed_at,
    }
}

fn payment(_key: &str, paid_at: Millis, rest: &[&str]) -> Payment {
    Payment {
        payment_id: rest[0].into(),
        amount: 2,
        currency: "USD".into(),
        paid_at,
    }
}

fn outputs<'s>(context: &Context<'s>, trial: &Trial) -> Outputs<'s> {
    let orders = trial.input(context, "orders", order);
    let payments = trial.input(context, "payments", payment);
    let config = EnrichedOrdersConfig {
        within_ms: 30,
        grace_ms: 10,
    };
    build(context, Inputs { orders, payments }, &config)
}

fn whole_messages(context: &Context<'_>, trial: &Trial) {
    trial.output("enriched", outputs(context, trial).enriched);
}

fn ids(context: &Context<'_>, trial: &Trial) {
    let Outputs {
        enriched,
        dead_letters,
    } = outputs(context, trial);
    let ids = |pair: &EnrichedOrder| format!("{} {}", pair.order.order_id, pair.payment.payment_id);
    trial.note("enriched", enriched, ids);
    trial.dead_letters(dead_letters);
}

#[test]
fn a_pair_is_sent_once_as_soon_as_both_are_there() {
    check(
        "open orders 0 1
         open payments 0 1
         orders 0 A 100 o1
         --
         payments 0 A 90 p1
         payments 0 B 100 p2
         --
         --
         orders 0 B 110 o2
         payments 0 B 120 p3
         --",
        &[
            concat!(
                r#"1 enriched A {"order":{"order_id":"o1","amount":1,"currency":"EUR","placed_at":100},"#,
                r#""payment":{"payment_id":"p1","amount":2,"currency":"USD","paid_at":90}}"#
            ),
            concat!(
                r#"3 enriched B {"order":{"order_id":"o2","amount":1,"currency":"EUR","placed_at":110},"#,
                r#""payment":{"payment_id":"p2","amount":2,"currency":"USD","paid_at":100}}"#
            ),
            concat!(
                r#"3 enriched B {"order":{"order_id":"o2","amount":1,"currency":"EUR","placed_at":110},"#,
                r#""payment":{"payment_id":"p3","amount":2,"currency":"USD","paid_at":120}}"#
            ),
        ],
        whole_messages,
    );
}

#[test]
fn partners_are_at_most_so_far_apart_on_either_side() {
    check(
        "open orders 0 1
         open payments 100 1
         orders 0 A 100 o
         payments 0 A 130 p130
         payments 0 A 131 p131
         payments 0 A 70 p70
         payments 0 A 69 p69
         payments 0 B 100 other
         --",
        &["0 enriched o p70", "0 enriched o p130"],
        ids,
    );
}

/// A payment at 100 is late when its own watermark reaches 100 + 30 + 10. The watermark of the orders does
/// not matter.
#[test]
fn late_is_decided_by_the_own_partition() {
    check(
        "open orders 0 1
         open payments 0 2
         orders 0 A 100 o
         payments 0 X 139 x
         payments 0 A 100 on-time
         payments 0 X 140 y
         payments 0 A 100 late
         payments 1 A 100 other-partition
         end orders
         --",
        &[
            "0 dead_letters payments 0@3 100 behind 140",
            "0 enriched o on-time",
            "0 enriched o other-partition",
        ],
        ids,
    );
}

/// An order at 100 waits until the payments have reached 100 + 2 * 30 + 10: at 169 a payment at 130 is on
/// time.
#[test]
fn a_partner_on_time_is_never_missed() {
    check(
        "open orders 0 1
         open payments 0 1
         orders 0 A 100 o
         orders 0 X 500 far-ahead
         payments 0 X 1 x
         --
         payments 0 X 169 y
         --
         payments 0 A 130 on-time
         payments 0 X 170 z
         --
         payments 0 A 130 late
         --",
        &[
            "2 enriched o on-time",
            "3 dead_letters payments 0@4 130 behind 170",
        ],
        ids,
    );
}

#[test]
fn what_is_taken_back_in_time_pairs_no_more_and_afterwards_is_a_dead_letter() {
    check(
        "open orders 0 1
         open payments 0 1
         orders 0 A 100 o
         --
         -orders 0 A 100 o
         payments 0 A 100 p
         --
         orders 0 A 100 again
         -orders 0 A 100 again
         orders 0 X 140 x
         --
         -orders 0 X 140 x
         end orders
         --
         -orders 0 A 100 o
         --",
        &["4 dead_letters orders 0@0 100 behind 9223372036854775807"],
        ids,
    );
}
