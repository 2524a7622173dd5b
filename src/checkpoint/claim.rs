//! Claims: one per start, numbered. The greatest is the generation that may write.
//!
//! A start puts `claims/{greatest + 1}` if absent; two starts cannot both win the number, and the loser
//! stops. The nonce makes the bytes of a claim its process's own (so an unknown outcome is settled by reading
//! back) and ties progress records to this history: a copied-back state directory that was used since has
//! other nonces under the same numbers. Claims are never deleted: an output may hold the mark of any of them.

use super::frame::{frame, unframe};
use super::store::{self, Published, Store};
use crate::error::{Error, Kind, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, Hasher};
use std::time::SystemTime;

const KIND: &str = "claim-1";

/// What one start says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The incarnation, from 1.
    pub generation: u64,
    /// Random; no other claim has it.
    pub nonce: u64,
    /// Hash of the plan: dataflows, inputs, outputs, settings that change results.
    pub plan_hash: u64,
    /// Per output shard the outputs' paths, so that a person can see what was written where.
    pub shards: Vec<Vec<String>>,
    /// Transactional ids of its producers; a successor fences them all.
    #[serde(default)]
    pub transactional_ids: Vec<String>,
    /// `host:port` of the socket that answers with the nonce while the process lives.
    #[serde(default)]
    pub control: Option<String>,
    /// The process.
    pub pid: u32,
    /// When, UTC, for people; nothing is computed from it.
    pub started: String,
}

impl Claim {
    /// The claim of this process for a generation.
    #[expect(
        clippy::disallowed_methods,
        reason = "for people who read a claim; nothing is decided by it"
    )]
    pub fn new(generation: u64, plan_hash: u64, shards: Vec<Vec<String>>) -> Self {
        // The standard library seeds its hashers from the system's randomness.
        let nonce = std::hash::RandomState::new().build_hasher().finish();
        Claim {
            generation,
            nonce,
            plan_hash,
            shards,
            transactional_ids: Vec::new(),
            control: None,
            pid: std::process::id(),
            started: DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Secs, true),
        }
    }
}

/// A claim as found: none where its bytes are damaged, which costs only what it says, not its number.
pub type Found = (u64, Option<Claim>);

/// Puts the claim; somebody else's under its number: `AnotherInstance`.
pub fn put(store: &dyn Store, claim: &Claim) -> Result<()> {
    let body = serde_json::to_vec(claim).map_err(|error| Error::internal(format!("claim: {error}")))?;
    match store::publish(store, &name(claim.generation), &frame(KIND, &body))? {
        Published::Ours => Ok(()),
        Published::Theirs => Err(Error::new(
            Kind::AnotherInstance,
            format!(
                "another start has claimed generation {}; only one may run",
                claim.generation
            ),
        )),
    }
}

/// All claims, by generation.
pub fn all(store: &dyn Store) -> Result<Vec<Found>> {
    let mut claims = Vec::new();
    for generation in store::numbers(store, "claims")? {
        let bytes = store::fetch(store, &name(generation))?.unwrap_or_default();
        match decode(&bytes) {
            Ok(claim) => claims.push((generation, Some(claim))),
            Err(reason) => {
                tracing::warn!("{} is damaged: {reason}", name(generation));
                claims.push((generation, None));
            }
        }
    }
    Ok(claims)
}

fn name(generation: u64) -> String {
    format!("claims/{generation:020}")
}

fn decode(bytes: &[u8]) -> Result<Claim, String> {
    serde_json::from_slice(unframe(KIND, bytes)?).map_err(|error| error.to_string())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::frame::assert_every_damage_is_found;
    use super::*;

    #[test]
    fn second_claim_of_a_generation_loses() {
        let store = store::open("memory:///").unwrap();
        let claims = [1, 2, 2].map(|generation| Claim::new(generation, 7, vec![vec!["out/a".to_owned()]]));
        put(store.as_ref(), &claims[0]).unwrap();
        put(store.as_ref(), &claims[1]).unwrap();
        put(store.as_ref(), &claims[1]).expect("our own claim again, as after a lost answer");
        assert_eq!(
            put(store.as_ref(), &claims[2]).unwrap_err().kind,
            Kind::AnotherInstance
        );
        store.put_new(&name(5), b"torn").unwrap();
        let [first, second, _] = claims;
        assert_eq!(
            all(store.as_ref()).unwrap(),
            [(1, Some(first)), (2, Some(second)), (5, None)]
        );
    }

    #[test]
    fn every_damage_is_found() {
        let body = serde_json::to_vec(&Claim::new(3, u64::MAX, vec![])).unwrap();
        assert_every_damage_is_found(&frame(KIND, &body), decode);
    }
}
