//! Rotary position embedding in the rotate-half layout (Su et al. 2021, arXiv 2104.09864).

use super::fused;
use crate::spec::Rope;
use burn::tensor::{DType, Device, Tensor, TensorData};
use spo_core::cpu::Values;

/// Cosines and sines of one batch's positions, for each rotary embedding of a model.
#[derive(Debug, Clone)]
pub struct RopeTables {
    tables: Vec<Table>,
}

/// Each `[tokens, 1, rotary channels]`.
#[derive(Debug, Clone)]
struct Table {
    cos: Tensor<3>,
    sin: Tensor<3>,
    /// The same in host memory, where the CPU's own operation runs.
    angles: Option<fused::Angles>,
}

impl RopeTables {
    /// Tables for `positions`, computed in f32 as the reference implementation does.
    pub fn new(ropes: &[Rope], positions: &[i32], dtype: DType, device: &Device) -> Self {
        Self { tables: ropes.iter().map(|rope| Table::new(rope, positions, dtype, device)).collect() }
    }

    /// Rotates the first channels of `[tokens, heads, head_dim]` by table number `rope`.
    pub fn rotate(&self, rope: usize, x: Tensor<3>) -> Tensor<3> {
        let Table { cos, sin, angles } = &self.tables[rope];
        if let Some(y) = angles.as_ref().and_then(|angles| fused::rotate(&x, angles)) {
            return y;
        }
        let [_, _, width] = x.dims();
        let [_, _, dim] = cos.dims();
        let turned = x.clone().narrow(2, 0, dim);
        let (first, second) = (turned.clone().narrow(2, 0, dim / 2), turned.clone().narrow(2, dim / 2, dim / 2));
        let turned = turned * cos.clone() + Tensor::cat(vec![second.neg(), first], 2) * sin.clone();
        if dim == width { turned } else { Tensor::cat(vec![turned, x.narrow(2, dim, width - dim)], 2) }
    }
}

impl Table {
    fn new(rope: &Rope, positions: &[i32], dtype: DType, device: &Device) -> Self {
        let (frequencies, factor) = (rope.inverse_frequencies(), rope.attention_factor() as f32);
        let table = |f: fn(f32) -> f32| {
            let mut values = Vec::with_capacity(positions.len() * rope.dim);
            for &position in positions {
                let half = frequencies.iter().map(|frequency| factor * f(position as f32 * frequency));
                values.extend(half.clone().chain(half));
            }
            let data = TensorData::new(values, [positions.len(), 1, rope.dim]);
            Tensor::<3>::from_data(data, device).cast(dtype)
        };
        let (cos, sin) = (table(f32::cos), table(f32::sin));
        let angles = match (Values::of(&cos), Values::of(&sin)) {
            (Some(cos), Some(sin)) => Some(fused::Angles { cos, sin, turned: rope.dim }),
            _ => None,
        };
        Self { cos, sin, angles }
    }
}
