//! A training loop of one's own on the libraries: DPO on the built-in model and pairs.
//!
//! `cargo run --release -p spo-train --example custom_loop`
#![allow(clippy::print_stdout)]

use serde_json::{Map, json};
use spo_core::{PairNumbers, Sides, logprob::HeadOptions, objective};
use spo_data::{DataSpec, Group, Order, PackedBatch, PairRef, TextSpec, Tokenizer, load};
use spo_model::{CausalLm, device};
use spo_train::config::{TrainingPlan, spec::Recompute};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{TapeOptions, differentiate};
use spo_train::{TrainError, step::optimizer::AdamW};

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../spo-cli/assets");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = format!("{ASSETS}/stories260K");
    let device = device::cpu();
    let mut model = CausalLm::from_dir(directory.as_ref(), None, &device)?;
    let tokenizer = Tokenizer::from_dir(directory.as_ref())?;

    let file = DataSpec { limit: Some(400), ..DataSpec::new(format!("{ASSETS}/truthfulqa/pairs.train.jsonl.gz")) };
    let data = load(&[file], &TextSpec::default(), &tokenizer, &mut |_| ())?;
    let group = |pair: PairRef| {
        let example = &data.examples[pair.example];
        Group { prompt: &example.prompt, answers: vec![&example.answers[pair.chosen], &example.answers[pair.rejected]] }
    };
    let pairs: Vec<Group> = data.pairs("honesty").into_iter().map(group).collect();

    // The reference does not change: its log-probabilities are needed once, the reference itself never again.
    let head = HeadOptions::default();
    let sum = |logps: &[f32]| logps.iter().map(|logp| f64::from(*logp)).sum::<f64>();
    let reference = model.score(&pairs, 4096, &head, &mut |_| ());
    let objective = objective::build("dpo", &Map::from_iter([("beta".to_string(), json!(0.1))]))?;

    let order = Order { n: pairs.len(), batch: 16, seed: 0, round: 1, shuffle: true };
    let options = TapeOptions { recompute: Recompute::None, trainable: Trainable::All, head };
    let settings: TrainingPlan = serde_json::from_value(json!({
        "steps": 10, "epochs": null, "pairs-per-step": 16, "tokens-per-micro-batch": 4096, "learning-rate": 5e-4,
        "schedule": "constant", "warmup-steps": 0, "final-learning-rate-ratio": 0.1, "weight-decay": 0.0,
        "adam-betas": [0.9, 0.999], "adam-eps": 1e-8, "max-grad-norm": 0.0, "shuffle": true, "recompute": "none",
        "head-chunk-rows": 0
    }))?;
    let mut optimizer = AdamW::default();
    for step in 0..settings.steps {
        let rows = order.batch(step as usize);
        let batch = PackedBatch::new(&rows.iter().map(|&row| pairs[row].clone()).collect::<Vec<_>>());
        let (mut gradients, mut loss) = (Gradients::default(), 0.0);
        differentiate(&model, &batch, &options, &mut gradients, |logps| {
            // Answers lie in the batch in the order of the groups: chosen, rejected, chosen, rejected, …
            let answers: Vec<f64> = batch.sequences.iter().map(|tokens| sum(&logps[tokens.clone()])).collect();
            let policy = |side: usize| answers.iter().skip(side).step_by(2).copied().collect::<Vec<f64>>();
            let frozen = |side: usize| rows.iter().map(|&row| sum(&reference[row][side])).collect();
            let mut numbers = PairNumbers::new(policy(0), policy(1));
            numbers.reference = Some(Sides { chosen: frozen(0), rejected: frozen(1) });
            let result = spo_core::differentiate(objective.as_ref(), &numbers, &device)?;

            let n = rows.len() as f64;
            loss = result.losses.iter().sum::<f64>() / n;
            let mut slopes = vec![0.0; logps.len()];
            for (answer, tokens) in batch.sequences.iter().enumerate() {
                let side = if answer % 2 == 0 { &result.d_chosen } else { &result.d_rejected };
                slopes[tokens.clone()].fill((side[answer / 2] / n) as f32);
            }
            Ok::<_, TrainError>(slopes)
        })?;
        println!("step {:2}  loss {loss:.4}  gradient norm {:.3}", step + 1, gradients.norm());
        model = optimizer.step(model, gradients, &settings, settings.learning_rate, 1.0);
    }
    Ok(())
}
