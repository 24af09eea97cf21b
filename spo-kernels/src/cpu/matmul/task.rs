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
        let whole = part.columns / width;
        for (index, panel) in part.panels.chunks(DEPTH * width).take(whole).enumerate() {
            let first = index * width;
            // SAFETY: the columns are inside `out`; `b` has `length` rows of `width` values at its stride.
            unsafe {
                let to = out.at(0, first);
                if part.in_place {
                    let b = &part.b.values[part.depth * part.b.row_stride + part.column + first..];
                    self.tiles::<S, VECTORS, true>(simd, part.length, (b.as_ptr(), part.b.row_stride), to, add);
                } else {
                    self.tiles::<S, VECTORS, false>(simd, part.length, (panel.as_ptr(), width), to, add);
                }
            }
        }
        let rest = part.columns % width;
        if rest > 0 {
            let panel = part.panels[whole * DEPTH * width..].as_ptr();
            let aside = Out { start: edge.as_mut_ptr(), stride: width };
            for row in (0..self.count).step_by(self.tile) {
                let rows = self.tile.min(self.count - row);
                let from = self.start.wrapping_add(row / self.tile * self.step);
                // SAFETY: as above; the tile is the edge's.
                unsafe {
                    tile::tiles::<S, VECTORS, false>(
                        simd,
                        rows,
                        part.length,
                        from,
                        self.strides,
                        (panel, width),
                        aside,
                        false,
                    );
                    out.at(row, whole * width).take_edge(edge, width, rows, rest, add);
                }
            }
        }
    }

    /// One panel of `b`.
    ///
    /// # Safety
    /// `out` has these rows and whole vectors of columns, `b` `length` rows of as many.
    #[inline(always)]
    unsafe fn tiles<S: Simd, const VECTORS: usize, const DIRECT: bool>(
        &self,
        simd: S,
        length: usize,
        b: (*const f32, usize),
        out: Out,
        add: bool,
    ) {
        let mut from = self.start;
        for row in (0..self.count).step_by(self.tile) {
            let rows = self.tile.min(self.count - row);
            // SAFETY: as the caller says; `from` has `rows` rows of `length` values at its strides.
            unsafe {
                tile::tiles::<S, VECTORS, DIRECT>(simd, rows, length, from, self.strides, b, out.at(row, 0), add)
            };
            from = from.wrapping_add(self.step);
        }
    }
}
