//! One held-out pair under one policy.

use serde::{Deserialize, Serialize};

/// One held-out pair's margin under one policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PairScore {
    /// Number of the pair in its held-out file; unique within a dimension.
    pub example: usize,
    /// `Δ log(π/π_0)`, chosen minus rejected, unless the score kind says otherwise.
    pub margin: f64,
    /// Whether the other dimension's label agrees; `None` if the pair is labelled in one dimension only or tied in the other.
    pub agreeing: Option<bool>,
    /// Whether one of the answers is a stock refusal such as "I have no comment".
    pub boilerplate: bool,
    /// Prompt of the pair: pairs with the same number are resampled together. `None` makes the pair its own group.
    pub prompt: Option<u64>,
}

impl PairScore {
    /// Key of the group that the pair is resampled with.
    pub(crate) fn cluster(&self) -> (bool, u64) {
        match self.prompt {
            Some(prompt) => (false, prompt),
            None => (true, self.example as u64),
        }
    }
}
