//! The parts of a decoder block, on packed tokens `[tokens, hidden]`.

mod activation;
pub mod adapter;
pub mod attention;
pub mod balance;
pub mod block;
pub mod blocks;
#[cfg(test)]
pub(crate) mod check;
pub mod dropout;
pub mod embedding;
pub mod experts;
pub mod film;
pub mod front_core;
pub mod kept;
pub mod kv_cache;
pub mod layer_input;
pub mod linear;
pub mod mixture;
pub mod mlp;
pub mod norm;
pub mod packed;
pub mod rope;
pub mod source;
pub mod xielu;

pub use adapter::LoraAdapter;
pub use attention::{Attend, Attention};
pub use balance::Balance;
pub use block::Block;
pub use embedding::Embedding;
pub use experts::Experts;
pub use film::{Film, TokenZ};
pub use layer_input::LayerInput;
pub use linear::Linear;
pub use mixture::Mixture;
pub use mlp::{Mlp, MlpShape};
pub use norm::Norm;
pub use packed::{PackedAttention, PackedInputs};
pub use rope::RopeTables;
pub use source::{RandomSource, WeightSource};
pub use spo_kernels::pull::pull;
pub use xielu::Xielu;
