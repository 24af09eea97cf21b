//! The backward pass of the blocks' own inputs, after that of the blocks.

use super::lifted::{collect, lift};
use crate::step::gradients::{Gradients, Trainable};
use burn::tensor::Tensor;
use spo_model::CausalLm;
use spo_model::decoder::{PackedInputs, pull};
use spo_model::layer_inputs::{LayerInputs, TABLE};

/// Adds the gradients of what makes the blocks' own inputs of embedded tokens `x` `[tokens, hidden]`, from those
/// of each block's, `[tokens, width]`, and returns that of `x`.
pub(super) fn backward(
    model: &CausalLm,
    layer_inputs: &LayerInputs,
    (x, inputs): (Tensor<2>, &PackedInputs),
    d_own: Vec<Tensor<2>>,
    trainable: Trainable,
    gradients: &mut Gradients,
) -> Tensor<2> {
    let leaf = |x: Tensor<2>| x.autodiff().require_grad();
    let lifted = lift(layer_inputs.clone(), "layer_inputs.", trainable);
    // The table's rows are leaves, so that its gradient is never one of the whole table.
    let (x, rows) = (leaf(x), leaf(model.layer_rows(layer_inputs, inputs.ids.clone())));
    let d_all: Tensor<3> = Tensor::stack(d_own, 1);
    let mut tape = pull([(&lifted.forward(x.clone(), rows.clone()), &d_all)]).backward();
    collect(&lifted, "layer_inputs.", trainable, &mut tape, gradients);
    let reached = "the inputs depend on it";
    if trainable.contains(TABLE) {
        let d_rows = rows.grad_remove(&mut tape).expect(reached) * model.rounded(layer_inputs.scale());
        gradients.add_rows(TABLE, layer_inputs.table.weight.dims(), &inputs.on_host.ids, d_rows);
    }
    x.grad_remove(&mut tape).expect(reached)
}
