//! Losses on lists: several answers to one prompt, each with a gain.

use std::fmt::Debug;

use burn::tensor::{Device, Tensor, TensorData};

use crate::CoreError;
use crate::tensors::{finite, numbers, precision, with_tape};

/// Lists of one batch as tensors `[lists, answers]`; shorter lists are padded.
#[derive(Debug, Clone)]
pub struct ListLogps {
    /// `log π_θ(y|x)`, 0 in the padding.
    pub policy: Tensor<2>,
    /// `log π_ref(y|x)`, 0 in the padding.
    pub reference: Tensor<2>,
    /// Gain of each answer, larger is better, 0 in the padding.
    pub gains: Tensor<2>,
    /// 1 for an answer, 0 for padding.
    pub present: Tensor<2>,
}

/// Lists of one batch as plain numbers; lists may have different lengths.
#[derive(Debug, Clone, PartialEq)]
pub struct ListNumbers {
    /// `log π_θ(y|x)`.
    pub policy: Vec<Vec<f64>>,
    /// `log π_ref(y|x)`.
    pub reference: Vec<Vec<f64>>,
    /// Gain of each answer, larger is better.
    pub gains: Vec<Vec<f64>>,
}

/// Loss of each list `[lists]` and implicit reward of each answer `[lists, answers]`.
#[derive(Debug, Clone)]
pub struct ListLosses {
    /// Loss.
    pub per_list: Tensor<1>,
    /// Implicit reward.
    pub reward: Tensor<2>,
}

/// A loss on lists of answers.
pub trait ListObjective: Send + Sync + Debug {
    /// Its name in the registry.
    fn name(&self) -> &'static str;

    /// Whether gains are grades, which must not be negative; otherwise their order alone counts.
    fn grades(&self) -> bool;

    /// Losses and rewards of a batch.
    ///
    /// # Errors
    /// Inputs that do not fit.
    fn forward(&self, lists: &ListLogps) -> Result<ListLosses, CoreError>;
}

/// Losses, rewards and the gradient of the *sum* of the losses.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ListGradient {
    /// Loss of each list.
    pub losses: Vec<f64>,
    /// Implicit reward of each answer.
    pub reward: Vec<Vec<f64>>,
    /// Derivative with respect to each `log π_θ`.
    pub d_policy: Vec<Vec<f64>>,
}

impl ListNumbers {
    fn check(&self, grades: bool) -> Result<usize, CoreError> {
        let lengths: Vec<usize> = self.policy.iter().map(Vec::len).collect();
        for (input, lists) in [
            ("policy log-probabilities", &self.policy),
            ("reference log-probabilities", &self.reference),
            ("gains", &self.gains),
        ] {
            if lists.len() != lengths.len() || lists.is_empty() {
                let expected = lengths.len().max(1);
                return Err(CoreError::Length { input: input.into(), found: lists.len(), expected });
            }
            for (row, list) in lists.iter().enumerate() {
                if list.len() != lengths[row] || list.is_empty() {
                    let input = format!("{input} of list {row}");
                    return Err(CoreError::Length { input, found: list.len(), expected: lengths[row].max(1) });
                }
                let grade = input == "gains" && grades;
                if let Some(value) = list.iter().find(|v| !v.is_finite() || (grade && **v < 0.0)) {
                    let expected = if grade { "a number ≥ 0" } else { "a finite number" };
                    return Err(CoreError::InvalidInput {
                        input: input.into(),
                        row,
                        found: value.to_string(),
                        expected,
                    });
                }
            }
        }
        Ok(lengths.into_iter().fold(0, usize::max))
    }
}

/// Differentiates `objective` at `lists`; see [`crate::differentiate()`].
///
/// # Errors
/// Inputs of unequal length or not finite; results that are not finite.
pub fn differentiate_lists(
    objective: &dyn ListObjective,
    lists: &ListNumbers,
    device: &Device,
) -> Result<ListGradient, CoreError> {
    let width = lists.check(objective.grades())?;
    let (tape, dtype) = (with_tape(device), precision(device));
    let padded = |fill: &dyn Fn(usize, &mut [f64])| {
        let mut values = vec![0.0; lists.policy.len() * width];
        for (row, values) in values.chunks_mut(width).enumerate() {
            fill(row, &mut values[..lists.policy[row].len()]);
        }
        Tensor::<2>::from_data(TensorData::new(values, [lists.policy.len(), width]), (&tape, dtype))
    };
    let tensor = |rows: &[Vec<f64>]| padded(&|row, values| values.copy_from_slice(&rows[row]));
    let policy = tensor(&lists.policy).require_grad();
    let result = objective.forward(&ListLogps {
        policy: policy.clone(),
        reference: tensor(&lists.reference),
        gains: tensor(&lists.gains),
        present: padded(&|_, values| values.fill(1.0)),
    })?;
    let gradients = result.per_list.clone().sum().backward();
    let ragged = |values: Vec<f64>| -> Vec<Vec<f64>> {
        values.chunks(width).zip(&lists.policy).map(|(row, list)| row[..list.len()].to_vec()).collect()
    };
    let gradient = ListGradient {
        losses: numbers(result.per_list, "losses")?,
        reward: ragged(numbers(result.reward, "rewards")?),
        d_policy: match policy.grad(&gradients) {
            Some(gradient) => ragged(numbers(gradient, "gradients")?),
            None => lists.policy.iter().map(|list| vec![0.0; list.len()]).collect(),
        },
    };
    finite(objective.name(), "the loss", &gradient.losses)?;
    for row in &gradient.d_policy {
        finite(objective.name(), "the gradient", row)?;
    }
    Ok(gradient)
}
