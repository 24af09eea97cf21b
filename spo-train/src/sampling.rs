//! Responses sampled from a policy: for its distance from others, and for a reader.

use crate::TrainError;
use crate::config::EvaluationPlan;
use crate::event::Event;
use crate::held_out::LabelledSet;
use crate::session::Session;
use spo_core::logprob::HeadOptions;
use spo_data::{Group, PromptText, TextSpec, Tokenizer, encode_prompt};
use spo_eval::{KlEstimate, estimate_kl};
use spo_model::CausalLm;
use spo_model::generate::{GenerateOptions, Sampling};

/// Sequences generated together.
const BATCH: usize = 64;

/// Responses that a policy drew to its prompts, with their log-probs under it.
#[derive(Debug)]
pub struct Drawn {
    /// The policy.
    pub policy: String,
    prompts: Vec<Vec<u32>>,
    responses: Vec<Vec<u32>>,
    logps: Vec<f64>,
    /// Limit of a response, in tokens.
    limit: usize,
}

impl Drawn {
    /// Draws one response to each of the first `kl_samples` distinct held-out prompts.
    ///
    /// # Errors
    /// The user's interruption.
    #[allow(clippy::too_many_arguments)]
    pub fn draw(
        policy: &str,
        model: &CausalLm,
        set: &LabelledSet,
        plan: &EvaluationPlan,
        stop: &[u32],
        seed: u64,
        token_budget: usize,
        session: &Session,
    ) -> Result<Self, TrainError> {
        let prompts = distinct_prompts(set, plan.kl_samples);
        let sampling = Sampling { temperature: plan.kl_temperature, top_k: 0, top_p: 1.0 };
        let responses = respond(model, &prompts, plan.kl_max_new_tokens, sampling, stop, seed, session)?;
        let mut drawn =
            Self { policy: policy.into(), prompts, responses, logps: vec![], limit: plan.kl_max_new_tokens };
        drawn.logps = drawn.score(model, token_budget);
        Ok(drawn)
    }

    /// `KL(policy ‖ reference)` on these responses; `model` is the reference.
    ///
    /// # Errors
    /// Fewer than two responses, or a log-prob that is not finite.
    pub fn kl(&self, reference: &str, model: &CausalLm, token_budget: usize) -> Result<KlEstimate, TrainError> {
        let ratios: Vec<f64> = self.logps.iter().zip(self.score(model, token_budget)).map(|(p, q)| p - q).collect();
        let tokens: Vec<usize> = self.responses.iter().map(Vec::len).collect();
        Ok(estimate_kl(&self.policy, reference, &ratios, &tokens)?)
    }

    /// What there is to say of the responses; `step` is how many steps of its phase the policy has.
    pub fn event(&self, step: u64) -> Event {
        let (count, lengths) = (self.responses.len(), || self.responses.iter().map(Vec::len));
        let cut = lengths().filter(|tokens| *tokens >= self.limit).count();
        Event::Drawn {
            policy: self.policy.clone(),
            step,
            responses: count,
            mean_tokens: lengths().sum::<usize>() as f64 / count as f64,
            cut: cut as f64 / count as f64,
        }
    }

    fn score(&self, model: &CausalLm, token_budget: usize) -> Vec<f64> {
        let groups: Vec<Group> = self
            .prompts
            .iter()
            .zip(&self.responses)
            .map(|(prompt, response)| Group { prompt, answers: vec![response] })
            .collect();
        let scored = model.score(&groups, token_budget, &HeadOptions::default(), &mut |_| ());
        scored.iter().map(|answers| answers[0].iter().map(|logp| f64::from(*logp)).sum()).collect()
    }
}

/// The most likely responses of a policy to the prompts that the report shows, as text.
///
/// # Errors
/// A prompt or response cannot be encoded or decoded, or the user's interruption.
pub fn show(
    model: &CausalLm,
    prompts: &[Shown],
    plan: &EvaluationPlan,
    stop: &[u32],
    tokenizer: &Tokenizer,
    session: &Session,
) -> Result<Vec<String>, TrainError> {
    let ids: Vec<Vec<u32>> = prompts.iter().map(|shown| shown.ids.clone()).collect();
    let responses = respond(model, &ids, plan.kl_max_new_tokens, Sampling::GREEDY, stop, 0, session)?;
    responses.iter().map(|response| Ok(tokenizer.decode(response)?.trim().to_string())).collect()
}

/// A prompt that the report shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// As text.
    pub text: String,
    ids: Vec<u32>,
}

/// The user's own prompts and the first few distinct held-out ones.
///
/// # Errors
/// A prompt cannot be encoded or decoded.
pub fn shown_prompts(
    set: &LabelledSet,
    plan: &EvaluationPlan,
    text: &TextSpec,
    tokenizer: &Tokenizer,
) -> Result<Vec<Shown>, TrainError> {
    let mut shown = vec![];
    for prompt in &plan.sample_prompts {
        let ids = encode_prompt(tokenizer, text, &PromptText::Text(prompt.clone()))?;
        shown.push(Shown { text: prompt.clone(), ids });
    }
    for ids in distinct_prompts(set, plan.samples) {
        shown.push(Shown { text: tokenizer.decode(&ids)?.trim().to_string(), ids });
    }
    Ok(shown)
}

fn distinct_prompts(set: &LabelledSet, count: usize) -> Vec<Vec<u32>> {
    let mut seen = std::collections::HashSet::new();
    let prompts = set.dataset.examples.iter().map(|example| &example.prompt);
    prompts.filter(|prompt| seen.insert(*prompt)).take(count).cloned().collect()
}

fn respond(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    max_new_tokens: usize,
    sampling: Sampling,
    stop: &[u32],
    seed: u64,
    session: &Session,
) -> Result<Vec<Vec<u32>>, TrainError> {
    let mut responses = vec![];
    for (index, batch) in prompts.chunks(BATCH).enumerate() {
        session.check_stop()?;
        let prompts: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
        let seed = seed.wrapping_mul(0x9e37_79b9).wrapping_add(index as u64);
        let options = GenerateOptions { max_new_tokens, sampling, seed, stop: stop.to_vec() };
        responses.extend(model.generate(&prompts, &options, &mut |_| ()));
    }
    Ok(responses)
}
