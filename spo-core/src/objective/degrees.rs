//! Preference degrees (Self-supervised Preference Optimization, arXiv 2409.17791): beside the loss on pairs, answers with
//! key phrases removed are told apart by how much is removed, L = L_align + γ·L_degree.
//!
//! The paper's text could not be had in full: the number of degrees, what is removed at which, what the head reads and γ are
//! choices of ours, each behind an option.

use serde::Deserialize;

use super::options::{ANY, NON_NEGATIVE, OptionDoc};

/// The options, shared by all paired objectives.
pub const OPTIONS: [OptionDoc; 4] = [
    OptionDoc {
        key: "degree-weight",
        default: "0.0",
        meaning: "γ: weight of the loss on preference degrees, by which chosen answers with key phrases removed are told apart",
        source: "off; arXiv 2409.17791 has the sum, its γ could not be found: 0.1 is a first choice",
        range: NON_NEGATIVE,
        ..OptionDoc::POSITIVE
    },
    OptionDoc {
        key: "degrees",
        default: "4",
        meaning: "K: degrees, the answer itself counted; each costs an answer more per pair",
        source: "ours",
        range: (std::ops::Bound::Included(2.0), std::ops::Bound::Included(64.0)),
        ..OptionDoc::POSITIVE
    },
    OptionDoc {
        key: "degree-answers",
        default: "\"key-phrases\"",
        meaning: "what a degree takes from an answer: its best `key-phrases` by RAKE, or, as controls, as many `random-words`, or \
                  key phrases `replaced` by random words of the answer",
        source: "the paper's; the controls are ours",
        range: ANY,
        choices: &["key-phrases", "random-words", "replaced"],
        ..OptionDoc::POSITIVE
    },
    OptionDoc {
        key: "degree-loss",
        default: "\"classify\"",
        meaning: "`classify`: cross-entropy of a linear head on the last token of each answer; as controls `head-only`, the same \
                  without a gradient to the policy, or `pair`, DPO of the answer against its last degree",
        source: "the paper's; the controls are ours",
        range: ANY,
        choices: &["classify", "head-only", "pair"],
        ..OptionDoc::POSITIVE
    },
];

/// The loss on preference degrees.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Degrees {
    /// γ, not 0.
    #[serde(rename = "degree-weight")]
    pub weight: f64,
    /// K, at least 2.
    #[serde(rename = "degrees")]
    pub count: usize,
    /// What is taken from an answer.
    #[serde(rename = "degree-answers")]
    pub answers: DegreeAnswers,
    /// What is made of it.
    #[serde(rename = "degree-loss")]
    pub loss: DegreeLoss,
}

/// What a degree takes from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DegreeAnswers {
    /// Its key phrases.
    KeyPhrases,
    /// As many words, chosen at random.
    RandomWords,
    /// Its key phrases, replaced by random words of the answer.
    Replaced,
}

/// What is made of the degrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DegreeLoss {
    /// A linear head tells them apart.
    Classify,
    /// The same, and the policy learns nothing of it.
    HeadOnly,
    /// The answer is preferred to its last degree.
    Pair,
}

impl DegreeLoss {
    /// Whether there is a head.
    pub fn classifies(self) -> bool {
        self != Self::Pair
    }
}

/// Cross-entropy `−log softmax(logits)[class]` in nats, and its gradient `softmax(logits) − 1[class]`.
///
/// # Panics
/// There is no such class.
pub fn cross_entropy(logits: &[f64], class: usize) -> (f64, Vec<f64>) {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let loss = sum.ln() + largest - logits[class];
    let one = |label: usize| f64::from(u8::from(label == class));
    (loss, powers.iter().enumerate().map(|(label, power)| power / sum - one(label)).collect())
}

/// DPO's loss `−log σ(margin)` in nats, and its derivative `−σ(−margin)`.
pub fn logistic(margin: f64) -> (f64, f64) {
    let small = (-margin.abs()).exp();
    let derivative = if margin >= 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
    ((-margin).max(0.0) + small.ln_1p(), -derivative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (logits, step) = ([0.3, -1.2, 2.0, 0.1], 1e-6);
        for class in 0..4 {
            let (_, gradient) = cross_entropy(&logits, class);
            for label in 0..4 {
                let moved = |by: f64| {
                    let mut logits = logits;
                    logits[label] += by;
                    cross_entropy(&logits, class).0
                };
                let expected = (moved(step) - moved(-step)) / (2.0 * step);
                assert!((gradient[label] - expected).abs() < 1e-8, "{class} {label}");
            }
        }
        for margin in [-3.0, -0.2, 0.0, 0.7, 40.0] {
            let expected = (logistic(margin + step).0 - logistic(margin - step).0) / (2.0 * step);
            assert!((logistic(margin).1 - expected).abs() < 1e-8, "{margin}");
        }
    }

    #[test]
    fn without_knowledge_the_losses_are_logarithms() {
        assert!((cross_entropy(&[0.0; 4], 2).0 - 4f64.ln()).abs() < 1e-15);
        assert!((cross_entropy(&[1e4, 0.0], 1).0 - 1e4).abs() < 1e-9);
        assert_eq!(logistic(0.0), (std::f64::consts::LN_2, -0.5));
        assert_eq!(logistic(-800.0), (800.0, -1.0));
    }
}
