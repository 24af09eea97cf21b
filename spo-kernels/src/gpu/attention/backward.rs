//! Gradients of attention. The weights are computed again from scores and the logarithms of their sums. A cube adds up
//! the gradients of 32 rows of queries, or of 32 keys and their values, so no two write to one place.

use super::super::Buffer;
use super::product::{BACK, FRONT, add, dot, mix, pitch, product, settle, tile};
use super::tile::{OWN, TEAM, TILE, UNITS, chunks, derivative, load, score, sees, store, zeros};
use super::{DevicePlan, Heads, Inputs, Outputs};
use cubecl::prelude::*;

/// The gradient of 32 rows of queries. `means` gets `Σ_j weight_j ∂L/∂weight_j = y · d_y` of each row.
#[cube(launch_unchecked, create_dummy_kernel)]
fn attend_backward_queries<E: Float, T: Float>(
    q: &[E],
    k: &[E],
    v: &[E],
    ranges: &[u32],
    starts: &[u32],
    tiles: &[u32],
    y: &[E],
    log_sums: &[f32],
    d_y: &[E],
    means: &mut [f32],
    d_q: &mut [E],
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
    let place = usize::min(row, tokens - 1) * heads + head;
    let log_sum = log_sums[place];

    let mut a = tile::<T>(matrix);
    let mut b = tile::<T>(matrix);
    let mut c = tile::<T>(matrix);
    let mut d = tile::<T>(matrix);
    let mut gradients = tile::<T>(matrix);
    let mut first_product = product(matrix);
    let mut second_product = product(matrix);
    let mut team = Shared::<[f32]>::new_slice(UNITS);

    let mut own = 0.0f32;
    #[unroll]
    for i in 0..comptime!(chunks * OWN) {
        let channel = comptime!(i * TEAM) + first;
        if channel < dim {
            own += f32::cast_from(y[place * dim + channel]) * f32::cast_from(d_y[place * dim + channel]);
        }
    }
    team[unit] = own;
    sync_cube();
    let mut mean = 0.0f32;
    #[unroll]
    for i in 0..TEAM {
        mean += team[line * TEAM + i];
    }
    if first == 0 && row < tokens {
        means[place] = mean;
    }

    let mut sums = zeros(comptime!(chunks * OWN));
    for entry in starts[CUBE_POS_X as usize]..starts[CUBE_POS_X as usize + 1] {
        let keys = tiles[entry as usize] as usize * TILE;
        let mut products = zeros(OWN);
        let mut d_weights = zeros(OWN);
        #[unroll]
        for chunk in 0..chunks {
            sync_cube();
            load::<E, T>(q, &mut a, rows, tokens, heads, head, chunk, dim, matrix);
            load::<E, T>(k, &mut b, keys, tokens, kv_heads, kv, chunk, dim, matrix);
            load::<E, T>(d_y, &mut c, rows, tokens, heads, head, chunk, dim, matrix);
            load::<E, T>(v, &mut d, keys, tokens, kv_heads, kv, chunk, dim, matrix);
            sync_cube();
            dot::<T>(&a, &b, &mut products, &mut first_product, FRONT, matrix);
            dot::<T>(&c, &d, &mut d_weights, &mut second_product, BACK, matrix);
            settle(matrix);
            add(&first_product, &mut products, 0usize, matrix);
            add(&second_product, &mut d_weights, 0usize, matrix);
        }
        #[unroll]
        for i in 0..OWN {
            let score = score(products[i], scale, cap, capped);
            let seen = sees(ranges, row, tokens, keys + first + i * TEAM);
            let weight = select(seen, f32::exp(score - log_sum), 0.0f32);
            let gradient = weight * (d_weights[i] - mean) * derivative(score, scale, cap, capped);
            gradients[line * comptime!(pitch(matrix)) + first + i * TEAM] = T::cast_from(gradient);
        }
        #[unroll]
        for chunk in 0..chunks {
            sync_cube();
            load::<E, T>(k, &mut b, keys, tokens, kv_heads, kv, chunk, dim, matrix);
            sync_cube();
            mix::<T>(&gradients, &b, &mut sums, &mut first_product, comptime!(chunk * OWN), FRONT, matrix);
            settle(matrix);
            add(&first_product, &mut sums, comptime!(chunk * OWN), matrix);
        }
    }
    if row < tokens {
        #[unroll]
        for chunk in 0..chunks {
            store::<E>(d_q, &sums, 1.0f32, place * dim, chunk, dim);
        }
    }
}

/// The gradients of 32 keys and their values: here a row of a tile is a key, and a column one of the rows that see it.
/// Query heads that share a key head come one after the other.
#[cube(launch_unchecked, create_dummy_kernel)]
fn attend_backward_keys<E: Float, T: Float>(
    q: &[E],
    k: &[E],
    v: &[E],
    ranges: &[u32],
    starts: &[u32],
    tiles: &[u32],
    log_sums: &[f32],
    d_y: &[E],
    means: &[f32],
    d_k: &mut [E],
    d_v: &mut [E],
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
    let (kv, unit) = (CUBE_POS_Y as usize, UNIT_POS as usize);
    let shared_by = heads / kv_heads;
    let (line, first) = (unit / TEAM, unit % TEAM);
    let keys = CUBE_POS_X as usize * TILE;
    let key = keys + line;

    let mut a = tile::<T>(matrix);
    let mut b = tile::<T>(matrix);
    let mut c = tile::<T>(matrix);
    let mut d = tile::<T>(matrix);
    let mut weights = tile::<T>(matrix);
    let mut gradients = tile::<T>(matrix);
    let mut first_product = product(matrix);
    let mut second_product = product(matrix);
    let mut d_keys = zeros(comptime!(chunks * OWN));
    let mut d_values = zeros(comptime!(chunks * OWN));

    for entry in starts[CUBE_POS_X as usize]..starts[CUBE_POS_X as usize + 1] {
        let rows = tiles[entry as usize] as usize * TILE;
        for member in 0..shared_by {
            let head = kv * shared_by + member;
            let mut products = zeros(OWN);
            let mut d_weights = zeros(OWN);
            #[unroll]
            for chunk in 0..chunks {
                sync_cube();
                load::<E, T>(k, &mut a, keys, tokens, kv_heads, kv, chunk, dim, matrix);
                load::<E, T>(q, &mut b, rows, tokens, heads, head, chunk, dim, matrix);
                load::<E, T>(v, &mut c, keys, tokens, kv_heads, kv, chunk, dim, matrix);
                load::<E, T>(d_y, &mut d, rows, tokens, heads, head, chunk, dim, matrix);
                sync_cube();
                dot::<T>(&a, &b, &mut products, &mut first_product, FRONT, matrix);
                dot::<T>(&c, &d, &mut d_weights, &mut second_product, BACK, matrix);
                settle(matrix);
                add(&first_product, &mut products, 0usize, matrix);
                add(&second_product, &mut d_weights, 0usize, matrix);
            }
            #[unroll]
            for i in 0..OWN {
                let column = first + i * TEAM;
                let row = rows + column;
                let place = usize::min(row, tokens - 1) * heads + head;
                let score = score(products[i], scale, cap, capped);
                let seen = sees(ranges, row, tokens, key);
                let weight = select(seen, f32::exp(score - log_sums[place]), 0.0f32);
                let gradient = weight * (d_weights[i] - means[place]) * derivative(score, scale, cap, capped);
                weights[line * comptime!(pitch(matrix)) + column] = T::cast_from(weight);
                gradients[line * comptime!(pitch(matrix)) + column] = T::cast_from(gradient);
            }
            #[unroll]
            for chunk in 0..chunks {
                sync_cube();
                load::<E, T>(q, &mut b, rows, tokens, heads, head, chunk, dim, matrix);
                load::<E, T>(d_y, &mut d, rows, tokens, heads, head, chunk, dim, matrix);
                sync_cube();
                mix::<T>(&gradients, &b, &mut d_keys, &mut first_product, comptime!(chunk * OWN), FRONT, matrix);
                mix::<T>(&weights, &d, &mut d_values, &mut second_product, comptime!(chunk * OWN), BACK, matrix);
                settle(matrix);
                add(&first_product, &mut d_keys, comptime!(chunk * OWN), matrix);
                add(&second_product, &mut d_values, comptime!(chunk * OWN), matrix);
            }
        }
    }
    if key < tokens {
        #[unroll]
        for chunk in 0..chunks {
            store::<E>(d_k, &d_keys, 1.0f32, (key * kv_heads + kv) * dim, chunk, dim);
            store::<E>(d_v, &d_values, 1.0f32, (key * kv_heads + kv) * dim, chunk, dim);
        }
    }
}

/// Gradients of queries, keys and values, in their shapes.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// Of the queries.
    pub q: Buffer,
    /// Of the keys.
    pub k: Buffer,
    /// Of the values.
    pub v: Buffer,
}

/// The gradients for a gradient `d_y` `[tokens, heads, dim]` of the output; inputs and outputs those of
/// [`forward`](super::forward).
pub fn backward<E: Float>(
    client: &Client,
    plan: DevicePlan,
    heads: Heads,
    inputs: Inputs,
    outputs: Outputs,
    d_y: Buffer,
    gradients: Gradients,
) {
    heads.check(plan.tokens, &inputs);
    heads.check(plan.tokens, &Inputs { q: gradients.q.clone(), k: gradients.k.clone(), v: gradients.v.clone() });
    outputs.check(plan.tokens, heads);
    d_y.expect("d_y", plan.tokens * heads.heads * heads.dim);
    if plan.tokens == 0 {
        return;
    }
    let means = Buffer::empty::<f32>(client, plan.tokens * heads.heads);
    queries::<E>(client, &plan, heads, inputs.clone(), outputs.clone(), d_y.clone(), means.clone(), gradients.q);
    keys::<E>(client, plan, heads, inputs, outputs.log_sums, d_y, means, [gradients.k, gradients.v]);
}

#[allow(clippy::too_many_arguments)]
fn queries<E: Float>(
    client: &Client,
    plan: &DevicePlan,
    heads: Heads,
    inputs: Inputs,
    outputs: Outputs,
    d_y: Buffer,
    means: Buffer,
    d_q: Buffer,
) {
    let count = CubeCount::Static(plan.tokens.div_ceil(TILE) as u32, heads.heads as u32, 1);
    let [q, k, v] = [inputs.q, inputs.k, inputs.v].map(|buffer| buffer.argument(1));
    let [starts, tiles] = plan.keys_of_rows.clone().map(|buffer| buffer.argument(1));
    let [ranges, y, log_sums, d_y, means, d_q] =
        [plan.ranges.clone(), outputs.y, outputs.log_sums, d_y, means, d_q].map(|buffer| buffer.argument(1));
    let (tokens, (cap, capped)) = (plan.tokens, heads.cap());
    let Heads { heads, kv_heads, dim, scale, matrix, .. } = heads;
    launch_by!(
        matrix,
        client,
        attend_backward_queries::<E>[count](
            q, k, v, ranges, starts, tiles, y, log_sums, d_y, means, d_q, tokens, heads, kv_heads, scale, cap, capped,
            dim
        )
    );
}

#[allow(clippy::too_many_arguments)]
fn keys<E: Float>(
    client: &Client,
    plan: DevicePlan,
    heads: Heads,
    inputs: Inputs,
    log_sums: Buffer,
    d_y: Buffer,
    means: Buffer,
    [d_k, d_v]: [Buffer; 2],
) {
    let count = CubeCount::Static(plan.tokens.div_ceil(TILE) as u32, heads.kv_heads as u32, 1);
    let [q, k, v] = [inputs.q, inputs.k, inputs.v].map(|buffer| buffer.argument(1));
    let [starts, tiles] = plan.rows_of_keys.map(|buffer| buffer.argument(1));
    let [ranges, log_sums, d_y, means, d_k, d_v] =
        [plan.ranges, log_sums, d_y, means, d_k, d_v].map(|buffer| buffer.argument(1));
    let (tokens, (cap, capped)) = (plan.tokens, heads.cap());
    let Heads { heads, kv_heads, dim, scale, matrix, .. } = heads;
    launch_by!(
        matrix,
        client,
        attend_backward_keys::<E>[count](
            q, k, v, ranges, starts, tiles, log_sums, d_y, means, d_k, d_v, tokens, heads, kv_heads, scale, cap,
            capped, dim
        )
    );
}
