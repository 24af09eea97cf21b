//! The oracle: all logits at once, with a tape. For tests and tiny models only.

use burn::tensor::{Int, Tensor, activation};

use super::HeadOptions;

/// `log p(target)` of each row, `[rows]`; shapes as in [`super::token_logps`], differentiable in `hidden` and `weight`.
pub fn token_logps(hidden: Tensor<2>, weight: Tensor<2>, targets: Tensor<1, Int>, options: &HeadOptions) -> Tensor<1> {
    let [rows, _] = hidden.dims();
    let mut logits = hidden.matmul(weight.transpose()) * options.logit_scale;
    if let Some(cap) = options.softcap {
        // Not `/ cap`: burn 0.22.1 rounds the gradient of a division by a scalar to f32.
        logits = (logits * cap.recip()).tanh() * cap;
    }
    activation::log_softmax(logits, 1).gather(1, targets.reshape([rows, 1])).reshape([rows])
}
