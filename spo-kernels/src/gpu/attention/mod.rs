//! Attention of packed sequences that share prompts: variable lengths, grouped query heads, soft caps and windows;
//! without padding, without a mask and without a matrix of scores (FlashAttention-2, Dao 2023, arXiv 2307.08691).
//!
//! Queries and outputs are `[tokens, heads, dim]`, keys and values `[tokens, kv_heads, dim]`. A cube has 32 rows of one
//! head, eight units each, and meets the keys of a list of tiles. All products go through shared memory 32 channels at a
//! time, so that its size depends on no head dimension.

mod backward;
mod forward;
mod plan;
mod tile;

pub use backward::{Gradients, backward};
pub use forward::{Outputs, forward};
pub use plan::{DevicePlan, Group, Plan};

use super::Buffer;

/// Most channels of a head that the kernels know.
pub const MOST_CHANNELS: usize = 256;

/// Sizes of one attention call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, which divide the query heads.
    pub kv_heads: usize,
    /// Channels per head.
    pub dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Bound of the scores.
    pub softcap: Option<f32>,
}

/// Queries `[tokens, heads, dim]`, keys and values `[tokens, kv_heads, dim]`.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Queries.
    pub q: Buffer,
    /// Keys.
    pub k: Buffer,
    /// Values.
    pub v: Buffer,
}

impl Heads {
    fn check(self, tokens: usize, inputs: &Inputs) {
        let Self { heads, kv_heads, dim, .. } = self;
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} query heads for {kv_heads} key heads");
        assert!((1..=MOST_CHANNELS).contains(&dim), "heads of {dim} channels; up to {MOST_CHANNELS} are known");
        inputs.q.expect("q", tokens * heads * dim);
        inputs.k.expect("k", tokens * kv_heads * dim);
        inputs.v.expect("v", tokens * kv_heads * dim);
    }

    /// The cap, and whether there is one.
    fn cap(self) -> (f32, bool) {
        (self.softcap.unwrap_or(1.0), self.softcap.is_some())
    }
}
