//! What do token log-probabilities and their gradient cost, chunked against all logits at once?

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use spo_core::logprob::{HeadOptions, HeadPass, dense, token_logps};

struct Head {
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    d_logp: Tensor<1>,
}

fn head(rows: usize, width: usize, vocab: usize) -> Head {
    let device = Device::flex();
    let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let targets: Vec<i32> = (0..rows).map(|row| (row * 7919 % vocab) as i32).collect();
    Head {
        hidden: random([rows, width]),
        weight: random([vocab, width]),
        targets: Tensor::from_data(TensorData::new(targets, [rows]), &device),
        d_logp: Tensor::ones([rows], &device),
    }
}

fn logprob(criterion: &mut Criterion) {
    for (name, rows, width, vocab) in [("stories260K", 2048, 64, 512), ("32k vocabulary", 256, 512, 32_000)] {
        let Head { hidden, weight, targets, d_logp } = head(rows, width, vocab);
        let mut group = criterion.benchmark_group(format!("head, {name}"));
        group.sample_size(20).throughput(Throughput::Elements(rows as u64));
        for chunk_rows in [0, 64] {
            let options = HeadOptions { chunk_rows, ..HeadOptions::default() };
            group.bench_function(BenchmarkId::new("log-probabilities", chunk_rows), |bencher| {
                bencher.iter(|| token_logps(hidden.clone(), weight.clone(), targets.clone(), &options).into_data());
            });
            group.bench_function(BenchmarkId::new("gradient", chunk_rows), |bencher| {
                bencher.iter(|| {
                    let (hidden, weight, targets) = (hidden.clone(), weight.clone(), targets.clone());
                    HeadPass::new(hidden, weight, targets, true, &options)
                        .backward(d_logp.clone(), None)
                        .hidden
                        .into_data()
                });
            });
        }
        group.bench_function("dense with a tape, both", |bencher| {
            let options = HeadOptions::default();
            bencher.iter(|| {
                let hidden = Tensor::<2>::from_inner(hidden.clone()).require_grad();
                let weight = Tensor::<2>::from_inner(weight.clone()).require_grad();
                let targets = Tensor::from_inner(targets.clone());
                let gradients = dense::token_logps(hidden.clone(), weight, targets, &options).sum().backward();
                hidden.grad(&gradients).map(Tensor::into_data)
            });
        });
        group.finish();
    }
}

criterion_group!(benches, logprob);
criterion_main!(benches);
