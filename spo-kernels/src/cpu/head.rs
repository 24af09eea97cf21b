//! The head in host memory: one pass over each row of logits, on all threads. Each function says no (`None`) to
//! tensors that are not f32 tensors of the CPU; [`super::chunked`] has the same in burn's operations.

use super::HeadOptions;
use super::chunked::chunks;
use crate::cpu::{Matrix, Values, rows, vector};
use burn::tensor::{Int, Tensor};

/// See [`super::token_logps`].
pub(super) fn token_logps(
    hidden: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &Tensor<1, Int>,
    options: &HeadOptions,
) -> Option<Tensor<1>> {
    let ([count, width], [vocab, _]) = (hidden.dims(), weight.dims());
    let (hidden, weight, targets) = (Values::of(hidden)?, Values::of(weight)?, ids(targets));
    let weight = Matrix::new(&weight, vocab, width).transposed();
    let mut logps = Vec::with_capacity(count);
    for (start, length) in chunks(count, vocab, options.chunk_rows) {
        let mut logits =
            crate::cpu::product(Matrix::new(&hidden[start * width..][..length * width], length, width), weight);
        logps.extend(each_row(&mut logits, &targets[start..start + length], options, false));
    }
    Some(Values::new(logps, [count]).into_tensor())
}

/// See [`super::chunked`].
pub(super) fn chunk_slopes(
    hidden: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &Tensor<1, Int>,
    options: &HeadOptions,
) -> Option<(Tensor<1>, Tensor<2>)> {
    let ([count, width], [vocab, _]) = (hidden.dims(), weight.dims());
    let (hidden, weight) = (Values::of(hidden)?, Values::of(weight)?);
    let weight = Matrix::new(&weight, vocab, width).transposed();
    let mut logits = crate::cpu::product(Matrix::new(&hidden, count, width), weight);
    let logps = each_row(&mut logits, &ids(targets), options, true);
    Some((Values::new(logps, [count]).into_tensor(), Values::new(logits, [count, vocab]).into_tensor()))
}

/// `a b`
pub(super) fn product(a: &Tensor<2>, b: &Tensor<2>) -> Option<Tensor<2>> {
    let ([rows, inner], [_, columns]) = (a.dims(), b.dims());
    let (a, b) = (Values::of(a)?, Values::of(b)?);
    let out = crate::cpu::product(Matrix::new(&a, rows, inner), Matrix::new(&b, inner, columns));
    Some(Values::new(out, [rows, columns]).into_tensor())
}

/// `sum + aᵀ b`, in the memory of the sum; all three must [`fit`](Values::fit).
pub(super) fn add_transposed_product(sum: Tensor<2>, a: &Tensor<2>, b: &Tensor<2>) -> Option<Tensor<2>> {
    let ([inner, rows], [_, columns]) = (a.dims(), b.dims());
    let (a, b, mut sum) = (Values::of(a)?, Values::of(b)?, Values::take(sum)?);
    let a = Matrix::new(&a, inner, rows).transposed();
    crate::cpu::add_product(a, Matrix::new(&b, inner, columns), sum.make_mut());
    Some(sum.into_tensor())
}

fn ids(targets: &Tensor<1, Int>) -> Vec<usize> {
    targets.clone().into_data().iter::<i64>().map(|id| id as usize).collect()
}

/// The log-probability of each row's target. The products `h Wᵀ` become slopes if those are wanted.
fn each_row(logits: &mut [f32], targets: &[usize], options: &HeadOptions, want_slopes: bool) -> Vec<f32> {
    let vocab = logits.len() / targets.len().max(1);
    let mut logps = vec![0.0; targets.len()];
    rows::zip(logits, vocab, &mut logps, |row, logits, logp| {
        *logp = pulp::Arch::new().dispatch(|| one_row(logits, targets[row], options, want_slopes));
    });
    logps
}

#[inline(always)]
fn one_row(logits: &mut [f32], target: usize, options: &HeadOptions, want_slopes: bool) -> f32 {
    let scale = options.logit_scale as f32;
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
    if !want_slopes {
        return logp;
    }
    let factor = -scale / sum;
    match options.softcap {
        // The slope of the cap, 1 − (z / cap)², in terms of the capped logits.
        Some(cap) => {
            let inverse = 1.0 / cap as f32;
            let slope = |z: f32| 1.0 - (z * inverse) * (z * inverse);
            logits.iter_mut().for_each(|z| *z = vector::exp(*z - top) * factor * slope(*z));
            logits[target] += scale * slope(of_target);
        }
        None => {
            logits.iter_mut().for_each(|z| *z = vector::exp(*z - top) * factor);
            logits[target] += scale;
        }
    }
    logp
}
