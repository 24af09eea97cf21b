//! Outputs of attention, and the logarithm of each row's sum of exponentials.

use super::super::Buffer;
use super::product::{FRONT, add, dot, mix, pitch, product, settle, tile};
use super::tile::{OWN, TEAM, TILE, UNITS, UNSEEN, chunks, load, score, sees, store, zeros};
use super::{DevicePlan, Heads, Inputs};
use cubecl::prelude::*;

/// One cube for 32 rows of a head. Softmax goes along the keys once: a row's largest score so far, and the sum of its
/// exponentials, which each of its eight units has for its own columns.
#[cube(launch_unchecked, create_dummy_kernel)]
fn attend<E: Float, T: Float>(
    q: &[E],
    k: &[E],
    v: &[E],
    ranges: &[u32],
    starts: &[u32],
    tiles: &[u32],
    y: &mut [E],
    log_sums: &mut [f32],
    tokens: usize,
    heads: usize,
    kv_heads: usize,
    scale: f32,
    cap: f32,
    #[comptime] capped: bool,
    #[comptime] dim: usize,
    #[comptime] matrix: bool,
) {
    let chunks = comptime!(chunks(dim));
    let (head, unit) = (CUBE_POS_Y as usize, UNIT_POS as usize);
    let kv = head / (heads / kv_heads);
    let (line, first) = (unit / TEAM, unit % TEAM);
    let rows = CUBE_POS_X as usize * TILE;
    let row = rows + line;

    let mut a = tile::<T>(matrix);
    let mut b = tile::<T>(matrix);
    let mut weights = tile::<T>(matrix);
    let mut products = product(matrix);
    let mut team = Shared::<[f32]>::new_slice(UNITS);
    let mut sums = zeros(comptime!(chunks * OWN));
    let mut most = f32::new(UNSEEN);
    let mut total = 0.0f32;

    for entry in starts[CUBE_POS_X as usize]..starts[CUBE_POS_X as usize + 1] {
        let keys = tiles[entry as usize] as usize * TILE;
        let mut scores = zeros(OWN);
        #[unroll]
        for chunk in 0..chunks {
            sync_cube();
            load::<E, T>(q, &mut a, rows, tokens, heads, head, chunk, dim, matrix);
            load::<E, T>(k, &mut b, keys, tokens, kv_heads, kv, chunk, dim, matrix);
            sync_cube();
            dot::<T>(&a, &b, &mut scores, &mut products, FRONT, matrix);
            settle(matrix);
            add(&products, &mut scores, 0usize, matrix);
        }
        let mut own = f32::new(UNSEEN);
        #[unroll]
        for i in 0..OWN {
            let seen = sees(ranges, row, tokens, keys + first + i * TEAM);
            scores[i] = select(seen, score(scores[i], scale, cap, capped), f32::new(UNSEEN));
            own = f32::max(own, scores[i]);
        }
        team[unit] = own;
        sync_cube();
        let mut higher = most;
        #[unroll]
        for i in 0..TEAM {
            higher = f32::max(higher, team[line * TEAM + i]);
        }
        let keep = f32::exp(most - higher);
        total *= keep;
        #[unroll]
        for i in 0..OWN {
            // A row that has seen no key yet has `higher == UNSEEN`.
            let weight = select(scores[i] > UNSEEN, f32::exp(scores[i] - higher), 0.0f32);
            total += weight;
            weights[line * comptime!(pitch(matrix)) + first + i * TEAM] = T::cast_from(weight);
        }
        #[unroll]
        for i in 0..comptime!(chunks * OWN) {
            sums[i] *= keep;
        }
        most = higher;
        #[unroll]
        for chunk in 0..chunks {
            sync_cube();
            load::<E, T>(v, &mut b, keys, tokens, kv_heads, kv, chunk, dim, matrix);
            sync_cube();
            mix::<T>(&weights, &b, &mut sums, &mut products, comptime!(chunk * OWN), FRONT, matrix);
            settle(matrix);
            add(&products, &mut sums, comptime!(chunk * OWN), matrix);
        }
    }
    sync_cube();
    team[unit] = total;
    sync_cube();
    total = 0.0f32;
    #[unroll]
    for i in 0..TEAM {
        total += team[line * TEAM + i];
    }
    if row < tokens {
        #[unroll]
        for chunk in 0..chunks {
            store::<E>(y, &sums, 1.0f32 / total, (row * heads + head) * dim, chunk, dim);
        }
        if first == 0 {
            log_sums[row * heads + head] = most + f32::ln(total);
        }
    }
}

/// What [`forward`] writes, and [`backward`](super::backward) reads again.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// `[tokens, heads, dim]`
    pub y: Buffer,
    /// Logarithm of the sum of the exponentials of a row's scores, `[tokens, heads]`, f32.
    pub log_sums: Buffer,
}

impl Outputs {
    pub(super) fn check(&self, tokens: usize, heads: Heads) {
        self.y.expect("y", tokens * heads.heads * heads.dim);
        self.log_sums.expect("log_sums", tokens * heads.heads);
    }
}

/// Softmax attention of a packed batch.
pub fn forward<E: Float>(client: &Client, plan: DevicePlan, heads: Heads, inputs: Inputs, outputs: Outputs) {
    heads.check(plan.tokens, &inputs);
    outputs.check(plan.tokens, heads);
    if plan.tokens == 0 {
        return;
    }
    let count = CubeCount::Static(plan.tokens.div_ceil(TILE) as u32, heads.heads as u32, 1);
    let [q, k, v] = [inputs.q, inputs.k, inputs.v].map(|buffer| buffer.argument(1));
    let [starts, tiles] = plan.keys_of_rows.map(|buffer| buffer.argument(1));
    let [ranges, y, log_sums] = [plan.ranges, outputs.y, outputs.log_sums].map(|buffer| buffer.argument(1));
    let (tokens, (cap, capped)) = (plan.tokens, heads.cap());
    let Heads { heads, kv_heads, dim, scale, matrix, .. } = heads;
    launch_by!(
        matrix,
        client,
        attend::<E>[count](
            q, k, v, ranges, starts, tiles, y, log_sums, tokens, heads, kv_heads, scale, cap, capped, dim
        )
    );
}
