//! Products of a few rows with a weight, which decoding is made of: such a product takes as long as reading the weight,
//! so fewer bytes per weight make it faster.
//!
//! Sixteen outputs make a panel. A panel is cut along the inputs into blocks of 32, in the order
//! in which the product reads them; a weight in the model's own layout is turned into blocks on the way to the registers.
//! Every output is summed over the inputs in their order, one
//! fused multiply-add each, whatever the number of rows and threads: a row's result never depends
//! on the rows beside it, nor on the form of a weight that loses nothing.

#![allow(clippy::needless_range_loop, reason = "loops over lanes become vector instructions")]

use super::rows::{Rows, STEP};
use crate::cpu::Values;
#[cfg(target_arch = "x86_64")]
use crate::cpu::transpose;
use half::bf16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;

/// Outputs of a panel.
const LANES: usize = 16;
/// Panels of one parallel task.
const GROUP: usize = 4;
/// Bytes of weights below which a task is not worth another thread.
const TASK_BYTES: usize = 64 << 10;

/// A weight `[outputs, inputs]` in one of its forms.
#[derive(Debug)]
pub struct Weight {
    outputs: usize,
    inputs: usize,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Row by row in f32, as the model has it and in its memory.
    Shared(Values),
    /// `[panels, inputs / 32]`
    Bf16(Vec<Bf16Block>),
    /// `[panels, inputs / 32]`
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

impl F32Block {
    const ZERO: Self = Self([[0.0; 2 * LANES]; STEP / 2]);
}

/// The weights of 32 inputs and 16 outputs.
trait Block: Sync {
    /// Weights of inputs `2 step` and `2 step + 1`.
    fn weights(&self, step: usize) -> [[f32; LANES]; 2];
}

/// Where the blocks of a group of panels come from.
trait Source {
    type Block: Block;
    /// Whether a row meets all panels of a group at once: not where each of them is sixteen streams of memory.
    const FOUR_AT_ONCE: bool;

    /// Block `index` of a panel of the group, which may be made in `room`.
    fn block<'a>(&'a self, panel: usize, index: usize, room: &'a mut F32Block) -> &'a Self::Block;
}

/// Blocks that are there.
struct Stored<'a, B> {
    blocks: &'a [B],
    per_panel: usize,
}

impl<B: Block> Source for Stored<'_, B> {
    type Block = B;
    const FOUR_AT_ONCE: bool = true;

    #[inline(always)]
    fn block<'a>(&'a self, panel: usize, index: usize, _: &'a mut F32Block) -> &'a B {
        &self.blocks[panel * self.per_panel + index]
    }
}

/// Rows of the weight, from the group's first output on: `[outputs, inputs]`.
#[derive(Clone, Copy)]
struct RowMajor<'a> {
    values: &'a [f32],
    outputs: usize,
    inputs: usize,
}

impl Source for RowMajor<'_> {
    type Block = F32Block;
    const FOUR_AT_ONCE: bool = false;

    #[inline(always)]
    fn block<'a>(&'a self, panel: usize, index: usize, room: &'a mut F32Block) -> &'a F32Block {
        let (first, column) = (panel * LANES, index * STEP);
        let length = STEP.min(self.inputs - column);
        let outputs = LANES.min(self.outputs.saturating_sub(first));
        #[cfg(target_arch = "x86_64")]
        if outputs == LANES && length == STEP && is_x86_feature_detected!("avx") {
            let from = &self.values[first * self.inputs + column..];
            assert!(from.len() >= (LANES - 1) * self.inputs + STEP);
            // SAFETY: the processor has AVX; `from` has 16 rows of 32 values, the block 32 rows of 16; both lengths are
            // multiples of 8.
            unsafe { transpose::blocks(from.as_ptr(), self.inputs, STEP, room.0.as_mut_ptr().cast(), LANES) };
            return room;
        }
        *room = F32Block::ZERO;
        for lane in 0..outputs {
            let row = &self.values[(first + lane) * self.inputs + column..][..length];
            for input in 0..length {
                room.0[input / 2][input % 2 * LANES + lane] = row[input];
            }
        }
        room
    }
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

impl Weight {
    /// A weight in the model's own memory, `[outputs, inputs]` row by row.
    pub fn shared(values: Values, inputs: usize) -> Self {
        Self { outputs: values.len() / inputs, inputs, form: Form::Shared(values) }
    }

    /// Rounded to bf16: half the memory traffic of f32.
    pub fn bf16(&self) -> Self {
        let bits = |tile: &Tile, lane: usize, input: usize| u32::from(bf16::from_f32(tile[lane][input]).to_bits());
        let block = |tile: &Tile| {
            Bf16Block(std::array::from_fn(|step| {
                std::array::from_fn(|lane| bits(tile, lane, 2 * step) | bits(tile, lane, 2 * step + 1) << 16)
            }))
        };
        Self { form: Form::Bf16(self.blocks(block)), ..*self }
    }

    /// As [`bf16`](Self::bf16) where that changes no value.
    pub fn exact_bf16(&self) -> Option<Self> {
        let Form::Shared(values) = &self.form else { return None };
        values.par_iter().all(|weight| weight.to_bits() & 0xffff == 0).then(|| self.bf16())
    }

    /// Rounded to 8-bit integers with a scale for every 32 inputs of an output: 9/32 of the memory traffic of f32.
    pub fn q8(&self) -> Self {
        Self { form: Form::Q8(self.blocks(quantised)), ..*self }
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The weights of one output, `[inputs]`.
    pub fn row(&self, output: usize, row: &mut [f32]) {
        match &self.form {
            Form::Shared(values) => row.copy_from_slice(&values[output * self.inputs..][..self.inputs]),
            Form::Bf16(blocks) => self.row_of(blocks, output, row),
            Form::Q8(blocks) => self.row_of(blocks, output, row),
        }
    }

    fn row_of<B: Block>(&self, blocks: &[B], output: usize, row: &mut [f32]) {
        let per_panel = self.per_panel();
        for (input, value) in row[..self.inputs].iter_mut().enumerate() {
            let block = &blocks[output / LANES * per_panel + input / STEP];
            *value = block.weights(input % STEP / 2)[input % 2][output % LANES];
        }
    }

    /// Memory of the weights, shared or not.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Form::Shared(values) => size_of_val::<[f32]>(values),
            Form::Bf16(blocks) => size_of_val(blocks.as_slice()),
            Form::Q8(blocks) => size_of_val(blocks.as_slice()),
        }
    }

    fn per_panel(&self) -> usize {
        self.inputs.div_ceil(STEP)
    }

    /// Cuts the weight into blocks, panel by panel; what is outside the matrix is 0.
    fn blocks<B: Send>(&self, block: impl Fn(&Tile) -> B + Sync) -> Vec<B> {
        let per_panel = self.per_panel();
        let panels = self.outputs.div_ceil(LANES * GROUP) * GROUP;
        let at = |index: usize| block(&self.tile(index / per_panel * LANES, index % per_panel * STEP));
        (0..panels * per_panel).into_par_iter().map(at).collect()
    }

    /// 16 outputs from `first` on of 32 inputs from `column` on.
    fn tile(&self, first: usize, column: usize) -> Tile {
        let mut tile = [[0.0; STEP]; LANES];
        let at = first / LANES * self.per_panel() + column / STEP;
        match &self.form {
            Form::Shared(values) => {
                for (output, row) in (first..self.outputs).zip(&mut tile) {
                    let values = &values[output * self.inputs..][column..self.inputs.min(column + STEP)];
                    row[..values.len()].copy_from_slice(values);
                }
            }
            Form::Bf16(blocks) => fill(&mut tile, &blocks[at]),
            Form::Q8(blocks) => fill(&mut tile, &blocks[at]),
        }
        tile
    }

    /// The product with the outputs of a group, `[rows, GROUP · LANES]`.
    fn group(&self, group: usize, most: usize, x: &Rows, out: &mut [f32]) {
        let per_panel = self.per_panel();
        let size = GROUP * per_panel;
        match &self.form {
            Form::Shared(values) => {
                let first = group * GROUP * LANES;
                let (values, outputs) = (&values[first * self.inputs..], self.outputs - first);
                let source = RowMajor { values, outputs, inputs: self.inputs };
                if x.len() <= most {
                    return Arch::new().dispatch(Task { source, per_panel, x, out });
                }
                // Rows of several tiles read the blocks several times.
                SCRATCH.with_borrow_mut(|blocks| {
                    blocks.resize(blocks.len().max(size), F32Block::ZERO);
                    for (at, room) in blocks[..size].iter_mut().enumerate() {
                        source.block(at / per_panel, at % per_panel, room);
                    }
                    let source = Stored { blocks: &blocks[..size], per_panel };
                    Arch::new().dispatch(Task { source, per_panel, x, out });
                });
            }
            Form::Bf16(blocks) => {
                let source = Stored { blocks: &blocks[group * size..][..size], per_panel };
                Arch::new().dispatch(Task { source, per_panel, x, out });
            }
            Form::Q8(blocks) => {
                let source = Stored { blocks: &blocks[group * size..][..size], per_panel };
                Arch::new().dispatch(Task { source, per_panel, x, out });
            }
        }
    }
}

thread_local! {
    /// Blocks of a group, kept from one product to the next.
    static SCRATCH: RefCell<Vec<F32Block>> = const { RefCell::new(vec![]) };
}

/// 32 inputs of 16 outputs.
type Tile = [[f32; STEP]; LANES];

fn fill(tile: &mut Tile, block: &impl Block) {
    for input in 0..STEP {
        let weights = block.weights(input / 2)[input % 2];
        tile.iter_mut().zip(weights).for_each(|(row, weight)| row[input] = weight);
    }
}

fn quantised(tile: &Tile) -> Q8Block {
    let scales = std::array::from_fn(|lane| tile[lane].iter().fold(0.0f32, |top, w| top.max(w.abs())) / 127.0);
    let value = |lane: usize, input: usize| match scales[lane] {
        0.0 => 0,
        scale => (tile[lane][input] / scale).round() as i8,
    };
    let values = std::array::from_fn(|step| std::array::from_fn(|i| value(i % LANES, 2 * step + i / LANES)));
    Q8Block { scales, values }
}

/// `x Wᵀ` for weights of one number of inputs, their outputs side by side: `[rows, inputs]` → `[rows, Σ outputs]`.
pub fn product(weights: &[Weight], x: &Rows) -> Rows {
    assert!(weights.iter().all(|weight| weight.inputs == x.width()));
    let (rows, columns) = (x.len(), GROUP * LANES);
    let groups = |weight: &'_ Weight| 0..weight.outputs.div_ceil(columns);
    let tasks: Vec<_> = weights.iter().flat_map(|weight| groups(weight).map(move |group| (weight, group))).collect();
    let bytes = weights.iter().map(|weight| weight.bytes() / groups(weight).len().max(1)).max().unwrap_or(0);
    let fewest = TASK_BYTES.div_ceil(bytes.max(1) * rows.div_ceil(8).max(1));
    let most = Arch::new().dispatch(MostRows);
    let mut outputs = vec![0.0; tasks.len() * rows * columns];
    let parts = outputs.par_chunks_mut((rows * columns).max(1)).zip(&tasks);
    parts.with_min_len(fewest).for_each(|(out, (weight, group))| weight.group(*group, most, x, out));
    let mut y = Rows::new(rows, weights.iter().map(Weight::outputs).sum());
    for (row, mut to) in y.rows_mut().enumerate() {
        for ((weight, group), from) in tasks.iter().zip(outputs.chunks_exact(rows * columns)) {
            let (part, rest) = to.split_at_mut(columns.min(weight.outputs - group * columns));
            part.copy_from_slice(&from[row * columns..][..part.len()]);
            to = rest;
        }
    }
    y
}

/// Rows of the largest tile: as many sums at once as the registers hold, 32 of 16 lanes, 16 of 8 or 32 of 4.
struct MostRows;

impl WithSimd for MostRows {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        if S::F32_LANES >= 16 { 8 } else { 2 }
    }
}

/// The product with one group of panels.
struct Task<'a, S> {
    source: S,
    per_panel: usize,
    x: &'a Rows,
    /// `[rows, GROUP · LANES]`
    out: &'a mut [f32],
}

impl<S: Source> WithSimd for Task<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(mut self, simd: V) {
        let most = MostRows.with_simd(simd);
        if V::F32_LANES >= 4 { self.tiles::<true>(most) } else { self.tiles::<false>(most) }
    }
}

impl<S: Source> Task<'_, S> {
    #[inline(always)]
    fn tiles<const FUSED: bool>(&mut self, most: usize) {
        let rows = self.x.len();
        if rows == 1 && most == 8 && S::FOUR_AT_ONCE {
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
        let x: [&[[f32; STEP]]; ROWS] = std::array::from_fn(|r| &self.x.steps(row + r)[..self.per_panel]);
        let mut sums = [[[0.0f32; LANES]; PANELS]; ROWS];
        let mut rooms = [const { F32Block::ZERO }; PANELS];
        for index in 0..self.per_panel {
            let mut rooms = rooms.iter_mut();
            let blocks: [&S::Block; PANELS] = std::array::from_fn(|p| {
                let room = rooms.next().expect("a room for each panel");
                self.source.block(panel + p, index, room)
            });
            for step in 0..STEP / 2 {
                let mut weights = [[[0.0f32; LANES]; 2]; PANELS];
                for p in 0..PANELS {
                    weights[p] = blocks[p].weights(step);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    fn shared(values: &[f32], inputs: usize) -> Weight {
        Weight::shared(Values::new(values.to_vec(), [values.len()]), inputs)
    }

    fn rows(count: usize, width: usize) -> Rows {
        let mut rows = Rows::new(count, width);
        rows.rows_mut().zip(numbers(count * width, 9).chunks(width)).for_each(|(row, from)| row.copy_from_slice(from));
        rows
    }

    fn all(y: &Rows) -> Vec<f32> {
        (0..y.len()).flat_map(|row| y.row(row).to_vec()).collect()
    }

    const SHAPES: [(usize, usize); 6] = [(1, 1), (16, 32), (40, 70), (64, 96), (200, 33), (130, 576)];

    #[test]
    fn products_follow_f64_for_any_number_of_rows() {
        for (outputs, inputs) in SHAPES {
            let weights = numbers(outputs * inputs, 1);
            let weight = [shared(&weights, inputs)];
            for count in [1, 2, 3, 4, 7, 8, 9, 20] {
                let x = rows(count, inputs);
                let y = product(&weight, &x);
                for row in 0..count {
                    for (output, found) in y.row(row).iter().enumerate() {
                        let terms = x.row(row).iter().zip(&weights[output * inputs..]);
                        let expected: f64 = terms.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                        assert!((f64::from(*found) - expected).abs() < 2e-5, "{outputs} {inputs} {count}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_beside_any_others_and_on_any_threads() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        for (outputs, inputs) in SHAPES {
            let weight = [shared(&numbers(outputs * inputs, 2), inputs), shared(&numbers(24 * inputs, 3), inputs)];
            let x = rows(20, inputs);
            let together = product(&weight, &x);
            assert!([1, 3].into_iter().all(|n| pool(n).install(|| all(&product(&weight, &x))) == all(&together)));
            for count in [1, 2, 5, 8] {
                let mut some = Rows::new(count, inputs);
                some.rows_mut().enumerate().for_each(|(row, to)| to.copy_from_slice(x.row(row)));
                let y = product(&weight, &some);
                assert!((0..count).all(|row| y.row(row) == together.row(row)), "{outputs} {inputs} {count}");
            }
            let alone = weight.each_ref().map(|weight| product(std::slice::from_ref(weight), &x));
            for row in 0..x.len() {
                assert_eq!([alone[0].row(row), alone[1].row(row)].concat(), together.row(row));
            }
        }
    }

    #[test]
    fn sixteen_bits_that_lose_nothing_change_no_bit() {
        for (outputs, inputs) in SHAPES {
            let exact: Vec<f32> = numbers(outputs * inputs, 4).iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
            let weight = shared(&exact, inputs);
            let smaller = weight.exact_bf16().expect("every value has 16 bits");
            assert!(shared(&[exact.as_slice(), &vec![0.1; inputs]].concat(), inputs).exact_bf16().is_none());
            for count in [1, 3, 8, 9] {
                let x = rows(count, inputs);
                let of = |weight: &Weight| all(&product(std::slice::from_ref(weight), &x));
                assert_eq!(of(&weight), of(&smaller), "{outputs} {inputs} {count}");
            }
            let (mut a, mut b) = (vec![0.0; inputs], vec![0.0; inputs]);
            for output in 0..outputs {
                weight.row(output, &mut a);
                smaller.row(output, &mut b);
                assert_eq!(a, b);
                assert_eq!(a, exact[output * inputs..][..inputs]);
            }
        }
    }

    #[test]
    fn eight_bits_are_within_half_a_step() {
        for (outputs, inputs) in SHAPES {
            let weights = numbers(outputs * inputs, 5);
            let full = shared(&weights, inputs);
            let (small, of_half) = (full.q8(), full.bf16().q8());
            let mut row = vec![0.0; inputs];
            for (output, expected) in weights.chunks(inputs).enumerate() {
                for (weight, steps) in [(&small, 0.5), (&of_half, 1.0)] {
                    weight.row(output, &mut row);
                    for (found, expected) in row.chunks(STEP).zip(expected.chunks(STEP)) {
                        let scale = expected.iter().fold(0.0f32, |top, w| top.max(w.abs())) / 127.0;
                        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1.01 * steps * scale;
                        assert!(found.iter().zip(expected).all(near), "{outputs} {inputs}");
                    }
                }
            }
        }
    }
}
