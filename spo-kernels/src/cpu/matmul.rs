//! Matrix products in f32.
//!
//! A product is split into tasks of whole columns or whole rows. A task packs 256 rows of a panel of `b` at a time and
//! runs over `a` in tiles that fit the registers: 12 rows by two vectors where there are 32 registers, else 6. Each
//! number is summed over `k` in one order, so results depend neither on the split nor on the number of threads.

use super::Matrix;
#[cfg(target_arch = "x86_64")]
use super::transpose;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;

/// `a b`, row after row.
pub fn product(a: Matrix, b: Matrix) -> Vec<f32> {
    let length = a.rows * b.columns;
    if a.columns == 0 {
        return vec![0.0; length];
    }
    let mut out = Vec::with_capacity(length);
    // SAFETY: the buffer holds `rows · columns` values, all of which are written before any is read.
    unsafe {
        multiply(a, b, Out { start: out.as_mut_ptr(), stride: b.columns }, false, true);
        out.set_len(length);
    }
    out
}

/// `out += a b`, row after row.
pub fn add_product(a: Matrix, b: Matrix, out: &mut [f32]) {
    assert_eq!(out.len(), a.rows * b.columns);
    // SAFETY: `out` holds `rows · columns` values.
    unsafe { multiply(a, b, Out { start: out.as_mut_ptr(), stride: b.columns }, true, true) };
}

/// `out = a b`, or `out += …` if `add`, on this thread; `stride` values from row to row of `out`.
pub fn product_into(a: Matrix, b: Matrix, out: &mut [f32], stride: usize, add: bool) {
    assert!(b.columns <= stride || a.rows <= 1, "rows overlap");
    assert!(a.rows == 0 || out.len() >= (a.rows - 1) * stride + b.columns, "the slice is too short");
    if a.columns == 0 && !add {
        return out.chunks_mut(stride).take(a.rows).for_each(|row| row[..b.columns].fill(0.0));
    }
    // SAFETY: `out` was just checked to hold all rows.
    unsafe { multiply(a, b, Out { start: out.as_mut_ptr(), stride }, add, false) };
}

/// Products with fewer multiplications stay on one thread.
const PARALLEL: usize = 1 << 20;
/// Rows of `b` packed at a time.
pub(super) const DEPTH: usize = 256;
/// Most columns of `b` packed at a time.
const PACKED_COLUMNS: usize = 512;

thread_local! {
    /// Packed panels of `b`, kept from one product to the next.
    static PANELS: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
}

// SAFETY: an `Out` is only a place; whoever writes there says why nobody else does.
unsafe impl Send for Out {}
// SAFETY: as above; nothing is read or written through a shared `Out`.
unsafe impl Sync for Out {}

impl Out {
    /// # Safety
    /// The value at `row` and `column` is inside the buffer.
    pub(super) unsafe fn at(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller stays inside the buffer.
        Self { start: unsafe { self.start.add(row * self.stride + column) }, stride: self.stride }
    }
}

/// Splits a product among the threads.
///
/// # Safety
/// `out` points to `a.rows` rows of `b.columns` values that nobody else uses, written before if `add`.
pub(super) unsafe fn multiply(a: Matrix, b: Matrix, out: Out, add: bool, parallel: bool) {
    assert_eq!(a.columns, b.rows, "inner dimensions");
    let (rows, columns) = (a.rows, b.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    let arch = Arch::new();
    let small = rows * columns * a.columns < PARALLEL;
    let tasks = if parallel && !small { 2 * rayon::current_num_threads() } else { 1 };
    if tasks == 1 {
        return Task::run(arch, a, b, out, add);
    }
    // The packed operand is best not packed twice; where `a` is transposed that is `a`.
    let by_rows = a.column_stride != 1 && rows >= 64 * tasks;
    let (length, unit) = if by_rows { (rows, 12) } else { (columns, 32) };
    let size = length.div_ceil(tasks).next_multiple_of(unit);
    let across = length.div_ceil(size);
    // Few columns leave threads without work: then rows are split as well.
    let down = if by_rows { 1 } else { (tasks / across).clamp(1, rows.div_ceil(48)) };
    let height = rows.div_ceil(down).next_multiple_of(12);
    let tasks: Vec<_> = (0..rows.div_ceil(height)).flat_map(|y| (0..across).map(move |x| (y, x))).collect();
    tasks.into_par_iter().for_each(|(y, x)| {
        let part = size * x..(size * (x + 1)).min(length);
        // SAFETY: the tasks' parts of `out` are disjoint and inside it.
        unsafe {
            if by_rows {
                let (a, out) = (a.rows(part.clone()), out.at(part.start, 0));
                Task::run(arch, a, b, out, add);
            } else {
                let down = height * y..(height * (y + 1)).min(rows);
                let (a, b) = (a.rows(down.clone()), b.columns(part.clone()));
                Task::run(arch, a, b, out.at(down.start, part.start), add);
            }
        }
    });
}

/// One thread's part of a product.
struct Task<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    out: Out,
    add: bool,
    /// Room for [`DEPTH`] rows of packed columns.
    panels: &'a mut [f32],
}

impl<'a> Task<'a> {
    /// Runs on this thread. The scratch is lent here: the vector code must see no closure between `dispatch` and the
    /// loops, for it would be compiled for the oldest processor.
    fn run(arch: Arch, a: Matrix<'a>, b: Matrix<'a>, out: Out, add: bool) {
        PANELS.with_borrow_mut(|panels| {
            let room = DEPTH * PACKED_COLUMNS.min(b.columns.next_multiple_of(32));
            if panels.len() < room {
                panels.resize(room, 0.0);
            }
            arch.dispatch(Task { a, b, out, add, panels });
        });
    }
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // One vector of columns is enough for the narrow products of low-rank adapters.
        if self.b.columns <= S::F32_LANES { self.panels::<S, 1>(simd) } else { self.panels::<S, 2>(simd) }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn panels<S: Simd, const VECTORS: usize>(self, simd: S) {
        let Self { a, b, out, add, panels } = self;
        let width = VECTORS * S::F32_LANES;
        let tile = if S::REGISTER_COUNT >= 32 { 12 } else { 6 };
        let packed_columns = PACKED_COLUMNS.min(b.columns.next_multiple_of(width));
        let mut packed_a = [0.0; DEPTH * 12];
        // 12 rows of two vectors of 16: a tile at the right edge.
        let mut edge = [0.0; 12 * 32];
        for column in (0..b.columns).step_by(packed_columns) {
            let columns = packed_columns.min(b.columns - column);
            for depth in (0..a.columns).step_by(DEPTH) {
                let length = DEPTH.min(a.columns - depth);
                for (index, panel) in panels.chunks_mut(DEPTH * width).take(columns.div_ceil(width)).enumerate() {
                    let from = column + index * width;
                    pack(b, depth, length, from, width.min(b.columns - from), width, panel);
                }
                let add = add || depth > 0;
                for row in (0..a.rows).step_by(tile) {
                    let rows = tile.min(a.rows - row);
                    let start = &a.values[row * a.row_stride + depth * a.column_stride..];
                    let (mut from, mut strides) = (start.as_ptr(), (a.row_stride, a.column_stride));
                    if a.column_stride != 1 {
                        pack_rows(start, a, rows, length, &mut packed_a);
                        (from, strides) = (packed_a.as_ptr(), (1, 12));
                    }
                    for (index, panel) in panels.chunks(DEPTH * width).take(columns.div_ceil(width)).enumerate() {
                        let panel_columns = width.min(columns - index * width);
                        // SAFETY: the tile is inside `out`; `from` has `rows` rows of `length` values at
                        // its strides, the panel `length` rows of `width`.
                        unsafe {
                            let to = out.at(row, column + index * width);
                            if panel_columns == width {
                                tiles::<S, VECTORS>(simd, rows, length, from, strides, panel.as_ptr(), to, add);
                                continue;
                            }
                            let inside = Out { start: edge.as_mut_ptr(), stride: width };
                            tiles::<S, VECTORS>(simd, rows, length, from, strides, panel.as_ptr(), inside, false);
                            for row in 0..rows {
                                for column in 0..panel_columns {
                                    let (value, to) = (edge[row * width + column], to.at(row, column).start);
                                    *to = if add { *to + value } else { value };
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Rows `depth..` of the columns `column..` of `b` as `[length, width]`, zero beyond `columns`.
#[inline(always)]
fn pack(b: Matrix, depth: usize, length: usize, column: usize, columns: usize, width: usize, panel: &mut [f32]) {
    const BLOCK: usize = 16;
    if b.column_stride == 1 {
        for (row, to) in panel.chunks_exact_mut(width).take(length).enumerate() {
            let from = &b.values[(depth + row) * b.row_stride + column..];
            // A whole row has a length that the compiler knows.
            if columns == width {
                to.copy_from_slice(&from[..width]);
                continue;
            }
            to[..columns].copy_from_slice(&from[..columns]);
            to[columns..].fill(0.0);
        }
        return;
    }
    if columns < width {
        panel.fill(0.0);
    }
    // The vectors may be shorter than AVX's where the processor has AVX and not all that goes with longer ones.
    #[cfg(target_arch = "x86_64")]
    if b.row_stride == 1
        && columns == width
        && [width, length].iter().all(|size| size.is_multiple_of(8))
        && is_x86_feature_detected!("avx")
    {
        let from = &b.values[column * b.column_stride + depth..];
        assert!(from.len() >= (columns - 1) * b.column_stride + length && panel.len() >= length * width);
        // SAFETY: the processor has AVX; `from` has `columns` rows of `length` values, the panel `length` rows of `width`.
        unsafe { transpose::blocks(from.as_ptr(), b.column_stride, length, panel.as_mut_ptr(), width) };
        return;
    }
    // A transposition, in blocks whose lines stay in the cache.
    for first in (0..length).step_by(BLOCK) {
        let rows = BLOCK.min(length - first);
        for index in 0..columns {
            let from = (column + index) * b.column_stride + (depth + first) * b.row_stride;
            if b.row_stride == 1 && rows == BLOCK {
                let from: &[f32; BLOCK] = b.values[from..from + BLOCK].try_into().expect("a whole block");
                (0..BLOCK).for_each(|row| panel[(first + row) * width + index] = from[row]);
            } else {
                (0..rows).for_each(|row| panel[(first + row) * width + index] = b.values[from + row * b.row_stride]);
            }
        }
    }
}

/// A tile of a transposed `a` as `[length, 12]`.
#[inline(always)]
fn pack_rows(start: &[f32], a: Matrix, rows: usize, length: usize, packed: &mut [f32; DEPTH * 12]) {
    for (index, to) in packed.as_chunks_mut::<12>().0.iter_mut().take(length).enumerate() {
        let from = &start[index * a.column_stride..];
        if a.row_stride == 1 && rows == 12 {
            to.copy_from_slice(&from[..12]);
        } else if a.row_stride == 1 {
            to[..rows].copy_from_slice(&from[..rows]);
        } else {
            (0..rows).for_each(|row| to[row] = from[row * a.row_stride]);
        }
    }
}

/// A tile of up to 12 rows.
///
/// # Safety
/// As [`tile`], with `rows` for `ROWS`, 1 to 12.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tiles<S: Simd, const VECTORS: usize>(
    simd: S,
    rows: usize,
    length: usize,
    a: *const f32,
    strides: (usize, usize),
    b: *const f32,
    out: Out,
    add: bool,
) {
    macro_rules! of {
        ($($rows:literal)*) => {
            match rows {
                // SAFETY: as the caller says.
                $($rows => unsafe { tile::<S, $rows, VECTORS>(simd, length, a, strides, b, out, add) },)*
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
unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    length: usize,
    a: *const f32,
    (row_stride, column_stride): (usize, usize),
    b: *const f32,
    out: Out,
    add: bool,
) {
    let lanes = S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    // SAFETY: as the caller says; vectors are read and written without alignment.
    unsafe {
        let rows: [*const f32; ROWS] = std::array::from_fn(|row| a.add(row * row_stride));
        for index in 0..length {
            let b = b.add(index * VECTORS * lanes);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::numbers;

    fn oracle(a: Matrix, b: Matrix) -> Vec<f64> {
        let at =
            |m: Matrix, row: usize, column: usize| f64::from(m.values[row * m.row_stride + column * m.column_stride]);
        (0..a.rows)
            .flat_map(|row| {
                (0..b.columns).map(move |column| (0..a.columns).map(|k| at(a, row, k) * at(b, k, column)).sum())
            })
            .collect()
    }

    fn shapes() -> impl Iterator<Item = (usize, usize, usize)> {
        let sizes = [(1, 1, 1), (12, 32, 256), (13, 33, 257), (5, 7, 600), (100, 16, 64), (40, 1000, 30)];
        sizes.into_iter().chain([(301, 130, 300), (2000, 64, 9), (3, 0, 4), (0, 3, 4), (200, 40, 520)])
    }

    #[test]
    fn every_layout_and_shape_follows_f64() {
        for (rows, columns, depth) in shapes() {
            let (a, b) = (numbers(rows * depth, 1), numbers(depth * columns, 2));
            for (a_transposed, b_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
                let a =
                    if a_transposed { Matrix::new(&a, depth, rows).transposed() } else { Matrix::new(&a, rows, depth) };
                let b = if b_transposed {
                    Matrix::new(&b, columns, depth).transposed()
                } else {
                    Matrix::new(&b, depth, columns)
                };
                let expected = oracle(a, b);
                let mut out = product(a, b);
                let close = |out: &[f32], times: f64| {
                    out.iter()
                        .zip(&expected)
                        .all(|(x, y)| (f64::from(*x) - times * y).abs() < 1e-5 * (depth as f64).sqrt())
                };
                let what = format!("{rows} x {columns} x {depth}, {a_transposed} {b_transposed}");
                assert_eq!(out.len(), expected.len());
                assert!(close(&out, 1.0), "{what}");
                add_product(a, b, &mut out);
                assert!(close(&out, 2.0), "{what}");
                let stride = columns + 3;
                let mut strided = vec![7.0; rows * stride];
                product_into(a, b, &mut strided, stride, false);
                let rows: Vec<f32> = strided.chunks(stride).flat_map(|row| row[..columns].to_vec()).collect();
                assert!(close(&rows, 1.0), "{what}");
                assert!(strided.chunks(stride).all(|row| row[columns..] == [7.0; 3]), "{what}");
            }
        }
    }

    #[test]
    fn nothing_to_sum_is_zero() {
        assert_eq!(product(Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 3)), [0.0; 6]);
        let mut out = [1.0; 6];
        add_product(Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 3), &mut out);
        assert_eq!(out, [1.0; 6]);
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        for (rows, columns, depth) in [(300, 200, 700), (2000, 40, 100), (50, 3000, 64)] {
            let (a, b) = (numbers(rows * depth, 3), numbers(depth * columns, 4));
            for transposed in [false, true] {
                let of = |threads| {
                    pool(threads).install(|| {
                        let a = if transposed {
                            Matrix::new(&a, depth, rows).transposed()
                        } else {
                            Matrix::new(&a, rows, depth)
                        };
                        product(a, Matrix::new(&b, depth, columns))
                    })
                };
                let one = of(1);
                assert!([2, 3, 8].into_iter().all(|threads| of(threads) == one));
            }
        }
    }

    #[test]
    fn not_a_number_goes_through() {
        let mut a = numbers(20 * 30, 5);
        a[3 * 30 + 4] = f32::NAN;
        let b = numbers(30 * 40, 6);
        let out = product(Matrix::new(&a, 20, 30), Matrix::new(&b, 30, 40));
        assert!(out.iter().enumerate().all(|(index, value)| value.is_nan() == (index / 40 == 3)));
    }
}
