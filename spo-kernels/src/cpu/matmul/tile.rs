//! A tile of the output, summed in registers.

use super::Out;
use pulp::Simd;

/// A tile of up to 12 rows.
///
/// # Safety
/// As [`tile`], with `rows` for `ROWS`, 1 to 12.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub unsafe fn tiles<S: Simd, const VECTORS: usize, const DIRECT: bool>(
    simd: S,
    rows: usize,
    length: usize,
    a: *const f32,
    strides: (usize, usize),
    b: (*const f32, usize),
    out: Out,
    add: bool,
) {
    macro_rules! of {
        ($($rows:literal)*) => {
            match rows {
                // SAFETY: as the caller says.
                $($rows => unsafe { tile::<S, $rows, VECTORS, DIRECT>(simd, length, a, strides, b, out, add) },)*
                _ => unreachable!("a tile has 1 to 12 rows"),
            }
        };
    }
    of!(1 2 3 4 5 6 7 8 9 10 11 12)
}

/// `ROWS` rows by `VECTORS` vectors of the output, in registers.
///
/// # Safety
/// `a` has `ROWS` rows and `length` columns at these strides, `b` `length` rows of `VECTORS` vectors, `out` `ROWS` rows
/// of as many.
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize, const DIRECT: bool>(
    simd: S,
    length: usize,
    a: *const f32,
    (row_stride, column_stride): (usize, usize),
    (b, b_stride): (*const f32, usize),
    out: Out,
    add: bool,
) {
    let lanes = S::F32_LANES;
    // A stride that the compiler knows leaves it more registers.
    let b_stride = if DIRECT { b_stride } else { VECTORS * lanes };
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    // SAFETY: as the caller says; vectors are read and written without alignment.
    unsafe {
        let rows: [*const f32; ROWS] = std::array::from_fn(|row| a.add(row * row_stride));
        for index in 0..length {
            let b = b.add(index * b_stride);
            let mut columns = [simd.splat_f32s(0.0); VECTORS];
            for (vector, column) in columns.iter_mut().enumerate() {
                *column = b.add(vector * lanes).cast::<S::f32s>().read_unaligned();
            }
            for row in 0..ROWS {
                let x = simd.splat_f32s(*rows[row].add(index * column_stride));
                for vector in 0..VECTORS {
                    sums[row][vector] = simd.mul_add_e_f32s(x, columns[vector], sums[row][vector]);
                }
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                let to = out.start.add(row * out.stride + vector * lanes).cast::<S::f32s>();
                to.write_unaligned(if add { simd.add_f32s(to.read_unaligned(), sum) } else { sum });
            }
        }
    }
}
