//! AlphaPO: a reward whose shape bends with a.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::entry::{Build, pair};
use super::options::{NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, normalised, with_rewards};
use crate::numerics::{exp_bounded, softplus};
use crate::{CoreError, PairLogps, Sides};

pub(crate) const ENTRY: Entry = Entry {
    name: "alpha-po",
    aliases: &["alphapo"],
    formula: "−log σ(β·(r_w − r_l) − γ),  r = (1 − p̄^(−a))/a,  p̄ = exp(log π(y)/|y|)",
    gradient: "∂/∂log π(y_w) = −β·σ(−m)·p̄_w^(−a)/|y_w|,  ∂/∂log π(y_l) = β·σ(−m)·p̄_l^(−a)/|y_l|",
    when: "SimPO lowers the likelihood of both sides too much.",
    limits: "p̄^(−a) grows without bound: bounded here at e^80.",
    paper: "Gupta et al. 2025, arXiv 2501.03884",
    needs: Needs { lengths: true, ..Needs::POLICY },
    options: &[
        OptionDoc {
            key: "beta",
            default: "2.0",
            meaning: "scale of the rewards",
            source: "as simpo",
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "gamma",
            default: "1.0",
            meaning: "target margin γ",
            source: "as simpo",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "alpha",
            default: "0.25",
            meaning: "shape a; a → 0 is simpo",
            source: "a small positive bend, chosen here",
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<AlphaPo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct AlphaPo {
    beta: f64,
    gamma: f64,
    alpha: f64,
}

impl Objective for AlphaPo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let means = normalised(self.name(), logps)?;
        let reward = |mean: Tensor<1>| (-exp_bounded(mean * -self.alpha) + 1.0) * self.alpha.recip();
        let rewards = Sides { chosen: reward(means.chosen), rejected: reward(means.rejected) };
        let per_pair = softplus(-(rewards.delta() * self.beta) + self.gamma);
        Ok(with_rewards(per_pair, rewards, self.beta))
    }
}
