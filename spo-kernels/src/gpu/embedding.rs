//! The gradient of an embedding table: each of its rows gets the gradients of the tokens that looked it up.

use super::Buffer;
use super::launch::{UNITS, grid};
use cubecl::prelude::*;

/// The tokens of a batch by their id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sorted {
    /// The ids that occur, in order.
    pub ids: Vec<u32>,
    /// Where in `tokens` those of each id start, and the end of the last.
    pub starts: Vec<u32>,
    /// The tokens, those of one id together and in their order.
    pub tokens: Vec<u32>,
}

impl Sorted {
    /// Sorts the ids of a batch.
    pub fn new(ids: &[u32]) -> Self {
        let mut tokens: Vec<u32> = (0..ids.len() as u32).collect();
        tokens.sort_by_key(|token| ids[*token as usize]);
        let id = |token: u32| ids[token as usize];
        let (mut distinct, mut starts) = (vec![], vec![]);
        for (place, token) in tokens.iter().enumerate() {
            if distinct.last() != Some(&id(*token)) {
                distinct.push(id(*token));
                starts.push(place as u32);
            }
        }
        starts.push(tokens.len() as u32);
        Self { ids: distinct, starts, tokens }
    }
}

/// One cube for some columns of one id: it alone adds to them, token after token.
#[cube(launch_unchecked, create_dummy_kernel)]
fn add_rows<E: Float>(
    rows: &[E],
    ids: &[u32],
    starts: &[u32],
    tokens: &[u32],
    sum: &mut [f32],
    width: usize,
    blocks: usize,
) {
    let (entry, block) = (CUBE_POS as usize / blocks, CUBE_POS as usize % blocks);
    let column = block * UNITS + UNIT_POS as usize;
    if entry < ids.len() && column < width {
        let mut total = 0.0f32;
        for place in starts[entry]..starts[entry + 1] {
            total += f32::cast_from(rows[tokens[place as usize] as usize * width + column]);
        }
        sum[ids[entry] as usize * width + column] += total;
    }
}

/// Adds row `i` of `rows` `[tokens, width]` to row `ids[i]` of `sum` `[vocab, width]`, f32; `sorted` has the ids.
pub fn accumulate<E: Float>(client: &Client, width: usize, sorted: &Sorted, rows: Buffer, sum: Buffer) {
    rows.expect("rows", sorted.tokens.len() * width);
    sum.expect("sum", sum.len / width * width);
    let most = sorted.ids.last().map_or(0, |id| *id as usize + 1);
    assert!(most * width <= sum.len, "id {most} beyond the table's {} rows", sum.len / width);
    if sorted.ids.is_empty() {
        return;
    }
    let blocks = width.div_ceil(UNITS);
    let count = grid(sorted.ids.len() * blocks);
    let [ids, starts, tokens] = [&sorted.ids, &sorted.starts, &sorted.tokens]
        .map(|values| Buffer::from_slice::<u32>(client, values).argument(1));
    let (rows, sum) = (rows.argument(1), sum.argument(1));
    launch!(client, add_rows::<E>[count, UNITS](rows, ids, starts, tokens, sum, width, blocks));
}
