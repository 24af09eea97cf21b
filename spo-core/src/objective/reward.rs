//! Losses on rewards: what the score head of a reward model gives the two answers of a pair.

use std::fmt::Debug;

use burn::tensor::{Device, Tensor, TensorData};

use super::needs::present;
use crate::CoreError;
use crate::tensors::{finite, numbers, precision, with_tape};

/// Pairs of one batch; every `V` holds one entry per pair.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardPairs<V> {
    /// `r(x, y_w)`.
    pub chosen: V,
    /// `r(x, y_l)`.
    pub rejected: V,
    /// By how much the chosen answer is better, for a loss that looks at it.
    pub strengths: Option<V>,
    /// 1 for two answers of which neither is better, else 0.
    pub ties: V,
}

/// [`RewardPairs`] as tensors `[pairs]`.
pub type RewardTensors = RewardPairs<Tensor<1>>;

/// [`RewardPairs`] as plain numbers.
pub type RewardNumbers = RewardPairs<Vec<f64>>;

/// How a loss takes critiques.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Critique {
    /// Weight of their cross-entropy, summed over the tokens of a critique, in the loss of a pair.
    pub weight: f64,
    /// Most tokens of one that the model writes.
    pub max_tokens: usize,
}

/// A loss on the rewards of pairs.
pub trait RewardObjective: Send + Sync + Debug {
    /// Its name in the registry.
    fn name(&self) -> &'static str;

    /// Whether it looks at strengths.
    fn needs_strengths(&self) -> bool;

    /// Whether it learns from ties.
    fn takes_ties(&self) -> bool;

    /// How critiques are learnt, where the reward is read behind a critique of the answer.
    fn critique(&self) -> Option<Critique> {
        None
    }

    /// Loss of each pair, `[pairs]`.
    ///
    /// # Errors
    /// [`CoreError::MissingInput`] without strengths where it looks at them.
    fn forward(&self, rewards: &RewardTensors) -> Result<Tensor<1>, CoreError>;
}

/// Losses and the gradient of their *sum*; one entry per pair.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RewardGradient {
    /// Loss of each pair.
    pub losses: Vec<f64>,
    /// Derivative with respect to the chosen answer's reward.
    pub d_chosen: Vec<f64>,
    /// Derivative with respect to the rejected answer's reward.
    pub d_rejected: Vec<f64>,
}

impl RewardNumbers {
    fn check(&self, objective: &dyn RewardObjective) -> Result<(), CoreError> {
        let pairs = self.chosen.len();
        if objective.needs_strengths() {
            present(objective.name(), "strengths", self.strengths.as_ref())?;
        }
        let strengths = self.strengths.iter().map(|strengths| ("strengths", strengths));
        let inputs = [("rewards", &self.chosen), ("rewards", &self.rejected), ("ties", &self.ties)];
        for (input, values) in inputs.into_iter().chain(strengths) {
            if values.len() != pairs || values.is_empty() {
                return Err(CoreError::Length { input: input.into(), found: values.len(), expected: pairs.max(1) });
            }
            if let Some(row) = values.iter().position(|value| !value.is_finite()) {
                let (input, found) = (input.into(), values[row].to_string());
                return Err(CoreError::InvalidInput { input, row, found, expected: "a finite number" });
            }
        }
        Ok(())
    }
}

/// Differentiates `objective` at `rewards`; see [`crate::differentiate()`].
///
/// # Errors
/// Inputs of unequal length or not finite, strengths that are missing; results that are not finite.
pub fn differentiate_rewards(
    objective: &dyn RewardObjective,
    rewards: &RewardNumbers,
    device: &Device,
) -> Result<RewardGradient, CoreError> {
    rewards.check(objective)?;
    let (tape, dtype) = (with_tape(device), precision(device));
    let tensor =
        |values: &[f64]| Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), (&tape, dtype));
    let (chosen, rejected) = (tensor(&rewards.chosen).require_grad(), tensor(&rewards.rejected).require_grad());
    let losses = objective.forward(&RewardTensors {
        chosen: chosen.clone(),
        rejected: rejected.clone(),
        strengths: rewards.strengths.as_deref().map(tensor),
        ties: tensor(&rewards.ties),
    })?;
    let gradients = losses.clone().sum().backward();
    let gradient = |leaf: &Tensor<1>| match leaf.grad(&gradients) {
        Some(gradient) => numbers(gradient, "gradients"),
        None => Ok(vec![0.0; rewards.chosen.len()]),
    };
    let gradient = RewardGradient {
        losses: numbers(losses, "losses")?,
        d_chosen: gradient(&chosen)?,
        d_rejected: gradient(&rejected)?,
    };
    finite(objective.name(), "the loss", &gradient.losses)?;
    finite(objective.name(), "the gradient", &gradient.d_chosen)?;
    finite(objective.name(), "the gradient", &gradient.d_rejected)?;
    Ok(gradient)
}
