//! One batch's pairs: sequence log-probabilities and what else objectives look at.

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::CoreError;

/// A value for the chosen answers and one for the rejected answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sides<V> {
    /// Of the chosen answers.
    pub chosen: V,
    /// Of the rejected answers.
    pub rejected: V,
}

/// The pairs of one batch; every `V` holds one entry per pair.
///
/// A sequence log-probability is the sum over the answer's tokens (prompt tokens masked), in nats. Make one with
/// [`Pairs::new`] and fill what the objective's [`needs`](crate::Objective::needs) name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pairs<V> {
    /// `log π_θ(y_w|x)`.
    pub policy_chosen: V,
    /// `log π_θ(y_l|x)`.
    pub policy_rejected: V,
    /// The reference, for SPO the policy before this round (`π_{n−1}`).
    pub reference: Option<Sides<V>>,
    /// `π_0 … π_{n−1}`, oldest first; the last one is the reference.
    pub earlier: Vec<Sides<V>>,
    /// Further reference policies to mix (mrpo).
    pub mixture: Vec<Sides<V>>,
    /// Answer lengths in tokens.
    pub lengths: Option<Sides<V>>,
    /// Token-wise KL of the reference from the policy summed over each answer, `Σ_t KL(π_ref ‖ π_θ)` (tdpo).
    pub sequence_kl: Option<Sides<V>>,
    /// Log-probability of an answer that the reference itself wrote, under the policy and the reference (selm).
    pub sampled: Option<SampledLogps<V>>,
    /// How strongly the chosen answer is preferred, ≥ 0 (mm-dpo).
    pub strengths: Option<V>,
    /// Whether each side is safe, 1 or 0 (bfpo).
    pub safety: Option<Sides<V>>,
    /// Log of each side's on-policy weight before clipping (wpo).
    pub on_policy: Option<Sides<V>>,
    /// With which weight policy and reference sum an answer's tokens beyond the shorter answer's length (LD-DPO, see
    /// [`crate::logprob::weight::desensitised`]); `None` where all tokens count in full.
    pub length_desensitised: Option<f64>,
}

/// Log-probabilities of one answer sampled from the reference, per pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampledLogps<V> {
    /// Under the policy in training.
    pub policy: V,
    /// Under the reference.
    pub reference: V,
}

/// [`Pairs`] as tensors `[pairs]`.
pub type PairLogps = Pairs<Tensor<1>>;

/// [`Pairs`] as plain numbers.
pub type PairNumbers = Pairs<Vec<f64>>;

impl<V> Sides<V> {
    fn try_map<W, E>(&self, mut f: impl FnMut(&V) -> Result<W, E>) -> Result<Sides<W>, E> {
        Ok(Sides { chosen: f(&self.chosen)?, rejected: f(&self.rejected)? })
    }
}

impl Sides<Tensor<1>> {
    /// Chosen minus rejected, `[pairs]`.
    pub fn delta(&self) -> Tensor<1> {
        self.chosen.clone() - self.rejected.clone()
    }
}

impl<V> Pairs<V> {
    /// Pairs with the policy's sequence log-probabilities and nothing else.
    pub fn new(policy_chosen: V, policy_rejected: V) -> Self {
        Self {
            policy_chosen,
            policy_rejected,
            reference: None,
            earlier: Vec::new(),
            mixture: Vec::new(),
            lengths: None,
            sequence_kl: None,
            sampled: None,
            strengths: None,
            safety: None,
            on_policy: None,
            length_desensitised: None,
        }
    }

    /// Every field through `f`, which also gets the field's name in words.
    fn try_map<W, E>(&self, mut f: impl FnMut(&'static str, &V) -> Result<W, E>) -> Result<Pairs<W>, E> {
        let mut sides = |name, sides: &Sides<V>| sides.try_map(|value| f(name, value));
        let reference = self.reference.as_ref().map(|s| sides("reference log-probabilities", s)).transpose()?;
        let earlier = self.earlier.iter().map(|s| sides("earlier log-probabilities", s)).collect::<Result<_, E>>()?;
        let mixture = self.mixture.iter().map(|s| sides("mixture log-probabilities", s)).collect::<Result<_, E>>()?;
        let lengths = self.lengths.as_ref().map(|s| sides("answer lengths", s)).transpose()?;
        let sequence_kl = self.sequence_kl.as_ref().map(|s| sides("sequence KL", s)).transpose()?;
        let safety = self.safety.as_ref().map(|s| sides("safety labels", s)).transpose()?;
        let on_policy = self.on_policy.as_ref().map(|s| sides("on-policy weights", s)).transpose()?;
        let sampled = match &self.sampled {
            Some(s) => Some(SampledLogps {
                policy: f("sampled log-probabilities", &s.policy)?,
                reference: f("sampled log-probabilities", &s.reference)?,
            }),
            None => None,
        };
        let strengths = self.strengths.as_ref().map(|v| f("strengths", v)).transpose()?;
        Ok(Pairs {
            policy_chosen: f("policy log-probabilities", &self.policy_chosen)?,
            policy_rejected: f("policy log-probabilities", &self.policy_rejected)?,
            reference,
            earlier,
            mixture,
            lengths,
            sequence_kl,
            sampled,
            strengths,
            safety,
            on_policy,
            length_desensitised: self.length_desensitised,
        })
    }
}

impl PairNumbers {
    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.policy_chosen.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.policy_chosen.is_empty()
    }

    /// Checks that all inputs have one finite entry per pair.
    pub fn check(&self) -> Result<(), CoreError> {
        let expected = self.len();
        self.try_map(|input, values| {
            if values.len() != expected {
                return Err(CoreError::Length { input: input.into(), found: values.len(), expected });
            }
            match values.iter().position(|value| !value.is_finite()) {
                Some(row) => Err(CoreError::InvalidInput {
                    input: input.into(),
                    row,
                    found: values[row].to_string(),
                    expected: "a finite number",
                }),
                None => Ok(()),
            }
        })
        .map(|_: Pairs<()>| ())
    }

    /// The pairs at these indices, in their order.
    ///
    /// # Panics
    /// An index is out of range of an input.
    pub fn select(&self, rows: &[usize]) -> Self {
        infallible(self.try_map(|_, values| Ok(rows.iter().map(|&row| values[row]).collect())))
    }

    /// Appends pairs that have the same inputs.
    ///
    /// # Errors
    /// [`CoreError::Length`] where one side lacks an input that the other has.
    pub fn append(&mut self, other: &Self) -> Result<(), CoreError> {
        let mut columns = Vec::new();
        other.try_map(|input, values| -> Result<(), CoreError> {
            columns.push((input, values.clone()));
            Ok(())
        })?;
        let (expected, mut columns) = (columns.len(), columns.into_iter());
        let mut found = 0;
        let joined = self.try_map(|input, values| {
            found += 1;
            match columns.next() {
                Some((name, more)) if name == input => Ok([values.as_slice(), &more].concat()),
                _ => Err(CoreError::Length { input: "inputs of the pairs".into(), found, expected }),
            }
        })?;
        if found != expected {
            return Err(CoreError::Length { input: "inputs of the pairs".into(), found, expected });
        }
        *self = joined;
        Ok(())
    }

    /// The same pairs as tensors `[pairs]` of `dtype` on `device`.
    pub fn to_tensors(&self, device: &Device, dtype: DType) -> PairLogps {
        infallible(self.try_map(|_, values| {
            Ok(Tensor::from_data(TensorData::new(values.clone(), [values.len()]), (device, dtype)))
        }))
    }
}

fn infallible<T>(result: Result<T, std::convert::Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_window_join_to_the_whole() {
        let side = |scale: f64| (0..5).map(|i| -scale * f64::from(i)).collect::<Vec<_>>();
        let sides = |scale: f64| Sides { chosen: side(scale), rejected: side(scale + 0.5) };
        let mut whole = PairNumbers::new(side(1.0), side(2.0));
        (whole.reference, whole.earlier, whole.strengths) = (Some(sides(3.0)), vec![sides(4.0)], Some(side(5.0)));
        let mut joined = whole.select(&[0, 1]);
        joined.append(&whole.select(&[2, 3, 4])).unwrap();
        assert_eq!(joined, whole);
        assert_eq!(whole.select(&[3, 0]).earlier[0].rejected, [-13.5, 0.0]);
        assert!(joined.append(&PairNumbers::new(vec![0.0], vec![0.0])).is_err());
    }
}
