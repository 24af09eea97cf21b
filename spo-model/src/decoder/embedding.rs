//! Tables of embeddings.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// A token embedding table.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocab, hidden]`
    pub weight: Param<Tensor<2>>,
}
