//! The protocol: how state survives, and why no crash shows in an output.
//!
//! ```text
//!  state/alerts/                                     out/
//!    lock           flock while a process writes       email.jsonl         outputs, appended only
//!    claims/0…07    one per start, never deleted       sms.jsonl
//!    begun          outputs may exist                  .alerts-0.progress  commit log of shard 0:
//!    manifests/0…12 the checkpoints, newest last                           per commit the epoch, the
//!    chunks/03-…    rows of one state shard                                bindings, the lengths
//!
//!  sealed epochs ─► sink: outputs, then progress record ─► committed(C) ─┐
//!  changed rows ─────────────────────────────────────────────────────────┴─► checkpointer: chunks, manifest
//! ```
//!
//! **Steady state.** An epoch is sealed when every worker's share of its [binding] is there. The
//! sink appends its rows to the outputs, syncs them, and then appends one [progress record](progress) with
//! the bindings and the lengths of all outputs: that record *is* the commit. Every few seconds a cut at epoch
//! C asks the operators for their changed rows. The [`checkpointer`] waits until every output shard has
//! committed C, writes one [chunk] per touched state shard, and then wins the next number in the log of
//! [manifests](manifest). State never outruns output.
//!
//! **Start.** Take the [locks](lock); read claims, manifests and progress; let [`decide`] say what to do;
//! restore the rows; only then claim the next generation ([`claim`], executed by [`start`]), cut the outputs
//! back to their recorded lengths, replay the recorded bindings after the checkpoint, and go on with new
//! epochs above all recorded ones. So a refused start changes nothing that a later one reads. (Kafka has a
//! fence instead of locks and must claim first, for its fence settles what was in doubt.)
//!
//! **Kafka.** A shard of topics has its progress and bindings in a compacted topic, written in the transaction of
//! the outputs: the commit is the transaction's. Its start claims first, then initialises every transactional id
//! that any claim has named, which settles what was in doubt, lists the claims again, and only then reads
//! progress ([`crate::run::shards`]). A table's topic may have lost what an epoch took: its messages are kept
//! with the binding ([`binding::Kept`]) until checkpoints cover them.
//!
//! **Refused:** another plan; a state that has begun whose progress is missing; a progress log of another
//! history, or behind the checkpoint; outputs shorter than recorded; a binding missing between checkpoint and
//! commit; damage in a progress log. A damaged manifest or chunk is named, and the checkpoint before it is
//! taken, as long as the bindings reach back that far.
//!
//! **Why it is safe.** Nothing in the state store is ever overwritten: objects are put if absent, under names
//! no other generation can use, so a write whose outcome is unknown is settled by reading it back. Everything
//! that is read carries a checksum. A crash before a progress record leaves outputs that the next start cuts
//! off; a crash after it loses only state, which the bindings rebuild, because they are dropped only when
//! [`CHECKPOINTS_KEPT`] manifests no longer need them. What [`decide`] decides is a pure function of what was
//! observed.
//!
//! Only [`store`] (on what [`objects`] names) and [`lock`] do I/O in this room; sinks own their progress logs. No
//! timely types here.
//!
//! [`CHECKPOINTS_KEPT`]: crate::limits::CHECKPOINTS_KEPT

pub mod binding;
pub mod checkpointer;
pub mod chunk;
pub mod claim;
pub mod decide;
mod frame;
pub mod history;
pub mod lock;
pub mod manifest;
pub mod objects;
pub mod progress;
pub mod refusal;
pub mod row;
pub mod series;
pub mod start;
pub mod store;
pub mod unreliable;
