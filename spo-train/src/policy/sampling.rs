//! Responses sampled from a policy: for its distance from others, and for a reader.

use crate::TrainError;
use crate::config::{EvaluationPlan, OnlinePlan};
use crate::events::Event;
use crate::events::reporter::Reporter;
use crate::persist::durable;
use crate::persist::float;
use crate::policy::dealt;
use serde::{Deserialize, Serialize};
use spo_core::logprob::HeadOptions;
use spo_data::{Dataset, Group, PromptText, TextSpec, Tokenizer, encode_prompt, row_hash};
use spo_eval::{KlEstimate, estimate_kl};
use spo_model::CausalLm;
use spo_model::generate::{DecodeOptions, GenerateOptions, Generation, Generator, Sampling};
use spo_model::score::Predictions;
use spo_team::{Team, TeamError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Sequences generated together.
pub(crate) const BATCH: usize = 64;

/// Responses that a policy drew to its prompts, with their log-probs under it.
#[derive(Debug, Serialize, Deserialize)]
pub struct SampledResponses {
    /// The policy.
    pub policy: String,
    prompts: Vec<Vec<u32>>,
    responses: Vec<Vec<u32>>,
    #[serde(deserialize_with = "float::list")]
    logps: Vec<f64>,
    /// Limit of a response, in tokens.
    limit: usize,
}

impl SampledResponses {
    /// Draws one response to each of the first `kl_samples` distinct held-out prompts.
    ///
    /// # Errors
    /// The user's interruption.
    #[allow(clippy::too_many_arguments)]
    pub fn sample(
        policy: &str,
        model: &CausalLm,
        held_out: &Dataset,
        plan: &EvaluationPlan,
        stop: &[u32],
        seed: u64,
        token_budget: usize,
        reporter: &Reporter,
    ) -> Result<Self, TrainError> {
        let prompts = distinct_prompts(held_out, plan.kl_samples);
        let sampling = Sampling { temperature: plan.kl_temperature, ..Sampling::GREEDY };
        let (max_new_tokens, stop) = (plan.kl_max_new_tokens, stop.to_vec());
        let drawing = Drawing { samples: 1, max_new_tokens, sampling, stop, seed };
        let mut drawn = Self::unscored(policy, model, &prompts, &drawing, reporter)?;
        drawn.logps = drawn.score(&reporter.team, model, token_budget)?;
        Ok(drawn)
    }

    /// Draws answers to each of these prompts, one prompt's behind each other, without their log-probs.
    ///
    /// # Errors
    /// The user's interruption.
    pub(crate) fn unscored(
        policy: &str,
        model: &CausalLm,
        prompts: &[Vec<u32>],
        drawing: &Drawing,
        reporter: &Reporter,
    ) -> Result<Self, TrainError> {
        let Drawing { samples, max_new_tokens: limit, sampling, ref stop, seed } = *drawing;
        let prompts: Vec<Vec<u32>> =
            prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.clone(), samples)).collect();
        let responses = respond(model, &prompts, limit, sampling, stop, seed, reporter)?;
        Ok(Self { policy: policy.into(), prompts, responses, logps: vec![], limit })
    }

    /// What the policy says at every token of this process's part of its responses, for [`kl`](Self::kl); `model` is the
    /// policy.
    pub fn predictions(&self, team: &Team, model: &CausalLm, token_budget: usize) -> Predictions {
        let groups = self.groups();
        let own = &dealt::members(team, &groups, token_budget)[team.rank()];
        model.predictions(&dealt::select(&groups, own), token_budget)
    }

    /// `KL(policy ‖ reference)` on these responses, of which the policy said this; `model` is the reference, and the budget
    /// that of [`predictions`](Self::predictions).
    ///
    /// # Errors
    /// Fewer than two responses, or a log-prob that is not finite.
    pub fn kl(
        &self,
        team: &Team,
        policy: &Predictions,
        (reference, model): (&str, &CausalLm),
        token_budget: usize,
    ) -> Result<KlEstimate, TrainError> {
        let groups = self.groups();
        let members = dealt::members(team, &groups, token_budget);
        let own = dealt::select(&groups, &members[team.rank()]);
        let own = model.divergences(policy, &own, token_budget, &HeadOptions::default());
        let divergences = dealt::collect(team, &members, own)?.concat();
        let scores = self.score(team, model, token_budget)?;
        let ratios: Vec<f64> = self.logps.iter().zip(scores).map(|(p, q)| p - q).collect();
        let tokens: Vec<usize> = self.responses.iter().map(Vec::len).collect();
        Ok(estimate_kl(&self.policy, reference, &divergences, &ratios, &tokens)?)
    }

    /// What there is to say of the responses; `step` is how many steps of its phase the policy has.
    pub fn event(&self, step: u64) -> Event {
        let (count, lengths) = (self.responses.len(), || self.responses.iter().map(Vec::len));
        let cut = lengths().filter(|tokens| *tokens >= self.limit).count();
        Event::ResponsesSampled {
            policy: self.policy.clone(),
            step,
            responses: count,
            mean_tokens: lengths().sum::<usize>() as f64 / count as f64,
            cut: cut as f64 / count as f64,
        }
    }

    /// Every prompt with its response.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.prompts.iter().zip(&self.responses).map(|(prompt, response)| (prompt.as_slice(), response.as_slice()))
    }

    /// Tokens of the responses.
    pub(crate) fn tokens(&self) -> usize {
        self.responses.iter().map(Vec::len).sum()
    }

    fn groups(&self) -> Vec<Group<'_>> {
        self.iter().map(|(prompt, response)| Group { prompt, answers: vec![response] }).collect()
    }

    /// The log-prob of each response under a model, `[responses]`.
    ///
    /// # Errors
    /// Another process has failed.
    pub(crate) fn score(&self, team: &Team, model: &CausalLm, token_budget: usize) -> Result<Vec<f64>, TeamError> {
        let sum = |answers: Vec<Vec<f32>>| answers[0].iter().map(|logp| f64::from(*logp)).sum();
        dealt::scored(team, &self.groups(), token_budget, |groups| {
            let scored = model.score(groups, token_budget, &HeadOptions::default(), &mut |_| ());
            scored.into_iter().map(sum).collect()
        })
    }
}

/// The most likely responses of a policy to the prompts that the report shows, as text.
///
/// # Errors
/// A prompt or response cannot be encoded or decoded, or the user's interruption.
pub fn show(
    model: &CausalLm,
    prompts: &[DisplayedPrompt],
    plan: &EvaluationPlan,
    stop: &[u32],
    tokenizer: &Tokenizer,
    reporter: &Reporter,
) -> Result<Vec<String>, TrainError> {
    let ids: Vec<Vec<u32>> = prompts.iter().map(|shown| shown.ids.clone()).collect();
    let responses = respond(model, &ids, plan.kl_max_new_tokens, Sampling::GREEDY, stop, 0, reporter)?;
    responses.iter().map(|response| Ok(tokenizer.decode(response)?.trim().to_string())).collect()
}

/// A prompt that the report shows.
#[derive(Debug, Clone)]
pub struct DisplayedPrompt {
    /// As text.
    pub text: String,
    ids: Vec<u32>,
}

/// The user's own prompts and the first few distinct held-out ones.
///
/// # Errors
/// A prompt cannot be encoded or decoded.
pub fn displayed_prompts(
    held_out: &Dataset,
    plan: &EvaluationPlan,
    text: &TextSpec,
    tokenizer: &Tokenizer,
) -> Result<Vec<DisplayedPrompt>, TrainError> {
    let mut shown = vec![];
    for prompt in &plan.sample_prompts {
        let ids = encode_prompt(tokenizer, text, &PromptText::Text(prompt.clone()))?;
        shown.push(DisplayedPrompt { text: prompt.clone(), ids });
    }
    for ids in distinct_prompts(held_out, plan.samples) {
        shown.push(DisplayedPrompt { text: tokenizer.decode(&ids)?.trim().to_string(), ids });
    }
    Ok(shown)
}

/// Answers that a policy drew to the prompts of a round, by prompt.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    answers: BTreeMap<Vec<u32>, Vec<u32>>,
}

impl Samples {
    /// The answer to a prompt.
    pub fn get(&self, prompt: &[u32]) -> Option<&[u32]> {
        self.answers.get(prompt).map(Vec::as_slice)
    }

    /// Every prompt with its answer.
    pub fn iter(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.answers.iter().map(|(prompt, answer)| (prompt.as_slice(), answer.as_slice()))
    }

    /// The file that holds the answers of the policy with this hash: its name says all that they depend on.
    pub fn path(cache: &Path, policy: &str, prompts: &[&[u32]], max_new_tokens: usize, seed: u64) -> PathBuf {
        let mut hasher = blake3::Hasher::new_derive_key("spo-train samples v1");
        for number in [max_new_tokens as u64, seed] {
            hasher.update(&number.to_le_bytes());
        }
        for prompt in prompts {
            hasher.update(&row_hash(prompt, &[]));
        }
        cache.join(format!("{policy}-{}.samples", &hasher.finalize().to_hex()[..16]))
    }

    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read or is damaged.
    pub fn read(path: &Path) -> Result<Option<Self>, TrainError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TrainError::io(path, error)),
        };
        let pairs: Vec<(Vec<u32>, Vec<u32>)> = serde_json::from_str(&text)
            .map_err(|error| TrainError::Damaged { path: path.into(), reason: error.to_string() })?;
        Ok(Some(Self { answers: pairs.into_iter().collect() }))
    }

    /// Draws one answer to each prompt at temperature 1 and keeps them in the file at `path`. The draw depends on the
    /// policy, the prompts and the seed only.
    ///
    /// # Errors
    /// The file cannot be written, or the user's interruption.
    pub fn draw(
        model: &CausalLm,
        prompts: &[&[u32]],
        max_new_tokens: usize,
        stop: &[u32],
        seed: u64,
        path: &Path,
        reporter: &Reporter,
    ) -> Result<Self, TrainError> {
        // Similar lengths together: the longest prompt of a batch bounds its answers.
        let mut sorted: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.to_vec()).collect();
        sorted.sort_by_key(Vec::len);
        let sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
        let answers = respond(model, &sorted, max_new_tokens, sampling, stop, seed, reporter)?;
        let pairs: Vec<(Vec<u32>, Vec<u32>)> = sorted.into_iter().zip(answers).collect();
        let text = serde_json::to_string(&pairs).expect("numbers only");
        reporter.team.root(|| durable::write(path, text.as_bytes()))?;
        Ok(Self { answers: pairs.into_iter().collect() })
    }
}

/// How answers are drawn.
#[derive(Debug, Clone)]
pub(crate) struct Drawing {
    /// Answers to each prompt.
    pub samples: usize,
    /// Most tokens of one.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens that end an answer.
    pub stop: Vec<u32>,
    /// Answer `k` to prompt `i` has stream `samples · i + k` of this seed.
    pub seed: u64,
}

impl Drawing {
    /// How the answers of an online round are drawn.
    pub fn of(plan: &OnlinePlan, stop: Vec<u32>, seed: u64) -> Self {
        let sampling = Sampling { temperature: plan.temperature, top_p: plan.top_p, ..Sampling::GREEDY };
        Self { samples: plan.samples, max_new_tokens: plan.max_new_tokens, sampling, stop, seed }
    }
}

/// Sequences between two reports of progress.
const TOLD: usize = 4 * BATCH;

/// Draws `samples` answers to each prompt, one prompt's behind each other.
///
/// # Errors
/// The user's interruption.
pub(crate) fn draw_answers(
    policy: &str,
    model: &CausalLm,
    prompts: &[&[u32]],
    drawing: &Drawing,
    reporter: &mut Reporter,
) -> Result<Vec<Generation>, TrainError> {
    let wanted: Vec<&[u32]> = prompts.iter().flat_map(|prompt| std::iter::repeat_n(*prompt, drawing.samples)).collect();
    let decode = DecodeOptions { batch: BATCH, drafts: 0, ..DecodeOptions::default() };
    let mut generator = Generator::new(model.clone(), &decode);
    let mut drawn = vec![];
    for chunk in wanted.chunks(TOLD) {
        let options = GenerateOptions {
            max_new_tokens: drawing.max_new_tokens,
            sampling: drawing.sampling,
            seed: drawing.seed,
            first_stream: drawn.len() as u64,
            stop: drawing.stop.clone(),
        };
        let generated = dealt::written(reporter, &mut generator, BATCH, chunk, &options)?;
        reporter.check_stop()?;
        drawn.extend(generated);
        reporter.emit(Event::Answering { policy: policy.into(), done: drawn.len(), total: wanted.len() })?;
    }
    Ok(drawn)
}

/// The first `count` distinct prompts of a data set.
pub(crate) fn distinct_prompts(held_out: &Dataset, count: usize) -> Vec<Vec<u32>> {
    let mut seen = std::collections::HashSet::new();
    let prompts = held_out.examples.iter().map(|example| example.prompt.as_slice());
    prompts.filter(|prompt| seen.insert(*prompt)).take(count).map(<[u32]>::to_vec).collect()
}

fn respond(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    max_new_tokens: usize,
    sampling: Sampling,
    stop: &[u32],
    seed: u64,
    reporter: &Reporter,
) -> Result<Vec<Vec<u32>>, TrainError> {
    if prompts.is_empty() {
        return Ok(vec![]);
    }
    // Drafts would take memory beside a model in training, for the few sequences at the end of a batch.
    let decode = DecodeOptions { batch: BATCH, drafts: 0, ..DecodeOptions::default() };
    let options = GenerateOptions { max_new_tokens, sampling, seed, first_stream: 0, stop: stop.to_vec() };
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let mut generator = Generator::new(model.clone(), &decode);
    let responses = dealt::written(reporter, &mut generator, BATCH, &prompts, &options)?;
    Ok(responses.into_iter().map(|response| response.ids).collect())
}
