//! The five dataflows of the contract and their records.

pub mod catalogue;
pub mod generator;
pub mod records;
