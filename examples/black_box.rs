//! A reward without a gradient: SubZero trains adapters of the built-in model by what a scorer says of its answers.
//!
//! `cargo run --release -p spo-train --example black_box`
#![allow(clippy::print_stdout)]

use spo_data::{DataSpec, TextSpec, Tokenizer, load};
use spo_model::generate::{Control, DecodeOptions, GenerateOptions, Generator, Sampling};
use spo_model::lora::LoraSpec;
use spo_model::{CausalLm, device};
use spo_score::{Item, NoModels, Opening, Registry, Scorer};
use spo_train::step::gradients::Trainable;
use spo_train::step::optimizer::{FromLosses, SubZero, SubZeroConfig, ZerothOrder};

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../spo-cli/assets");

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    for (step, reward) in train("rules:length=30", 60)?.into_iter().enumerate() {
        println!("step {:3}  mean reward {reward:.4}", step + 1);
    }
    Ok(())
}

/// The mean reward of each step's answers, of both sides of its direction.
pub fn train(scorer: &str, steps: usize) -> Fallible<Vec<f64>> {
    let directory = format!("{ASSETS}/stories260K");
    let tokenizer = Tokenizer::from_dir(directory.as_ref())?;
    let lora = LoraSpec::new(4, 8.0);
    let mut model = CausalLm::from_dir(directory.as_ref(), None, &device::cpu())?.with_lora(&lora, 0)?;
    let file = DataSpec { limit: Some(16), ..DataSpec::new(format!("{ASSETS}/truthfulqa/pairs.train.jsonl.gz")) };
    let data = load(&[file], &TextSpec::default(), &tokenizer, &mut |_| ())?;
    let prompts: Vec<&[u32]> = data.examples.iter().map(|example| example.prompt.as_slice()).collect();
    let opening = Opening { models: &NoModels, log: None, directory: None };
    let mut scorer = Registry::builtin().open(&scorer.parse()?, &opening)?;

    let common = ZerothOrder { epsilon: 1e-2, trainable: Trainable::Adapters, ..ZerothOrder::default() };
    let mut optimizer = SubZero::new(SubZeroConfig { common, rank: 4, refresh: 1000 });
    let mut curve = vec![];
    for step in 0..steps {
        let mut losses = vec![];
        while let Some(probe) = optimizer.probe(&model, &losses) {
            // All probes of a step draw with the same random numbers: what differs is the policy.
            losses.push(-reward(probe, &prompts, step as u64, &tokenizer, scorer.as_mut())?);
        }
        curve.push(-losses.iter().sum::<f64>() / losses.len() as f64);
        (model, _) = optimizer.update(model, &losses, 1e-4);
    }
    Ok(curve)
}

/// The mean score of an answer to each prompt.
fn reward(
    model: CausalLm,
    prompts: &[&[u32]],
    seed: u64,
    tokenizer: &Tokenizer,
    scorer: &mut dyn Scorer,
) -> Fallible<f64> {
    let options = GenerateOptions {
        max_new_tokens: 24,
        sampling: Sampling { temperature: 1.0, ..Sampling::GREEDY },
        seed,
        first_stream: 0,
        stop: tokenizer.terminators().to_vec(),
    };
    let mut generator = Generator::new(model, &DecodeOptions { drafts: 0, ..DecodeOptions::default() });
    let answers = generator.generate(prompts, &options, &mut |_, _| Control::Continue);
    let item = |answer: &[u32]| Fallible::Ok(Item { response: tokenizer.decode(answer)?, ..Item::default() });
    let items = answers.iter().map(|answer| item(&answer.ids)).collect::<Fallible<Vec<Item>>>()?;
    let scores = scorer.score(&items, &mut |_| true)?;
    let scores: Vec<f64> = scores.into_iter().flatten().filter_map(|scores| scores.score).collect();
    Ok(scores.iter().sum::<f64>() / scores.len().max(1) as f64)
}
