//! The five dataflows of the contract and their records.
//!
//! A dataflow is a function from streams to streams: its spec as a comment, its configuration, its inputs and outputs,
//! `build`. Adding one touches its own file and the [`catalogue`]; if it needs a third, the boundary is wrong.

pub mod alerts;
pub mod catalogue;
pub mod enriched_orders;
pub mod event_counts;
pub mod generator;
pub mod records;
pub mod risk_pattern;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod trial;
pub mod tumbling_aggregates;
pub mod values;
