//! What a round was allowed to cost an earlier dimension, and what it did cost.

use serde::{Deserialize, Serialize};

/// A policy held against one bound of its round, on pairs or on answers of its own that did not drive λ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HoldSummary {
    /// The policy, which has the name of its round or control.
    pub round: String,
    /// The held dimension.
    pub dimension: String,
    /// What the bound is on: labelled `pairs`, or `samples` of the policy's own answers.
    #[serde(default = "pairs")]
    pub on: String,
    /// What is bounded: `accuracy` (0 to 1), `margin` or `reward` (nats).
    pub measure: String,
    /// Whether the next three are changes from the policy that the round started from.
    pub relative: bool,
    /// The least that was asked for.
    pub asked: f64,
    /// What the policy has on the held-out pairs, or on its answers to held-out prompts.
    pub reached: f64,
    /// 95 % interval of it.
    pub interval: (f64, f64),
    /// λ, the mean over the second half of the round: also the price of the bound. Loosened by one nat of the held dimension's
    /// reward it lets the round have λ nats more of its own, net of the KL term.
    pub lambda: f64,
    /// Whether the bound is not below what was reached by more than its interval.
    pub met: bool,
    /// Whether λ ended at the highest value that it may take.
    pub at_limit: bool,
    /// What was reached on the pairs that drive λ, when it was last moved, in the scale of `reached`.
    pub driven: f64,
    /// Held-out pairs that judge; where the bound is on samples, held-out prompts.
    pub pairs: usize,
    /// Pairs, or prompts, that drive λ.
    pub driving: usize,
}

/// What all bounds were on once.
fn pairs() -> String {
    "pairs".to_owned()
}

impl HoldSummary {
    /// What there is to say of a bound that was missed, and what is feasible.
    #[must_use]
    pub fn shortfall(&self) -> Option<String> {
        if self.met {
            return None;
        }
        let (reached, low, high) = (self.value(self.reached), self.value(self.interval.0), self.value(self.interval.1));
        let why = match self.at_limit {
            true => format!(
                "λ ended at its limit of {:.2}, so no λ holds more here: feasible is about {reached}",
                self.lambda
            ),
            false => format!("λ was {:.2}: what was reached is about {reached}", self.lambda),
        };
        let advice = match self.at_limit {
            true => "ask for that, or let the round move less (fewer steps, a lower learning rate, a larger alpha)",
            false if self.on == "samples" => {
                "more steps, a smaller `every` or a larger `rate` let λ settle, and more `samples` and `sample-prompts` measure \
                 better"
            }
            false => {
                "more steps, a smaller `every` or a larger `rate` let λ settle, and a larger `hold-share` measures better"
            }
        };
        Some(format!(
            "{} does not hold {}: asked was {} of at least {}, reached {reached} ({low} to {high}). {why}; {advice}.",
            self.round,
            self.dimension,
            self.measure,
            self.value(self.asked)
        ))
    }

    /// What is bounded, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let on = if self.on == "samples" { " on its own samples" } else { "" };
        format!("{}{on}{}", self.measure, if self.relative { ", change" } else { "" })
    }

    /// A value in the measure's unit, with its sign where it is a change.
    #[must_use]
    pub fn value(&self, value: f64) -> String {
        match (self.measure.as_str(), self.relative) {
            ("accuracy", true) => format!("{:+.1} points", 100.0 * value),
            ("accuracy", false) => format!("{:.1} %", 100.0 * value),
            (_, true) => format!("{value:+.2} nats"),
            (_, false) => format!("{value:.2} nats"),
        }
    }
}

/// The multiplier of a held dimension after an update.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct HoldPoint {
    /// Optimiser steps done; 0 is the start.
    pub step: u64,
    /// The dimension.
    pub dimension: String,
    /// What is bounded.
    pub measure: String,
    /// What the running policy had on the pairs that drive λ.
    pub reached: f64,
    /// What it had to have at this step.
    pub bound: f64,
    /// λ from then on.
    pub lambda: f64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn summary() -> HoldSummary {
        HoldSummary {
            round: "round-2".into(),
            dimension: "honesty".into(),
            on: "pairs".into(),
            measure: "accuracy".into(),
            relative: true,
            asked: -0.02,
            reached: -0.1,
            interval: (-0.13, -0.07),
            lambda: 10.0,
            met: false,
            at_limit: true,
            driven: -0.09,
            pairs: 700,
            driving: 400,
        }
    }

    #[test]
    fn a_bound_out_of_reach_says_what_is_feasible() {
        let text = summary().shortfall().unwrap();
        let expected = "round-2 does not hold honesty: asked was accuracy of at least -2.0 points, reached -10.0 points \
                        (-13.0 points to -7.0 points). λ ended at its limit of 10.00, so no λ holds more here: feasible is \
                        about -10.0 points; ask for that";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(HoldSummary { met: true, ..summary() }.shortfall(), None);
        let absolute = HoldSummary { relative: false, measure: "margin".into(), at_limit: false, ..summary() };
        let sampled = HoldSummary { on: "samples".into(), measure: "reward".into(), at_limit: false, ..summary() };
        assert!(sampled.shortfall().unwrap().ends_with("more `samples` and `sample-prompts` measure better."));
        let older = serde_json::to_string(&summary()).unwrap().replace("\"on\":\"pairs\",", "");
        assert_eq!(serde_json::from_str::<HoldSummary>(&older).unwrap(), summary());
        assert!(absolute.shortfall().unwrap().contains("margin of at least -0.02 nats"), "{:?}", absolute.shortfall());
    }
}
