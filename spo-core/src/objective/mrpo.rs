//! Multi-reference preference optimisation: DPO against a mixture of references.

use burn::tensor::{Tensor, TensorData};
use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::needs::present;
use super::options::{ANY, NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::tensors::numbers;
use crate::{CoreError, PairLogps, Sides};

pub(crate) const ENTRY: Entry = Entry {
    name: "mrpo",
    aliases: &[],
    formula: "dpo with reference π̃:  1/π̃ = Σ_k a_k/π_k (harmonic) or log π̃ = Σ_k a_k·log π_k (geometric)",
    gradient: "∂/∂log π(y_w) = −β·σ(−β·d̃) = −∂/∂log π(y_l)",
    when: "Several good references exist and none of them should be left far behind.",
    limits: "Earlier policies must share the vocabulary. Held within the clip, far references hardly count.",
    paper: "Le et al. 2024, arXiv 2405.16388; clip and adaptive weights as in the authors' code (github.com/thaihungle/MRPO), which knows two references and the harmonic mean",
    needs: Needs { mixture: true, ..Needs::REFERENCE },
    options: &[
        BETA,
        OptionDoc {
            key: "references",
            default: "[]",
            meaning: "which earlier policies `spo train` mixes with the policy that the round starts from, by name; all of them if empty",
            source: "no policy is preferred",
            range: ANY,
            ..OptionDoc::POSITIVE
        },
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
            default: "true",
            meaning: "per pair, multiply a_k by |Δlog π_k|: references that tell the answers apart count more",
            source: "the authors' recipe",
            range: ANY,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "clip",
            default: "0.1",
            meaning: "ε: log π_k of an answer is held within ± ε·s·|log π_base|, where s is the answer's share |m|/(|m_w| + |m_l|) of the references' mean log-probabilities m of the pair",
            source: "the authors' recipe",
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
    references: Vec<String>,
    mean: Mean,
    weights: Vec<f64>,
    adaptive: bool,
    clip: f64,
}

impl Mrpo {
    /// `a_k`, before they are adapted to a pair.
    fn fixed_weights(&self, count: usize) -> Result<Vec<f64>, CoreError> {
        let fixed = if self.weights.is_empty() { vec![1.0; count] } else { self.weights.clone() };
        let sum: f64 = fixed.iter().sum();
        if fixed.len() != count || sum <= 0.0 {
            return Err(CoreError::InvalidOption {
                objective: ENTRY.name.into(),
                key: "weights".into(),
                found: format!("{fixed:?}"),
                expected: format!("{count} numbers with a positive sum, the base reference first"),
            });
        }
        Ok(fixed.into_iter().map(|weight| weight / sum).collect())
    }

    /// `log π̃` of a pair's two answers from `log π_k`, `[chosen, rejected]` each, the base reference first.
    fn mix(&self, references: &[[f64; 2]], fixed: &[f64]) -> [f64; 2] {
        let gap = |logps: &[f64; 2]| if self.adaptive { (logps[0] - logps[1]).abs() + 1e-6 } else { 1.0 };
        let weights: Vec<f64> = references.iter().zip(fixed).map(|(logps, weight)| weight * gap(logps)).collect();
        let total: f64 = weights.iter().sum();
        let mean = |side: usize| references.iter().map(|logps| logps[side]).sum::<f64>().abs();
        let means = [mean(0), mean(1)];
        [0, 1].map(|side| {
            let base = references[0][side];
            let reach = self.clip * base.abs() * means[side] / (means[0] + means[1]).max(1e-300);
            let terms = references
                .iter()
                .zip(&weights)
                .map(|(logps, weight)| (weight / total, logps[side].clamp(base - reach, base + reach) - base));
            match self.mean {
                Mean::Geometric => base + terms.map(|(weight, ratio)| weight * ratio).sum::<f64>(),
                Mean::Harmonic => {
                    // −log Σ a_k/π_k relative to the base, with the largest 1/π_k taken out.
                    let lowest = terms.clone().map(|(_, ratio)| ratio).fold(f64::INFINITY, f64::min);
                    base + lowest - terms.map(|(weight, ratio)| weight * (lowest - ratio).exp()).sum::<f64>().ln()
                }
            }
        })
    }

    /// The mixture as one reference. It is a constant, so plain numbers do: a tape would only cost time.
    fn mixture(&self, base: &Sides<Tensor<1>>, others: &[Sides<Tensor<1>>]) -> Result<Sides<Tensor<1>>, CoreError> {
        let fixed = self.fixed_weights(1 + others.len())?;
        let host = |tensor: &Tensor<1>| numbers(tensor.clone(), "reference log-probabilities");
        let columns = std::iter::once(base)
            .chain(others)
            .map(|sides| Ok([host(&sides.chosen)?, host(&sides.rejected)?]))
            .collect::<Result<Vec<_>, CoreError>>()?;
        let mut references = vec![[0.0; 2]; columns.len()];
        let (mut chosen, mut rejected) = (Vec::new(), Vec::new());
        for row in 0..columns[0][0].len() {
            for (reference, [chosen, rejected]) in references.iter_mut().zip(&columns) {
                *reference = [chosen[row], rejected[row]];
            }
            let [of_chosen, of_rejected] = self.mix(&references, &fixed);
            chosen.push(of_chosen);
            rejected.push(of_rejected);
        }
        let like = &base.chosen;
        let tensor = |values: Vec<f64>| {
            Tensor::from_data(TensorData::new(values.clone(), [values.len()]), (&like.device(), like.dtype()))
        };
        Ok(Sides { chosen: tensor(chosen), rejected: tensor(rejected) })
    }
}

impl Objective for Mrpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn mixed_policies(&self) -> &[String] {
        &self.references
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let base = present(self.name(), "reference log-probabilities", logps.reference.as_ref())?;
        let mut mixed = logps.clone();
        mixed.reference = Some(self.mixture(base, &logps.mixture)?);
        let ratios = Ratios::new(self.name(), &mixed)?;
        let per_pair = softplus(-(ratios.delta() * self.beta));
        Ok(ratios.losses(per_pair, self.beta))
    }
}
