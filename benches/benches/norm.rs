//! What does a norm cost on the CPU, in one pass against burn's operations and their tape?

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spo_model::ModelSpec;
use spo_model::decoder::{Norm, pull};
use spo_model::load::RandomSource;

const TOKENS: usize = 512;
const EPSILON: f64 = 1e-5;

fn spec(width: usize) -> ModelSpec {
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": 32, "hidden_size": {width}, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
            "max_position_embeddings": 32, "rms_norm_eps": {EPSILON}}}"#
    );
    ModelSpec::from_json(&config).expect("a valid config")
}

/// RMS norm in burn's operations.
fn of_burn(x: Tensor<2>, weight: Tensor<1>) -> Tensor<2> {
    x.clone() * (x.square().mean_dim(1) + EPSILON).sqrt().recip() * weight.unsqueeze()
}

fn norm(criterion: &mut Criterion) {
    let device = Device::flex();
    for width in [512, 2048] {
        let norm = Norm::load(&mut RandomSource::new(1, &device), "norm", width, &spec(width)).expect("random weights");
        let random = || Tensor::<2>::random([TOKENS, width], Distribution::Normal(0.0, 1.0), &device);
        let (x, gradients) = (random(), random());
        let mut group = criterion.benchmark_group(format!("RMS norm, {TOKENS} tokens of {width}"));
        group.throughput(Throughput::Elements(TOKENS as u64));
        group.bench_function("forward", |bencher| bencher.iter(|| norm.forward(x.clone())));
        group.bench_function("burn's operations, forward", |bencher| {
            bencher.iter(|| of_burn(x.clone(), norm.weight.val()));
        });
        let backward = |of: &dyn Fn(Tensor<2>, Tensor<1>) -> Tensor<2>| {
            let (x, weight) = (x.clone().autodiff().require_grad(), norm.weight.val().autodiff().require_grad());
            let tape = pull([(&of(x.clone(), weight.clone()), &gradients)]).backward();
            (x.grad(&tape), weight.grad(&tape))
        };
        group.bench_function("forward and backward", |bencher| {
            let own = |x, weight| {
                let mut norm = norm.clone();
                norm.weight = norm.weight.map(|_| weight);
                norm.forward(x)
            };
            bencher.iter(|| backward(&own));
        });
        group.bench_function("burn's operations, forward and backward", |bencher| {
            bencher.iter(|| backward(&of_burn));
        });
        group.finish();
    }
}

criterion_group!(benches, norm);
criterion_main!(benches);
