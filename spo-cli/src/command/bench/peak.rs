//! The device's measured peak: what a model's speed is a share of.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use spo_kernels::cpu::{Matrix, product};
use spo_model::device::on_cpu;

/// Rows and columns of the matrices.
const SIDE: usize = 2048;
/// Products between two looks at the clock, and how often the clock is looked at.
const PRODUCTS: usize = 2;
const ROUNDS: usize = 4;

/// Operations per second of f32 matrix products, the best of some rounds; on the CPU the better one of burn's product and
/// the engine's own.
pub(super) fn matmul_flops(device: &Device) -> f64 {
    let random = || Tensor::<2>::random([SIDE, SIDE], Distribution::Uniform(-1.0, 1.0), device);
    let (a, b) = (random(), random());
    let of_burn = best(|| {
        let products: Vec<_> = (0..PRODUCTS).map(|_| a.clone().matmul(b.clone())).collect();
        // A read waits for what came before it.
        products.into_iter().for_each(|product| drop(product.slice([0..1, 0..1]).into_data()));
    });
    if !on_cpu(device) {
        return of_burn;
    }
    let values = |index| (0..SIDE * SIDE).map(|i| ((i + index) % 7) as f32 - 3.0).collect::<Vec<_>>();
    let (a, b) = (values(0), values(1));
    let own = best(|| {
        (0..PRODUCTS).for_each(|_| drop(black_box(product(Matrix::new(&a, SIDE, SIDE), Matrix::new(&b, SIDE, SIDE)))));
    });
    own.max(of_burn)
}

/// The best rate of some rounds of products, after one to warm up.
fn best(mut products: impl FnMut()) -> f64 {
    let mut round = || {
        let started = Instant::now();
        products();
        (2 * SIDE.pow(3) * PRODUCTS) as f64 / started.elapsed().as_secs_f64()
    };
    round();
    (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
}
