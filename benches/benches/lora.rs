//! What does a linear layer cost forward and backward: trained, frozen, frozen with an adapter on the activations, and
//! with the adapter composed into a dense weight, as burn's own `apply_lora` does?

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spo_model::decoder::{Linear, pull};
use spo_model::lora::LoraSpec;
use spo_model::{CausalLm, ModelSpec};

const TOKENS: usize = 512;
const RANK: usize = 16;

/// The up-projection of a model of 56 million parameters.
const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 32, "hidden_size": 512, "intermediate_size": 1376,
    "num_hidden_layers": 1, "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5}"#;

/// With gradients of these parameters; the others are constants.
fn lifted(layer: &Linear, weight: bool) -> Linear {
    let mut layer = layer.clone();
    if weight {
        layer.weight = layer.weight.map(|weight| weight.map(|x| x.autodiff().require_grad()));
    } else if let Some(lora) = &mut layer.lora {
        lora.a = lora.a.clone().map(|x| x.autodiff().require_grad());
        lora.b = lora.b.clone().map(|x| x.autodiff().require_grad());
    }
    layer
}

fn lora(criterion: &mut Criterion) {
    let device = Device::flex();
    let model = CausalLm::random(&ModelSpec::from_json(CONFIG).expect("a valid config"), 1, &device);
    let spec = LoraSpec::new(RANK, 32.0);
    let up = |model: CausalLm| model.layers[0].mlp.clone().and_then(|mlp| mlp.up_proj).expect("a gated block");
    let (plain, adapted) = (up(model.clone()), up(model.with_lora(&spec, 2).expect("a rank above 0")));
    let [outer, inner] = plain.dims();
    let random = |width| Tensor::<2>::random([TOKENS, width], Distribution::Normal(0.0, 1.0), &device);
    let (x, gradients) = (random(inner), random(outer));
    let leaf = |x: &Tensor<2>| x.clone().autodiff().require_grad();

    let mut group = criterion.benchmark_group(format!("linear layer, {TOKENS} tokens, {inner} to {outer}"));
    group.throughput(Throughput::Elements(TOKENS as u64));
    let cases = [("trained", &plain, true), ("frozen", &plain, false), ("frozen with an adapter", &adapted, false)];
    for (name, layer, weight) in cases {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (x, layer) = (leaf(&x), lifted(layer, weight));
                let tape = pull([(&layer.forward(x.clone()), &gradients)]).backward();
                let lora = layer.lora.as_ref().and_then(|lora| lora.a.val().grad(&tape));
                (x.grad(&tape), weight.then(|| layer.dense().grad(&tape)), lora)
            });
        });
    }
    let lora = adapted.lora.as_ref().expect("it has an adapter");
    group.bench_function("adapter composed into the weight", |bencher| {
        bencher.iter(|| {
            let (x, a, b) = (leaf(&x), leaf(&lora.a.val()), leaf(&lora.b.val()));
            let weight = adapted.dense().autodiff() + b.clone().matmul(a.clone()) * (32.0 / RANK as f64);
            let tape = pull([(&x.clone().matmul(weight.transpose()), &gradients)]).backward();
            (x.grad(&tape), a.grad(&tape), b.grad(&tape))
        });
    });
    group.finish();
}

criterion_group!(benches, lora);
criterion_main!(benches);
