//! What does one optimiser step cost on the built-in model, and what does recomputing activations add?

use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spo_benches::ASSETS;
use spo_core::logprob::HeadOptions;
use spo_data::{DataSpec, Dataset, Group, PackedBatch, TextSpec, Tokenizer, load};
use spo_model::CausalLm;
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::optimizer::AdamW;
use spo_train::step::tape::{Recompute, TapeOptions, differentiate};

const PAIRS: usize = 16;

fn pairs() -> Dataset {
    let tokenizer = Tokenizer::from_dir(format!("{ASSETS}/stories260K").as_ref()).expect("the built-in tokenizer");
    let file = DataSpec { limit: Some(64), ..DataSpec::new(format!("{ASSETS}/truthfulqa/pairs.train.jsonl.gz")) };
    load(&[file], &TextSpec::default(), &tokenizer, &mut |_| ()).expect("the built-in pairs")
}

fn gradients(model: &CausalLm, batch: &PackedBatch, recompute: Recompute) -> Gradients {
    let options = TapeOptions { recompute, trainable: Trainable::All, head: HeadOptions::default(), router_loss: 0.0 };
    let mut gradients = Gradients::default();
    let logp_gradients =
        |logps: &[f32]| Ok::<_, std::convert::Infallible>(vec![-1.0 / logps.len() as f32; logps.len()]);
    differentiate(model, batch, &options, &mut gradients, logp_gradients).expect("infallible");
    gradients
}

fn step(criterion: &mut Criterion) {
    let model = CausalLm::from_dir(format!("{ASSETS}/stories260K").as_ref(), None, &Device::flex());
    let model = model.expect("the built-in model");
    let data = pairs();
    let groups: Vec<Group> = data
        .pairs("honesty")
        .iter()
        .take(PAIRS)
        .map(|pair| {
            let example = &data.examples[pair.example];
            let answers = vec![example.answers[pair.chosen].as_slice(), &example.answers[pair.rejected]];
            Group { prompt: &example.prompt, answers }
        })
        .collect();
    let batch = PackedBatch::new(&groups);

    let mut group = criterion.benchmark_group(format!("step, stories260K, {PAIRS} pairs in one micro-batch"));
    group.sample_size(20).throughput(Throughput::Elements(batch.tokens() as u64));
    group.bench_function("log-probabilities alone", |bencher| {
        bencher.iter(|| model.token_logps(&batch, &HeadOptions::default()));
    });
    for (name, recompute) in [("gradient", Recompute::None), ("gradient, blocks recomputed", Recompute::Blocks)] {
        group.bench_function(name, |bencher| bencher.iter(|| gradients(&model, &batch, recompute).norm()));
    }
    let mut optimizer = AdamW::default();
    let mut trained = Some(model.clone());
    group.bench_function("AdamW alone", |bencher| {
        bencher.iter_batched(
            || gradients(&model, &batch, Recompute::None),
            |gradients| {
                let model = trained.take().expect("given back after every step");
                trained = Some(optimizer.step(model, gradients, 5e-4, 1.0));
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
