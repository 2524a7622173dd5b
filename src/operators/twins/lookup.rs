//! `lookup` against differential's own `threshold` and `join`.

use super::{Random, Restart, Script, for_seeds, run_restarting, run_twin};
use crate::operators::drive::Batch;
use crate::operators::lookup::{History, Lookup, Outcome, Question};
use crate::operators::upsert::Row;
use crate::record::{Text, Updates, key_hash};
use crate::time::Epoch;
use differential_dataflow::AsCollection;
use std::sync::Arc;
use timely::dataflow::operators::vec::Map;

type Numbers = Script<Question<u64>, Row<u64>>;
type Met = Outcome<u64, (u64, u64)>;

/// A row answers with itself as often as its remainder says: not at all, once or twice.
fn answer(question: &Question<u64>, row: &u64, give: &mut dyn FnMut((u64, u64))) {
    (0..row % 3).for_each(|_| give((question.asked, *row)));
}

/// Few keys; some seeds give all keys one of two hashes. `last_change` is the table's last epoch with a
/// change. Most questions are about their own epoch; some are repeated, some retracted, then or later;
/// some ask about other epochs.
fn script(random: &mut Random, last_change: Epoch, epochs: Epoch) -> Numbers {
    let (keys, colliding) = (1 + random.below(4), random.percent(30));
    let key = |random: &mut Random| {
        let key = Text::from(format!("key {}", random.below(keys)));
        let hash = key_hash(key.as_bytes());
        (if colliding { hash & (1 << 32) } else { hash }, key)
    };
    let mut right = Vec::new();
    for _ in 0..random.below(40) {
        let (hash, key) = key(random);
        let row = Row {
            hash,
            key,
            value: Arc::new(random.below(6)),
        };
        let epoch = random.below(last_change + 1);
        right.push((row.clone(), epoch, 1));
        if random.percent(60) {
            right.push((row, epoch + random.below(last_change + 1 - epoch), -1));
        }
    }
    let mut left = Vec::new();
    for _ in 0..random.below(40) {
        let (hash, key) = key(random);
        let epoch = random.below(epochs);
        let as_of = if random.percent(10) {
            random.below(epochs)
        } else {
            epoch
        };
        let question = Question {
            key,
            hash,
            as_of,
            asked: random.below(5),
        };
        left.push((question.clone(), epoch, *random.pick(&[1, 1, 1, 2])));
        if random.percent(50) {
            left.push((question, epoch + random.below(epochs - epoch), -1));
        }
    }
    Script {
        left,
        right,
        watermarks: Vec::new(),
        epochs,
    }
}

fn run(script: &Numbers, history: History, random: &mut Random) -> Batch<Met> {
    let make = move || Lookup::new(history, Box::new(answer));
    run_restarting(make, script, Restart::Never, random)
}

/// The answers of questions that meet rows.
fn answers(question: &Question<u64>, row: &u64) -> Vec<Met> {
    let mut answers = Vec::new();
    answer(question, row, &mut |met| answers.push(Outcome::Answer(met)));
    answers
}

/// Every version of the table at once, each under its own epoch, joined with the questions by (key, epoch
/// asked about).
fn twin<'s>(
    questions: Updates<'s, Question<u64>>,
    table: Updates<'s, Row<u64>>,
    history: History,
    epochs: Epoch,
) -> Updates<'s, Met> {
    let known = move |as_of: Epoch, now: Epoch| {
        as_of == now || as_of < now && as_of >= history.since && as_of + history.epochs >= now
    };
    let versions = table
        .inner
        .flat_map(move |(row, epoch, diff)| {
            (epoch..epochs).map(move |version| (((row.key.clone(), version), *row.value), 0, diff))
        })
        .as_collection()
        .threshold(|_, copies| i64::from(*copies > 0));
    let asked = |questions: Updates<'s, Question<u64>>, wanted: bool| {
        let questions = questions.inner;
        let asked = questions.flat_map(move |(question, epoch, diff)| {
            (known(question.as_of, epoch) == wanted).then_some((question, epoch, diff))
        });
        asked.as_collection()
    };
    let met = asked(questions.clone(), true)
        .map(|question| ((question.key.clone(), question.as_of), question))
        .join(versions)
        .flat_map(|(_, (question, row))| answers(&question, &row));
    let refused = asked(questions, false).map(|question| Outcome::Refused(Box::new(question)));
    met.concat(refused)
}

#[test]
fn meets_the_rows_as_of_the_epoch_asked_about() {
    for_seeds(|random| {
        let epochs = 1 + random.below(8);
        let script = script(random, epochs - 1, epochs);
        let since = if random.percent(20) {
            random.below(epochs)
        } else {
            0
        };
        let history = History {
            epochs: random.below(epochs),
            since,
        };
        let expected = run_twin(&script, move |questions, table| {
            twin(questions, table, history, epochs)
        });
        assert_eq!(run(&script, history, random), expected);
    });
}

/// A table that never changes after its first epoch, and all of whose rows are there once: the plain join.
#[test]
fn is_the_join_while_the_table_stands_still() {
    for_seeds(|random| {
        let epochs = 1 + random.below(8);
        let mut script = script(random, 0, epochs);
        script.right.retain(|(_, _, diff)| *diff > 0);
        script.right.sort();
        script.right.dedup();
        let history = History { epochs, since: 0 };
        script
            .left
            .retain(|(question, epoch, _)| question.as_of <= *epoch);
        let expected = run_twin(&script, |questions, table| {
            questions
                .map(|question| (question.key.clone(), question))
                .join(table.map(|row| (row.key, *row.value)))
                .flat_map(|(_, (question, row))| answers(&question, &row))
        });
        assert_eq!(run(&script, history, random), expected);
    });
}
