//! Tidegate: the engine.
//!
//! ```text
//!   source ──► format ──► operators (dataflows are made of them) ──► format ──► sink
//!     │          │             │   ▲                                             │
//!     │          │     changed │   │ restored                                    │
//!     ▼          ▼         rows▼   │                                             ▼
//!   bindings ─────────────► checkpoint ◄──────────────────────────────────── committed
//! ```
//!
//! The rooms, in the order to read them:
//!
//! - [`time`], [`record`], [`limits`], [`error`], [`secret`]: the vocabulary.
//! - [`operators`]: one driver, one pure core per operator.
//! - [`format`](mod@format): bytes to records and back.
//! - [`source`]: partitions to epochs. [`pace`]: which epoch comes next.
//! - [`sink`]: encoded rows, sealed epochs, commits. [`kafka`]: the clients that sources and sinks of topics
//!   use; nobody else makes one. [`secret`]: what is never shown.
//! - [`checkpoint`]: the protocol; decisions apart from I/O. [`crash`]: the named points at which tests kill
//!   the process.
//! - [`cluster`]: several processes that run one job: who belongs to it, sockets, links, heartbeats.
//! - [`run`]: a job's threads. [`metrics`]: what they count. [`watchdog`]: that they work. [`columns`]: how
//!   reports show it.
//! - [`verify`]: what a replay gives, held against what was committed.
//! - [`replay_log`]: decoded messages kept for the next replay of a span; the only unsafe code.
//!
//! The engine knows no dataflow by name. The smallest whole one counts words:
//!
//! ```
//! use std::sync::mpsc::channel;
//! use tidegate::operators::{Context, count::count};
//! use tidegate::record::key_hash;
//! use timely::dataflow::operators::{Input, vec::Map, Inspect};
//! use differential_dataflow::AsCollection;
//!
//! let (send, counts) = channel();
//! timely::execute_directly(move |worker| {
//!     let mut words = worker.dataflow::<u64, _, _>(|scope| {
//!         let (handle, words) = scope.new_input::<Vec<(&str, u64, i64)>>();
//!         let keyed = words.map(|(word, epoch, diff)| ((word.into(), key_hash(word.as_bytes())), epoch, diff));
//!         let context = Context::without_checkpoints(scope);
//!         count(&context, "words", keyed.as_collection())
//!             .inspect(move |((word, count), epoch, diff)| {
//!                 send.send((word.to_string(), *count, *epoch, *diff)).unwrap();
//!             });
//!         handle
//!     });
//!     words.send(("tide", 0, 1));
//!     words.send(("gate", 0, 1));
//!     words.advance_to(1);
//!     words.send(("tide", 1, 1));
//! });
//! let mut counts: Vec<_> = counts.iter().collect();
//! counts.sort();
//! // In epoch 1 the row (tide, 1) goes and (tide, 2) comes.
//! let [gate, tide] = ["gate", "tide"].map(String::from);
//! let went = (tide.clone(), 1, 1, -1);
//! assert_eq!(counts, [(gate, 1, 0, 1), (tide.clone(), 1, 0, 1), went, (tide, 2, 1, 1)]);
//! ```

pub mod checkpoint;
pub mod cluster;
pub mod columns;
pub mod crash;
pub mod error;
pub mod format;
pub mod kafka;
pub mod limits;
pub mod metrics;
pub mod operators;
pub mod pace;
pub mod record;
pub mod replay_log;
pub mod run;
#[cfg(test)]
pub(crate) mod scratch;
pub mod secret;
pub mod sink;
pub mod source;
pub mod time;
pub mod verify;
pub mod watchdog;
