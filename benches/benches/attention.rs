//! What does attention cost on the CPU, its own operation against burn's operations and their tape?

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spo_data::{Group, PackedBatch};
use spo_model::ModelSpec;
use spo_model::decoder::{Attend, PackedInputs};
use spo_model::spec::AttentionSpec;

/// Heads, heads of keys and values, and width of a head, as in a model of half a billion parameters.
const SHAPE: [usize; 3] = [14, 2, 64];

fn spec() -> ModelSpec {
    let [heads, kv_heads, dim] = SHAPE;
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": 512, "hidden_size": {}, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads},
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-5}}"#,
        heads * dim
    );
    ModelSpec::from_json(&config).expect("a valid config")
}

fn attention(criterion: &mut Criterion) {
    let device = Device::flex();
    let tokens: Vec<u32> = (0..512).collect();
    let pair = |prompt: usize, chosen: usize, rejected: usize| Group {
        prompt: &tokens[..prompt],
        answers: vec![&tokens[..chosen], &tokens[..rejected]],
    };
    for (name, pairs) in [
        ("4 pairs of like length", vec![pair(64, 96, 96); 4]),
        ("4 pairs of unlike length", vec![pair(200, 250, 120), pair(20, 30, 60), pair(40, 20, 10), pair(64, 90, 80)]),
    ] {
        let batch = PackedBatch::new(&pairs);
        let inputs = PackedInputs::new(&batch, &spec(), &device);
        let [heads, kv_heads, dim] = SHAPE;
        let random = |heads| Tensor::<3>::random([batch.tokens(), heads, dim], Distribution::Normal(0.0, 1.0), &device);
        let (q, k, v) = (random(heads), random(kv_heads), random(kv_heads));
        let gradients = random(heads).reshape([batch.tokens(), heads * dim]);

        let plain = AttentionSpec::plain(dim);
        let mut group = criterion.benchmark_group(format!("attention, {name}"));
        group.sample_size(20).throughput(Throughput::Elements(batch.tokens() as u64));
        let own = || inputs.attention().attend(0, plain, [q.clone(), k.clone(), v.clone()], None);
        group.bench_function("forward", |bencher| bencher.iter(|| own().into_data()));
        group.bench_function("forward and backward", |bencher| {
            bencher.iter(|| {
                let y = own().into_data();
                (y, inputs.attention().backward(plain, q.clone(), k.clone(), v.clone(), gradients.clone()))
            });
        });
        group.bench_function("burn's operations, forward and backward", |bencher| {
            bencher.iter(|| {
                let [q, k, v] = [&q, &k, &v].map(|x| x.clone().autodiff().require_grad());
                let y = inputs.attention().reference(plain, q.clone(), k, v);
                let tape = (y * gradients.clone().autodiff()).sum().backward();
                q.grad(&tape).map(Tensor::into_data)
            });
        });
        group.finish();
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);
