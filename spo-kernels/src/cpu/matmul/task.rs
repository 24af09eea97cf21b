//! One thread's part of a product.

use super::{Matrix, Out, pack, tile};
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;

/// Rows of `b` packed at a time.
pub(in crate::cpu) const DEPTH: usize = 256;
/// Most columns of `b` packed at a time.
const PACKED_COLUMNS: usize = 512;
/// Most rows of a transposed `a` packed at a time.
const PACKED_ROWS: usize = 48;
/// So few rows of `a` read the rows of `b` where they are: packing them would take longer than it saves.
const FEW: usize = 32;
/// Values of a line of the cache.
const LINE: usize = 16;
/// Values of the largest tile, 12 rows of two vectors of 16: one at the right edge is computed aside.
const EDGE: usize = 12 * 32;

thread_local! {
    /// Packed operands, kept from one product to the next.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

/// One thread's part of a product.
pub struct Task<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    out: Out,
    add: bool,
    /// Room for [`DEPTH`] rows of packed columns, and for as many columns of packed rows.
    scratch: &'a mut [f32],
}

impl<'a> Task<'a> {
    /// Runs on this thread. The scratch is lent here: the vector code must see no closure between `dispatch` and the
    /// loops, for it would be compiled for the oldest processor.
    ///
    /// # Safety
    /// `out` points to `a.rows` rows of `b.columns` values that nobody else uses, written before if `add`.
    pub unsafe fn run(arch: Arch, a: Matrix<'a>, b: Matrix<'a>, out: Out, add: bool) {
        SCRATCH.with_borrow_mut(|scratch| {
            let room = DEPTH * (PACKED_COLUMNS.min(b.columns.next_multiple_of(32)) + PACKED_ROWS);
            if scratch.len() < room + LINE {
                scratch.resize(room + LINE, 0.0);
            }
            // A vector across two lines of the cache is read twice.
            let first = scratch.as_ptr().align_offset(LINE * size_of::<f32>());
            let scratch = &mut scratch[first..];
            arch.dispatch(Task { a, b, out, add, scratch });
        });
    }
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // One vector of columns is enough for the narrow products of low-rank adapters.
        if self.b.columns <= S::F32_LANES { self.blocks::<S, 1>(simd) } else { self.blocks::<S, 2>(simd) }
    }
}

impl Task<'_> {
    /// Packs a block of `b`, then goes over blocks of rows of `a`.
    #[inline(always)]
    fn blocks<S: Simd, const VECTORS: usize>(self, simd: S) {
        let Self { a, b, out, add, scratch } = self;
        let width = VECTORS * S::F32_LANES;
        let tile = if S::REGISTER_COUNT >= 32 { 12 } else { 6 };
        // A panel of `b` stays in the first cache while a block's tiles go by, where both fit; else one tile of `a` stays
        // there while the panels go by.
        let block = if tile == 6 && a.column_stride != 1 { PACKED_ROWS } else { tile };
        let packed_columns = PACKED_COLUMNS.min(b.columns.next_multiple_of(width));
        let (panels, packed_rows) = scratch.split_at_mut(DEPTH * packed_columns);
        let in_place = b.column_stride == 1 && a.rows <= FEW;
        let mut edge = [0.0; EDGE];
        for column in (0..b.columns).step_by(packed_columns) {
            let columns = packed_columns.min(b.columns - column);
            for depth in (0..a.columns).step_by(DEPTH) {
                let length = DEPTH.min(a.columns - depth);
                for (index, panel) in panels.chunks_mut(DEPTH * width).take(columns.div_ceil(width)).enumerate() {
                    let (from, columns) = (column + index * width, width.min(columns - index * width));
                    if !in_place || columns < width {
                        pack::columns(b, depth, length, from, columns, width, panel);
                    }
                }
                for row in (0..a.rows).step_by(block) {
                    let rows = row..(row + block).min(a.rows);
                    let rows = Rows::new(a, rows, depth, length, tile, packed_rows);
                    let part = Part { b, depth, length, column, columns, in_place, panels };
                    // SAFETY: the rows and columns are inside `out`.
                    unsafe {
                        rows.multiply::<S, VECTORS>(simd, part, &mut edge, out.at(row, column), add || depth > 0)
                    };
                }
            }
        }
    }
}

/// A block of `b`: some of its columns and `length` of its rows.
#[derive(Clone, Copy)]
struct Part<'a> {
    b: Matrix<'a>,
    depth: usize,
    length: usize,
    column: usize,
    columns: usize,
    /// Whether only a panel at the right edge is packed.
    in_place: bool,
    panels: &'a [f32],
}

/// Rows of `a` as tiles read them: where they are or, if `a` is transposed, packed.
struct Rows {
    count: usize,
    tile: usize,
    start: *const f32,
    strides: (usize, usize),
    /// From tile to tile.
    step: usize,
}

impl Rows {
    #[inline(always)]
    fn new(
        a: Matrix,
        rows: std::ops::Range<usize>,
        depth: usize,
        length: usize,
        tile: usize,
        packed: &mut [f32],
    ) -> Self {
        let count = rows.len();
        let at = |row: usize| &a.values[row * a.row_stride + depth * a.column_stride..];
        if a.column_stride == 1 {
            return Self {
                count,
                tile,
                start: at(rows.start).as_ptr(),
                strides: (a.row_stride, 1),
                step: tile * a.row_stride,
            };
        }
        let mut row = rows.start;
        for packed in packed.chunks_mut(DEPTH * tile).take(count.div_ceil(tile)) {
            let rows = tile.min(rows.end - row);
            match tile {
                12 => pack::rows::<12>(at(row), a, rows, length, packed),
                _ => pack::rows::<6>(at(row), a, rows, length, packed),
            }
            row += tile;
        }
        Self { count, tile, start: packed.as_ptr(), strides: (1, tile), step: DEPTH * tile }
    }

    /// # Safety
    /// `out` has these rows and the part's columns.
    #[inline(always)]
    unsafe fn multiply<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        part: Part,
        edge: &mut [f32; EDGE],
        out: Out,
        add: bool,
    ) {
        let width = VECTORS * S::F32_LANES;
        for (index, panel) in part.panels.chunks(DEPTH * width).take(part.columns.div_ceil(width)).enumerate() {
            let first = index * width;
            let columns = width.min(part.columns - first);
            let whole = columns == width;
            let in_place = part.in_place && whole;
            let b = match in_place {
                true => part.b.values[part.depth * part.b.row_stride + part.column + first..].as_ptr(),
                false => panel.as_ptr(),
            };
            let mut from = self.start;
            for row in (0..self.count).step_by(self.tile) {
                let rows = self.tile.min(self.count - row);
                // SAFETY: the tile is inside `out` or is the edge's; `from` has `rows` rows of `length` values at its
                // strides, `b` `length` rows of `width`.
                unsafe {
                    let to = out.at(row, first);
                    let (goal, add_here) =
                        if whole { (to, add) } else { (Out { start: edge.as_mut_ptr(), stride: width }, false) };
                    if in_place {
                        let b = (b, part.b.row_stride);
                        tile::tiles::<S, VECTORS, true>(simd, rows, part.length, from, self.strides, b, goal, add_here);
                    } else {
                        tile::tiles::<S, VECTORS, false>(
                            simd,
                            rows,
                            part.length,
                            from,
                            self.strides,
                            (b, width),
                            goal,
                            add_here,
                        );
                    }
                    if !whole {
                        to.take_edge(edge, width, rows, columns, add);
                    }
                }
                from = from.wrapping_add(self.step);
            }
        }
    }
}
