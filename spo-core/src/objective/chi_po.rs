//! χ²-preference optimisation: DPO with the link z + log z.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::options::OptionDoc;
use super::{Entry, Needs, Objective, PairLosses, Ratios, with_rewards};
use crate::numerics::{exp_bounded, softplus};
use crate::{CoreError, PairLogps, Sides};

pub(crate) const ENTRY: Entry = Entry {
    name: "chi-po",
    aliases: &["chipo"],
    formula: "−log σ(clip_{2R}[β·φ(π/π_ref)(y_w) − β·φ(π/π_ref)(y_l)]),  φ(z) = z + log z",
    gradient: "∂/∂log π(y_w) = −β·(1 + z_w)·σ(−m) inside the clip, 0 outside; ∂/∂log π(y_l) alike with +",
    when: "Over-optimisation is the worry: χ² regularisation is pessimistic on what the reference rarely says.",
    limits: "No gradient outside of the clip; z is bounded at e^80.",
    paper: "Huang et al. 2024, arXiv 2407.13399",
    needs: Needs::REFERENCE,
    options: &[
        BETA,
        OptionDoc {
            key: "reward-bound",
            default: "5.0",
            meaning: "bound R of the rewards; margins are clipped to ±2R",
            source: "wide enough to be idle at the start, chosen here",
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<ChiPo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ChiPo {
    beta: f64,
    reward_bound: f64,
}

impl Objective for ChiPo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let link = |ratio: Tensor<1>| exp_bounded(ratio.clone()) + ratio;
        let rewards = Sides { chosen: link(ratios.chosen), rejected: link(ratios.rejected) };
        let bound = 2.0 * self.reward_bound;
        let per_pair = softplus(-(rewards.delta() * self.beta).clamp(-bound, bound));
        Ok(with_rewards(per_pair, rewards, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<burn::tensor::Tensor<1>>, CoreError> {
        Ok(Some(super::dpo::ln_2(logps)))
    }
}
