//! The next token of a row of logits: the most likely one, or one that is drawn.

use super::Buffer;
use super::launch::{UNITS, grid};
use cubecl::prelude::*;

/// One cube for a row. Each unit has neighbouring tokens, so that probabilities add up in the order of tokens.
#[cube(launch_unchecked, create_dummy_kernel)]
fn rows<E: Float>(
    logits: &[E],
    draws: &[f32],
    tokens: &mut [u32],
    vocab: usize,
    share: usize,
    inverse: f32,
    #[comptime] drawn: bool,
) {
    let (row, unit) = (CUBE_POS as usize, UNIT_POS as usize);
    let mut tops = Shared::<[f32]>::new_slice(UNITS);
    let mut places = Shared::<[u32]>::new_slice(UNITS);
    if row < tokens.len() {
        let first = usize::min(unit * share, vocab);
        let last = usize::min(first + share, vocab);
        // The first token is somebody's: no unit without tokens can win against it.
        let mut top = f32::cast_from(logits[row * vocab]);
        let mut place = 0u32;
        for token in first..last {
            let logit = f32::cast_from(logits[row * vocab + token]);
            if logit > top {
                top = logit;
                place = token as u32;
            }
        }
        tops[unit] = top;
        places[unit] = place;
        sync_cube();
        #[unroll]
        for step in 0..comptime!(UNITS.ilog2() as usize) {
            let half = comptime!(UNITS >> (step + 1));
            if unit < half {
                let (other, of_other) = (tops[unit + half], places[unit + half]);
                let (own, of_own) = (tops[unit], places[unit]);
                if other > own || (other == own && of_other < of_own) {
                    tops[unit] = other;
                    places[unit] = of_other;
                }
            }
            sync_cube();
        }
        let (top, best) = (tops[0], places[0]);
        if unit == 0 {
            tokens[row] = best;
        }
        if comptime!(drawn) {
            let mut sum = 0.0f32;
            for token in first..last {
                sum += f32::exp((f32::cast_from(logits[row * vocab + token]) - top) * inverse);
            }
            sync_cube();
            tops[unit] = sum;
            sync_cube();
            let mut before = 0.0f32;
            let mut all = 0.0f32;
            for other in 0..UNITS {
                if other == unit {
                    before = all;
                }
                all += tops[other];
            }
            // Rounding may leave nobody whose share it is: then it stays the most likely token.
            let mut left = draws[row] * all - before;
            if left >= 0.0 && left < sum {
                for token in first..last {
                    let weight = f32::exp((f32::cast_from(logits[row * vocab + token]) - top) * inverse);
                    if left >= 0.0 && left < weight {
                        tokens[row] = token as u32;
                    }
                    left -= weight;
                }
            }
        }
    }
}

/// The most likely token of each row of `logits` `[rows, vocab]`, of several the first; into `tokens` `[rows]`.
pub fn most_likely<E: Float>(client: &Client, vocab: usize, logits: Buffer, tokens: Buffer) {
    launch::<E>(client, vocab, logits, None, tokens);
}

/// A token of each row by the softmax of `logits / temperature`: the one in whose share of the sum, in the order of
/// tokens, the row's draw lies. `draws` `[rows]` f32, in [0, 1).
pub fn drawn<E: Float>(client: &Client, vocab: usize, logits: Buffer, temperature: f32, draws: Buffer, tokens: Buffer) {
    launch::<E>(client, vocab, logits, Some((1.0 / temperature, draws)), tokens);
}

fn launch<E: Float>(client: &Client, vocab: usize, logits: Buffer, draws: Option<(f32, Buffer)>, tokens: Buffer) {
    let count = tokens.len;
    logits.expect("logits", count * vocab);
    if count == 0 || vocab == 0 {
        return;
    }
    let drawn = draws.is_some();
    let (inverse, draws) = draws.unwrap_or_else(|| (1.0, Buffer::from_slice::<f32>(client, &vec![0.0; count])));
    draws.expect("draws", count);
    let (logits, draws, tokens) = (logits.argument(1), draws.argument(1), tokens.argument(1));
    let share = vocab.div_ceil(UNITS);
    launch!(client, rows::<E>[grid(count), UNITS](logits, draws, tokens, vocab, share, inverse, drawn));
}
