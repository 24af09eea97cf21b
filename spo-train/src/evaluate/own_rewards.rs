//! Implicit rewards of earlier rounds on answers that a policy writes itself.

use crate::TrainError;
use crate::config::SampledPlan;
use crate::events::reporter::Reporter;
use crate::policy::sampling::{Drawing, SampledResponses};
use spo_model::CausalLm;
use spo_model::generate::Sampling;

/// The prompts that policies answer, and how.
#[derive(Debug)]
pub struct OwnAnswers<'a> {
    /// How many answers, how long, at which temperature.
    pub plan: &'a SampledPlan,
    /// The prompts.
    pub prompts: Vec<Vec<u32>>,
    /// Tokens that end an answer.
    pub stop: &'a [u32],
    /// Seed of the run.
    pub seed: u64,
    /// Number of the round in the run.
    pub round: u64,
}

impl OwnAnswers<'_> {
    /// The answers of a policy, one prompt's behind each other. They depend on the policy, the prompts, the seed, the round
    /// and on `when` only.
    ///
    /// # Errors
    /// The user's interruption.
    pub fn draw(
        &self,
        policy: &str,
        model: &CausalLm,
        when: &str,
        reporter: &Reporter,
    ) -> Result<SampledResponses, TrainError> {
        let key = blake3::hash(format!("hold {} {} {when}", self.seed, self.round).as_bytes());
        let seed = key.as_bytes().iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let SampledPlan { samples, max_new_tokens, temperature, .. } = *self.plan;
        let sampling = Sampling { temperature, ..Sampling::GREEDY };
        let drawing = Drawing { samples, max_new_tokens, sampling, stop: self.stop.to_vec(), seed };
        SampledResponses::unscored(policy, model, &self.prompts, &drawing, reporter)
    }
}

/// What makes rewards of what the running policy writes.
#[derive(Debug)]
pub struct OwnRewards<'a> {
    /// What is answered.
    pub answers: OwnAnswers<'a>,
    /// Frozen policies, and what the log-prob of each counts in the reward of each held dimension
    /// ([`spo_core::dual::reward_weights`]).
    pub frozen: Vec<(CausalLm, Vec<f64>)>,
}

impl OwnRewards<'_> {
    /// The reward of each answer that a policy writes after a step of its phase, `[held dimensions][answers]`, in nats.
    ///
    /// # Errors
    /// The user's interruption.
    pub fn after(
        &self,
        step: u64,
        (policy, model): (&str, &CausalLm),
        token_budget: usize,
        reporter: &Reporter,
    ) -> Result<Vec<Vec<f64>>, TrainError> {
        let drawn = self.answers.draw(policy, model, &format!("after {step}"), reporter)?;
        let mut rewards = vec![];
        for (frozen, weights) in &self.frozen {
            reporter.check_stop()?;
            add(&mut rewards, weights, &drawn.score(&reporter.team, frozen, token_budget)?);
        }
        Ok(rewards)
    }
}

/// Adds what the log-probs of a policy, `[answers]`, count to the rewards, `[held dimensions][answers]`.
pub(crate) fn add(rewards: &mut Vec<Vec<f64>>, weights: &[f64], logps: &[f64]) {
    rewards.resize(weights.len(), vec![0.0; logps.len()]);
    for (rewards, weight) in rewards.iter_mut().zip(weights) {
        rewards.iter_mut().zip(logps).for_each(|(reward, logp)| *reward += weight * logp);
    }
}
