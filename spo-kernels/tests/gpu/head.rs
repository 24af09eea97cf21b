//! The log-probability head.

use crate::device::*;
use half::f16;
use spo_kernels::gpu::Buffer;
use spo_kernels::gpu::head::{self, Options};

const OPTIONS: [Options; 3] = [
    Options { scale: 1.0, softcap: None },
    Options { scale: 0.5, softcap: None },
    Options { scale: 0.25, softcap: Some(3.0) },
];

/// `log p(target)` of a row of products, and the logarithm of the sum.
fn log_prob(products: &[f64], target: usize, options: Options) -> [f64; 2] {
    let logit = |product: &f64| {
        let z = f64::from(options.scale) * product;
        options.softcap.map_or(z, |cap| f64::from(cap) * (z / f64::from(cap)).tanh())
    };
    let logits: Vec<f64> = products.iter().map(logit).collect();
    let most = logits.iter().copied().fold(f64::MIN, f64::max);
    let log_sum = most + logits.iter().map(|z| (z - most).exp()).sum::<f64>().ln();
    [logits[target] - log_sum, log_sum]
}

/// The derivative of a row's log-probability by each product, in closed form.
fn gradients(products: &[f64], target: usize, options: Options) -> Vec<f64> {
    let [_, log_sum] = log_prob(products, target, options);
    let gradient = |(column, product): (usize, &f64)| {
        let z = f64::from(options.scale) * product;
        let (z, steep) = options.softcap.map_or((z, 1.0), |cap| {
            let squashed = (z / f64::from(cap)).tanh();
            (f64::from(cap) * squashed, 1.0 - squashed * squashed)
        });
        (f64::from(u8::from(column == target)) - (z - log_sum).exp()) * steep * f64::from(options.scale)
    };
    products.iter().enumerate().map(gradient).collect()
}

#[test]
fn gradients_are_those_of_the_reference() {
    let products: Vec<f64> = numbers::<f32>(40, 1).into_iter().map(|x| 8.0 * x).collect();
    for options in OPTIONS {
        let by_difference = differences(&products, &[1.0], |products| vec![log_prob(products, 7, options)[0]]);
        assert_close("gradients", &gradients(&products, 7, options), &by_difference, 1e-7);
    }
}

/// Rows of products: the last one far from zero, where exponentials would overflow.
fn products(rows: usize, vocab: usize) -> Vec<f64> {
    let mut products: Vec<f64> =
        numbers::<f32>(rows * vocab, 2).into_iter().map(|x| f64::from((12.0 * x) as f32)).collect();
    products[(rows - 1) * vocab..].iter_mut().for_each(|x| *x = f64::from((*x + 500.0) as f32));
    products
}

fn head<E: Stored>(rows: usize, vocab: usize, options: Options) {
    let client = client();
    let products = products(rows, vocab);
    let targets: Vec<u32> = (0..rows).map(|row| (row * 31 % vocab) as u32).collect();
    let on_products = upload::<f32>(&client, &products);
    let on_targets = Buffer::from_slice(&client, &targets);
    let run = || {
        let [logps, log_sums] = [(); 2].map(|()| poisoned::<f32>(&client, rows));
        let (of, sums) = (logps.clone(), log_sums.clone());
        head::log_probs(&client, options, vocab, on_products.clone(), on_targets.clone(), of, sums);
        (download::<f32>(&client, &logps), log_sums)
    };
    let (logps, log_sums) = run();
    assert_eq!(logps, run().0, "bits of a second run");
    let each = || products.chunks(vocab).zip(&targets);
    let expected: Vec<_> = each().map(|(row, target)| log_prob(row, *target as usize, options)).collect();
    let (of_targets, sums): (Vec<_>, Vec<_>) = expected.into_iter().map(|[logp, sum]| (logp, sum)).unzip();
    assert_close("logps", &logps, &of_targets, 1e-5);
    assert_close("log_sums", &download::<f32>(&client, &log_sums), &sums, 1e-5);
    let expected: Vec<_> = each().flat_map(|(row, target)| gradients(row, *target as usize, options)).collect();
    let found = poisoned::<E>(&client, rows * vocab);
    let (from, sums) = (on_products.clone(), log_sums.clone());
    head::gradients::<E>(&client, options, vocab, from, on_targets.clone(), sums, found.clone());
    assert_close("gradients", &download::<E>(&client, &found), &expected, f64::max(E::TOLERANCE, 3e-5));
    head::products_to_gradients(&client, options, vocab, on_products.clone(), on_targets, log_sums);
    assert_close("gradients in place", &download::<f32>(&client, &on_products), &expected, 3e-5);
}

#[test]
fn log_probabilities_and_gradients() {
    for options in OPTIONS {
        for (rows, vocab) in [(1, 1), (2, 3), (7, 257), (5, 1000), (3, 4098)] {
            head::<f32>(rows, vocab, options);
            head::<f16>(rows, vocab, options);
        }
    }
}

#[test]
fn large_vocabularies() {
    head::<f32>(64, 151_936, OPTIONS[0]);
    head::<f16>(2, 151_937, OPTIONS[2]);
}
