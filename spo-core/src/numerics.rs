//! Elementary functions that stay exact and finite far from zero, in f32 and f64, in value and gradient.
//!
//! Values and derivatives are both closed forms: the value is computed without a tape, the derivative attached to it, so
//! kinks of the stable formulas (`max(x, 0)`, `|x|` at 0) never reach a gradient. First order only.

use burn::tensor::Tensor;

/// A tensor equal to `value` whose derivative with respect to `x` is `derivative`; both are taken as constants.
pub(crate) fn with_derivative<const D: usize>(x: Tensor<D>, value: Tensor<D>, derivative: Tensor<D>) -> Tensor<D> {
    let zero = x.clone() - x.detach();
    value + derivative * zero
}

/// `(σ(x), σ(−x))` of a tensor without a tape, each exact in its small tail.
fn logistic_pair<const D: usize>(x: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    let small = x.clone().abs().neg().exp();
    let large_side = (small.clone() + 1.0).recip();
    let small_side = small * large_side.clone();
    let negative = x.lower_scalar(0.0);
    (large_side.clone().mask_where(negative.clone(), small_side.clone()), small_side.mask_where(negative, large_side))
}

/// `log(1 + exp(x))`.
pub fn softplus<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let at = x.clone().detach();
    let value = at.clone().clamp_min(0.0) + at.clone().abs().neg().exp().log1p();
    with_derivative(x, value, logistic_pair(at).0)
}

/// `log σ(x) = −softplus(−x)`.
pub fn log_sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    -softplus(-x)
}

/// `σ(x) = 1 / (1 + exp(−x))`.
pub fn sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let (value, complement) = logistic_pair(x.clone().detach());
    with_derivative(x, value.clone(), value * complement)
}

/// `exp(min(x, 80))`: finite in f32, with no derivative beyond the bound.
pub fn exp_bounded<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clamp_max(80.0).exp()
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
    let derivative = at.clone().exp() / exp_minus_one(at).clamp_max(-1e-30);
    with_derivative(x, value, derivative)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};

    use super::*;

    /// Values and derivatives of `f` at `points`.
    fn evaluate(f: impl Fn(Tensor<1>) -> Tensor<1>, points: &[f64], dtype: DType) -> Vec<(f64, f64)> {
        let data = TensorData::new(points.to_vec(), [points.len()]);
        let x = Tensor::<1>::from_data(data, (&Device::flex().autodiff(), dtype)).require_grad();
        let y = f(x.clone());
        let gradients = y.clone().sum().backward();
        let derivatives = x.grad(&gradients).unwrap().try_into_vec_as::<f64>().unwrap();
        y.try_into_vec_as::<f64>().unwrap().into_iter().zip(derivatives).collect()
    }

    fn close(found: f64, expected: f64, tolerance: f64) -> bool {
        (found - expected).abs() <= tolerance * expected.abs() + 1e-300
    }

    #[test]
    fn softplus_and_sigmoid_are_exact_far_out_and_at_zero() {
        let points = [-1e4, -700.0, -40.0, -1.0, -1e-9, 0.0, 1e-9, 0.5, 40.0, 700.0, 1e4];
        for (x, (value, derivative)) in points.iter().zip(evaluate(softplus, &points, DType::F64)) {
            let sigma = if *x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
            assert!(close(value, x.max(0.0) + (-x.abs()).exp().ln_1p(), 1e-15), "softplus({x}) = {value}");
            assert!(close(derivative, sigma, 1e-15), "softplus'({x}) = {derivative}");
        }
        for (x, (value, derivative)) in points.iter().zip(evaluate(sigmoid, &points, DType::F64)) {
            let small = (-x.abs()).exp();
            let sigma = if *x >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) };
            assert!(close(value, sigma, 1e-15) && close(derivative, small / (1.0 + small).powi(2), 1e-14), "{x}");
        }
        for (value, derivative) in evaluate(softplus, &points, DType::F32) {
            assert!(value.is_finite() && (0.0..=1.0).contains(&derivative));
        }
    }

    #[test]
    fn log1mexp_is_exact_near_zero_and_far_out() {
        let exact = |x: f64| {
            if x > -0.69 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() }
        };
        let points = [-1e4, -50.0, -2.0, -0.7, -0.69, -0.1, -1e-6, -1e-12];
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-6)] {
            for (x, (value, derivative)) in points.iter().zip(evaluate(log1mexp, &points, dtype)) {
                let x = if dtype == DType::F32 { f64::from(*x as f32) } else { *x };
                assert!((value - exact(x)).abs() <= tolerance * value.abs().max(1e-30), "{x} {value}");
                assert!(
                    (derivative + 1.0 / (-x).exp_m1()).abs() <= tolerance * derivative.abs() + 1e-30,
                    "{x} {derivative}"
                );
            }
        }
        let (value, derivative) = evaluate(log1mexp, &[0.0], DType::F64)[0];
        assert!(value.is_finite() && derivative.is_finite());
    }
}
