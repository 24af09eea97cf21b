//! Loads preference files, packs every pair into batches, and says how long it took and how much memory.
//!
//! `cargo run --release -p spo-data --example pack -- TOKENIZER_DIR FILES…`
#![allow(clippy::print_stdout)]

use std::time::Instant;

use spo_data::{DataSpec, Group, Order, PackedBatch, TextSpec, Tokenizer, load, micro_batches};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let tokenizer = Tokenizer::from_dir(arguments.next().ok_or("usage: pack TOKENIZER_DIR FILES…")?.as_ref())?;
    let specs: Vec<DataSpec> = arguments.map(DataSpec::new).collect();
    let start = Instant::now();
    let data = load(&specs, &TextSpec::default(), &tokenizer, &mut |_| ())?;
    let loaded = start.elapsed();
    let (mut batches, mut tokens) = (0, 0);
    for dimension in data.dimensions().into_keys() {
        let pairs = data.pairs(&dimension);
        let order = Order { n: pairs.len(), batch: 32, seed: 0, round: 0, shuffle: true };
        for step in 0..order.steps_per_epoch() {
            let group = |index: usize| {
                let pair = pairs[index];
                let example = &data.examples[pair.example];
                Group {
                    prompt: &example.prompt,
                    answers: vec![&example.answers[pair.chosen], &example.answers[pair.rejected]],
                }
            };
            let groups: Vec<Group> = order.batch(step).into_iter().map(group).collect();
            let lengths: Vec<usize> = groups.iter().map(Group::tokens).collect();
            for batch in micro_batches(&lengths, 4096) {
                let members: Vec<Group> = batch.into_iter().map(|index| groups[index].clone()).collect();
                tokens += PackedBatch::new(&members).tokens();
                batches += 1;
            }
        }
    }
    println!(
        "{} examples in {loaded:.2?}, {batches} batches of {tokens} tokens in {:.2?}",
        data.examples.len(),
        start.elapsed()
    );
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let memory =
            status.lines().filter(|line| ["VmHWM", "RssAnon", "RssFile"].iter().any(|name| line.starts_with(name)));
        memory.for_each(|line| println!("{line}"));
    }
    Ok(())
}
