//! AdamW, sums of gradients and their squares, and rows of embedding tables.

use crate::device::*;
use half::f16;
use proptest::prelude::*;
use spo_kernels::gpu::Buffer;
use spo_kernels::gpu::embedding::{self, Sorted};
use spo_kernels::gpu::optimizer::{self, State, Step};
use spo_kernels::gpu::sums;

/// The numbers of some step, as the trainer computes them.
fn step(number: i32, decay: f64) -> Step {
    Step {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        keep: 1.0 - 1e-3 * decay,
        rate: 1e-3 / (1.0 - 0.9f64.powi(number)),
        correction: (1.0 - 0.999f64.powi(number)).sqrt(),
    }
}

/// The trainer's arithmetic, in f32.
fn reference(step: Step, scale: f32, [weight, first, second]: &mut [Vec<f32>; 3], gradient: &[f32]) {
    let [beta1, beta2, keep, rate] = [step.beta1, step.beta2, step.keep, step.rate].map(|x| x as f32);
    let [rest1, rest2, inverse, epsilon] =
        [1.0 - step.beta1, 1.0 - step.beta2, 1.0 / step.correction, step.epsilon].map(|x| x as f32);
    let state = weight.iter_mut().zip(first).zip(second);
    for (((weight, first), second), gradient) in state.zip(gradient) {
        let gradient = gradient * scale;
        *first = *first * beta1 + gradient * rest1;
        *second = *second * beta2 + gradient * gradient * rest2;
        *weight = *weight * keep - *first / (second.sqrt() * inverse + epsilon) * rate;
    }
}

/// How many numbers of f32 lie between two.
fn ulps(a: f32, b: f32) -> u32 {
    let ordered = |x: f32| if x.is_sign_negative() { -(x.abs().to_bits() as i64) } else { x.to_bits() as i64 };
    (ordered(a) - ordered(b)).unsigned_abs() as u32
}

fn adamw(count: usize, decay: f64) {
    let client = client();
    let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let mut expected = [narrow(numbers::<f32>(count, 1)), vec![0.0; count], vec![0.0; count]];
    let [weight, first, second] = expected.each_ref().map(|values| Buffer::from_slice(&client, values));
    let state = State { weight, first, second };
    let (scale, stored) = (0.7f32, poisoned::<f16>(&client, count));
    let on_scale = Buffer::from_slice(&client, &[scale]);
    for number in 1..=6 {
        let gradient = narrow(numbers::<f32>(count, number as u64 + 1));
        let (on_gradient, on_state) = (Buffer::from_slice(&client, &gradient), state.clone());
        let step = step(number, decay);
        match number % 2 {
            0 => optimizer::step(&client, step, on_state, on_gradient, on_scale.clone()),
            _ => {
                optimizer::step_and_store::<f16>(&client, step, on_state, on_gradient, on_scale.clone(), stored.clone())
            }
        }
        let found = [&state.weight, &state.first, &state.second].map(|of| of.clone().read::<f32>(&client));
        if number % 2 == 1 {
            let rounded: Vec<f64> = found[0].iter().map(|weight| f16::from_f32(*weight).wide()).collect();
            assert_eq!(download::<f16>(&client, &stored), rounded);
        }
        // Each step starts from the device's own numbers, so that errors do not add up.
        reference(step, scale, &mut expected, &gradient);
        for (name, (found, expected)) in ["weight", "first", "second"].iter().zip(found.iter().zip(&expected)) {
            let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
            for (found, expected) in found.iter().zip(expected) {
                // A product that cancels keeps the rounding of its terms: an ulp of the largest.
                let near = ulps(*found, *expected) <= 1 || (found - expected).abs() <= f32::EPSILON / 2.0 * scale;
                assert!(near, "{name} of step {number}: {found} instead of {expected}");
            }
        }
        expected = found;
    }
}

#[test]
fn adamw_is_the_trainers() {
    for (count, decay) in [(1, 0.0), (7, 0.1), (4096, 0.1), (70_001, 0.0)] {
        adamw(count, decay);
    }
}

/// Norm and clip factor of several buffers.
fn norm(values: &[Vec<f64>], scale: f32, most: f32) -> [f64; 2] {
    let client = client();
    let places: Vec<usize> = values.iter().map(|values| sums::parts(values.len())).collect();
    let parts = poisoned::<f32>(&client, places.iter().sum());
    let mut first = 0;
    for (values, count) in values.iter().zip(places) {
        sums::squares(&client, upload::<f32>(&client, values), parts.clone(), first);
        first += count;
    }
    let [norm, factor] = [(); 2].map(|()| poisoned::<f32>(&client, 1));
    sums::clip_factor(&client, scale, most, parts, norm.clone(), factor.clone());
    [norm, factor].map(|one| download::<f32>(&client, &one)[0])
}

#[test]
fn norms_and_clip_factors() {
    let values: Vec<Vec<f64>> =
        [1, 3, 8_192, 100_003, 5_000_000].into_iter().map(|count| numbers::<f32>(count, count as u64)).collect();
    let length = values.iter().flatten().map(|x| x * x).sum::<f64>().sqrt();
    for (scale, most) in [(1.0f32, 0.0f32), (0.125, 1.0), (1e-6, 1.0)] {
        let found = norm(&values, scale, most);
        let expected = length * f64::from(scale);
        let clipped = if most > 0.0 { (f64::from(most) / (expected + 1e-6)).min(1.0) } else { 1.0 };
        assert_close("norm", &found[..1], &[expected], 1e-5);
        assert_close("factor", &found[1..], &[clipped * f64::from(scale)], 1e-5);
        assert_eq!(found, norm(&values, scale, most), "bits of a second run");
    }
}

fn accumulated<E: Stored>(count: usize) {
    let client = client();
    let (sum, gradient) = (numbers::<f32>(count, 1), numbers::<E>(count, 2));
    let on_sum = upload::<f32>(&client, &sum);
    sums::accumulate::<E>(&client, on_sum.clone(), upload::<E>(&client, &gradient));
    let expected: Vec<f64> = sum.iter().zip(&gradient).map(|(a, b)| f64::from(*a as f32 + *b as f32)).collect();
    assert_eq!(download::<f32>(&client, &on_sum), expected);
}

#[test]
fn gradients_add_up() {
    for count in [1, 6, 1000, 70_000] {
        accumulated::<f32>(count);
        accumulated::<f16>(count);
    }
}

fn embedding_rows<E: Stored>(ids: &[u32], vocab: usize, width: usize) {
    let client = client();
    let (rows, before) = (numbers::<E>(ids.len() * width, 1), numbers::<f32>(vocab * width, 2));
    let mut expected = before.clone();
    for (id, row) in ids.iter().zip(rows.chunks(width)) {
        expected[*id as usize * width..][..width].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let run = || {
        let sum = upload::<f32>(&client, &before);
        embedding::accumulate::<E>(&client, width, &Sorted::new(ids), upload::<E>(&client, &rows), sum.clone());
        download::<f32>(&client, &sum)
    };
    let found = run();
    assert_close("sum", &found, &expected, 1e-5);
    assert_eq!(found, run(), "bits of a second run");
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn embedding_gradients(ids in proptest::collection::vec(0u32..30, 0..300), width in 1usize..600) {
        embedding_rows::<f32>(&ids, 30, width);
        embedding_rows::<f16>(&ids, 30, width);
    }
}

#[test]
fn tokens_sort_by_id() {
    let sorted = Sorted::new(&[5, 2, 5, 9, 2, 5]);
    assert_eq!(sorted, Sorted { ids: vec![2, 5, 9], starts: vec![0, 2, 5, 6], tokens: vec![1, 4, 0, 2, 5, 3] });
    assert_eq!(Sorted::new(&[]), Sorted { ids: vec![], starts: vec![0], tokens: vec![] });
}
