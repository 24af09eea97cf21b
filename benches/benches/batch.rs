//! What does it cost to split a batch into micro-batches and to lay them out, prompts shared?

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spo_data::{Group, PackedBatch, micro_batches};

const PAIRS: usize = 1024;

fn batch(criterion: &mut Criterion) {
    let tokens: Vec<u32> = (0..512).collect();
    // Lengths without a generator: multiples of the golden ratio.
    let length = |index: usize| 16 + ((index as f64 * 0.618_033_988_749_895).fract() * 400.0) as usize;
    let pair = |index: usize| Group {
        prompt: &tokens[..length(3 * index)],
        answers: vec![&tokens[..length(3 * index + 1)], &tokens[..length(3 * index + 2)]],
    };
    let groups: Vec<Group> = (0..PAIRS).map(pair).collect();
    let lengths: Vec<usize> = groups.iter().map(Group::tokens).collect();

    let mut group = criterion.benchmark_group(format!("batch, {PAIRS} pairs"));
    group.throughput(Throughput::Elements(lengths.iter().sum::<usize>() as u64));
    group.bench_function("split", |bencher| bencher.iter(|| micro_batches(&lengths, 4096)));
    group.bench_function("split and lay out", |bencher| {
        bencher.iter(|| {
            let members = |batch: Vec<usize>| batch.into_iter().map(|index| groups[index].clone()).collect::<Vec<_>>();
            let batches = micro_batches(&lengths, 4096).into_iter();
            batches.map(|batch| PackedBatch::new(&members(batch)).tokens()).sum::<usize>()
        });
    });
    group.finish();
}

criterion_group!(benches, batch);
criterion_main!(benches);
