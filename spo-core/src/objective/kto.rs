//! Kahneman-Tversky optimisation and its anchored relative, on unpaired answers.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, unpaired};
use super::options::{NON_NEGATIVE, OptionDoc};
use super::unpaired::{AnswerLogps, AnswerLosses, UnpairedObjective};
use super::{Entry, Needs};
use crate::CoreError;
use crate::numerics::sigmoid;

const DESIRABLE: OptionDoc = OptionDoc {
    key: "desirable-weight",
    default: "1.0",
    meaning: "weight of desirable answers",
    source: "the paper, for balanced labels",
    range: NON_NEGATIVE,
    ..OptionDoc::POSITIVE
};

const UNDESIRABLE: OptionDoc =
    OptionDoc { key: "undesirable-weight", meaning: "weight of undesirable answers", ..DESIRABLE };

pub(crate) const ENTRY: Entry = Entry {
    name: "kto",
    aliases: &[],
    formula: "desirable: 1 − σ(β·(l − kl)), undesirable: 1 − σ(β·(kl − l)),  l = log π/π_ref, kl ≥ 0 from mismatched pairs",
    gradient: "∂/∂log π(y) = ∓β·σ′(β·(l − kl)), − for desirable answers",
    when: "There are thumbs up and down instead of pairs.",
    limits: "`spo train` estimates kl once per step, on each prompt with the answer of another row, as TRL does: one more forward pass. kl is a noisy estimate of the batch; very unlike answers get no gradient.",
    paper: "Ethayarajh et al. 2024, arXiv 2402.01306",
    needs: Needs { mismatched: true, ..Needs::REFERENCE },
    options: &[BETA, DESIRABLE, UNDESIRABLE],
    difference_only: false,
    build: Build::Unpaired(unpaired::<Kto>),
};

pub(crate) const APO_ZERO_UNPAIRED: Entry = Entry {
    name: "apo-zero-unpaired",
    formula: "desirable: 1 − σ(β·l), undesirable: σ(β·l),  l = log π/π_ref",
    gradient: "∂/∂log π(y) = ∓β·σ′(β·l), − for desirable answers",
    when: "As kto, without an estimate of the KL.",
    limits: "A drift of all log-ratios is not compensated.",
    paper: "D'Oosterlinck et al. 2024, arXiv 2408.06266",
    needs: Needs::REFERENCE,
    build: Build::Unpaired(unpaired::<ApoZeroUnpaired>),
    ..ENTRY
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kto {
    beta: f64,
    desirable_weight: f64,
    undesirable_weight: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
struct ApoZeroUnpaired(Kto);

impl Kto {
    fn at_the_reference(&self, desirable: bool) -> f64 {
        (if desirable { self.desirable_weight } else { self.undesirable_weight }) / 2.0
    }

    /// `w·σ(∓β·(l − kl))`.
    fn losses(&self, answers: &AnswerLogps, kl: f64) -> AnswerLosses {
        let ratio = answers.policy.clone() - answers.reference.clone();
        let sign = answers.desirable.clone() * -2.0 + 1.0;
        let weight =
            answers.desirable.clone() * (self.desirable_weight - self.undesirable_weight) + self.undesirable_weight;
        AnswerLosses {
            per_answer: sigmoid((ratio.clone() - kl) * self.beta * sign) * weight,
            reward: ratio.detach() * self.beta,
        }
    }
}

impl UnpairedObjective for Kto {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs_kl(&self) -> bool {
        true
    }

    fn step_zero(&self, desirable: bool) -> Option<f64> {
        Some(self.at_the_reference(desirable))
    }

    fn forward(&self, answers: &AnswerLogps) -> Result<AnswerLosses, CoreError> {
        Ok(self.losses(answers, answers.kl.max(0.0)))
    }
}

impl UnpairedObjective for ApoZeroUnpaired {
    fn name(&self) -> &'static str {
        APO_ZERO_UNPAIRED.name
    }

    fn needs_kl(&self) -> bool {
        false
    }

    fn step_zero(&self, desirable: bool) -> Option<f64> {
        Some(self.0.at_the_reference(desirable))
    }

    fn forward(&self, answers: &AnswerLogps) -> Result<AnswerLosses, CoreError> {
        Ok(self.0.losses(answers, 0.0))
    }
}
