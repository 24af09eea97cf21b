//! Losses on single answers with a label: desirable or not.

use std::fmt::Debug;

use burn::tensor::{Device, Tensor, TensorData};

use crate::CoreError;
use crate::tensors::{finite, numbers, precision, with_tape};

/// Answers of one batch; every `V` holds one entry per answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers<V> {
    /// `log π_θ(y|x)`.
    pub policy: V,
    /// `log π_ref(y|x)`.
    pub reference: V,
    /// 1 for a desirable answer, 0 for an undesirable one.
    pub desirable: V,
    /// Mean of `log π_θ/π_ref` over mismatched prompts and answers, the estimate of the KL in nats; negative ones count
    /// as 0. A constant for the gradient.
    pub kl: f64,
}

/// [`Answers`] as tensors `[answers]`.
pub type AnswerLogps = Answers<Tensor<1>>;

/// [`Answers`] as plain numbers.
pub type AnswerNumbers = Answers<Vec<f64>>;

/// Loss and implicit reward of each answer, `[answers]`.
#[derive(Debug, Clone)]
pub struct AnswerLosses {
    /// Loss.
    pub per_answer: Tensor<1>,
    /// Implicit reward.
    pub reward: Tensor<1>,
}

/// A loss on labelled answers.
pub trait UnpairedObjective: Send + Sync + Debug {
    /// Its name in the registry.
    fn name(&self) -> &'static str;

    /// Whether it uses the KL estimate.
    fn needs_kl(&self) -> bool;

    /// Whether the loss of an answer depends on the others: all answers of a batch must come at once.
    fn whole_batch(&self) -> bool {
        false
    }

    /// The loss of each answer while the policy still equals the reference and the KL is 0, where that is known.
    fn step_zero(&self, desirable: bool) -> Option<f64> {
        let _ = desirable;
        None
    }

    /// Losses and rewards of a batch.
    ///
    /// # Errors
    /// Inputs that do not fit.
    fn forward(&self, answers: &AnswerLogps) -> Result<AnswerLosses, CoreError>;
}

/// Losses, rewards and the gradient of the *sum* of the losses; one entry per answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AnswerGradient {
    /// Loss.
    pub losses: Vec<f64>,
    /// Implicit reward.
    pub reward: Vec<f64>,
    /// Derivative with respect to `log π_θ`.
    pub d_policy: Vec<f64>,
}

impl AnswerNumbers {
    fn check(&self) -> Result<(), CoreError> {
        let expected = self.policy.len();
        for (input, values) in [
            ("policy log-probabilities", &self.policy),
            ("reference log-probabilities", &self.reference),
            ("labels", &self.desirable),
        ] {
            if values.len() != expected || expected == 0 {
                return Err(CoreError::Length { input: input.into(), found: values.len(), expected: expected.max(1) });
            }
            if let Some(row) = values.iter().position(|value| !value.is_finite()) {
                let found = values[row].to_string();
                return Err(CoreError::InvalidInput { input: input.into(), row, found, expected: "a finite number" });
            }
        }
        match self.desirable.iter().position(|label| *label != 0.0 && *label != 1.0) {
            Some(row) => Err(CoreError::InvalidInput {
                input: "labels".into(),
                row,
                found: self.desirable[row].to_string(),
                expected: "1 (desirable) or 0",
            }),
            None => Ok(()),
        }
    }
}

/// Differentiates `objective` at `answers`; see [`crate::differentiate()`].
///
/// # Errors
/// Inputs of unequal length or not finite; results that are not finite.
pub fn differentiate_answers(
    objective: &dyn UnpairedObjective,
    answers: &AnswerNumbers,
    device: &Device,
) -> Result<AnswerGradient, CoreError> {
    answers.check()?;
    let (tape, dtype) = (with_tape(device), precision(device));
    let tensor =
        |values: &Vec<f64>| Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), (&tape, dtype));
    let policy = tensor(&answers.policy).require_grad();
    let result = objective.forward(&Answers {
        policy: policy.clone(),
        reference: tensor(&answers.reference),
        desirable: tensor(&answers.desirable),
        kl: answers.kl,
    })?;
    let gradients = result.per_answer.clone().sum().backward();
    let gradient = AnswerGradient {
        losses: numbers(result.per_answer, "losses")?,
        reward: numbers(result.reward, "rewards")?,
        d_policy: match policy.grad(&gradients) {
            Some(gradient) => numbers(gradient, "gradients")?,
            None => vec![0.0; answers.policy.len()],
        },
    };
    finite(objective.name(), "the loss", &gradient.losses)?;
    finite(objective.name(), "the gradient", &gradient.d_policy)?;
    Ok(gradient)
}
