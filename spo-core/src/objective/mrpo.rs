//! Multi-reference preference optimisation: DPO against a mixture of references.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::needs::present;
use super::options::{ANY, NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps, Sides};

pub(crate) const ENTRY: Entry = Entry {
    name: "mrpo",
    aliases: &[],
    formula: "dpo with reference π̃:  1/π̃ = Σ_k a_k/π_k (harmonic) or log π̃ = Σ_k a_k·log π_k (geometric)",
    gradient: "∂/∂log π(y_w) = −β·σ(−β·d̃) = −∂/∂log π(y_l)",
    when: "Several good references exist and none of them should be left far behind.",
    limits: "References far from the base give wild ratios: hence the clip.",
    paper: "Le et al. 2024, arXiv 2405.16388; clip and adaptive weights as stated at the options",
    needs: Needs { mixture: true, ..Needs::REFERENCE },
    options: &[
        BETA,
        OptionDoc {
            key: "mean",
            default: "\"harmonic\"",
            meaning: "`harmonic` or `geometric`",
            source: "the paper's closed form",
            range: ANY,
            choices: &["harmonic", "geometric"],
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "weights",
            default: "[]",
            meaning: "a_k, the base reference first; scaled to sum to one; equal if empty",
            source: "no reference is preferred",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "adaptive",
            default: "false",
            meaning: "per pair, multiply a_k by |Δlog π_k|: references that tell the answers apart count more",
            source: "off, so that weights mean what they say",
            range: ANY,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "clip",
            default: "5.0",
            meaning: "log π_k is held within ± this many nats of the base reference's",
            source: "about the move of one DPO round, chosen here",
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<Mrpo>),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mean {
    Harmonic,
    Geometric,
}

#[derive(Debug, Clone, Deserialize)]
struct Mrpo {
    beta: f64,
    mean: Mean,
    weights: Vec<f64>,
    adaptive: bool,
    clip: f64,
}

impl Mrpo {
    /// Normalised weights of each reference, `[pairs]` each.
    fn weights(&self, references: &[Sides<Tensor<1>>]) -> Result<Vec<Tensor<1>>, CoreError> {
        let count = references.len();
        let fixed = if self.weights.is_empty() { vec![1.0; count] } else { self.weights.clone() };
        if fixed.len() != count || fixed.iter().sum::<f64>() <= 0.0 {
            return Err(CoreError::InvalidOption {
                objective: ENTRY.name.into(),
                key: "weights".into(),
                found: format!("{fixed:?}"),
                expected: format!("{count} numbers with a positive sum, the base reference first"),
            });
        }
        let sum: f64 = fixed.iter().sum();
        if !self.adaptive {
            return Ok(fixed.iter().map(|weight| references[0].chosen.full_like(weight / sum)).collect());
        }
        let weights: Vec<Tensor<1>> =
            references.iter().zip(fixed).map(|(sides, weight)| (sides.delta().abs() + 1e-6) * weight).collect();
        let total = weights.iter().cloned().reduce(|sum, weight| sum + weight).expect("the base reference is there");
        Ok(weights.into_iter().map(|weight| weight / total.clone()).collect())
    }

    /// `log π̃` of one side; `weights` are logarithms for the harmonic mean.
    fn mix(&self, logps: Vec<Tensor<1>>, weights: &[Tensor<1>]) -> Tensor<1> {
        let clipped =
            logps.iter().map(|logp| logps[0].clone() + (logp.clone() - logps[0].clone()).clamp(-self.clip, self.clip));
        let terms: Vec<Tensor<1>> = match self.mean {
            Mean::Geometric => clipped.zip(weights).map(|(logp, weight)| logp * weight.clone()).collect(),
            Mean::Harmonic => clipped.zip(weights).map(|(logp, weight)| weight.clone() - logp).collect(),
        };
        let add = |sum: Tensor<1>, term: Tensor<1>| sum + term;
        if self.mean == Mean::Geometric {
            return terms.into_iter().reduce(add).expect("the base reference is there");
        }
        let largest = terms.iter().cloned().reduce(Tensor::max_pair).expect("the base reference is there");
        let sum = terms.into_iter().map(|term| (term - largest.clone()).exp()).reduce(add);
        -(sum.expect("the base reference is there").log() + largest)
    }
}

impl Objective for Mrpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let base = present(self.name(), "reference log-probabilities", logps.reference.clone())?;
        let references: Vec<_> = [base].into_iter().chain(logps.mixture.iter().cloned()).collect();
        let mut weights = self.weights(&references)?;
        if self.mean == Mean::Harmonic {
            weights = weights.into_iter().map(|weight| weight.clamp_min(1e-30).log()).collect();
        }
        let side = |pick: fn(&Sides<Tensor<1>>) -> &Tensor<1>| {
            self.mix(references.iter().map(|sides| pick(sides).clone()).collect(), &weights)
        };
        let mut mixed = logps.clone();
        mixed.reference = Some(Sides { chosen: side(|sides| &sides.chosen), rejected: side(|sides| &sides.rejected) });
        let ratios = Ratios::new(self.name(), &mixed)?;
        let per_pair = softplus(-(ratios.delta() * self.beta));
        Ok(ratios.losses(per_pair, self.beta))
    }
}
