//! Products of a few rows with a weight, which decoding is made of: such a product takes as long as reading the weight,
//! so fewer bytes per weight make it faster.
//!
//! Sixteen outputs make a panel. A panel is cut along the inputs into blocks of 32, in the order in which the product reads
//! them. A weight in the model's own layout is turned into blocks on the way to the registers, which costs up to as much
//! again; a copy in blocks does not. Every output is summed over the inputs in their order, one fused multiply-add each,
//! whatever the number of rows and threads: a row's result never depends on the rows beside it, nor on the form of a weight
//! that loses nothing.

#![allow(clippy::needless_range_loop, reason = "loops over lanes become vector instructions")]

use super::block::{Bf16Block, Block, F32Block, LANES, Q8Block, Tile};
use super::q8::{self, Codes};
use super::rows::{Rows, STEP};
use crate::cpu::Values;
#[cfg(target_arch = "x86_64")]
use crate::cpu::matmul::transpose;
use crate::cpu::vector::widest;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;

/// Panels of one parallel task.
pub(super) const GROUP: usize = 4;
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
    F32(Vec<F32Block>),
    /// `[panels, inputs / 32]`
    Bf16(Vec<Bf16Block>),
    /// `[panels, inputs / 32]`
    Q8(Vec<Q8Block>),
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

impl Weight {
    /// A weight in the model's own memory, `[outputs, inputs]` row by row.
    pub fn shared(values: Values, inputs: usize) -> Self {
        Self { outputs: values.len() / inputs, inputs, form: Form::Shared(values) }
    }

    /// Rounded to bf16: half the memory traffic of f32.
    pub fn bf16(&self) -> Self {
        Self { form: Form::Bf16(self.blocks()), ..*self }
    }

    /// A copy of a shared weight whose products have the same bits and take less time: in bf16 where that changes no value,
    /// else in f32. `None` for a weight that is such a copy.
    pub fn copied(&self) -> Option<Self> {
        let Form::Shared(values) = &self.form else { return None };
        match values.par_iter().all(|weight| weight.to_bits() & 0xffff == 0) {
            true => Some(self.bf16()),
            false => Some(Self { form: Form::F32(self.blocks()), ..*self }),
        }
    }

    /// Rounded to 8-bit integers with a scale for every 32 inputs of an output: 9/32 of the memory traffic of f32.
    pub fn q8(&self) -> Self {
        Self { form: Form::Q8(self.blocks()), ..*self }
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The weights of one output, `[inputs]`.
    pub fn row(&self, output: usize, row: &mut [f32]) {
        match &self.form {
            Form::Shared(values) => row.copy_from_slice(&values[output * self.inputs..][..self.inputs]),
            Form::F32(blocks) => self.row_of(blocks, output, row),
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
            Form::F32(blocks) => size_of_val(blocks.as_slice()),
            Form::Bf16(blocks) => size_of_val(blocks.as_slice()),
            Form::Q8(blocks) => size_of_val(blocks.as_slice()),
        }
    }

    fn per_panel(&self) -> usize {
        self.inputs.div_ceil(STEP)
    }

    /// Cuts the weight into blocks, panel by panel; what is outside the matrix is 0.
    fn blocks<B: Block>(&self) -> Vec<B> {
        let per_panel = self.per_panel();
        let panels = self.outputs.div_ceil(LANES * GROUP) * GROUP;
        let at = |index: usize| {
            let tile = self.tile(index / per_panel * LANES, index % per_panel * STEP);
            widest!(B::of(&tile))
        };
        (0..panels * per_panel).into_par_iter().map(at).collect()
    }

    /// 16 outputs from `first` on of 32 inputs from `column` on.
    fn tile(&self, first: usize, column: usize) -> Tile {
        let at = first / LANES * self.per_panel() + column / STEP;
        match &self.form {
            Form::Shared(values) => {
                let mut tile = [[0.0; STEP]; LANES];
                for (output, row) in (first..self.outputs).zip(&mut tile) {
                    let values = &values[output * self.inputs..][column..self.inputs.min(column + STEP)];
                    row[..values.len()].copy_from_slice(values);
                }
                tile
            }
            Form::F32(blocks) => blocks[at].tile(),
            Form::Bf16(blocks) => blocks[at].tile(),
            Form::Q8(blocks) => blocks[at].tile(),
        }
    }

    /// The product with the outputs of a group, `[rows, GROUP · LANES]`.
    fn group(&self, group: usize, most: usize, (x, codes): (&Rows, &Codes), out: &mut [f32]) {
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
                    self.group_of(&blocks[..size], most, x, out);
                });
            }
            Form::F32(blocks) => self.group_of(&blocks[group * size..][..size], most, x, out),
            Form::Bf16(blocks) => self.group_of(&blocks[group * size..][..size], most, x, out),
            Form::Q8(blocks) => q8::product(&blocks[group * size..][..size], codes, out),
        }
    }

    /// The product with blocks that are there; for rows of several tiles they are decoded once.
    fn group_of<B: Block>(&self, blocks: &[B], most: usize, x: &Rows, out: &mut [f32]) {
        let per_panel = self.per_panel();
        if !B::CODED || x.len() <= most {
            return Arch::new().dispatch(Task { source: Stored { blocks, per_panel }, per_panel, x, out });
        }
        SCRATCH.with_borrow_mut(|decoded| {
            decoded.resize(decoded.len().max(blocks.len()), F32Block::ZERO);
            widest!(blocks.iter().zip(decoded.iter_mut()).for_each(
                #[inline(always)]
                |(block, room)| block.decode(room)
            ));
            self.group_of(&decoded[..blocks.len()], most, x, out);
        });
    }
}

thread_local! {
    /// Blocks of a group, kept from one product to the next.
    static SCRATCH: RefCell<Vec<F32Block>> = const { RefCell::new(vec![]) };
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
    let coded = weights.iter().any(|weight| matches!(weight.form, Form::Q8(_)));
    let codes = if coded { Codes::of(x) } else { Codes::default() };
    let mut outputs = vec![0.0; tasks.len() * rows * columns];
    let parts = outputs.par_chunks_mut((rows * columns).max(1)).zip(&tasks);
    parts.with_min_len(fewest).for_each(|(out, (weight, group))| weight.group(*group, most, (x, &codes), out));
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
    use crate::check::numbers;

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
    fn copies_change_no_bit() {
        let of_16_bits: fn(&f32) -> f32 = |x| half::bf16::from_f32(*x).to_f32();
        let cases = SHAPES.into_iter().flat_map(|shape| [(shape, of_16_bits, 2), (shape, |x| *x, 4)]);
        for ((outputs, inputs), value, width) in cases {
            let exact: Vec<f32> = numbers(outputs * inputs, 4).iter().map(value).collect();
            let weight = shared(&exact, inputs);
            let copy = weight.copied().expect("it is shared");
            let [panels, per_panel] = [outputs.div_ceil(LANES * GROUP) * GROUP, inputs.div_ceil(STEP)];
            assert_eq!(copy.bytes(), width * panels * LANES * per_panel * STEP);
            assert!(copy.copied().is_none());
            for count in [1, 3, 8, 9] {
                let x = rows(count, inputs);
                let of = |weight: &Weight| all(&product(std::slice::from_ref(weight), &x));
                assert_eq!(of(&weight), of(&copy), "{outputs} {inputs} {count}");
            }
            let (mut a, mut b) = (vec![0.0; inputs], vec![0.0; inputs]);
            for output in 0..outputs {
                weight.row(output, &mut a);
                copy.row(output, &mut b);
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
