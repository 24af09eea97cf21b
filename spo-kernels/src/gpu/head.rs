//! The log-probability head, from logits: one cube a row, whatever the vocabulary.

use super::buffer::expect;
use super::launch::{UNITS, grid, lanes};
use super::{Buffer, cube};
use cubecl::prelude::*;

/// Below every logit.
const LOWEST: f32 = -3.0e38;

/// How logits are made of products `h Wᵀ`: `z = scale · (h Wᵀ)`, then `softcap · tanh(z / softcap)` if there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Factor on the products.
    pub scale: f32,
    /// Bound of the logits.
    pub softcap: Option<f32>,
}

/// The logits of some products.
#[cube]
fn logits<N: Size>(products: Vector<f32, N>, scale: f32, cap: f32, #[comptime] capped: bool) -> Vector<f32, N> {
    let z = products * Vector::new(scale);
    if comptime!(capped) { (z / Vector::new(cap)).tanh() * Vector::new(cap) } else { z }
}

/// Largest logit and `Σ exp(z − largest)` of a row go along the products once: each unit keeps both for its columns and
/// rescales the sum when it meets a larger logit.
#[cube(launch_unchecked, create_dummy_kernel)]
fn log_probabilities<N: Size>(
    products: &[Vector<f32, N>],
    targets: &[u32],
    logps: &mut [f32],
    log_sums: &mut [f32],
    width: usize,
    scale: f32,
    cap: f32,
    #[comptime] capped: bool,
) {
    let row = CUBE_POS as usize;
    if row < targets.len() {
        let start = row * width;
        let mut most = Vector::<f32, N>::new(LOWEST);
        let mut total = Vector::<f32, N>::new(0.0f32);
        let mut column = UNIT_POS as usize;
        while column < width {
            let z = logits::<N>(products[start + column], scale, cap, capped);
            let higher = most.max(z);
            total = total * (most - higher).exp() + (z - higher).exp();
            most = higher;
            column += UNITS;
        }
        let mut shared = Shared::<[f32]>::new_slice(UNITS);
        let mut own = f32::new(LOWEST);
        #[unroll]
        for lane in 0..N::value() {
            own = f32::max(own, most.extract(lane));
        }
        let top = cube::max(own, &mut shared, UNITS);
        let share = (total * (most - Vector::new(top)).exp()).vector_sum();
        let log_sum = top + f32::ln(cube::sum(share, &mut shared, UNITS));
        if UNIT_POS == 0 {
            let target = targets[row] as usize;
            let z = logits::<N>(products[start + target / N::value()], scale, cap, capped);
            let lane = target % N::value();
            let mut of_target = z.extract(0usize);
            #[unroll]
            for other in 1..N::value() {
                of_target = select(lane == other, z.extract(other), of_target);
            }
            log_sums[row] = log_sum;
            logps[row] = of_target - log_sum;
        }
    }
}

/// The derivatives of a row's log-probability by its products: `scale · z'(…) · (1[v = target] − p(v))`.
#[cube]
fn gradient<N: Size>(
    products: Vector<f32, N>,
    column: usize,
    target: usize,
    log_sum: f32,
    scale: f32,
    cap: f32,
    #[comptime] capped: bool,
) -> Vector<f32, N> {
    let z = logits::<N>(products, scale, cap, capped);
    let mut hit = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for lane in 0..N::value() {
        hit.insert(lane, select(column * N::value() + lane == target, 1.0f32, 0.0f32));
    }
    let out = (hit - (z - Vector::new(log_sum)).exp()) * Vector::new(scale);
    if comptime!(capped) {
        let squashed = z / Vector::new(cap);
        out * (Vector::new(1.0f32) - squashed * squashed)
    } else {
        out
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn gradients_of_rows<E: Float, N: Size>(
    products: &[Vector<f32, N>],
    targets: &[u32],
    log_sums: &[f32],
    gradients: &mut [Vector<E, N>],
    width: usize,
    scale: f32,
    cap: f32,
    #[comptime] capped: bool,
) {
    let at = ABSOLUTE_POS as usize;
    if at < gradients.len() {
        let (row, column) = (at / width, at % width);
        let target = targets[row] as usize;
        gradients[at] =
            Vector::cast_from(gradient::<N>(products[at], column, target, log_sums[row], scale, cap, capped));
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn gradients_in_place<N: Size>(
    products: &mut [Vector<f32, N>],
    targets: &[u32],
    log_sums: &[f32],
    width: usize,
    scale: f32,
    cap: f32,
    #[comptime] capped: bool,
) {
    let at = ABSOLUTE_POS as usize;
    if at < products.len() {
        let (row, column) = (at / width, at % width);
        let target = targets[row] as usize;
        products[at] = gradient::<N>(products[at], column, target, log_sums[row], scale, cap, capped);
    }
}

impl Options {
    /// Scale, cap, and whether there is one.
    fn numbers(self) -> (f32, f32, bool) {
        (self.scale, self.softcap.unwrap_or(1.0), self.softcap.is_some())
    }
}

/// `log p(target)` of each row, and the logarithm of the sum of all exponentials, from products `h Wᵀ` `[rows, vocab]`
/// in f32. `targets` `[rows]`, u32 below `vocab`; `logps` and `log_sums` `[rows]`, f32.
pub fn log_probs(
    client: &Client,
    options: Options,
    vocab: usize,
    products: Buffer,
    targets: Buffer,
    logps: Buffer,
    log_sums: Buffer,
) {
    let rows = targets.len;
    products.expect("products", rows * vocab);
    logps.expect("logps", rows);
    log_sums.expect("log_sums", rows);
    let (lanes, (scale, cap, capped)) = (lanes(vocab), options.numbers());
    let products = products.argument(lanes);
    let [targets, logps, log_sums] = [targets, logps, log_sums].map(|buffer| buffer.argument(1));
    let width = vocab / lanes;
    launch!(client, log_probabilities[grid(rows), UNITS](
        lanes, products, targets, logps, log_sums, width, scale, cap, capped
    ));
}

/// `∂ log p(target) / ∂ (h Wᵀ)` of each row, `[rows, vocab]` in `E`; `log_sums` from [`log_probs`].
pub fn gradients<E: Float>(
    client: &Client,
    options: Options,
    vocab: usize,
    products: Buffer,
    targets: Buffer,
    log_sums: Buffer,
    gradients: Buffer,
) {
    let rows = targets.len;
    expect([(&products, "products"), (&gradients, "gradients")], rows * vocab);
    log_sums.expect("log_sums", rows);
    let (lanes, (scale, cap, capped)) = (lanes(vocab), options.numbers());
    let (width, count) = (vocab / lanes, grid((rows * vocab / lanes).div_ceil(UNITS)));
    let [products, gradients] = [products, gradients].map(|buffer| buffer.argument(lanes));
    let [targets, log_sums] = [targets, log_sums].map(|buffer| buffer.argument(1));
    launch!(client, gradients_of_rows::<E>[count, UNITS](
        lanes, products, targets, log_sums, gradients, width, scale, cap, capped
    ));
}

/// [`gradients`] in f32, in place of the products.
pub fn products_to_gradients(
    client: &Client,
    options: Options,
    vocab: usize,
    products: Buffer,
    targets: Buffer,
    log_sums: Buffer,
) {
    let rows = targets.len;
    products.expect("products", rows * vocab);
    log_sums.expect("log_sums", rows);
    let (lanes, (scale, cap, capped)) = (lanes(vocab), options.numbers());
    let (width, count) = (vocab / lanes, grid((rows * vocab / lanes).div_ceil(UNITS)));
    let products = products.argument(lanes);
    let [targets, log_sums] = [targets, log_sums].map(|buffer| buffer.argument(1));
    launch!(client, gradients_in_place[count, UNITS](lanes, products, targets, log_sums, width, scale, cap, capped));
}
