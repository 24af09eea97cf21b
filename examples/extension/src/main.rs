//! Adds one of each kind of thing from outside of the workspace and trains two rounds with them.
//!
//! `cargo run --release --manifest-path examples/extension/Cargo.toml --target-dir target`

mod family;
mod format;
mod layout;
mod objective;
mod scorer;
mod sink;

use spo_train::config::{Registries, RunSpec};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../spo-cli/assets/stories260K");

const RUN: &str = r#"
schema = 1
out = "run"
holdout = 0.25
model = { path = "model", device = "cpu" }
training = { steps = 4, pairs-per-step = 8, learning-rate = 1e-3 }
evaluation = { bootstrap-resamples = 100, kl-samples = 4, kl-max-new-tokens = 8, samples = 0, scorer = "digits" }
data = [
    { path = "sums.duels", dimension = "sums" },
    { path = "products.duels", dimension = "products", format = "arrows", schema = "duel" },
]

[[rounds]]
dimension = "sums"
objective = "squared-hinge"
beta = 0.5

[[rounds]]
dimension = "products"
objective = "weighted-sum"
terms = [{ name = "squared-hinge", weight = 1.0 }, { name = "sft", weight = 0.1 }]
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let registries = Registries {
        objectives: spo_core::objective::Registry::builtin().add(&objective::SQUARED_HINGE),
        families: spo_model::family::Registry::builtin().add(&family::HALF_ROPE),
        scorers: spo_score::Registry::builtin().add(scorer::DIGITS),
        data: spo_data::Registry::builtin().add(layout::DUEL).add(format::ARROWS),
    };
    let directory = tempfile::tempdir()?;
    write_inputs(directory.path())?;

    // Relative paths of the run file begin in its directory.
    let spec = RunSpec::parse("run.toml", Some(&directory.path().join("run.toml")), RUN, registries)?;
    let (sender, losses) = channel();
    let mut sink = sink::Losses(sender);
    let prepared = spo_train::prepare(&spec, &mut sink)?;
    println!("family   {}", prepared.model.family);
    assert_eq!(prepared.model.family, family::HALF_ROPE.name);
    for file in &prepared.train.dataset.report.files {
        println!("data     {}: layout {}, {} rows", file.file, file.schema, file.rows);
        assert_eq!(file.schema, layout::DUEL.name);
    }
    for round in &prepared.plan.rounds {
        let options = serde_json::to_string(&round.main().options)?;
        println!("round    {}: {} {options}", round.name, round.main().objective);
    }

    let summary = spo_train::run(prepared, &mut sink, &AtomicBool::new(false))?;
    drop(sink);
    let losses: Vec<(String, f64)> = losses.iter().collect();
    for (phase, loss) in &losses {
        println!("loss     {phase}: {loss:.4}");
    }
    assert_eq!(losses.len(), 2 * 4, "a step did not come to the sink");
    // The policy is the reference: of the squared hinge remains 1.
    assert!((losses[0].1 - 1.0).abs() < 1e-6, "the first loss is not that of the objective");
    for score in &summary.matrix {
        println!("scored   {} on {}", score.policy, score.dimension);
    }
    assert_eq!(summary.matrix.len(), 2 * 2);
    for answers in &summary.answers {
        println!("judged   {}: {:.3}", answers.policy, answers.mean);
    }
    assert_eq!(summary.answers.len(), 1 + 2, "the start and both rounds");
    Ok(())
}

/// The built-in tiny model as one of the new family, and sums and products as questions.
fn write_inputs(directory: &Path) -> Result<(), Box<dyn Error>> {
    let model = directory.join("model");
    fs::create_dir(&model)?;
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(Path::new(MODEL).join(file), model.join(file))?;
    }
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(Path::new(MODEL).join("config.json"))?)?;
    config["model_type"] = family::HALF_ROPE.name.into();
    fs::write(model.join("config.json"), config.to_string())?;

    let duels = |sign: &str, result: fn(u32, u32) -> u32| -> String {
        let numbers = (1..8).flat_map(|a| (1..8).map(move |b| (a, b)));
        let line = |(a, b)| format!("How much is {a} {sign} {b}? {} > {}\n", result(a, b), result(a, b) + 1);
        numbers.map(line).collect()
    };
    fs::write(directory.join("sums.duels"), duels("plus", |a, b| a + b))?;
    fs::write(directory.join("products.duels"), duels("times", |a, b| a * b))?;
    Ok(())
}
