//! Windows of 100 with a grace of 10: when they close, what is late, what each mode gives.

use super::*;
use crate::trial::{Trial, check};

fn order(_key: &str, placed_at: Millis, rest: &[&str]) -> Order {
    Order {
        order_id: "o".into(),
        amount: rest[0].parse().expect("an amount"),
        currency: rest.get(1).copied().unwrap_or("EUR").into(),
        placed_at,
    }
}

fn trial(context: &Context<'_>, trial: &Trial, emit: WindowEmit) {
    let orders = trial.input(context, "orders", order);
    let config = TumblingAggregatesConfig {
        size_ms: 100,
        grace_ms: 10,
        emit,
    };
    let outputs = build(context, Inputs { orders }, &config);
    trial.output("aggregates", outputs.aggregates);
    trial.dead_letters(outputs.dead_letters);
}

fn final_rows(context: &Context<'_>, trial_of: &Trial) {
    trial(context, trial_of, WindowEmit::Final);
}

fn changed_rows(context: &Context<'_>, trial_of: &Trial) {
    trial(context, trial_of, WindowEmit::Changes);
}

#[test]
fn a_window_holds_its_start_and_not_its_end() {
    check(
        "open orders 0 1
         orders 0 A 99 1
         orders 0 A 100 2
         orders 0 A 199 4 USD
         orders 0 A 200 8
         orders 0 B 200 3
         end orders
         --",
        &[
            r#"0 aggregates A {"window_start":0,"window_end":100,"count":1,"sum":1,"min":1,"max":1}"#,
            r#"0 aggregates A {"window_start":100,"window_end":200,"count":2,"sum":6,"min":2,"max":4}"#,
            r#"0 aggregates A {"window_start":200,"window_end":300,"count":1,"sum":8,"min":8,"max":8}"#,
            r#"0 aggregates B {"window_start":200,"window_end":300,"count":1,"sum":3,"min":3,"max":3}"#,
        ],
        final_rows,
    );
}

/// The window ends at 100 and its grace at 110: at a watermark of 109 it is open, at 110 it is closed.
#[test]
fn a_window_closes_and_a_record_is_late_when_the_grace_is_over() {
    check(
        "open orders 0 1
         orders 0 A 99 1
         orders 0 B 109 2
         --
         orders 0 A 0 3
         orders 0 B 110 4
         orders 0 A 99 5
         --
         orders 0 A 99 6
         orders 0 A 100 7
         --",
        &[
            r#"1 aggregates A {"window_start":0,"window_end":100,"count":2,"sum":4,"min":1,"max":3}"#,
            "1 dead_letters orders 0@4 99 behind 110",
            "2 dead_letters orders 0@5 99 behind 110",
        ],
        final_rows,
    );
}

/// The global watermark is that of the slowest partition; what is late is decided by a record's own.
#[test]
fn a_slow_partition_keeps_windows_open_for_its_own_records() {
    check(
        "open orders 5 2
         orders 0 A 50 1
         orders 1 A 115 2
         --
         orders 1 A 50 3
         orders 0 A 51 4
         --
         orders 0 A 115 5
         --",
        &[
            "1 dead_letters orders 1@2 50 behind 110",
            r#"2 aggregates A {"window_start":0,"window_end":100,"count":2,"sum":5,"min":1,"max":4}"#,
        ],
        final_rows,
    );
}

#[test]
fn changes_gives_the_current_row_of_every_epoch_that_changed_it() {
    check(
        "open orders 0 1
         orders 0 A 1 5
         orders 0 A 2 7
         --
         --
         orders 0 A 3 6
         -orders 0 A 1 5
         --
         orders 0 B 3 6
         -orders 0 B 3 6
         --
         orders 0 A 110 1
         --
         -orders 0 A 2 7
         --",
        &[
            r#"0 aggregates A {"window_start":0,"window_end":100,"count":2,"sum":12,"min":5,"max":7}"#,
            r#"2 aggregates A {"window_start":0,"window_end":100,"count":2,"sum":13,"min":6,"max":7}"#,
            r#"4 aggregates A {"window_start":100,"window_end":200,"count":1,"sum":1,"min":1,"max":1}"#,
            // A correction after the close: it changes nothing and says so.
            "5 dead_letters orders 0@1 2 behind 110",
        ],
        changed_rows,
    );
}

#[test]
fn sums_are_clamped() {
    check(
        "open orders 0 1
         orders 0 A 1 9223372036854775807
         orders 0 A 1 9223372036854775806
         end orders
         --",
        &[concat!(
            r#"0 aggregates A {"window_start":0,"window_end":100,"count":2,"sum":9223372036854775807,"#,
            r#""min":9223372036854775806,"max":9223372036854775807}"#
        )],
        final_rows,
    );
}
