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
    /// Whether weights are decoded on the way to the registers.
    const CODED: bool = true;

    /// The weights in this form, rounded where it must.
    fn of(tile: &Tile) -> Self;

    /// Weights of inputs `2 step` and `2 step + 1`.
    fn weights(&self, step: usize) -> [[f32; LANES]; 2];

    /// The same in f32.
    #[inline(always)]
    fn decode(&self, into: &mut F32Block) {
        for step in 0..STEP / 2 {
            let weights = self.weights(step);
            for lane in 0..LANES {
                into.0[step][lane] = weights[0][lane];
                into.0[step][LANES + lane] = weights[1][lane];
            }
        }
    }

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

/// Inputs `2i` and `2i + 1` of the first output, of the second and so on, to be multiplied with the output's scale.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct Q8Block {
    pub scales: [f32; LANES],
    pub values: [[i8; 2 * LANES]; STEP / 2],
}

impl F32Block {
    pub const ZERO: Self = Self([[0.0; 2 * LANES]; STEP / 2]);
}

// Loops over lanes: closures over arrays do not become vector instructions here.
impl Block for F32Block {
    const CODED: bool = false;

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
    #[inline(always)]
    fn of(tile: &Tile) -> Self {
        let mut block = Self { scales: [0.0; LANES], values: [[0; 2 * LANES]; STEP / 2] };
        for lane in 0..LANES {
            let mut top = 0.0f32;
            for input in 0..STEP {
                top = top.max(tile[lane][input].abs());
            }
            block.scales[lane] = top / 127.0;
            // Without weights there is nothing to divide.
            let scale = if block.scales[lane] == 0.0 { 1.0 } else { block.scales[lane] };
            let mut codes = [0i8; STEP];
            for input in 0..STEP {
                codes[input] = (tile[lane][input] / scale).round_ties_even() as i8;
            }
            for input in 0..STEP {
                block.values[input / 2][2 * lane + input % 2] = codes[input];
            }
        }
        block
    }

    #[inline(always)]
    fn weights(&self, step: usize) -> [[f32; LANES]; 2] {
        let mut weights = [[0.0; LANES]; 2];
        for lane in 0..LANES {
            weights[0][lane] = f32::from(self.values[step][2 * lane]) * self.scales[lane];
            weights[1][lane] = f32::from(self.values[step][2 * lane + 1]) * self.scales[lane];
        }
        weights
    }
}
