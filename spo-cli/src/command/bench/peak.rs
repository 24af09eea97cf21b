//! The device's measured peak: what a model's speed is a share of.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, Distribution, FloatDType, Tensor};
use spo_kernels::cpu::{Matrix, product};
use spo_model::device::on_cpu;

/// Rows and columns of the CPU's matrices.
const SIDE: usize = 2048;
/// Of a card's, which grow until a product takes so many seconds.
const SMALLEST: usize = 512;
const LARGEST: usize = 8192;
const LONG_ENOUGH: f64 = 2e-3;
/// Products between two looks at the clock, and how often the clock is looked at.
const PRODUCTS: usize = 2;
const ROUNDS: usize = 4;

/// Operations per second of matrix products, the best of some rounds: on the CPU in f32, the better one of burn's product and the
/// engine's own; on a card in the type of the weights, of matrices that take it a while.
pub(super) fn matmul_flops(device: &Device, dtype: FloatDType) -> f64 {
    if on_cpu(device) { of_cpu(device) } else { of_card(device, dtype) }
}

fn of_cpu(device: &Device) -> f64 {
    let values = |index| (0..SIDE * SIDE).map(|i| ((i + index) % 7) as f32 - 3.0).collect::<Vec<_>>();
    let (a, b) = (values(0), values(1));
    let own = best(SIDE, || {
        (0..PRODUCTS).for_each(|_| drop(black_box(product(Matrix::new(&a, SIDE, SIDE), Matrix::new(&b, SIDE, SIDE)))));
    });
    own.max(of_burn(SIDE, device, FloatDType::F32))
}

fn of_card(device: &Device, dtype: FloatDType) -> f64 {
    let mut side = SMALLEST;
    loop {
        let flops = of_burn(side, device, dtype);
        let seconds = 2.0 * (side as f64).powi(3) / flops;
        if seconds > LONG_ENOUGH || side == LARGEST {
            return flops;
        }
        side *= 2;
    }
}

/// Of burn's products of square matrices.
fn of_burn(side: usize, device: &Device, dtype: FloatDType) -> f64 {
    let random = || Tensor::<2>::random([side, side], Distribution::Uniform(-1.0, 1.0), device).cast(dtype);
    let (a, b) = (random(), random());
    best(side, || {
        let products: Vec<_> = (0..PRODUCTS).map(|_| a.clone().matmul(b.clone())).collect();
        // A read waits for what came before it.
        products.into_iter().for_each(|product| drop(product.slice([0..1, 0..1]).into_data()));
    })
}

/// The best rate of some rounds of products, after one to warm up.
fn best(side: usize, mut products: impl FnMut()) -> f64 {
    let mut round = || {
        let started = Instant::now();
        products();
        (2 * side.pow(3) * PRODUCTS) as f64 / started.elapsed().as_secs_f64()
    };
    round();
    (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
}
