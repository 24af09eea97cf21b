//! The score head forward and backward, both in closed form.

use crate::step::gradients::{Gradients, Trainable};
use burn::tensor::{DType, Tensor, TensorData};
use spo_kernels::host;
use spo_model::CausalLm;
use spo_model::reward::{SCORE, SCORE_BIAS, ScoreHead};

fn head(model: &CausalLm) -> &ScoreHead {
    model.score.as_ref().expect("a batch for a score head goes through a model that has one")
}

/// The scores of each hidden state `[read, hidden]`, label by label.
pub(super) fn forward(model: &CausalLm, read: Tensor<2>) -> Vec<f32> {
    host::read(head(model).forward(read)).iter::<f32>().collect()
}

/// Adds the head's gradients, and returns that of the hidden states, `[read, hidden]`; `per_value` is the loss's with
/// respect to each score, `[read × labels]`.
pub(super) fn backward(
    model: &CausalLm,
    read: Tensor<2>,
    per_value: Vec<f32>,
    trainable: Trainable,
    gradients: &mut Gradients,
) -> Tensor<2> {
    let (head, stored) = (head(model), read.dtype());
    let wide = if stored == DType::F64 { DType::F64 } else { DType::F32 };
    let shape = [read.dims()[0], head.labels()];
    let d_value = Tensor::<2>::from_data(TensorData::new(per_value, shape), &read.device()).cast(wide);
    if trainable.contains(SCORE) {
        gradients.add(SCORE, d_value.clone().transpose().matmul(read.cast(wide)));
    }
    if head.bias.is_some() && trainable.contains(SCORE_BIAS) {
        gradients.add(SCORE_BIAS, d_value.clone().sum_dim(0));
    }
    d_value.matmul(head.weight.val().cast(wide)).cast(stored)
}
