//! See [`crate::head`]: one pass over each row of logits, on all threads.

use super::{Matrix, Values, product, rows, vector};
use crate::cpu::vector::widest;
use crate::head::LogitOptions;
use burn::tensor::{Int, Tensor};

/// See [`crate::head::logps`]; `None` for tensors that are not f32 tensors of the CPU.
pub fn logps(
    hidden: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &Tensor<1, Int>,
    options: LogitOptions,
) -> Option<Tensor<1>> {
    let mut logits = products(hidden, weight)?;
    let logps = each_row(&mut logits, &ids(targets), options, false);
    Some(Values::new(logps, [hidden.dims()[0]]).into_tensor())
}

/// See [`crate::head::gradients`]; `None` for tensors that are not f32 tensors of the CPU.
pub fn gradients(
    hidden: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &Tensor<1, Int>,
    options: LogitOptions,
) -> Option<(Tensor<1>, Tensor<2>)> {
    let (count, vocab) = (hidden.dims()[0], weight.dims()[0]);
    let mut logits = products(hidden, weight)?;
    let logps = each_row(&mut logits, &ids(targets), options, true);
    Some((Values::new(logps, [count]).into_tensor(), Values::new(logits, [count, vocab]).into_tensor()))
}

/// `h Wᵀ`, `[rows, vocab]`
fn products(hidden: &Tensor<2>, weight: &Tensor<2>) -> Option<Vec<f32>> {
    let ([count, width], [vocab, _]) = (hidden.dims(), weight.dims());
    let (hidden, weight) = (Values::of(hidden)?, Values::of(weight)?);
    Some(product(Matrix::new(&hidden, count, width), Matrix::new(&weight, vocab, width).transposed()))
}

fn ids(targets: &Tensor<1, Int>) -> Vec<usize> {
    targets.clone().into_data().iter::<i64>().map(|id| id as usize).collect()
}

/// The log-probability of each row's target. The products `h Wᵀ` become gradients if those are wanted.
fn each_row(logits: &mut [f32], targets: &[usize], options: LogitOptions, want_gradients: bool) -> Vec<f32> {
    let vocab = logits.len() / targets.len().max(1);
    let mut logps = vec![0.0; targets.len()];
    rows::zip(logits, vocab, &mut logps, |row, logits, logp| {
        *logp = widest!(one_row(logits, targets[row], options, want_gradients));
    });
    logps
}

#[inline(always)]
fn one_row(logits: &mut [f32], target: usize, options: LogitOptions, want_gradients: bool) -> f32 {
    let scale = options.scale as f32;
    if let Some(cap) = options.softcap {
        let inverse = 1.0 / cap as f32;
        logits.iter_mut().for_each(|z| *z = vector::tanh(*z * scale * inverse) * cap as f32);
    } else if scale != 1.0 {
        logits.iter_mut().for_each(|z| *z *= scale);
    }
    let top = vector::max(logits);
    let of_target = logits[target];
    let sum = vector::sum_of_exp(logits, top);
    let logp = of_target - top - sum.ln();
    if !want_gradients {
        return logp;
    }
    let factor = -scale / sum;
    match options.softcap {
        // The derivative of the cap, 1 − (z / cap)², in terms of the capped logits.
        Some(cap) => {
            let inverse = 1.0 / cap as f32;
            let derivative = |z: f32| 1.0 - (z * inverse) * (z * inverse);
            logits.iter_mut().for_each(|z| *z = vector::exp(*z - top) * factor * derivative(*z));
            logits[target] += scale * derivative(of_target);
        }
        None => {
            logits.iter_mut().for_each(|z| *z = vector::exp(*z - top) * factor);
            logits[target] += scale;
        }
    }
    logp
}
