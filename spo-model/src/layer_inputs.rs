//! Inputs that each block gets of a token beside the residual stream (Gemma 4): a table's row of the token, and a
//! projection of its embedding.

use crate::decoder::{Embedding, Linear, Norm, WeightSource};
use crate::{ModelError, ModelSpec};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use std::f64::consts::FRAC_1_SQRT_2;

/// Path of the table in a model.
pub const TABLE: &str = "layer_inputs.table.weight";

/// Makes the blocks' own inputs.
#[derive(Module, Debug)]
pub struct LayerInputs {
    /// `[vocab, layers · width]`
    pub table: Embedding,
    /// `[layers · width, hidden]`
    pub projection: Linear,
    /// Norm over each block's channels of the projection.
    pub projection_norm: Norm,
    #[module(skip)]
    width: usize,
}

impl LayerInputs {
    /// Takes its parameters from the source, for inputs of this width.
    ///
    /// # Errors
    /// As the source.
    pub fn load(source: &mut impl WeightSource, spec: &ModelSpec, width: usize) -> Result<Self, ModelError> {
        let all = spec.layers.len() * width;
        let table = source.tensor(TABLE, [spec.vocab_size, all])?;
        // Not by `Linear::load`: it stands outside of the blocks, whose projections may be kept quantised.
        let projection = source.tensor("layer_inputs.projection.weight", [all, spec.hidden_size])?;
        Ok(Self {
            table: Embedding { weight: Param::from_tensor(table) },
            projection: Linear::new(projection, None),
            projection_norm: Norm::load(source, "layer_inputs.projection_norm", width, spec)?,
            width,
        })
    }

    /// `(norm(Wx / √hidden) + rows) / √2`: embedded tokens `[tokens, hidden]` and their rows of the table, times
    /// [`scale`](Self::scale), `[tokens, layers · width]` → `[tokens, layers, width]`
    pub fn forward(&self, x: Tensor<2>, rows: Tensor<2>) -> Tensor<3> {
        let [tokens, hidden] = x.dims();
        let shape = [tokens, rows.dims()[1] / self.width, self.width];
        let projected = self.projection.forward(x) * (hidden as f64).sqrt().recip();
        (self.projection_norm.forward(projected.reshape(shape)) + rows.reshape(shape)) * FRAC_1_SQRT_2
    }

    /// What rows of the table are multiplied by, `√width`.
    pub fn scale(&self) -> f64 {
        (self.width as f64).sqrt()
    }
}

/// What goes into the blocks.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The residual stream below the first block, `[tokens, hidden]`.
    pub x: Tensor<2>,
    /// The blocks' own inputs.
    pub own: OwnInputs,
}

/// The blocks' own inputs, `[tokens, layers, width]`, where they have any.
#[derive(Debug, Clone)]
pub struct OwnInputs(pub Option<Tensor<3>>);

impl OwnInputs {
    /// That of a block, `[tokens, width]`.
    pub fn of(&self, layer: usize) -> Option<Tensor<2>> {
        let all = self.0.clone()?;
        let [tokens, _, width] = all.dims();
        Some(all.narrow(1, layer, 1).reshape([tokens, width]))
    }
}
