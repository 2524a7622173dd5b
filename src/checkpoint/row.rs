//! State rows: the state of every stateful operator is a collection of these.

use serde::{Deserialize, Serialize};

/// One row of an operator's state, as of a checkpoint: its value, or none where it is gone.
/// The later of two rows with equal (operator, key) wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateRow {
    /// Index of the operator in the plan.
    pub operator: u16,
    /// Routes the row to the worker that owns it; [`crate::record::key_hash`] of the record key.
    pub hash: u64,
    /// The operator's own key (postcard).
    pub key: Box<[u8]>,
    /// The operator's own value (postcard); none removes the row.
    pub value: Option<Box<[u8]>>,
}
