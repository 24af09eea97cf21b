//! Products of tiles in shared memory, in plain arithmetic or by matrix units. These take tiles of 16 bits and leave their
//! product in f32 in shared memory, from where each unit adds its own values to what it has; four planes have a
//! quarter of a product each, so that the eight of a cube can have two at once.

use super::tile::{OWN, TEAM, TILE};
use cubecl::cmma::{self, MatrixIdent, MatrixLayout};
use cubecl::prelude::*;

/// Rows, columns and depth of what matrix units multiply at a time.
pub(super) const UNIT: usize = 16;
/// Units of a plane that has matrix units.
pub(super) const PLANE: usize = 32;
/// The first four planes of a cube.
pub(super) const FRONT: usize = 0;
/// The other four.
pub(super) const BACK: usize = 1;
/// Bytes that rows and quarters of a tile are aligned to, as matrix units want it.
const ALIGNMENT: usize = 32;

/// Values from row to row of a tile: one more than are there, so that a column lies in many banks; for matrix units 16
/// bytes more, or 32 of f32.
pub(super) const fn pitch(matrix: bool) -> usize {
    if matrix { TILE + 8 } else { TILE + 1 }
}

/// A tile of its own.
#[cube]
pub(super) fn tile<T: Float>(#[comptime] matrix: bool) -> Shared<[T]> {
    if comptime!(matrix) {
        Shared::<[T]>::new_aligned_slice(comptime!(TILE * pitch(true)), ALIGNMENT)
    } else {
        Shared::<[T]>::new_slice(comptime!(TILE * pitch(false)))
    }
}

/// Where matrix units leave a product; nothing in plain arithmetic.
#[cube]
pub(super) fn product(#[comptime] matrix: bool) -> Shared<[f32]> {
    Shared::<[f32]>::new_aligned_slice(comptime!(if matrix { TILE * pitch(true) } else { 1 }), ALIGNMENT)
}

/// `out[i] += a[row] · b[column i]`; by matrix units once [`add`] has been called behind a barrier. `half` of the planes is
/// at work.
#[cube]
pub(super) fn dot<T: Float>(
    a: &Shared<[T]>,
    b: &Shared<[T]>,
    out: &mut Array<f32>,
    product: &mut Shared<[f32]>,
    #[comptime] half: usize,
    #[comptime] matrix: bool,
) {
    if comptime!(matrix) {
        multiply::<T>(a, b, product, half, true);
    } else {
        let pitch = comptime!(pitch(false));
        let (row, first) = (UNIT_POS as usize / TEAM, UNIT_POS as usize % TEAM);
        for channel in 0..TILE {
            let x = f32::cast_from(a[row * pitch + channel]);
            #[unroll]
            for i in 0..OWN {
                out[i] += x * f32::cast_from(b[(first + i * TEAM) * pitch + channel]);
            }
        }
    }
}

/// `out[i] += Σ_j weights[row, j] b[j, column i]`, with `out` from place `offset`; by matrix units as [`dot`].
#[cube]
pub(super) fn mix<T: Float>(
    weights: &Shared<[T]>,
    b: &Shared<[T]>,
    out: &mut Array<f32>,
    product: &mut Shared<[f32]>,
    #[comptime] offset: usize,
    #[comptime] half: usize,
    #[comptime] matrix: bool,
) {
    if comptime!(matrix) {
        multiply::<T>(weights, b, product, half, false);
    } else {
        let pitch = comptime!(pitch(false));
        let (row, first) = (UNIT_POS as usize / TEAM, UNIT_POS as usize % TEAM);
        for j in 0..TILE {
            let weight = f32::cast_from(weights[row * pitch + j]);
            #[unroll]
            for i in 0..OWN {
                out[comptime!(offset + i)] += weight * f32::cast_from(b[j * pitch + first + i * TEAM]);
            }
        }
    }
}

/// Adds a unit's own values of a product of matrix units, which all have left there before the last barrier.
#[cube]
pub(super) fn add(product: &Shared<[f32]>, out: &mut Array<f32>, #[comptime] offset: usize, #[comptime] matrix: bool) {
    if comptime!(matrix) {
        let (row, first) = (UNIT_POS as usize / TEAM, UNIT_POS as usize % TEAM);
        #[unroll]
        for i in 0..OWN {
            out[comptime!(offset + i)] += product[row * comptime!(pitch(true)) + first + i * TEAM];
        }
    }
}

/// A barrier before [`add`], where there is anything to add.
#[cube]
pub(super) fn settle(#[comptime] matrix: bool) {
    if comptime!(matrix) {
        sync_cube();
    }
}

/// `product = a b`, or `a bᵀ`, by the planes of one half of the cube.
#[cube]
fn multiply<T: Float>(
    a: &Shared<[T]>,
    b: &Shared<[T]>,
    product: &mut Shared<[f32]>,
    #[comptime] half: usize,
    #[comptime] transposed: bool,
) {
    let pitch = comptime!(pitch(true));
    let plane = UNIT_POS as usize / PLANE;
    if plane / 4 == half {
        let (row, column) = (plane % 4 / 2 * UNIT, plane % 2 * UNIT);
        let sum = cmma::Matrix::<f32>::from_value(
            MatrixIdent::Accumulator,
            UNIT,
            UNIT,
            UNIT,
            MatrixLayout::Undefined,
            0.0f32,
        );
        #[unroll]
        for step in 0..comptime!(TILE / UNIT) {
            let depth = comptime!(step * UNIT);
            let left = cmma::Matrix::<T>::from_slice(
                MatrixIdent::A,
                UNIT,
                UNIT,
                UNIT,
                MatrixLayout::RowMajor,
                &a[row * pitch + depth..comptime!(TILE * pitch)],
                comptime!(pitch as u32),
            );
            let right = cmma::Matrix::<T>::from_slice(
                MatrixIdent::B,
                UNIT,
                UNIT,
                UNIT,
                comptime!(if transposed { MatrixLayout::ColMajor } else { MatrixLayout::RowMajor }),
                &b[if comptime!(transposed) { column * pitch + depth } else { depth * pitch + column }
                    ..comptime!(TILE * pitch)],
                comptime!(pitch as u32),
            );
            cmma::execute(&left, &right, &sum, &sum);
        }
        cmma::store(
            &mut product[row * pitch + column..comptime!(TILE * pitch)],
            &sum,
            comptime!(pitch as u32),
            MatrixLayout::RowMajor,
        );
    }
}
