//! What do the log-probabilities of a frozen policy cost when they are computed, and when they are read again?

use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spo_benches::ASSETS;
use spo_data::{DataSpec, TextSpec, Tokenizer, load};
use spo_model::CausalLm;
use spo_train::events::reporter::Reporter;
use spo_train::events::sink::Memory;
use spo_train::policy::logps::LogpCache;
use std::sync::atomic::AtomicBool;

fn cache(criterion: &mut Criterion) {
    let directory = format!("{ASSETS}/stories260K");
    let model = CausalLm::from_dir(directory.as_ref(), None, &Device::flex()).expect("the built-in model");
    let tokenizer = Tokenizer::from_dir(directory.as_ref()).expect("the built-in tokenizer");
    let file = DataSpec { limit: Some(512), ..DataSpec::new(format!("{ASSETS}/truthfulqa/pairs.train.jsonl.gz")) };
    let data = load(&[file], &TextSpec::default(), &tokenizer, &mut |_| ()).expect("the built-in pairs");
    let pairs = data.pairs("honesty");

    let place = tempfile::tempdir().expect("a place for the cache");
    let cache = LogpCache::open(place.path()).expect("a fresh directory");
    let (mut events, stop) = (Memory::default(), AtomicBool::new(false));
    let mut reporter = Reporter::new(place.path().into(), &mut events, &stop);
    let mut fill = |hash: &str| cache.fill("start", hash, 0, &model, &[&data], 256, &mut reporter).expect("scored");

    let mut group = criterion.benchmark_group("log-probabilities of a frozen policy, 1024 answers");
    group.sample_size(10).throughput(Throughput::Elements(2 * data.examples.len() as u64));
    let mut policies = 0;
    group.bench_function("computed and stored", |bencher| {
        bencher.iter(|| {
            policies += 1;
            fill(&policies.to_string())
        });
    });
    fill("read");
    group.bench_function("read and looked up", |bencher| {
        let look_up = || cache.read("start", "read").and_then(|stored| stored.sides(&data, &pairs, |_| true));
        bencher.iter(|| look_up().expect("all are stored"));
    });
    group.finish();
}

criterion_group!(benches, cache);
criterion_main!(benches);
