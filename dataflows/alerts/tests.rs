//! The rule table: what a script of records sends, on one worker and on two.

mod script;

use script::run;
use tidegate::record::Rank;

/// Runs the script on one worker and on two. Every line expected is `output key alert_id`; the order is
/// that of epochs, then outputs, then ranks.
#[track_caller]
fn check(script: &str, expected: &[&str]) {
    for workers in [1, 2] {
        let sent = run(script, workers, true);
        let brief: Vec<_> = sent
            .iter()
            .map(|(_, output, _, line)| format!("{output} {} {}", text(line, "key"), text(line, "alert_id")))
            .collect();
        assert_eq!(brief, expected, "on {workers} workers");
    }
}

/// The string in a line's member of this name.
fn text<'a>(line: &'a str, name: &str) -> &'a str {
    let start = format!("\"{name}\":\"");
    let from = line.find(&start).expect("the member is there") + start.len();
    line[from..].split('"').next().unwrap_or_default()
}

/// A customer with one address per channel who watches account A1 in EUR by one rule, sent to EMAIL.
macro_rules! watching {
    ($rule:literal, $($entries:literal),* $(,)?) => {
        concat!(
            "authorize A1 = C1\n",
            "settings C1 = EMAIL:c1@x SMS:+1 PUSH:C1 ; A1 EUR ", $rule, " EMAIL\n",
            $($entries, "\n"),*
        )
    };
}

#[test]
fn balance_above_is_a_crossing() {
    check(
        watching!(
            "BALANCE_ABOVE 1000",
            "entry over A1 +1 EUR 1001",
            "entry onto A1 +1 EUR 1000",
            "entry stays A1 +1 EUR 1002",
            "entry far A1 +900 EUR 1900",
            "entry debit A1 -1 EUR 1001",
        ),
        &[
            "email c1@x over/C1/BALANCE_ABOVE/1000",
            "email c1@x far/C1/BALANCE_ABOVE/1000",
        ],
    );
}

#[test]
fn balance_below_is_a_crossing() {
    check(
        watching!(
            "BALANCE_BELOW -5",
            "entry under A1 -1 EUR -6",
            "entry onto A1 -1 EUR -5",
            "entry stays A1 -1 EUR -7",
            "entry far A1 -100 EUR -50",
            "entry credit A1 +1 EUR -6",
        ),
        &[
            "email c1@x under/C1/BALANCE_BELOW/-5",
            "email c1@x far/C1/BALANCE_BELOW/-5",
        ],
    );
}

#[test]
fn amounts_are_compared_within_their_direction() {
    check(
        watching!(
            "CREDITED_ABOVE 100",
            "entry same A1 +100 EUR 0",
            "entry more A1 +101 EUR 0",
            "entry debit A1 -101 EUR 0",
        ),
        &["email c1@x more/C1/CREDITED_ABOVE/100"],
    );
    check(
        watching!(
            "DEBITED_ABOVE 100",
            "entry same A1 -100 EUR 0",
            "entry more A1 -101 EUR 0",
            "entry credit A1 +101 EUR 0",
        ),
        &["email c1@x more/C1/DEBITED_ABOVE/100"],
    );
}

#[test]
fn credits_from_a_counterparty() {
    check(
        watching!(
            "CREDITED_FROM shop",
            "entry theirs A1 +0 EUR 0 shop",
            "entry debit A1 -1 EUR 0 shop",
            "entry others A1 +1 EUR 0 Shop",
            "entry nobody A1 +1 EUR 0",
        ),
        &["email c1@x theirs/C1/CREDITED_FROM/shop"],
    );
}

/// In 64 bits the balance before would wrap around and fall on the other side of the threshold.
#[test]
fn balances_before_may_lie_outside_64_bits() {
    check(
        watching!(
            "BALANCE_ABOVE 0",
            "entry e A1 -9223372036854775807 EUR 9223372036854775807"
        ),
        &[],
    );
    check(
        watching!(
            "BALANCE_BELOW 0",
            "entry e A1 +9223372036854775807 EUR -9223372036854775808"
        ),
        &[],
    );
}

#[test]
fn only_entries_in_the_currency_and_of_the_account() {
    check(
        "authorize A1 = C1
         authorize A2 = C1
         settings C1 = EMAIL:c1@x ; A1 EUR CREDITED_ABOVE 0 EMAIL ; A1 USD CREDITED_ABOVE 50 EMAIL
         entry eur A1 +10 EUR 0
         entry usd A1 +10 USD 0
         entry usd-more A1 +60 USD 0
         entry czk A1 +60 CZK 0
         entry other A2 +60 EUR 0",
        &[
            "email c1@x eur/C1/CREDITED_ABOVE/0",
            "email c1@x usd-more/C1/CREDITED_ABOVE/50",
        ],
    );
}

#[test]
fn co_holders_are_told_each_for_themselves() {
    check(
        "authorize A1 = C1 C2 C1 C3
         settings C1 = EMAIL:home@x ; A1 EUR CREDITED_ABOVE 0 EMAIL
         settings C2 = EMAIL:home@x SMS:+2 ; A1 EUR CREDITED_ABOVE 5 EMAIL,SMS
         settings C4 = EMAIL:stranger@x ; A1 EUR CREDITED_ABOVE 0 EMAIL
         entry e A1 +10 EUR 0",
        &[
            "email home@x e/C1/CREDITED_ABOVE/0",
            "email home@x e/C2/CREDITED_ABOVE/5",
            "sms +2 e/C2/CREDITED_ABOVE/5",
        ],
    );
}

/// Addresses, accounts and rules given again, with other channels or with a parameter that the kind does
/// not use.
#[test]
fn what_repeats_in_the_settings_is_sent_once() {
    check(
        "authorize A1 = C1
         settings C1 = EMAIL:a@x EMAIL:b@x EMAIL:a@x SMS:a@x ; A1 EUR CREDITED_ABOVE 5 EMAIL,EMAIL \
         ; A1 EUR CREDITED_ABOVE 5 SMS,EMAIL ; A1 EUR CREDITED_ABOVE 6 PUSH ; A1 EUR CREDITED_FROM 7 EMAIL
         entry e A1 +10 EUR 0 7",
        &[
            "email a@x e/C1/CREDITED_ABOVE/5",
            "email a@x e/C1/CREDITED_FROM/7",
            "email b@x e/C1/CREDITED_ABOVE/5",
            "email b@x e/C1/CREDITED_FROM/7",
            "sms a@x e/C1/CREDITED_ABOVE/5",
        ],
    );
}

#[test]
fn two_entries_with_one_id_are_two_and_a_retraction_sends_nothing() {
    check(
        watching!(
            "CREDITED_ABOVE 5",
            "entry e A1 +10 EUR 0",
            "entry e A1 +10 EUR 0",
            "---",
            "retract e A1 +10 EUR 0",
        ),
        &[
            "email c1@x e/C1/CREDITED_ABOVE/5",
            "email c1@x e/C1/CREDITED_ABOVE/5",
        ],
    );
}

/// Of the writes of an epoch the last one counts, and entries of the epoch see it, wherever they stand in
/// the script.
#[test]
fn tables_are_seen_as_of_the_epoch() {
    check(
        "entry before A1 +10 EUR 0
         ---
         entry first A1 +10 EUR 0
         settings C1 = EMAIL:old@x ; A1 EUR CREDITED_ABOVE 1 EMAIL
         settings C1 = EMAIL:new@x ; A1 EUR CREDITED_ABOVE 2 EMAIL
         authorize A1 = C1
         ---
         authorize A1
         authorize A1 = C1
         entry same A1 +10 EUR 0
         ---
         settings C1 = EMAIL:new@x ; A1 EUR CREDITED_ABOVE 3 EMAIL
         settings C1
         entry none A1 +10 EUR 0
         ---
         settings C1 = EMAIL:new@x ; A1 EUR CREDITED_ABOVE 4 EMAIL
         authorize A1
         entry unauthorized A1 +10 EUR 0
         ---
         authorize A1 = C1
         entry again A1 +10 EUR 0",
        &[
            "email new@x first/C1/CREDITED_ABOVE/2",
            "email new@x same/C1/CREDITED_ABOVE/2",
            "email new@x again/C1/CREDITED_ABOVE/4",
        ],
    );
}

/// Equal devices count once, and several PUSH addresses reach a device once; a rule without PUSH reaches
/// none.
#[test]
fn push_messages_go_to_the_devices_as_of_the_epoch() {
    check(
        "authorize A1 = C1
         settings C1 = EMAIL:a@x PUSH:C1 PUSH:twin ; A1 EUR CREDITED_ABOVE 5 PUSH \
         ; A1 EUR CREDITED_ABOVE 6 EMAIL
         entry early A1 +6 EUR 0
         ---
         entry e A1 +10 EUR 0
         devices C1 = p1/ios p2/android p1/ios p1/watch
         ---
         devices C1
         entry late A1 +6 EUR 0",
        &[
            "push C1 early/C1/CREDITED_ABOVE/5",
            "push twin early/C1/CREDITED_ABOVE/5",
            "device_push p1 e/C1/CREDITED_ABOVE/5",
            "device_push p1 e/C1/CREDITED_ABOVE/5",
            "device_push p2 e/C1/CREDITED_ABOVE/5",
            "email a@x e/C1/CREDITED_ABOVE/6",
            "push C1 e/C1/CREDITED_ABOVE/5",
            "push twin e/C1/CREDITED_ABOVE/5",
            "push C1 late/C1/CREDITED_ABOVE/5",
            "push twin late/C1/CREDITED_ABOVE/5",
        ],
    );
}

/// A customer who asks for PUSH and has no PUSH address gets nothing, on devices neither.
#[test]
fn no_push_address_no_device() {
    check(
        "authorize A1 = C1
         devices C1 = p1/ios
         settings C1 = EMAIL:a@x ; A1 EUR CREDITED_ABOVE 5 PUSH
         entry e A1 +10 EUR 0",
        &[],
    );
}

#[test]
fn without_devices_there_is_no_output_for_them() {
    let script = "authorize A1 = C1
        devices C1 = p1/ios
        settings C1 = PUSH:C1 ; A1 EUR CREDITED_ABOVE 5 PUSH
        entry e A1 +10 EUR 0";
    let outputs: Vec<_> = run(script, 1, false).iter().map(|sent| sent.1).collect();
    assert_eq!(outputs, ["push"]);
}

/// Messages of an account are ranked as its entries stand, and written as the contract says, field by field.
#[test]
fn messages_as_they_are_written() {
    let script = "authorize A1 = C1
        devices C1 = p1/ios
        settings C1 = PUSH:C1 ; A1 EUR BALANCE_BELOW -5 PUSH ; A1 EUR CREDITED_FROM sh\"op PUSH
        entry second A1 -7 EUR -6
        entry third A1 +100 EUR 94 sh\"op";
    let lines = [
        concat!(
            r#"{"key":"p1","value":{"alert_id":"second/C1/BALANCE_BELOW/-5","customer_id":"C1","#,
            r#""type":"BALANCE_BELOW","account_id":"A1","entry_id":"second","booked_at":1000,"params":{"#,
            r#""amount":"0.07","balance_after":"-0.06","currency":"EUR","threshold":"-0.05"}"#,
            r#","device_type":"ios"}}"#,
        ),
        concat!(
            r#"{"key":"p1","value":{"alert_id":"third/C1/CREDITED_FROM/sh\"op","customer_id":"C1","#,
            r#""type":"CREDITED_FROM","account_id":"A1","entry_id":"third","booked_at":1000,"params":{"#,
            r#""amount":"1.00","balance_after":"0.94","currency":"EUR","counterparty":"sh\"op"}"#,
            r#","device_type":"ios"}}"#,
        ),
    ];
    let of_address = |line: &str| {
        let line = line.replace(r#","device_type":"ios""#, "");
        line.replace(r#""key":"p1""#, r#""key":"C1""#)
    };
    let expected = [
        (0, "device_push", Rank(0, 0, 3), lines[0].to_owned()),
        (0, "device_push", Rank(0, 0, 4), lines[1].to_owned()),
        (0, "push", Rank(0, 0, 3), of_address(lines[0])),
        (0, "push", Rank(0, 0, 4), of_address(lines[1])),
    ];
    assert_eq!(run(script, 2, true), expected);
}
