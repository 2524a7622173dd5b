//! Transactions over 100, followed within 50 from elsewhere: matches, timeouts, ties, and what is late.

use super::*;
use crate::trial::{Trial, check};

/// `transactions PARTITION USER TIME ID AMOUNT LOCATION`
fn transaction(user: &str, occurred_at: Millis, rest: &[&str]) -> Transaction {
    Transaction {
        transaction_id: rest[0].into(),
        user_id: user.into(),
        amount: rest[1].parse().expect("an amount"),
        currency: "EUR".into(),
        location: rest[2].into(),
        occurred_at,
    }
}

fn outputs<'s>(context: &Context<'s>, trial: &Trial, emit: PatternEmit) -> Outputs<'s> {
    let transactions = trial.input(context, "transactions", transaction);
    let config = RiskPatternConfig {
        limit: 100,
        within_ms: 50,
        emit,
    };
    build(context, Inputs { transactions }, &config)
}

fn ids(outputs: Outputs<'_>, trial: &Trial) {
    trial.note("alerts", outputs.risk_alerts, |alert| {
        let value = serde_json::to_value(alert).expect("an alert is plain data");
        format!("{} {} {}", value["user_id"], value["status"], value["alert_id"]).replace('"', "")
    });
    trial.note("timeouts", outputs.risk_timeouts, |timeout| {
        format!(
            "{} {} {}",
            timeout.user_id, timeout.first.transaction_id, timeout.expired_at
        )
    });
    trial.dead_letters(outputs.dead_letters);
}

fn final_alerts(context: &Context<'_>, trial: &Trial) {
    ids(outputs(context, trial, PatternEmit::Final), trial);
}

fn eager_alerts(context: &Context<'_>, trial: &Trial) {
    ids(outputs(context, trial, PatternEmit::Eager), trial);
}

fn whole_messages(context: &Context<'_>, trial: &Trial) {
    let outputs = outputs(context, trial, PatternEmit::Final);
    trial.output("alerts", outputs.risk_alerts);
    trial.output("timeouts", outputs.risk_timeouts);
}

#[test]
fn messages_carry_both_transactions() {
    check(
        "open transactions 0 1
         transactions 0 U 10 a 101 Prague
         transactions 0 U 59 b 500 Brno
         end transactions
         --",
        &[
            concat!(
                r#"0 alerts U {"alert_id":"a/b","user_id":"U","status":"FINAL","first":{"#,
                r#""transaction_id":"a","user_id":"U","amount":101,"#,
                r#""currency":"EUR","location":"Prague","occurred_at":10},"#,
                r#""second":{"transaction_id":"b","user_id":"U","amount":500,"currency":"EUR","#,
                r#""location":"Brno","occurred_at":59}}"#
            ),
            concat!(
                r#"0 timeouts U {"user_id":"U","first":{"transaction_id":"b","user_id":"U","amount":500,"#,
                r#""currency":"EUR","location":"Brno","occurred_at":59},"expired_at":109}"#
            ),
        ],
        whole_messages,
    );
}

/// Over the limit, elsewhere, sooner: each of the three at its boundary. What is followed in time is no
/// timeout.
#[test]
fn a_match_needs_all_three() {
    check(
        "open transactions 0 1
         transactions 0 limit 0 a 100 P
         transactions 0 limit 1 b 1 B
         transactions 0 place 2 a 101 P
         transactions 0 place 3 b 1 P
         transactions 0 soon 4 a 101 P
         transactions 0 soon 53 b 1 B
         transactions 0 later 54 a 101 P
         transactions 0 later 104 b 1 B
         end transactions
         --",
        &["0 alerts soon FINAL a/b", "0 timeouts later a 104"],
        final_alerts,
    );
}

#[test]
fn only_neighbours_match_and_overlapping_matches_count() {
    check(
        "open transactions 0 1
         transactions 0 U 0 a 101 P
         transactions 0 U 1 b 102 B
         transactions 0 U 2 c 103 P
         transactions 0 U 3 d 1 P
         transactions 0 U 4 e 1 B
         end transactions
         --",
        &["0 alerts U FINAL a/b", "0 alerts U FINAL b/c"],
        final_alerts,
    );
}

/// The global watermark must be past the second transaction: at its time another one may still come before
/// it.
#[test]
fn an_alert_is_final_when_nothing_can_come_between() {
    check(
        "open transactions 0 1
         transactions 0 U 10 a 101 P
         transactions 0 U 20 c 1 B
         --
         transactions 0 U 20 d 1 B
         --
         transactions 0 X 21 x 1 B
         --",
        &["2 alerts U FINAL a/c"],
        final_alerts,
    );
}

#[test]
fn ties_are_ordered_by_partition_then_offset() {
    check(
        "open transactions 100 2
         transactions 1 U 10 b 102 B
         transactions 1 U 10 c 103 P
         transactions 0 U 10 a 101 P
         end transactions
         --",
        &[
            "0 alerts U FINAL a/b",
            "0 alerts U FINAL b/c",
            "0 timeouts U c 60",
        ],
        final_alerts,
    );
}

#[test]
fn eager_alerts_are_withdrawn_when_a_transaction_comes_between() {
    check(
        "open transactions 100 1
         transactions 0 U 10 a 101 P
         transactions 0 U 30 c 102 B
         --
         transactions 0 U 20 b 103 B
         --
         transactions 0 U 40 d 104 B
         --
         transactions 0 U 25 between 1 P
         -transactions 0 U 25 between 1 P
         --
         -transactions 0 U 20 b 103 B
         --
         end transactions
         --",
        &[
            "0 alerts U RAISED a/c",
            "1 alerts U WITHDRAWN a/c",
            "1 alerts U RAISED a/b",
            "4 alerts U WITHDRAWN a/b",
            "4 alerts U RAISED a/c",
            "5 timeouts U d 90",
        ],
        eager_alerts,
    );
}

/// Where two transactions share an id, one alert can go and another one of the same id come in one epoch.
#[test]
fn alerts_of_one_id_alternate() {
    check(
        "open transactions 100 1
         transactions 0 U 10 a 101 P
         transactions 0 U 30 b 1 B
         --
         transactions 0 U 20 b 1 B
         --",
        &[
            "0 alerts U RAISED a/b",
            "1 alerts U WITHDRAWN a/b",
            "1 alerts U RAISED a/b",
        ],
        eager_alerts,
    );
}

/// Nothing less than 50 after it: certain when the global watermark has reached 10 + 50. In both modes.
#[test]
fn a_timeout_is_given_once_when_it_is_certain() {
    for build in [final_alerts, eager_alerts] {
        check(
            "open transactions 0 1
             transactions 0 U 10 a 101 P
             transactions 0 X 59 x 1 P
             --
             transactions 0 X 60 y 1 P
             --
             transactions 0 U 60 b 101 B
             transactions 0 X 200 z 1 P
             --",
            &["1 timeouts U a 60", "2 timeouts U b 110"],
            build,
        );
    }
}

/// At the watermark is on time, before it is late; and so is a correction of what is final.
#[test]
fn late_is_what_is_before_the_watermark() {
    check(
        "open transactions 5 1
         transactions 0 U 10 a 101 P
         transactions 0 X 15 x 1 P
         --
         transactions 0 U 9 late 1 B
         transactions 0 U 10 b 1 B
         transactions 0 X 17 y 1 P
         --
         -transactions 0 U 10 b 1 B
         end transactions
         --",
        &[
            "1 alerts U FINAL a/b",
            "1 dead_letters transactions 0@2 9 behind 10",
            "2 dead_letters transactions 0@3 10 behind 12",
        ],
        final_alerts,
    );
}
