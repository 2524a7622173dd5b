//! Tidegate.
pub mod checkpoint;
pub mod error;
pub mod format;
pub mod limits;
pub mod operators;
pub mod record;
pub mod time;
