//! Losses and gradients of one batch on plain numbers: what the engine calls.

use burn::tensor::{Device, Tensor};

use crate::objective::Objective;
use crate::tensors::{finite, numbers, precision, with_tape};
use crate::{CoreError, PairNumbers};

/// Losses, rewards and the gradient of the *sum* of the losses; one entry per pair.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PairGradient {
    /// Loss of each pair.
    pub losses: Vec<f64>,
    /// Implicit reward of the chosen answer.
    pub chosen_reward: Vec<f64>,
    /// Implicit reward of the rejected answer.
    pub rejected_reward: Vec<f64>,
    /// What earlier dimensions ask for (`c` of SPO).
    pub margin_offset: Option<Vec<f64>>,
    /// Derivative with respect to the policy's chosen sequence log-probability.
    pub d_chosen: Vec<f64>,
    /// Derivative with respect to the policy's rejected sequence log-probability.
    pub d_rejected: Vec<f64>,
    /// Derivatives with respect to the chosen and rejected sequence KL (tdpo).
    pub d_sequence_kl: Option<(Vec<f64>, Vec<f64>)>,
    /// Derivative with respect to the policy's log-probability of the sampled answer (selm).
    pub d_sampled: Option<Vec<f64>>,
}

impl PairGradient {
    /// The results of the pairs at these indices, in their order.
    ///
    /// # Panics
    /// An index is out of range.
    pub fn select(&self, rows: &[usize]) -> Self {
        let pick = |values: &Vec<f64>| rows.iter().map(|&row| values[row]).collect::<Vec<f64>>();
        Self {
            losses: pick(&self.losses),
            chosen_reward: pick(&self.chosen_reward),
            rejected_reward: pick(&self.rejected_reward),
            margin_offset: self.margin_offset.as_ref().map(pick),
            d_chosen: pick(&self.d_chosen),
            d_rejected: pick(&self.d_rejected),
            d_sequence_kl: self.d_sequence_kl.as_ref().map(|(chosen, rejected)| (pick(chosen), pick(rejected))),
            d_sampled: self.d_sampled.as_ref().map(pick),
        }
    }
}

/// Differentiates `objective` at `pairs`; the arithmetic runs on `device`, in f64 where it has that.
///
/// The vectors are tiny: a CPU device is the fast and the exact choice even when the model lives on a GPU, whose f32
/// would round differences of long answers' log-probabilities.
///
/// # Errors
/// Inputs that are missing, of unequal length or not finite; results that are not finite.
pub fn differentiate(
    objective: &dyn Objective,
    pairs: &PairNumbers,
    device: &Device,
) -> Result<PairGradient, CoreError> {
    pairs.check()?;
    objective.needs().check(objective.name(), pairs)?;
    if pairs.is_empty() {
        return Err(CoreError::Length { input: "pairs".into(), found: 0, expected: 1 });
    }
    let mut logps = pairs.to_tensors(&with_tape(device), precision(device));
    logps.policy_chosen = logps.policy_chosen.require_grad();
    logps.policy_rejected = logps.policy_rejected.require_grad();
    if let Some(kl) = &mut logps.sequence_kl {
        kl.chosen = kl.chosen.clone().require_grad();
        kl.rejected = kl.rejected.clone().require_grad();
    }
    if let Some(sampled) = &mut logps.sampled {
        sampled.policy = sampled.policy.clone().require_grad();
    }

    let result = objective.forward(&logps)?;
    let gradients = result.per_pair.clone().sum().backward();
    let gradient = |leaf: &Tensor<1>| match leaf.grad(&gradients) {
        Some(gradient) => numbers(gradient, "gradients"),
        None => Ok(vec![0.0; pairs.len()]), // the loss does not look at this input
    };
    let gradient = PairGradient {
        losses: numbers(result.per_pair, "losses")?,
        chosen_reward: numbers(result.chosen_reward, "rewards")?,
        rejected_reward: numbers(result.rejected_reward, "rewards")?,
        margin_offset: result.margin_offset.map(|margin_offset| numbers(margin_offset, "margin_offset")).transpose()?,
        d_chosen: gradient(&logps.policy_chosen)?,
        d_rejected: gradient(&logps.policy_rejected)?,
        d_sequence_kl: match &logps.sequence_kl {
            Some(kl) => Some((gradient(&kl.chosen)?, gradient(&kl.rejected)?)),
            None => None,
        },
        d_sampled: logps.sampled.as_ref().map(|sampled| gradient(&sampled.policy)).transpose()?,
    };
    finite(objective.name(), "the loss", &gradient.losses)?;
    finite(objective.name(), "the gradient", &gradient.d_chosen)?;
    finite(objective.name(), "the gradient", &gradient.d_rejected)?;
    Ok(gradient)
}
