//! Norms and activations of rows.

use super::rows::Rows;
use crate::cpu::vector::{dot, sigmoid, tanh, widest};

/// The function of a gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gate {
    /// `x σ(x)`
    Silu,
    /// `x Φ(x)` with Φ approximated by a tanh.
    GeluTanh,
    /// `x σ(alpha x)` of a gate of at most `limit`, times 1 + the other half within ± `limit`; the halves take turns.
    Clamped {
        /// Steepness of the sigmoid.
        alpha: f32,
        /// Bound of both halves.
        limit: f32,
    },
}

/// `x += y`
pub fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Rows through a norm, where there is one.
pub fn normed(x: &Rows, weight: Option<&[f32]>, epsilon: f64) -> Rows {
    let mut y = x.clone();
    normalise(&mut y, weight, epsilon);
    y
}

/// As [`normed`], in place.
pub fn normalise(x: &mut Rows, weight: Option<&[f32]>, epsilon: f64) {
    if let Some(weight) = weight {
        x.rows_mut().for_each(|row| norm(row, weight, epsilon));
    }
}

/// `cap · tanh(x / cap)`
pub fn soft_cap(x: &mut [f32], cap: f32) {
    widest!(x.iter_mut().for_each(|x| *x = cap * tanh(*x / cap)));
}

/// `x / √(mean(x²) + ε) · w`
pub fn norm(x: &mut [f32], weight: &[f32], epsilon: f64) {
    widest!({
        let mean = dot(x, x) / x.len() as f32;
        let scale = (mean + epsilon as f32).sqrt().recip();
        x.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * scale * weight);
    });
}

/// `act(gate) · up`: `[rows, 2 · inner]` → `[rows, inner]`
pub fn gated(gate_up: &Rows, function: Gate) -> Rows {
    let inner = gate_up.width() / 2;
    let mut y = Rows::new(gate_up.len(), inner);
    for (row, y) in y.rows_mut().enumerate() {
        let both = gate_up.row(row);
        let (gate, up) = both.split_at(inner);
        widest!(match function {
            Gate::Clamped { alpha, limit } => {
                for (y, pair) in y.iter_mut().zip(both.as_chunks::<2>().0) {
                    let gate = pair[0].min(limit);
                    *y = gate * sigmoid(alpha * gate) * (pair[1].clamp(-limit, limit) + 1.0);
                }
            }
            Gate::Silu => gate_with(y, gate, up, |x| x * sigmoid(x)),
            // Φ(x) ≈ (1 + tanh u) / 2 = σ(2u), Hendrycks & Gimpel 2016, arXiv 1606.08415
            Gate::GeluTanh => gate_with(y, gate, up, |x| x * sigmoid(1.595_769 * (x + 0.044_715 * x * x * x))),
        });
    }
    y
}

#[inline(always)]
fn gate_with(y: &mut [f32], gate: &[f32], up: &[f32], activation: impl Fn(f32) -> f32) {
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        *y = activation(*gate) * up;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{random, wide};
    use crate::{glu, rms_norm};
    use burn::tensor::activation::sigmoid as exact_sigmoid;
    use burn::tensor::{DType, Tensor};

    fn rows_of(x: &Tensor<2>) -> Rows {
        let [count, width] = x.dims();
        let values: Vec<f32> = x.clone().into_data().iter::<f32>().collect();
        let mut rows = Rows::new(count, width);
        rows.rows_mut().zip(values.chunks(width)).for_each(|(row, from)| row.copy_from_slice(from));
        rows
    }

    fn assert_near(found: &Rows, expected: &Tensor<2>) {
        for (row, expected) in wide(expected).chunks(found.width()).enumerate() {
            let near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= 2e-6 * b.abs().max(1.0);
            assert!(found.row(row).iter().zip(expected).all(near), "row {row}");
        }
    }

    #[test]
    fn norms_and_gates_follow_the_references() {
        let exact = |x: &Tensor<2>| x.clone().cast(DType::F64);
        for width in [1, 7, 64, 200] {
            let (x, weight) = (random([5, width]), random([width]));
            let factors: Vec<f32> = weight.clone().into_data().iter::<f32>().collect();
            let expected = rms_norm::reference(exact(&x), weight.cast(DType::F64), 1e-5, 0.0);
            assert_near(&normed(&rows_of(&x), Some(&factors), 1e-5), &expected);
            let up = random([5, width]);
            let both = rows_of(&Tensor::cat(vec![x.clone(), up.clone()], 1));
            assert_near(&gated(&both, Gate::Silu), &glu::reference(glu::Activation::Silu, exact(&x), exact(&up)));
            let (gate, limited) = (exact(&x).reshape([5 * width, 1]), exact(&up).reshape([5 * width, 1]));
            let pairs = rows_of(&Tensor::cat(vec![gate.clone(), limited.clone()], 1).reshape([5, 2 * width]));
            let (gate, limited) = (gate.clamp_max(0.5), limited.clamp(-0.5, 0.5) + 1.0);
            let expected = gate.clone() * exact_sigmoid(gate * 1.7) * limited;
            assert_near(&gated(&pairs, Gate::Clamped { alpha: 1.7, limit: 0.5 }), &expected.reshape([5, width]));
            let (x, up) = (exact(&x), exact(&up));
            let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
            assert_near(&gated(&both, Gate::GeluTanh), &(x * (inner.tanh() + 1.0) * 0.5 * up));
        }
    }

    #[test]
    fn caps_follow_f64() {
        let mut values: Vec<f32> = (-50..50).map(|i| i as f32 * 0.3).collect();
        let expected: Vec<f64> = values.iter().map(|x| 2.5 * (f64::from(*x) / 2.5).tanh()).collect();
        soft_cap(&mut values, 2.5);
        assert!(values.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 2e-6));
    }
}
