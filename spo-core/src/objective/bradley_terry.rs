//! The Bradley–Terry loss of reward models.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::entry::{Build, reward};
use super::needs::present;
use super::options::{NON_NEGATIVE, OptionDoc};
use super::reward::{Critique, RewardObjective, RewardTensors};
use super::{Entry, Needs};
use crate::CoreError;
use crate::numerics::softplus;

pub(crate) const ENTRY: Entry = Entry {
    name: "reward",
    aliases: &["bradley-terry"],
    formula: "−log σ(r_w − r_l − m) (of a tie: tie-weight·(r_w − r_l)²) + centre·(r_w + r_l)² [+ critic-weight·(CE_w + CE_l)]",
    gradient: "∂/∂r_w = −σ(m − r_w + r_l) + 2·centre·(r_w + r_l), ∂/∂r_l = σ(m − r_w + r_l) + 2·centre·(r_w + r_l); of a tie ±2·tie-weight·(r_w − r_l)",
    when: "A model that scores texts is wanted: a score head r on the decoder learns the preferences themselves, for scorers, online rounds and strengths.",
    limits: "It makes a reward model, which writes no text: a run has one round of it. Only differences of rewards mean something, unless `centre` holds their mean near 0.",
    paper: "Bradley & Terry 1952; Ouyang et al. 2022, arXiv 2203.02155; margin: Touvron et al. 2023, arXiv 2307.09288; ties, centring, critique: Zhang et al. 2025 (MM-RLHF), arXiv 2502.10391",
    needs: Needs::POLICY,
    options: &[
        OptionDoc {
            key: "margin",
            default: "false",
            meaning: "whether m is the pair's strength (difference of its scores), else 0",
            source: "TRL (a column `margin`, where there is one)",
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "tie-weight",
            default: "0.0",
            meaning: "weight of the squared difference of tied answers' rewards; 0 leaves ties out",
            source: "ties are left out, as by every other loss",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "centre",
            default: "0.0",
            meaning: "weight of the squared sum of both rewards, which keeps them near 0; MM-RLHF takes 0.01",
            source: "TRL (center_rewards_coefficient)",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "critique",
            default: "false",
            meaning: "whether the rows' critiques are learnt, and the reward is read behind them",
            source: "off: Bradley–Terry alone",
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "critic-weight",
            default: "1.0",
            meaning: "weight of the critiques' cross-entropy, summed over their tokens (critique)",
            source: "MM-RLHF's code",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "max-critique-tokens",
            default: "256",
            meaning: "most tokens of a critique that the model writes itself (critique)",
            source: "a choice: long enough for a paragraph",
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Reward(reward::<BradleyTerry>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct BradleyTerry {
    margin: bool,
    tie_weight: f64,
    centre: f64,
    critique: bool,
    critic_weight: f64,
    max_critique_tokens: usize,
}

impl RewardObjective for BradleyTerry {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs_strengths(&self) -> bool {
        self.margin
    }

    fn takes_ties(&self) -> bool {
        self.tie_weight > 0.0
    }

    fn critique(&self) -> Option<Critique> {
        let Self { critic_weight: weight, max_critique_tokens: max_tokens, .. } = *self;
        self.critique.then_some(Critique { weight, max_tokens })
    }

    fn forward(&self, rewards: &RewardTensors) -> Result<Tensor<1>, CoreError> {
        let RewardTensors { chosen, rejected, strengths, ties } = rewards.clone();
        let difference = chosen.clone() - rejected.clone();
        let above = match self.margin {
            true => difference.clone() - present(ENTRY.name, "strengths", strengths)?,
            false => difference.clone(),
        };
        let ordered = softplus(-above) * (-ties.clone() + 1.0);
        let tied = difference.powi_scalar(2) * ties * self.tie_weight;
        let centring = (chosen + rejected).powi_scalar(2) * self.centre;
        Ok(ordered + tied + centring)
    }
}
