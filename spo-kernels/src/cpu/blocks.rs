//! See [`crate::blocks`]: each thread decodes a tile of the weight and multiplies with it.

use super::matmul::{DEPTH, Out, multiply};
use super::{Matrix, Values, tensor};
use crate::Form;
use crate::blocks::{BlockLinear, Blocks};
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Rows of the weight that a forward product decodes at a time.
const ROWS: usize = 128;
/// Most columns that a backward product decodes at a time, [`DEPTH`] rows high.
const COLUMNS: usize = 512;

thread_local! {
    /// A decoded tile, kept from one product to the next.
    static TILE: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

impl Form<Flex, 1> for BlockLinear {
    fn kept(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn value(&self, [x]: [&FlexTensor; 1]) -> FlexTensor {
        let ([out, inputs], x) = (self.weight.dims(), Values::from(x.clone()));
        tensor(product(Matrix::new(&x, self.tokens, inputs), self.weight.as_ref()), [self.tokens, out])
    }

    fn gradients(&self, _: [Option<FlexTensor>; 1], d_y: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let ([out, inputs], d_y) = (self.weight.dims(), Values::from(d_y));
        let d_x = product_transposed(Matrix::new(&d_y, self.tokens, out), self.weight.as_ref());
        [Some(tensor(d_x, [self.tokens, inputs]))]
    }
}

/// `x Wᵀ`, row after row.
fn product(x: Matrix, weight: &dyn Blocks) -> Vec<f32> {
    let [out, inputs] = weight.dims();
    assert_eq!(x.columns, inputs, "inner dimensions");
    let mut y = vec![0.0; x.rows * out];
    let to = Out { start: y.as_mut_ptr(), stride: out };
    let size = ROWS.min(out.div_ceil(rayon::current_num_threads()).next_multiple_of(32));
    (0..out.div_ceil(size.max(1))).into_par_iter().for_each(|part| {
        let rows = part * size..out.min((part + 1) * size);
        with_tile(weight, rows.clone(), 0..inputs, |tile| {
            let tile = Matrix::new(tile, rows.len(), inputs).transposed();
            // SAFETY: the parts are columns of `y` that no other part has.
            unsafe { multiply(x, tile, to.at(0, rows.start), false, false) };
        });
    });
    y
}

/// `y W`, row after row.
fn product_transposed(y: Matrix, weight: &dyn Blocks) -> Vec<f32> {
    let [out, inputs] = weight.dims();
    assert_eq!(y.columns, out, "inner dimensions");
    let mut x = vec![0.0; y.rows * inputs];
    let to = Out { start: x.as_mut_ptr(), stride: inputs };
    let share = inputs.div_ceil(rayon::current_num_threads());
    let size = share.min(COLUMNS).next_multiple_of(weight.unit().max(32));
    (0..inputs.div_ceil(size.max(1))).into_par_iter().for_each(|part| {
        let columns = part * size..inputs.min((part + 1) * size);
        // As deep as a product packs at a time: the sums are those of a whole one.
        for depth in (0..out).step_by(DEPTH) {
            let rows = depth..out.min(depth + DEPTH);
            with_tile(weight, rows.clone(), columns.clone(), |tile| {
                let tile = Matrix::new(tile, rows.len(), columns.len());
                // SAFETY: the parts are columns of `x` that no other part has.
                unsafe { multiply(y.columns(rows.clone()), tile, to.at(0, columns.start), depth > 0, false) };
            });
        }
    });
    x
}

/// Decodes a tile on this thread.
fn with_tile(weight: &dyn Blocks, rows: Range<usize>, columns: Range<usize>, use_it: impl FnOnce(&[f32])) {
    TILE.with_borrow_mut(|tile| {
        let (width, length) = (columns.len(), rows.len() * columns.len());
        if tile.len() < length {
            tile.resize(length, 0.0);
        }
        for (row, values) in rows.zip(tile.chunks_exact_mut(width.max(1))) {
            weight.decode(row, columns.clone(), values);
        }
        use_it(&tile[..length]);
    });
}
