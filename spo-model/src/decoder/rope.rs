//! Rotary tables of a batch's positions.

use crate::spec::Rope;
use burn::tensor::{Device, Tensor, TensorData};
use spo_kernels::rope::{Angles, rotate};

/// Cosines and sines of one batch's positions, for each rotary embedding of a model.
#[derive(Debug, Clone)]
pub struct RopeTables {
    tables: Vec<Angles>,
}

impl RopeTables {
    /// Tables for `positions`, computed in f32 as the reference implementation does.
    pub fn new(ropes: &[Rope], positions: &[i32], device: &Device) -> Self {
        Self { tables: ropes.iter().map(|rope| angles(rope, positions, device)).collect() }
    }

    /// Rotates the first channels of `[tokens, heads, head_dim]` by table number `rope`.
    pub fn rotate(&self, rope: usize, x: Tensor<3>) -> Tensor<3> {
        rotate(x, &self.tables[rope])
    }
}

fn angles(rope: &Rope, positions: &[i32], device: &Device) -> Angles {
    let (frequencies, factor) = (rope.inverse_frequencies(), rope.attention_factor() as f32);
    let table = |f: fn(f32) -> f32| {
        let mut values = Vec::with_capacity(positions.len() * rope.dim);
        for &position in positions {
            let half = frequencies.iter().map(|frequency| factor * f(position as f32 * frequency));
            values.extend(half.clone().chain(half));
        }
        let data = TensorData::new(values, [positions.len(), 1, rope.dim]);
        Tensor::<3>::from_data(data, device)
    };
    Angles::new(table(f32::cos), table(f32::sin))
}
