//! Norms and activations of rows.

use super::rows::Rows;
use spo_core::cpu::vector::{dot, sigmoid};

/// `x += y`
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `x / √(mean(x²) + ε) · w` of each row.
pub(super) fn normed(x: &Rows, weight: &[f32], epsilon: f64) -> Rows {
    let mut y = x.clone();
    y.rows_mut().for_each(|row| norm(row, weight, epsilon));
    y
}

/// `x / √(mean(x²) + ε) · w`
pub(super) fn norm(x: &mut [f32], weight: &[f32], epsilon: f64) {
    pulp::Arch::new().dispatch(|| {
        let mean = dot(x, x) / x.len() as f32;
        let scale = (mean + epsilon as f32).sqrt().recip();
        x.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * scale * weight);
    });
}

/// `silu(gate) · up`: `[rows, 2 · inner]` → `[rows, inner]`
pub(super) fn gated(gate_up: &Rows) -> Rows {
    let inner = gate_up.width() / 2;
    let mut y = Rows::new(gate_up.len(), inner);
    for (row, y) in y.rows_mut().enumerate() {
        let (gate, up) = gate_up.row(row).split_at(inner);
        pulp::Arch::new().dispatch(|| {
            for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                *y = gate * sigmoid(*gate) * up;
            }
        });
    }
    y
}
