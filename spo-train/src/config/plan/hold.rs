//! `hold` of a round, resolved.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use spo_core::dual::Ascent;

use crate::config::spec::HoldOn;

/// How an arm finds its λ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HoldPlan {
    /// Steps between two updates.
    pub every: u64,
    /// Share of the steps over which a loss is given out.
    pub spend: f64,
    /// Step of the dual ascent.
    pub rate: f64,
    /// Proportional part.
    pub gain: f64,
    /// Largest λ.
    pub max_lambda: f64,
    /// What the bounds are on.
    #[serde(default)]
    pub on: HoldOn,
    /// How the policy is sampled, where they are on that.
    #[serde(flatten)]
    pub sampled: Option<SampledPlan>,
    /// The bounds.
    #[serde(flatten)]
    pub dimensions: BTreeMap<String, HeldPlan>,
}

/// Answers of the policy that bounds are on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SampledPlan {
    /// Prompts, at most.
    pub sample_prompts: usize,
    /// Answers to each.
    pub samples: usize,
    /// Longest answer, tokens.
    pub max_new_tokens: usize,
    /// Sampling temperature.
    pub temperature: f64,
}

/// The bound of one dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeldPlan {
    /// On the accuracy, 0 to 1.
    Accuracy {
        /// The bound.
        accuracy: Bound,
    },
    /// On the mean margin, in nats.
    Margin {
        /// The bound.
        margin: Bound,
    },
    /// On the mean margin times `scale`, in nats of reward.
    Reward {
        /// The bound.
        reward: Bound,
        /// β of the dimension's round.
        scale: f64,
    },
}

impl HoldPlan {
    /// How λ follows violations.
    pub fn ascent(&self) -> Ascent {
        Ascent { rate: self.rate, gain: self.gain, most: self.max_lambda }
    }

    /// Updates in so many steps: one after each `every` of them, none after the last.
    pub fn updates(&self, steps: u64) -> u64 {
        steps.saturating_sub(1) / self.every
    }
}

impl HeldPlan {
    /// The bound.
    pub fn bound(&self) -> Bound {
        match self {
            Self::Accuracy { accuracy: bound }
            | Self::Margin { margin: bound }
            | Self::Reward { reward: bound, .. } => *bound,
        }
    }

    /// What is bounded.
    pub fn measure(&self) -> &'static str {
        match self {
            Self::Accuracy { .. } => "accuracy",
            Self::Margin { .. } => "margin",
            Self::Reward { .. } => "reward",
        }
    }

    /// What a pair with this margin `Δ log(π/π_0)` counts: the mean over pairs is what is bounded.
    pub fn of(&self, margin: f64) -> f64 {
        match self {
            Self::Accuracy { .. } => spo_eval::credit(margin),
            Self::Margin { .. } => margin,
            Self::Reward { scale, .. } => scale * margin,
        }
    }
}

/// What may be lost, or must be kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Bound {
    /// At least so much more than the policy that the round starts from; below 0 a loss.
    Change(f64),
    /// At least this.
    AtLeast(f64),
}

impl Bound {
    /// What a bound looks like, for messages.
    pub(crate) const EXPECTED: &str =
        "a change from the policy before, such as \"-0.02\", or a value to keep, such as \">= 0.60\"";

    /// Reads a bound.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        match text.strip_prefix(">=") {
            Some(rest) => number(rest).map(Self::AtLeast),
            // Without a sign it might mean either.
            None if text.starts_with(['-', '+']) => number(text).map(Self::Change),
            None => None,
        }
    }

    /// The value to keep, where the policy before has this one.
    pub fn floor(self, before: f64) -> f64 {
        match self {
            Self::Change(change) => before + change,
            Self::AtLeast(value) => value,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(change) => write!(f, "{change:+}"),
            Self::AtLeast(value) => write!(f, ">= {value}"),
        }
    }
}

impl TryFrom<String> for Bound {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("found {text:?}, expected {}", Self::EXPECTED))
    }
}

impl From<Bound> for String {
    fn from(bound: Bound) -> Self {
        bound.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Bound, HeldPlan};

    #[test]
    fn bounds_are_read_and_give_a_floor() {
        for (text, floor) in [("-0.02", 0.68), ("+0.1", 0.8), (" -0 ", 0.7), (">= 0.6", 0.6), (">=-3", -3.0)] {
            let bound = Bound::parse(text).unwrap();
            assert!((bound.floor(0.7) - floor).abs() < 1e-12, "{text}");
            assert_eq!(Bound::parse(&bound.to_string()), Some(bound), "{text}");
        }
        for text in ["0.02", "> 0.6", "<= 0.6", "-x", ">=", "", "- inf", "-inf", "−0.02"] {
            assert_eq!(Bound::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_bounded_is_a_mean_over_pairs() {
        let bound = Bound::Change(0.0);
        let of = |held: HeldPlan| [2.0, -4.0, 0.0].map(|margin| held.of(margin));
        assert_eq!(of(HeldPlan::Accuracy { accuracy: bound }), [1.0, 0.0, 0.5]);
        assert_eq!(of(HeldPlan::Margin { margin: bound }), [2.0, -4.0, 0.0]);
        assert_eq!(of(HeldPlan::Reward { reward: bound, scale: 0.5 }), [1.0, -2.0, 0.0]);
    }
}
