//! Elementary functions that stay exact and finite far from zero, in f32 and f64, in value and gradient.
//!
//! Values and slopes are both closed forms: the value is computed without a tape and the slope is attached to it, so
//! kinks of the stable formulas (`max(x, 0)`, `|x|` at 0) never reach a gradient. First order only.

use burn::tensor::Tensor;

/// A tensor equal to `value` whose derivative with respect to `x` is `slope`; both are taken as constants.
fn with_slope<const D: usize>(x: Tensor<D>, value: Tensor<D>, slope: Tensor<D>) -> Tensor<D> {
    let zero = x.clone() - x.detach();
    value + slope * zero
}

/// `(σ(x), σ(−x))` of a tensor without a tape, each exact in its small tail.
fn logistic_pair<const D: usize>(x: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    let small = x.clone().abs().neg().exp();
    let large_side = (small.clone() + 1.0).recip();
    let small_side = small * large_side.clone();
    let negative = x.lower_scalar(0.0);
    (
        large_side
            .clone()
            .mask_where(negative.clone(), small_side.clone()),
        small_side.mask_where(negative, large_side),
    )
}

/// `log(1 + exp(x))`.
pub fn softplus<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let at = x.clone().detach();
    let value = at.clone().clamp_min(0.0) + at.clone().abs().neg().exp().log1p();
    with_slope(x, value, logistic_pair(at).0)
}

/// `log σ(x) = −softplus(−x)`.
pub fn log_sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    -softplus(-x)
}

/// `σ(x) = 1 / (1 + exp(−x))`.
pub fn sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let (value, complement) = logistic_pair(x.clone().detach());
    with_slope(x, value.clone(), value * complement)
}

/// `exp(x) − 1` without a tape, exact near 0: `tanh(x/2)·(exp(x) + 1)`.
fn exp_minus_one<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    (x.clone() * 0.5).tanh() * (x.exp() + 1.0)
}

/// `log(1 − exp(x))` for `x < 0` (Mächler, 2012: two branches, meeting at −ln 2).
///
/// `x` is first clamped to at most `−1e-30`, so that a probability that rounds to one gives a finite value.
pub fn log1mexp<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let at = x.clone().detach().clamp_max(-1e-30);
    let near = exp_minus_one(at.clone()).neg().clamp_min(1e-30).log();
    let far = at.clone().exp().neg().log1p();
    let value = far.mask_where(at.clone().greater_scalar(-std::f64::consts::LN_2), near);
    // d/dx log(1 − eˣ) = −eˣ/(1 − eˣ) = eˣ/(eˣ − 1); written with eˣ ≤ 1 so that it cannot overflow.
    let slope = at.clone().exp() / exp_minus_one(at).clamp_max(-1e-30);
    with_slope(x, value, slope)
}
