//! Losses and gradients of one batch on plain numbers: what the engine calls.

use burn::tensor::{DType, Device, Tensor};

use crate::objective::Objective;
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

/// The precision of the arithmetic: f64 where the device has it, f32 otherwise.
pub(crate) fn precision(device: &Device) -> DType {
    if device.supports_dtype(DType::F64) { DType::F64 } else { DType::F32 }
}

/// `device` with gradients switched on.
pub(crate) fn with_tape(device: &Device) -> Device {
    if device.is_autodiff() { device.clone() } else { device.clone().autodiff() }
}

/// A tensor as plain numbers.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>, what: &'static str) -> Result<Vec<f64>, CoreError> {
    tensor.try_into_vec_as::<f64>().map_err(|error| CoreError::Device { what, reason: error.to_string() })
}

/// Fails at the first number that is not finite.
pub(crate) fn finite(objective: &str, quantity: &'static str, values: &[f64]) -> Result<(), CoreError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(row) => Err(CoreError::NotFinite { objective: objective.into(), row, quantity, found: values[row] }),
        None => Ok(()),
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
    let slope = |leaf: &Tensor<1>| match leaf.grad(&gradients) {
        Some(gradient) => numbers(gradient, "gradients"),
        None => Ok(vec![0.0; pairs.len()]), // the loss does not look at this input
    };
    let gradient = PairGradient {
        losses: numbers(result.per_pair, "losses")?,
        chosen_reward: numbers(result.chosen_reward, "rewards")?,
        rejected_reward: numbers(result.rejected_reward, "rewards")?,
        margin_offset: result.margin_offset.map(|margin_offset| numbers(margin_offset, "margin_offset")).transpose()?,
        d_chosen: slope(&logps.policy_chosen)?,
        d_rejected: slope(&logps.policy_rejected)?,
        d_sequence_kl: match &logps.sequence_kl {
            Some(kl) => Some((slope(&kl.chosen)?, slope(&kl.rejected)?)),
            None => None,
        },
        d_sampled: logps.sampled.as_ref().map(|sampled| slope(&sampled.policy)).transpose()?,
    };
    finite(objective.name(), "the loss", &gradient.losses)?;
    finite(objective.name(), "the gradient", &gradient.d_chosen)?;
    finite(objective.name(), "the gradient", &gradient.d_rejected)?;
    Ok(gradient)
}
