//! Rotary tables of a batch's positions.

use crate::spec::Rope;
use burn::tensor::{Device, Tensor, TensorData};
use spo_kernels::rope::{Angles, rotate};

/// Cosines and sines of one batch's positions, for each rotary embedding of a model.
#[derive(Debug, Clone)]
pub struct RopeTables {
    tables: Vec<Table>,
}

/// Those of one of them.
#[derive(Debug, Clone)]
struct Table {
    angles: Angles,
    /// Rotated channels, where neighbours turn together.
    pairs: Option<usize>,
    /// Factor on the queries, `[tokens, 1, 1]`, where a position has one.
    growth: Option<Tensor<3>>,
}

impl RopeTables {
    /// Tables for `positions`, computed in f32 as the reference implementation does.
    pub fn new(ropes: &[Rope], positions: &[i32], device: &Device) -> Self {
        Self { tables: ropes.iter().map(|rope| table(rope, positions, device)).collect() }
    }

    /// Rotates the first channels of keys `[tokens, heads, head_dim]` by table number `rope`. Where neighbours turn
    /// together, they come out as halves: keys and queries alike, so that their products stay.
    pub fn rotate(&self, rope: usize, x: Tensor<3>) -> Tensor<3> {
        let Table { angles, pairs, .. } = &self.tables[rope];
        match pairs {
            Some(turned) => rotate(halves(x, *turned), angles),
            None => rotate(x, angles),
        }
    }

    /// As [`rotate`](Self::rotate), of queries, which may grow with their position.
    pub fn rotate_queries(&self, rope: usize, q: Tensor<3>) -> Tensor<3> {
        let q = self.rotate(rope, q);
        match &self.tables[rope].growth {
            Some(growth) => q.clone() * growth.clone().cast(q.dtype()),
            None => q,
        }
    }
}

/// The first `turned` channels of `[tokens, heads, head_dim]`, those of even number before those of odd number.
fn halves(x: Tensor<3>, turned: usize) -> Tensor<3> {
    let [tokens, heads, width] = x.dims();
    let pairs = x.clone().narrow(2, 0, turned).reshape([tokens, heads, turned / 2, 2]);
    let halves = pairs.swap_dims(2, 3).reshape([tokens, heads, turned]);
    if turned == width { halves } else { Tensor::cat(vec![halves, x.narrow(2, turned, width - turned)], 2) }
}

fn table(rope: &Rope, positions: &[i32], device: &Device) -> Table {
    let growth = rope.growth.map(|growth| positions.iter().map(|p| growth.at(*p as usize)).collect::<Vec<f32>>());
    let growth = growth.filter(|factors| factors.iter().any(|factor| *factor != 1.0));
    Table {
        angles: angles(rope, positions, device),
        pairs: rope.pairs.then_some(rope.dim),
        growth: growth.map(|factors| Tensor::from_data(TensorData::new(factors, [positions.len(), 1, 1]), device)),
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
