//! The five dataflows of the contract and their records.

pub mod alerts;
pub mod event_counts;
pub mod records;
