//! Every stateful operator against its slow twin, by seed.
//!
//! A twin is the obvious way to compute the same thing: differential's own `join` and `reduce`, or a sort of everything
//! there is. A seed draws a [`Script`]; the operator runs it under the real driver, on one to three workers, with and
//! without a checkpoint and a restart in the middle; the twin computes the expected updates; the two must be equal as
//! multisets per epoch.
//!
//! `TIDEGATE_SEEDS=20000` runs more seeds, `TIDEGATE_SEED=17` runs one again; a failing seed is printed.

mod count;
mod interval_join;
mod log;
mod lookup;
mod neighbours;
mod upsert;
mod window;

use super::{Context, Core, Side, drive};
use crate::checkpoint::row::StateRow;
use crate::operators::drive::Batch;
use crate::record::Updates;
use crate::time::{Epoch, Millis};
use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate_updates;
use std::sync::{Arc, Mutex};
use timely::dataflow::InputHandle;
use timely::dataflow::operators::vec::Input;
use timely::dataflow::operators::{Exchange, Inspect};

/// A small generator of random numbers (splitmix64): the same on every machine.
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }
    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    /// One of them.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
    /// Any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// Runs `test` for every seed (1 000 unless the environment says otherwise) and names the one that fails.
pub fn for_seeds(test: impl Fn(&mut Random)) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let seeds = match number("TIDEGATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDEGATE_SEEDS").unwrap_or(1_000),
    };
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| test(&mut Random::new(seed)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("failing seed: run again with TIDEGATE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// What happens to an operator: updates and watermarks by epoch. Epochs are 0 .. `epochs`; some may be empty.
#[derive(Clone, Debug)]
pub struct Script<L, R> {
    /// Left updates, in any order of epochs.
    pub left: Batch<L>,
    /// Right updates.
    pub right: Batch<R>,
    /// After this epoch, this side's global watermark is this. Rising per side.
    pub watermarks: Vec<(Epoch, Side, Millis)>,
    /// Number of epochs.
    pub epochs: Epoch,
}

/// What a run gave: consolidated output updates, and the state rows of its cut.
struct Outcome<D> {
    updates: Batch<D>,
    state: Vec<StateRow>,
}

/// What an operator gives when it starts from a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Nothing: it goes on.
    Silent,
    /// Its whole collection once more, at the epoch of the checkpoint, for what is built on it downstream.
    Repeats,
    /// It has no state of its own and is not started in the middle.
    Never,
}

/// Runs the script under the real driver and gives the consolidated updates, sorted by (row, epoch).
/// Draws the number of workers, the spread of updates over them, and whether there is a restart in between.
pub fn run<C>(
    make: impl Fn() -> C + Send + Sync + 'static,
    script: &Script<C::Left, C::Right>,
    random: &mut Random,
) -> Batch<C::Out>
where
    C: Core<Left: Sync, Right: Sync, Out: Ord + std::fmt::Debug + Send + Sync>,
{
    run_restarting(make, script, Restart::Silent, random)
}

/// [`run`] of an operator that need not be silent when it starts from a checkpoint.
pub fn run_restarting<C>(
    make: impl Fn() -> C + Send + Sync + 'static,
    script: &Script<C::Left, C::Right>,
    restart: Restart,
    random: &mut Random,
) -> Batch<C::Out>
where
    C: Core<Left: Sync, Right: Sync, Out: Ord + std::fmt::Debug + Send + Sync>,
{
    let make = Arc::new(make);
    let cut = restart != Restart::Never && script.epochs > 1 && random.percent(50);
    let cut = cut.then(|| random.below(script.epochs - 1));
    let Some(cut) = cut else {
        return part(&make, script, 0..script.epochs, None, Vec::new(), random).updates;
    };
    let before = part(&make, script, 0..cut + 1, Some(cut), Vec::new(), random);
    let after = part(&make, script, cut + 1..script.epochs, None, before.state, random);
    let (repeated, after): (Vec<_>, Vec<_>) = after.updates.into_iter().partition(|update| update.1 <= cut);
    let mut updates = before.updates;
    let mut collection = updates.clone();
    collection.iter_mut().for_each(|update| update.1 = cut);
    consolidate_updates(&mut collection);
    collection.retain(|_| restart == Restart::Repeats);
    assert_eq!(repeated, collection, "what a restart at epoch {cut} repeats");
    updates.extend(after);
    consolidate_updates(&mut updates);
    updates
}

/// Runs a slow twin made of differential's own operators on one worker, and gives its consolidated updates.
pub fn run_twin<L, R, D>(
    script: &Script<L, R>,
    twin: impl for<'s> Fn(Updates<'s, L>, Updates<'s, R>) -> Updates<'s, D> + Send + Sync + 'static,
) -> Batch<D>
where
    L: Clone + Send + Sync + 'static,
    R: Clone + Send + Sync + 'static,
    D: Ord + Clone + Send + 'static,
{
    let script = script.clone();
    let updates = Arc::new(Mutex::new(Vec::new()));
    let updates_in = Arc::clone(&updates);
    timely::execute_directly(move |worker| {
        let mut left = InputHandle::new();
        let mut right = InputHandle::new();
        worker.dataflow::<Epoch, _, _>(|scope| {
            let (left, right) = (scope.input_from(&mut left), scope.input_from(&mut right));
            twin(left.as_collection(), right.as_collection())
                .inner
                .inspect(move |update| updates_in.lock().expect("no panic holds it").push(update.clone()));
        });
        // All at time 0: updates carry their own epochs, and a twin may take its time.
        script.left.into_iter().for_each(|update| left.send(update));
        script.right.into_iter().for_each(|update| right.send(update));
    });
    let mut updates = std::mem::take(&mut *updates.lock().expect("the worker is gone"));
    consolidate_updates(&mut updates);
    updates
}

/// Runs the epochs of `span`, from `restored` rows (at the epoch before), with a cut after the epoch `cut`.
fn part<C>(
    make: &Arc<impl Fn() -> C + Send + Sync + 'static>,
    script: &Script<C::Left, C::Right>,
    span: std::ops::Range<Epoch>,
    cut: Option<Epoch>,
    restored: Vec<StateRow>,
    random: &mut Random,
) -> Outcome<C::Out>
where
    C: Core<Left: Sync, Right: Sync, Out: Ord + Send + Sync>,
{
    let workers = 1 + random.below(3) as usize;
    // Updates of so many epochs come together, in messages of the first of them: a message's time only
    // bounds those of its updates from below, and differential's operators make use of that.
    let together = 1 + random.below(3);
    let first = span.start;
    let comes_at = move |of: Epoch| of - (of - first) % together;
    let mut script = script.clone();
    random.shuffle(&mut script.left);
    random.shuffle(&mut script.right);
    let updates = Arc::new(Mutex::new(Vec::new()));
    let state = Arc::new(Mutex::new(Vec::new()));
    let (updates_in, state_in, make) = (Arc::clone(&updates), Arc::clone(&state), Arc::clone(make));
    let config = if workers == 1 {
        timely::Config::thread()
    } else {
        timely::Config::process(workers)
    };
    let guards = timely::execute(config, move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let mut left = InputHandle::new();
        let mut right = InputHandle::new();
        let mut rows = InputHandle::new();
        let mut cuts = InputHandle::new();
        let mut marks = [InputHandle::new(), InputHandle::new()];
        worker.dataflow::<Epoch, _, _>(|scope| {
            let restored = scope.input_from(&mut rows);
            let context = Context::new(scope, restored, scope.input_from(&mut cuts));
            let watermarks = vec![
                (Side::Left, scope.input_from(&mut marks[0])),
                (Side::Right, scope.input_from(&mut marks[1])),
            ];
            let left = scope.input_from(&mut left).as_collection();
            let right = scope.input_from(&mut right).as_collection();
            let out = drive(&context, "under test", make(), left, Some(right), watermarks);
            let updates = Arc::clone(&updates_in);
            out.inner
                .inspect(move |update| updates.lock().expect("no panic holds it").push(update.clone()));
            let state = Arc::clone(&state_in);
            let rows = context.into_state().1;
            rows.exchange(|_| 0)
                .inspect(move |row| state.lock().expect("no panic holds it").push(row.clone()));
        });
        // Restored rows come on any worker, at the epoch before the first.
        if let Some(at) = span.start.checked_sub(1) {
            rows.advance_to(at);
            restored
                .iter()
                .skip(index)
                .step_by(peers)
                .for_each(|row| rows.send(row.clone()));
        }
        rows.advance_to(span.start);
        for epoch in span.clone() {
            left.advance_to(epoch);
            right.advance_to(epoch);
            let ours = |update: usize, of: Epoch| {
                update % peers == index && span.contains(&of) && comes_at(of) == epoch
            };
            for (_, update) in (0..).zip(&script.left).filter(|(at, update)| ours(*at, update.1)) {
                left.send(update.clone());
            }
            for (_, update) in (0..)
                .zip(&script.right)
                .filter(|(at, update)| ours(*at, update.1))
            {
                right.send(update.clone());
            }
            cuts.advance_to(epoch);
            marks.iter_mut().for_each(|handle| handle.advance_to(epoch));
            for (_, side, watermark) in script.watermarks.iter().filter(|(at, _, _)| *at == epoch) {
                marks[usize::from(*side == Side::Right)].send(*watermark);
            }
            if cut == Some(epoch) {
                cuts.send(());
            }
            worker.step();
        }
    })
    .expect("timely starts");
    guards
        .join()
        .into_iter()
        .for_each(|result| result.expect("no worker panicked"));
    let mut updates = std::mem::take(&mut *updates.lock().expect("workers are gone"));
    consolidate_updates(&mut updates);
    let state = std::mem::take(&mut *state.lock().expect("workers are gone"));
    Outcome { updates, state }
}
