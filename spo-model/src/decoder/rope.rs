//! Rotary position embedding in the rotate-half layout (Su et al. 2021, arXiv 2104.09864).

use super::fused;
use crate::spec::Rope;
use burn::tensor::{DType, Device, Tensor, TensorData};
use spo_core::cpu::Values;

/// Cosines and sines of one batch's positions, each `[tokens, 1, head_dim]`.
#[derive(Debug, Clone)]
pub struct RopeTables {
    cos: Tensor<3>,
    sin: Tensor<3>,
    /// The same in host memory, where the CPU's own operation runs.
    angles: Option<fused::Angles>,
}

impl RopeTables {
    /// Tables for `positions`, computed in f32 as the reference implementation does.
    pub fn new(rope: &Rope, head_dim: usize, positions: &[i32], dtype: DType, device: &Device) -> Self {
        let frequencies = rope.inverse_frequencies(head_dim);
        let table = |f: fn(f32) -> f32| {
            let mut values = Vec::with_capacity(positions.len() * head_dim);
            for &position in positions {
                let half = frequencies.iter().map(|frequency| f(position as f32 * frequency));
                values.extend(half.clone().chain(half));
            }
            let data = TensorData::new(values, [positions.len(), 1, head_dim]);
            Tensor::<3>::from_data(data, device).cast(dtype)
        };
        let (cos, sin) = (table(f32::cos), table(f32::sin));
        let angles = match (Values::of(&cos), Values::of(&sin)) {
            (Some(cos), Some(sin)) => Some(fused::Angles { cos, sin, turned: head_dim }),
            _ => None,
        };
        Self { cos, sin, angles }
    }

    /// Rotates `[tokens, heads, head_dim]`.
    pub fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        if let Some(y) = self.angles.as_ref().and_then(|angles| fused::rotate(&x, angles)) {
            return y;
        }
        let half = x.dims()[2] / 2;
        let (first, second) = (x.clone().narrow(2, 0, half), x.clone().narrow(2, half, half));
        x * self.cos.clone() + Tensor::cat(vec![second.neg(), first], 2) * self.sin.clone()
    }
}
