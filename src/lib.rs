//! Tidegate.
pub mod checkpoint;
pub mod crash;
pub mod error;
pub mod format;
pub mod limits;
pub mod operators;
pub mod record;
#[cfg(test)]
pub(crate) mod scratch;
pub mod sink;
pub mod time;
