//! The device's measured peak: what a model's speed is a share of.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};

/// Rows and columns of the matrices.
const SIDE: usize = 2048;
/// Products between two looks at the clock, and how often the clock is looked at.
const PRODUCTS: usize = 4;
const ROUNDS: usize = 5;

/// Operations per second of f32 matrix products, the best of some rounds.
pub(super) fn matmul_flops(device: &Device) -> f64 {
    let random = || Tensor::<2>::random([SIDE, SIDE], Distribution::Uniform(-1.0, 1.0), device);
    let (a, b) = (random(), random());
    let round = || {
        let started = Instant::now();
        let products: Vec<_> = (0..PRODUCTS).map(|_| a.clone().matmul(b.clone())).collect();
        // A read waits for what came before it.
        for product in products {
            product.slice([0..1, 0..1]).into_data();
        }
        (2 * SIDE.pow(3) * PRODUCTS) as f64 / started.elapsed().as_secs_f64()
    };
    round(); // to warm up
    (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
}
