//! Weights laid out for products with a few rows at a time, which decoding is made of: such a
//! product takes as long as reading the weights, so fewer bytes per weight make it faster.
//!
//! Sixteen outputs make a panel. A panel is cut along the inputs into blocks of 32, in the order
//! in which the product reads them. Every output is summed over the inputs in their order, one
//! fused multiply-add each, whatever the number of rows and threads: a row's result never depends
//! on the rows beside it.

#![allow(clippy::needless_range_loop, reason = "loops over lanes become vector instructions")]

use super::rows::{Rows, STEP};
use half::bf16;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Outputs of a panel.
const LANES: usize = 16;
/// Panels of one parallel task.
const GROUP: usize = 4;
/// Bytes of weights below which a task is not worth another thread.
const TASK_BYTES: usize = 64 << 10;

/// How a matrix keeps its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// As bf16 where that changes no value, else as f32.
    Exact,
    /// Rounded to bf16.
    Bf16,
    /// 8-bit integers with a scale for every 32 inputs of an output.
    Q8,
}

/// `[outputs, inputs]`
#[derive(Debug)]
pub(super) struct Matrix {
    pub outputs: usize,
    pub inputs: usize,
    blocks: Blocks,
}

/// `[panels, inputs / 32]`
#[derive(Debug)]
enum Blocks {
    F32(Vec<F32Block>),
    Bf16(Vec<Bf16Block>),
    Q8(Vec<Q8Block>),
}

/// Inputs `2i` of the sixteen outputs, then inputs `2i + 1`.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct F32Block([[f32; 2 * LANES]; STEP / 2]);

/// Input `2i` in the low half and input `2i + 1` in the high half of sixteen words.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Bf16Block([[u32; LANES]; STEP / 2]);

/// As [`F32Block`], to be multiplied with its output's scale.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Q8Block {
    scales: [f32; LANES],
    values: [[i8; 2 * LANES]; STEP / 2],
}

/// The weights of 32 inputs and 16 outputs.
trait Block: Sync {
    /// Weights of inputs `2 step` and `2 step + 1`.
    fn weights(&self, step: usize) -> [[f32; LANES]; 2];
}

// Loops over lanes: closures over arrays do not become vector instructions here.
impl Block for F32Block {
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
    fn weights(&self, step: usize) -> [[f32; LANES]; 2] {
        let mut weights = [[0.0; LANES]; 2];
        for lane in 0..LANES {
            weights[0][lane] = f32::from(self.values[step][lane]) * self.scales[lane];
            weights[1][lane] = f32::from(self.values[step][LANES + lane]) * self.scales[lane];
        }
        weights
    }
}

impl Matrix {
    /// Lays out `weights`, `[outputs, inputs]` row by row.
    pub fn new(weights: &[f32], inputs: usize, storage: Storage) -> Self {
        let outputs = weights.len() / inputs;
        let exact = || weights.par_iter().all(|weight| weight.to_bits() & 0xffff == 0);
        let blocks = match storage {
            Storage::Q8 => Blocks::Q8(blocks(weights, outputs, inputs, quantised)),
            Storage::Exact if !exact() => Blocks::F32(blocks(weights, outputs, inputs, |tile| {
                F32Block(std::array::from_fn(|step| std::array::from_fn(|i| tile[i % LANES][2 * step + i / LANES])))
            })),
            Storage::Exact | Storage::Bf16 => Blocks::Bf16(blocks(weights, outputs, inputs, |tile| {
                let bits = |lane: usize, input: usize| u32::from(bf16::from_f32(tile[lane][input]).to_bits());
                Bf16Block(std::array::from_fn(|step| {
                    std::array::from_fn(|lane| bits(lane, 2 * step) | bits(lane, 2 * step + 1) << 16)
                }))
            })),
        };
        Self { outputs, inputs, blocks }
    }

    /// The weights of one output, `[inputs]`, into a row that may be longer.
    pub fn weights_of(&self, output: usize, row: &mut [f32]) {
        match &self.blocks {
            Blocks::F32(blocks) => weights_of(blocks, self.inputs, output, row),
            Blocks::Bf16(blocks) => weights_of(blocks, self.inputs, output, row),
            Blocks::Q8(blocks) => weights_of(blocks, self.inputs, output, row),
        }
    }

    /// `x Wᵀ`: `[rows, inputs]` → `[rows, outputs]`.
    pub fn product(&self, x: &Rows) -> Rows {
        assert_eq!(x.width(), self.inputs);
        match &self.blocks {
            Blocks::F32(blocks) => product(blocks, x, self.outputs),
            Blocks::Bf16(blocks) => product(blocks, x, self.outputs),
            Blocks::Q8(blocks) => product(blocks, x, self.outputs),
        }
    }

    /// Memory of the weights.
    pub fn bytes(&self) -> usize {
        match &self.blocks {
            Blocks::F32(blocks) => size_of_val(blocks.as_slice()),
            Blocks::Bf16(blocks) => size_of_val(blocks.as_slice()),
            Blocks::Q8(blocks) => size_of_val(blocks.as_slice()),
        }
    }
}

/// Cuts a matrix into blocks, panel by panel; what is outside the matrix is 0.
fn blocks<B: Send>(
    weights: &[f32],
    outputs: usize,
    inputs: usize,
    block: impl Fn(&[[f32; STEP]; LANES]) -> B + Sync,
) -> Vec<B> {
    let per_panel = inputs.div_ceil(STEP);
    let panels = outputs.div_ceil(LANES * GROUP) * GROUP;
    let at = |index: usize| {
        let (panel, column) = (index / per_panel * LANES, index % per_panel * STEP);
        let mut tile = [[0.0; STEP]; LANES];
        for (output, row) in (panel..outputs).zip(&mut tile) {
            let values = &weights[output * inputs + column..output * inputs + inputs.min(column + STEP)];
            row[..values.len()].copy_from_slice(values);
        }
        block(&tile)
    };
    (0..panels * per_panel).into_par_iter().map(at).collect()
}

fn quantised(tile: &[[f32; STEP]; LANES]) -> Q8Block {
    let scales = std::array::from_fn(|lane| tile[lane].iter().fold(0.0f32, |top, w| top.max(w.abs())) / 127.0);
    let value = |lane: usize, input: usize| match scales[lane] {
        0.0 => 0,
        scale => (tile[lane][input] / scale).round() as i8,
    };
    let values = std::array::from_fn(|step| std::array::from_fn(|i| value(i % LANES, 2 * step + i / LANES)));
    Q8Block { scales, values }
}

fn weights_of<B: Block>(blocks: &[B], inputs: usize, output: usize, row: &mut [f32]) {
    let per_panel = inputs.div_ceil(STEP);
    for (input, value) in row[..inputs].iter_mut().enumerate() {
        let block = &blocks[output / LANES * per_panel + input / STEP];
        *value = block.weights(input % STEP / 2)[input % 2][output % LANES];
    }
}

fn product<B: Block>(blocks: &[B], x: &Rows, outputs: usize) -> Rows {
    let (rows, per_panel) = (x.len(), x.width().div_ceil(STEP));
    let group = GROUP * per_panel;
    let columns = GROUP * LANES;
    let mut tasks = vec![0.0; blocks.len() / group * rows * columns];
    let fewest = TASK_BYTES.div_ceil(group * size_of::<B>() * rows.div_ceil(8));
    tasks
        .par_chunks_mut(rows * columns)
        .zip(blocks.par_chunks(group))
        .with_min_len(fewest)
        .for_each(|(out, blocks)| pulp::Arch::new().dispatch(Task { blocks, per_panel, x, out }));
    Rows::gather(&tasks, rows, columns, outputs)
}

/// The product with one group of panels.
struct Task<'a, B> {
    blocks: &'a [B],
    per_panel: usize,
    x: &'a Rows,
    /// `[rows, GROUP · LANES]`
    out: &'a mut [f32],
}

impl<B: Block> WithSimd for Task<'_, B> {
    type Output = ();

    /// As many sums at once as the registers hold: 32 of 16 lanes, 16 of 8 or 32 of 4.
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        match S::F32_LANES {
            16.. => self.tiles::<true>(8),
            4.. => self.tiles::<true>(2),
            _ => self.tiles::<false>(2),
        }
    }
}

impl<B: Block> Task<'_, B> {
    #[inline(always)]
    fn tiles<const FUSED: bool>(&mut self, most: usize) {
        let rows = self.x.len();
        if rows == 1 && most == 8 {
            self.tile::<FUSED, 1, GROUP>(0, 0);
            return;
        }
        for panel in (0..GROUP).step_by(2) {
            let mut row = 0;
            while row < rows {
                row += match (rows - row).min(most) {
                    8.. => self.tile::<FUSED, 8, 2>(row, panel),
                    4.. => self.tile::<FUSED, 4, 2>(row, panel),
                    2.. => self.tile::<FUSED, 2, 2>(row, panel),
                    _ => self.tile::<FUSED, 1, 2>(row, panel),
                };
            }
        }
    }

    /// `ROWS` rows from `row` times `PANELS` panels from `panel`. Returns `ROWS`.
    #[inline(always)]
    fn tile<const FUSED: bool, const ROWS: usize, const PANELS: usize>(&mut self, row: usize, panel: usize) -> usize {
        let panels: [&[B]; PANELS] =
            std::array::from_fn(|p| &self.blocks[(panel + p) * self.per_panel..(panel + p + 1) * self.per_panel]);
        let x: [&[[f32; STEP]]; ROWS] = std::array::from_fn(|r| &self.x.steps(row + r)[..self.per_panel]);
        let mut sums = [[[0.0f32; LANES]; PANELS]; ROWS];
        for index in 0..self.per_panel {
            for step in 0..STEP / 2 {
                let mut weights = [[[0.0f32; LANES]; 2]; PANELS];
                for p in 0..PANELS {
                    weights[p] = panels[p][index].weights(step);
                }
                for r in 0..ROWS {
                    for half in 0..2 {
                        let factor = x[r][index][2 * step + half];
                        for p in 0..PANELS {
                            for lane in 0..LANES {
                                let sum = &mut sums[r][p][lane];
                                let weight = weights[p][half][lane];
                                *sum = if FUSED { weight.mul_add(factor, *sum) } else { weight * factor + *sum };
                            }
                        }
                    }
                }
            }
        }
        let columns = GROUP * LANES;
        for r in 0..ROWS {
            for p in 0..PANELS {
                self.out[(row + r) * columns + (panel + p) * LANES..][..LANES].copy_from_slice(&sums[r][p]);
            }
        }
        ROWS
    }
}
