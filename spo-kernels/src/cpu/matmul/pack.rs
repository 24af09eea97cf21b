//! Operands in the order in which tiles read them.

use super::Matrix;
#[cfg(target_arch = "x86_64")]
use super::transpose;

/// Rows `depth..` of the columns `column..` of `b` as `[length, width]`, zero beyond `columns`.
#[inline(always)]
pub fn columns(b: Matrix, depth: usize, length: usize, column: usize, columns: usize, width: usize, panel: &mut [f32]) {
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

/// A tile of a transposed `a`, which begins at `start`, as `[length, TILE]`.
#[inline(always)]
pub fn rows<const TILE: usize>(start: &[f32], a: Matrix, rows: usize, length: usize, packed: &mut [f32]) {
    for (index, to) in packed.as_chunks_mut::<TILE>().0.iter_mut().take(length).enumerate() {
        let from = &start[index * a.column_stride..];
        if a.row_stride == 1 && rows == TILE {
            to.copy_from_slice(&from[..TILE]);
        } else if a.row_stride == 1 {
            to[..rows].copy_from_slice(&from[..rows]);
        } else {
            (0..rows).for_each(|row| to[row] = from[row * a.row_stride]);
        }
    }
}
