//! TRL's fixtures as data sets and models.
#![allow(clippy::unwrap_used, missing_docs)]

pub mod hooked;

use serde_json::{Value, json};
use spo_core::logprob::HeadOptions;
use spo_data::{Dataset, Example, Group, PairRef, Preference};
use spo_model::{CausalLm, device};
use spo_train::config::TrainingPlan;
use std::path::{Path, PathBuf};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/trl")
}

pub fn golden(arch: &str) -> Value {
    let path = fixtures().join(format!("{arch}-tiny.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn model(name: &str) -> CausalLm {
    CausalLm::from_dir(&fixtures().join(name), None, &device::cpu()).unwrap()
}

/// TRL's rows, cut to the 96 tokens that TRL kept.
pub fn dataset(golden: &Value) -> Dataset {
    let limit = golden["max_length"].as_u64().unwrap() as usize;
    let ids = |value: &Value| value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect::<Vec<_>>();
    let examples = golden["tokenised"].as_array().unwrap().iter().enumerate().map(|(index, row)| {
        let prompt = ids(&row["prompt_ids"]);
        let answers = ["chosen_ids", "rejected_ids"].map(|key| {
            let mut answer = ids(&row[key]);
            answer.truncate(limit - prompt.len());
            answer
        });
        Example {
            id: format!("row {index}"),
            prompt: prompt.into(),
            answers: answers.iter().map(|answer| answer.as_slice().into()).collect(),
            labels: std::sync::Arc::new([("preference".to_string(), Preference::First)].into()),
            scores: Default::default(),
            safe: Default::default(),
            tags: Default::default(),
            source: None,
        }
    });
    Dataset { examples: examples.collect(), report: Default::default() }
}

pub fn logps(model: &CausalLm, data: &Dataset, pairs: &[PairRef]) -> spo_core::Sides<Vec<f64>> {
    let groups: Vec<Group> = pairs
        .iter()
        .map(|pair| {
            let example = &data.examples[pair.example];
            Group { prompt: &example.prompt, answers: vec![&example.answers[0], &example.answers[1]] }
        })
        .collect();
    let scored = model.score(&groups, 100_000, &HeadOptions::default(), &mut |_| ());
    let side = |side: usize| scored.iter().map(|answers| answers[side].iter().map(|l| f64::from(*l)).sum()).collect();
    spo_core::Sides { chosen: side(0), rejected: side(1) }
}

/// Ten plain steps of AdamW in the order of the rows.
pub fn training(pairs_per_step: usize, token_budget: usize) -> TrainingPlan {
    serde_json::from_value(json!({
        "steps": 10, "epochs": null, "pairs-per-step": pairs_per_step, "tokens-per-micro-batch": token_budget,
        "learning-rate": 1e-3, "schedule": "constant", "warmup-steps": 0, "final-learning-rate-ratio": 0.0,
        "weight-decay": 0.0, "adam-betas": [0.9, 0.999], "adam-eps": 1e-8, "max-grad-norm": 0.0, "shuffle": false,
        "recompute": "none", "head-chunk-rows": 0
    }))
    .unwrap()
}
