//! A training loop of one's own on the libraries: DPO on the built-in model and pairs.
//!
//! `cargo run --release -p spo-train --example custom_loop`
#![allow(clippy::print_stdout)]

use spo_core::{Sides, logprob::HeadOptions, objective};
use spo_data::{DataSpec, Group, Order, PackedBatch, PairRef, TextSpec, Tokenizer, load};
use spo_model::{CausalLm, device};
use spo_train::step::gradients::Gradients;
use spo_train::step::optimizer::{AdamW, AdamWConfig};
use spo_train::step::tape::{TapeOptions, differentiate_scored};
use spo_train::task::{PairInputs, PreferenceTask, StepTally, Task};

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../spo-cli/assets");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (step, (loss, norm)) in train(10)?.into_iter().enumerate() {
        println!("step {:2}  loss {loss:.4}  gradient norm {norm:.3}", step + 1);
    }
    Ok(())
}

/// The loss and the gradient norm of each step.
pub fn train(steps: usize) -> Result<Vec<(f64, f64)>, Box<dyn std::error::Error>> {
    let directory = format!("{ASSETS}/stories260K");
    let mut model = CausalLm::from_dir(directory.as_ref(), None, &device::cpu())?;
    let tokenizer = Tokenizer::from_dir(directory.as_ref())?;
    let file = DataSpec { limit: Some(400), ..DataSpec::new(format!("{ASSETS}/truthfulqa/pairs.train.jsonl.gz")) };
    let data = load(&[file], &TextSpec::default(), &tokenizer, &mut |_| ())?;
    let pairs = data.pairs("honesty");

    // The reference does not change: its log-probabilities are needed once, the reference itself never again.
    let group = |pair: &PairRef| {
        let example = &data.examples[pair.example];
        Group { prompt: &example.prompt, answers: vec![&example.answers[pair.chosen], &example.answers[pair.rejected]] }
    };
    let logps = model.score(&pairs.iter().map(group).collect::<Vec<_>>(), 4096, &HeadOptions::default(), &mut |_| ());
    let side = |side: usize| logps.iter().map(|answers| answers[side].iter().copied().map(f64::from).sum()).collect();
    let inputs = PairInputs::new(&data, &pairs, vec![Sides { chosen: side(0), rejected: side(1) }]);
    let objective = objective::build("dpo", &Default::default())?;
    let task = PreferenceTask::new(&data, pairs, objective, inputs, device::cpu())?;

    let order = Order { n: task.len(), batch: 16, seed: 0, round: 1, shuffle: true };
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let mut curve = vec![];
    for step in 0..steps {
        let rows = order.batch(step);
        let batch = PackedBatch::new(&rows.iter().map(|&row| task.group(row)).collect::<Vec<_>>());
        let mut tally = StepTally { weight: rows.len() as f64, ..Default::default() };
        let mut gradients = Gradients::default();
        // The model knows tokens and their log-probabilities, the task what the loss makes of them.
        differentiate_scored(&model, &batch, &TapeOptions::default(), &mut gradients, |scored| {
            task.logp_gradients(&rows, &batch, scored, &mut tally)
        })?;
        curve.push((tally.mean_loss(), gradients.norm()));
        model = optimizer.step(model, gradients, 5e-4, 1.0);
    }
    Ok(curve)
}
