//! `count` against differential's own `count`.

use super::{Random, Script, for_seeds, run, run_twin};
use crate::operators::count::Count;
use crate::record::{Text, key_hash};
use crate::time::Diff;

/// Few keys, so that they meet often; some seeds give all keys one of two hashes.
fn script(random: &mut Random) -> Script<(Text, u64), ()> {
    let (epochs, keys, colliding) = (1 + random.below(8), 1 + random.below(6), random.percent(30));
    let mut left = Vec::new();
    for _ in 0..random.below(60) {
        let key = Text::from(format!("key {}", random.below(keys)));
        let hash = if colliding {
            key_hash(key.as_bytes()) & (1 << 32)
        } else {
            key_hash(key.as_bytes())
        };
        let diff = *random.pick(&[1, 1, 1, 2, -1, -1]);
        left.push(((key, hash), random.below(epochs), diff));
        // Often the very opposite comes too, now or later.
        if random.percent(20) {
            let (update, epoch, diff) = left[left.len() - 1].clone();
            left.push((update, epoch + random.below(epochs - epoch), -diff));
        }
    }
    Script {
        left,
        right: Vec::new(),
        watermarks: Vec::new(),
        epochs,
    }
}

#[test]
fn counts_as_differential_does() {
    for_seeds(|random| {
        let script = script(random);
        let expected = run_twin(&script, |keys, _| keys.map(|(key, _)| key).count_core::<Diff>());
        assert_eq!(run(Count::new, &script, random), expected);
    });
}
