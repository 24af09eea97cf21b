//! The implicit reward of two policies: `β (log π_A(y|x) − log π_B(y|x))` (Rafailov et al. 2023, equation 5, without the
//! term that depends on the prompt alone).

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use spo_data::Group;

use crate::entry::{Entry, OpenError, decoded};
use crate::item::{Ids, in_chunks};
use crate::{Item, LoadedPolicy, ScoreError, Scorer, Scores, Watch};

pub(crate) const ENTRY: Entry = Entry {
    name: "implicit",
    summary: "β (log π_A − log π_B): what a trained policy has learnt to prefer over the one it came from",
    example: r#"{ kind = "implicit", policy = "RUN:round-1-honesty", reference = "RUN:start" }"#,
    options: || schema_for!(Options),
    argument: None,
    check: |options| {
        let options: Options = decoded(options)?;
        if !(options.beta.is_finite() && options.beta > 0.0) {
            return Err(OpenError::Options(format!("beta is {}, expected a number above 0", options.beta)));
        }
        Ok(())
    },
    open: |options, opening, _| {
        let options: Options = decoded(options)?;
        let [policy, reference] = [opening.models.open(&options.policy)?, opening.models.open(&options.reference)?];
        if policy.model.spec().vocab_size != reference.model.spec().vocab_size {
            return Err(OpenError::Options("the two policies have different vocabularies".into()));
        }
        Ok(Box::new(Implicit { options, policy, reference }))
    },
};

/// Options of `implicit`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// π_A: a model directory, or RUN:POLICY.
    policy: String,
    /// π_B, of the same tokenizer.
    reference: String,
    /// β, the scale of the objective that trained π_A.
    #[serde(default = "beta")]
    beta: f64,
    /// The mean over the answer's tokens in place of the sum.
    #[serde(default)]
    per_token: bool,
    /// Most tokens computed at once.
    #[serde(default = "tokens")]
    tokens_per_micro_batch: usize,
}

fn beta() -> f64 {
    0.1
}

fn tokens() -> usize {
    4096
}

struct Implicit {
    options: Options,
    policy: LoadedPolicy,
    reference: LoadedPolicy,
}

impl Implicit {
    /// Prompt and answer as tokens: those that the item has, else as the policy lays text out.
    fn ids(&self, item: &Item) -> Result<Option<Ids>, ScoreError> {
        match item.response_ids.is_empty() {
            false => Ok(Some(Ids { prompt: item.prompt_ids.clone(), answer: item.response_ids.clone() })),
            true => Ids::of_text(item, &self.policy.tokenizer, &self.policy.text),
        }
    }

    fn check(&self, item: &Item, prompt: &[u32], answer: &[u32]) -> Result<(), ScoreError> {
        let fits = self.policy.model.spec().check_row(&item.id, prompt, &[answer]);
        fits.map_err(|error| ScoreError::Model { name: self.options.policy.clone(), source: error.into() })
    }
}

impl Scorer for Implicit {
    fn score(&mut self, items: &[Item], watch: Watch) -> Result<Vec<Option<Scores>>, ScoreError> {
        in_chunks("implicit", items, watch, |items| self.rewards(items))
    }
}

impl Implicit {
    fn rewards(&self, items: &[Item]) -> Result<Vec<Option<f64>>, ScoreError> {
        let mut rows = vec![];
        for (index, item) in items.iter().enumerate() {
            if let Some(ids) = self.ids(item)? {
                self.check(item, &ids.prompt, &ids.answer)?;
                rows.push((index, ids));
            }
        }
        let groups: Vec<Group> =
            rows.iter().map(|(_, ids)| Group { prompt: &ids.prompt, answers: vec![&ids.answer] }).collect();
        let [own, other] = [&self.policy, &self.reference].map(|policy| -> Vec<f64> {
            let budget = self.options.tokens_per_micro_batch;
            let scored = policy.model.score(&groups, budget, &Default::default(), &mut |_| ());
            scored.into_iter().map(|answers| answers[0].iter().map(|logp| f64::from(*logp)).sum()).collect()
        });
        let mut rewards = vec![None; items.len()];
        for ((index, ids), (own, other)) in rows.iter().zip(own.iter().zip(&other)) {
            let length = if self.options.per_token { ids.answer.len() as f64 } else { 1.0 };
            rewards[*index] = Some(self.options.beta * (own - other) / length);
        }
        Ok(rewards)
    }
}
