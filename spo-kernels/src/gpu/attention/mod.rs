//! Attention of packed sequences that share prompts: variable lengths, grouped query heads, soft caps and windows;
//! without padding, without a mask and without a matrix of scores (FlashAttention-2, Dao 2023, arXiv 2307.08691).
//!
//! Queries and outputs are `[tokens, heads, dim]`, keys and values `[tokens, kv_heads, dim]`. A cube has 32 rows of one
//! head, eight units each, and meets the keys of a list of tiles. All products go through shared memory 32 channels at a
//! time, so that its size depends on no head dimension. Of 16-bit types matrix units multiply where a device has them:
//! weights and their gradients are rounded to that type then, and sums are in f32 as everywhere.

/// Launches a kernel for inputs of a type with tiles of f32, or, for matrix units, with tiles of that type.
macro_rules! launch_by {
    ($matrix:expr, $client:expr, $kernel:ident::<$input:ty>[$count:expr]($($argument:expr),+ $(,)?)) => {
        if $matrix {
            launch!($client, $kernel::<$input, $input>[$count, UNITS]($($argument),+, true))
        } else {
            launch!($client, $kernel::<$input, f32>[$count, UNITS]($($argument),+, false))
        }
    };
}

mod backward;
mod forward;
mod plan;
mod product;
mod tile;

pub use backward::{Gradients, backward};
pub use forward::{Outputs, forward};
pub use plan::{DevicePlan, Group, Plan};

use super::Buffer;
use cubecl::ir::features::MmaConfig;
use cubecl::prelude::*;

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
    /// Whether matrix units multiply; inputs have 16 bits then, and [`has_matrix_units`] says whether a device can.
    pub matrix: bool,
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

/// Whether a device multiplies matrices of this type, with sums in f32, as the kernels ask it to.
pub fn has_matrix_units<E: Scalar>(client: &Client) -> bool {
    let properties = client.properties();
    let (least, most) = (properties.hardware.plane_size_min, properties.hardware.plane_size_max);
    [least, most] == [product::PLANE as u32; 2] && properties.features.matmul.cmma.contains(&products_of::<E>())
}

/// What matrix units have to know for inputs of a type.
pub(super) fn products_of<E: Scalar>() -> MmaConfig {
    let (ty, side) = (E::elem_type_native(), product::UNIT as u32);
    MmaConfig { a_type: ty, b_type: ty, cd_type: f32::elem_type_native(), m: side, n: side, k: side }
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
