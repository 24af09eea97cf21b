//! How fast do files become tokens, and what does the cache of tokenised files save?

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spo_benches::ASSETS;
use spo_data::{DataSpec, TextSpec, Tokenizer, load, load_cached};

fn tokenize(criterion: &mut Criterion) {
    let tokenizer = Tokenizer::from_dir(format!("{ASSETS}/stories260K").as_ref()).expect("the built-in tokenizer");
    let specs = [DataSpec::new(format!("{ASSETS}/truthfulqa/pairs.train.jsonl.gz"))];
    let text = TextSpec::default();
    let rows = load(&specs, &text, &tokenizer, &mut |_| ()).expect("the built-in pairs").examples.len();

    let mut group = criterion.benchmark_group("tokenize, TruthfulQA pairs");
    group.sample_size(20).throughput(Throughput::Elements(rows as u64));
    group.bench_function("load", |bencher| bencher.iter(|| load(&specs, &text, &tokenizer, &mut |_| ())));
    let directory = tempfile::tempdir().expect("a place for the cache");
    let cached = || load_cached(&specs, &text, &tokenizer, directory.path(), &mut |_| ()).expect("the same pairs");
    cached();
    group.bench_function("load from the cache", |bencher| {
        bencher.iter(|| {
            let (data, hit) = cached();
            assert!(hit);
            data
        });
    });
    group.finish();
}

criterion_group!(benches, tokenize);
criterion_main!(benches);
