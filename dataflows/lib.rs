//! The five dataflows of the contract and their records.

pub mod records;
