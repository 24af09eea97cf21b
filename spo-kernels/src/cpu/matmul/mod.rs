//! Matrix products in f32.
//!
//! A product is split into tasks of whole columns or whole rows. A task packs 256 rows of a panel of `b` at a time and
//! runs over `a` in tiles that fit the registers: 12 rows by two vectors where there are 32 registers, else 6. Each
//! number is summed over `k` in one order, so results depend neither on the split nor on the number of threads.

mod pack;
mod task;
mod tile;
#[cfg(target_arch = "x86_64")]
pub(super) mod transpose;

use super::Matrix;
use pulp::Arch;
use rayon::prelude::*;
use task::Task;

pub(super) use task::DEPTH;

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
/// As many columns of `b` are few beside a transposed `a`.
const NARROW: usize = 32;

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

    /// Takes, or adds, the first columns of rows of `width` values.
    ///
    /// # Safety
    /// `rows` by `columns` values are inside the buffer.
    #[inline(never)]
    unsafe fn take_edge(self, edge: &[f32], width: usize, rows: usize, columns: usize, add: bool) {
        for (row, values) in edge.chunks(width).take(rows).enumerate() {
            for (column, value) in values[..columns].iter().enumerate() {
                // SAFETY: as the caller says.
                unsafe {
                    let to = self.at(row, column).start;
                    *to = if add { *to + value } else { *value };
                }
            }
        }
    }
}

/// Splits a product among the threads.
///
/// # Safety
/// `out` points to `a.rows` rows of `b.columns` values that nobody else uses, written before if `add`. Nothing is written
/// where there is nothing to sum.
pub(super) unsafe fn multiply(a: Matrix, b: Matrix, out: Out, add: bool, parallel: bool) {
    assert_eq!(a.columns, b.rows, "inner dimensions");
    let (rows, columns) = (a.rows, b.columns);
    if rows == 0 || columns == 0 || a.columns == 0 {
        return;
    }
    if a.column_stride != 1 && columns <= NARROW && rows >= 4 * columns {
        // SAFETY: as the caller says.
        return unsafe { multiply_turned(a, b, out, add, parallel) };
    }
    let arch = Arch::new();
    let small = rows * columns * a.columns < PARALLEL;
    let threads = if parallel && !small { rayon::current_num_threads() } else { 1 };
    if threads == 1 {
        // SAFETY: as the caller says.
        return unsafe { Task::run(arch, a, b, out, add) };
    }
    let tasks = 2 * threads;
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

/// `(bᵀ aᵀ)ᵀ`: packing all of a transposed `a` for few columns of `b`, as in an adapter's gradient, takes longer than
/// multiplying them.
///
/// # Safety
/// As [`multiply`].
unsafe fn multiply_turned(a: Matrix, b: Matrix, out: Out, add: bool, parallel: bool) {
    let (rows, columns) = (a.rows, b.columns);
    let mut turned = Vec::with_capacity(rows * columns);
    // SAFETY: the buffer holds `columns · rows` values, all of which are written before any is read; `out` is as the
    // caller says.
    unsafe {
        multiply(b.transposed(), a.transposed(), Out { start: turned.as_mut_ptr(), stride: rows }, false, parallel);
        turned.set_len(rows * columns);
        for row in 0..rows {
            for column in 0..columns {
                let (value, to): (f32, _) = (turned[column * rows + row], out.at(row, column).start);
                *to = if add { *to + value } else { value };
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
        sizes.into_iter().chain([
            (301, 130, 300),
            (2000, 64, 9),
            (16, 70, 300),
            (70, 9, 520),
            (3, 0, 4),
            (0, 3, 4),
            (200, 40, 520),
        ])
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
        for (rows, columns, depth) in [(300, 200, 700), (2000, 40, 100), (50, 3000, 64), (16, 700, 300), (700, 16, 300)]
        {
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
