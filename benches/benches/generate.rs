//! How fast is greedy generation, and what do drafts and smaller weights bring?
//!
//! 56 M parameters at random, prompts of 64 tokens, 128 new tokens each.
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spo_model::generate::{Control, DecodeOptions, GenerateOptions, Generator, Sampling, WeightFormat};
use spo_model::{CausalLm, ModelSpec, device};

const NEW_TOKENS: usize = 128;

fn generate(criterion: &mut Criterion) {
    let spec = ModelSpec::from_json(
        r#"{"model_type": "llama", "vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1376,
            "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 2048, "tie_word_embeddings": false}"#,
    );
    let model = CausalLm::random(&spec.expect("a valid configuration"), 1, &device::cpu());
    let prompts: Vec<Vec<u32>> =
        (0..8).map(|row| (0..64).map(|i| (i * 97 + row * 1009) % 31_000 + 4).collect()).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let options = GenerateOptions {
        max_new_tokens: NEW_TOKENS,
        sampling: Sampling::GREEDY,
        seed: 0,
        first_stream: 0,
        stop: vec![],
    };
    let kernels = |weights, drafts| Generator::new(model.clone(), &DecodeOptions { weights, drafts, batch: 8 });
    let cases: [(&str, &dyn Fn() -> Generator); 5] = [
        ("exact", &|| kernels(WeightFormat::F32, 8)),
        ("exact, no drafts", &|| kernels(WeightFormat::F32, 0)),
        ("bf16, no drafts", &|| kernels(WeightFormat::Bf16, 0)),
        ("q8", &|| kernels(WeightFormat::Q8, 0)),
        ("tensors", &|| Generator::on_tensors(model.clone(), 8)),
    ];
    let mut group = criterion.benchmark_group("generate");
    group.sample_size(10);
    for (name, generator) in cases {
        let mut generator = generator();
        for batch in [1, 8] {
            group.throughput(Throughput::Elements((batch * NEW_TOKENS) as u64));
            group.bench_function(format!("{name}, batch {batch}"), |bencher| {
                bencher.iter(|| generator.generate(&prompts[..batch], &options, &mut |_, _| Control::Continue));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, generate);
criterion_main!(benches);
