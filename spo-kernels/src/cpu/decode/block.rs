//! Weights of 32 inputs and 16 outputs, in the order in which a product reads them.

#![allow(clippy::needless_range_loop, reason = "loops over lanes become vector instructions")]

use super::rows::STEP;
use half::bf16;

/// Outputs of a block.
pub(super) const LANES: usize = 16;

/// 32 inputs of 16 outputs.
pub(super) type Tile = [[f32; STEP]; LANES];

/// The weights of 32 inputs and 16 outputs.
pub(super) trait Block: Send + Sync {
    /// The weights in this form, rounded where it must.
    fn of(tile: &Tile) -> Self;

    /// Weights of inputs `2 step` and `2 step + 1`.
    fn weights(&self, step: usize) -> [[f32; LANES]; 2];

    /// All of them.
    fn tile(&self) -> Tile {
        let weight = |lane: usize, input: usize| self.weights(input / 2)[input % 2][lane];
        std::array::from_fn(|lane| std::array::from_fn(|input| weight(lane, input)))
    }
}

/// Inputs `2i` of the sixteen outputs, then inputs `2i + 1`.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct F32Block(pub [[f32; 2 * LANES]; STEP / 2]);

/// Input `2i` in the low half and input `2i + 1` in the high half of sixteen words.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct Bf16Block([[u32; LANES]; STEP / 2]);

/// As [`F32Block`], to be multiplied with its output's scale.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct Q8Block {
    scales: [f32; LANES],
    values: [[i8; 2 * LANES]; STEP / 2],
}

impl F32Block {
    pub const ZERO: Self = Self([[0.0; 2 * LANES]; STEP / 2]);
}

// Loops over lanes: closures over arrays do not become vector instructions here.
impl Block for F32Block {
    fn of(tile: &Tile) -> Self {
        Self(std::array::from_fn(|step| std::array::from_fn(|i| tile[i % LANES][2 * step + i / LANES])))
    }

    #[inline(always)]
    fn weights(&self, step: usize) -> [[f32; LANES]; 2] {
        let mut weights = [[0.0; LANES]; 2];
        for lane in 0..LANES {
            weights[0][lane] = self.0[step][lane];
            weights[1][lane] = self.0[step][LANES + lane];
        }
        weights
    }
}

impl Block for Bf16Block {
    fn of(tile: &Tile) -> Self {
        let bits = |lane: usize, input: usize| u32::from(bf16::from_f32(tile[lane][input]).to_bits());
        let word = |lane: usize, step: usize| bits(lane, 2 * step) | bits(lane, 2 * step + 1) << 16;
        Self(std::array::from_fn(|step| std::array::from_fn(|lane| word(lane, step))))
    }

    #[inline(always)]
    fn weights(&self, step: usize) -> [[f32; LANES]; 2] {
        let mut weights = [[0.0; LANES]; 2];
        for lane in 0..LANES {
            weights[0][lane] = f32::from_bits(self.0[step][lane] << 16);
            weights[1][lane] = f32::from_bits(self.0[step][lane] & 0xffff_0000);
        }
        weights
    }
}

impl Block for Q8Block {
    fn of(tile: &Tile) -> Self {
        let scales = std::array::from_fn(|lane| tile[lane].iter().fold(0.0f32, |top, w| top.max(w.abs())) / 127.0);
        let value = |lane: usize, input: usize| match scales[lane] {
            0.0 => 0,
            scale => (tile[lane][input] / scale).round() as i8,
        };
        let values = std::array::from_fn(|step| std::array::from_fn(|i| value(i % LANES, 2 * step + i / LANES)));
        Self { scales, values }
    }

    #[inline(always)]
    fn weights(&self, step: usize) -> [[f32; LANES]; 2] {
        let mut weights = [[0.0; LANES]; 2];
        for lane in 0..LANES {
            weights[0][lane] = f32::from(self.values[step][lane]) * self.scales[lane];
            weights[1][lane] = f32::from(self.values[step][LANES + lane]) * self.scales[lane];
        }
        weights
    }
}
