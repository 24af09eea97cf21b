//! Norms and activations of rows.

use super::rows::Rows;
use crate::spec::Activation;
use spo_core::cpu::vector::{dot, sigmoid, tanh};

/// `x += y`
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Rows through a norm, where there is one.
pub(super) fn normed(x: &Rows, weight: Option<&[f32]>, epsilon: f64) -> Rows {
    let mut y = x.clone();
    normalise(&mut y, weight, epsilon);
    y
}

/// As [`normed`], in place.
pub(super) fn normalise(x: &mut Rows, weight: Option<&[f32]>, epsilon: f64) {
    if let Some(weight) = weight {
        x.rows_mut().for_each(|row| norm(row, weight, epsilon));
    }
}

/// `cap · tanh(x / cap)`
pub(super) fn soft_cap(x: &mut [f32], cap: f32) {
    pulp::Arch::new().dispatch(|| x.iter_mut().for_each(|x| *x = cap * tanh(*x / cap)));
}

/// `x / √(mean(x²) + ε) · w`
pub(super) fn norm(x: &mut [f32], weight: &[f32], epsilon: f64) {
    pulp::Arch::new().dispatch(|| {
        let mean = dot(x, x) / x.len() as f32;
        let scale = (mean + epsilon as f32).sqrt().recip();
        x.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * scale * weight);
    });
}

/// `act(gate) · up`: `[rows, 2 · inner]` → `[rows, inner]`
pub(super) fn gated(gate_up: &Rows, activation: Activation) -> Rows {
    let inner = gate_up.width() / 2;
    let mut y = Rows::new(gate_up.len(), inner);
    for (row, y) in y.rows_mut().enumerate() {
        let (gate, up) = gate_up.row(row).split_at(inner);
        pulp::Arch::new().dispatch(|| match activation {
            Activation::Silu => gate_with(y, gate, up, |x| x * sigmoid(x)),
            // Φ(x) ≈ (1 + tanh u) / 2 = σ(2u), Hendrycks & Gimpel 2016, arXiv 1606.08415
            _ => gate_with(y, gate, up, |x| x * sigmoid(1.595_769 * (x + 0.044_715 * x * x * x))),
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
