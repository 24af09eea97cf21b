//! Tallies that merge exactly: sums and counts, never means of means.

use crate::PairGradient;

/// A sum and how many values went into it.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Sum of the values.
    pub sum: f64,
    /// Number of values.
    pub count: u64,
}

impl Tally {
    /// Adds one value.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }

    /// The mean, if there was a value.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl FromIterator<f64> for Tally {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        values.into_iter().fold(Self::default(), |mut tally, value| {
            tally.add(value);
            tally
        })
    }
}

/// Mean, spread and extremes of SPO's margin offset `c`: `|c| ≫ 1` saturates the loss.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CarryTally {
    /// `c`.
    pub value: Tally,
    /// `c²`.
    pub square: Tally,
    /// Smallest `c`.
    pub min: f64,
    /// Largest `c`.
    pub max: f64,
    /// Pairs with `c < 0`: earlier dimensions prefer the other answer.
    pub conflicting: u64,
}

impl CarryTally {
    /// Standard deviation over the pairs.
    pub fn deviation(&self) -> Option<f64> {
        let (mean, square) = (self.value.mean()?, self.square.mean()?);
        Some((square - mean * mean).max(0.0).sqrt())
    }

    fn of(margin_offset: &[f64]) -> Self {
        Self {
            value: margin_offset.iter().copied().collect(),
            square: margin_offset.iter().map(|c| c * c).collect(),
            min: margin_offset.iter().copied().fold(f64::INFINITY, f64::min),
            max: margin_offset.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            conflicting: margin_offset.iter().filter(|c| **c < 0.0).count() as u64,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.value.merge(other.value);
        self.square.merge(other.square);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.conflicting += other.conflicting;
    }
}

/// What is logged about a batch of pairs.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct PairTally {
    /// Loss per pair.
    pub loss: Tally,
    /// Implicit reward of chosen answers.
    pub chosen_reward: Tally,
    /// Implicit reward of rejected answers.
    pub rejected_reward: Tally,
    /// Chosen minus rejected reward.
    pub margin: Tally,
    /// 1 where the chosen reward is strictly the larger one; a tie counts 0.
    pub accuracy: Tally,
    /// `log π_θ` of chosen answers.
    pub chosen_logp: Tally,
    /// `log π_θ` of rejected answers.
    pub rejected_logp: Tally,
    /// `c` of SPO, where there is one.
    pub margin_offset: Option<CarryTally>,
}

impl PairTally {
    /// The tally of one batch: its result and the policy's log-probabilities.
    pub fn of(result: &PairGradient, policy_chosen: &[f64], policy_rejected: &[f64]) -> Self {
        let margins = || result.chosen_reward.iter().zip(&result.rejected_reward).map(|(w, l)| w - l);
        Self {
            loss: result.losses.iter().copied().collect(),
            chosen_reward: result.chosen_reward.iter().copied().collect(),
            rejected_reward: result.rejected_reward.iter().copied().collect(),
            margin: margins().collect(),
            accuracy: margins().map(|margin| f64::from(margin > 0.0)).collect(),
            chosen_logp: policy_chosen.iter().copied().collect(),
            rejected_logp: policy_rejected.iter().copied().collect(),
            margin_offset: result
                .margin_offset
                .as_deref()
                .filter(|margin_offset| !margin_offset.is_empty())
                .map(CarryTally::of),
        }
    }

    /// Adds another batch.
    pub fn merge(&mut self, other: &Self) {
        self.loss.merge(other.loss);
        self.chosen_reward.merge(other.chosen_reward);
        self.rejected_reward.merge(other.rejected_reward);
        self.margin.merge(other.margin);
        self.accuracy.merge(other.accuracy);
        self.chosen_logp.merge(other.chosen_logp);
        self.rejected_logp.merge(other.rejected_logp);
        match (&mut self.margin_offset, &other.margin_offset) {
            (Some(margin_offset), Some(other)) => margin_offset.merge(other),
            (None, Some(other)) => self.margin_offset = Some(*other),
            (_, None) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::Device;
    use serde_json::json;

    use super::*;
    use crate::{PairNumbers, Sides, differentiate, objective};

    fn tally(range: std::ops::Range<usize>) -> PairTally {
        let side = |scale: f64| range.clone().map(|i| -scale * (i as f64 - 3.0).powi(2)).collect::<Vec<_>>();
        let mut pairs = PairNumbers::new(side(0.25), side(0.5));
        pairs.reference = Some(Sides { chosen: side(0.5), rejected: side(0.25) });
        pairs.earlier = vec![Sides { chosen: side(1.0), rejected: side(0.25) }, pairs.reference.clone().unwrap()];
        let spo = objective::build("spo", json!({"lambda": 0.5}).as_object().unwrap()).unwrap();
        let result = differentiate(spo.as_ref(), &pairs, &Device::flex()).unwrap();
        PairTally::of(&result, &pairs.policy_chosen, &pairs.policy_rejected)
    }

    #[test]
    fn uneven_windows_merge_to_the_whole() {
        let mut merged = PairTally::default();
        for range in [0..3, 3..4, 4..9] {
            merged.merge(&tally(range));
        }
        let whole = tally(0..9);
        let close = |a: Tally, b: Tally| a.count == b.count && (a.sum - b.sum).abs() < 1e-12;
        assert!(close(merged.loss, whole.loss) && close(merged.margin, whole.margin));
        assert!(close(merged.chosen_logp, whole.chosen_logp) && close(merged.accuracy, whole.accuracy));
        let (a, b) = (merged.margin_offset.unwrap(), whole.margin_offset.unwrap());
        assert!((a.min, a.max, a.conflicting) == (b.min, b.max, b.conflicting) && close(a.value, b.value));
        assert!((a.deviation().unwrap() - b.deviation().unwrap()).abs() < 1e-12);
        let json = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<PairTally>(&json).unwrap().loss.count, 9);
    }

    #[test]
    fn ties_do_not_count_as_right_and_nothing_has_no_mean() {
        let tally = tally(0..9); // pair 3 has all log-probabilities 0: a tie
        assert_eq!((tally.accuracy.sum, tally.accuracy.count), (8.0, 9));
        assert_eq!(Tally::default().mean(), None);
    }
}
