//! The parts of a decoder block, on packed tokens `[tokens, hidden]`.

mod activation;
pub mod attention;
pub mod block;
pub mod blocks;
mod cpu_attention;
mod fused;
pub mod kv_cache;
pub mod linear;
pub mod mlp;
pub mod norm;
pub mod packed;
mod pull;
pub mod rope;

pub use attention::{Attend, Attention};
pub use block::Block;
pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::Norm;
pub use packed::{PackedAttention, PackedInputs};
pub use pull::pull;
pub use rope::RopeTables;
