//! Binary classifier optimisation on pairs and on single answers.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair, unpaired};
use super::options::{ANY, OptionDoc};
use super::unpaired::{AnswerLogps, AnswerLosses, UnpairedObjective};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "bco",
    aliases: &["bco-pair"],
    formula: "−log σ(r_w − δ) − log σ(δ − r_l),  r = β·log π/π_ref; of a single answer one of the two terms",
    gradient: "∂/∂log π(y_w) = −β·σ(δ − r_w),  ∂/∂log π(y_l) = β·σ(r_l − δ)",
    when: "Chosen and rejected answers should be told apart each on its own; or there are thumbs up and down instead of pairs.",
    limits: "With `shift` off a drift of all rewards is not compensated.",
    paper: "Jung et al. 2024, arXiv 2404.04656, who take a moving average for δ; δ = 0 as in TRL 1.16",
    needs: Needs::REFERENCE,
    options: &[
        BETA,
        OptionDoc {
            key: "shift",
            default: "false",
            meaning: "δ is half-way between the mean rewards of the batch's desirable and undesirable answers (a constant for the gradient) instead of 0",
            source: "off, to be equal to today's trainers",
            range: ANY,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Either(pair::<Bco>, unpaired::<Bco>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Bco {
    beta: f64,
    shift: bool,
}

impl Objective for Bco {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { whole_batch: self.shift, ..ENTRY.needs }
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(ENTRY.name, logps)?;
        let (mut chosen, mut rejected) = (ratios.chosen.clone() * self.beta, ratios.rejected.clone() * self.beta);
        if self.shift {
            let mean = (chosen.clone() + rejected.clone()).detach().mean() * 0.5;
            (chosen, rejected) = (chosen - mean.clone(), rejected - mean);
        }
        let per_pair = softplus(-chosen) + softplus(rejected);
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        Ok(Some(super::dpo::ln_2(logps) * 2.0))
    }
}

impl UnpairedObjective for Bco {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs_kl(&self) -> bool {
        false
    }

    fn whole_batch(&self) -> bool {
        self.shift
    }

    fn step_zero(&self, _: bool) -> Option<f64> {
        Some(std::f64::consts::LN_2)
    }

    fn forward(&self, answers: &AnswerLogps) -> Result<AnswerLosses, CoreError> {
        let reward = (answers.policy.clone() - answers.reference.clone()) * self.beta;
        let mut shifted = reward.clone();
        if self.shift {
            let fixed = reward.clone().detach();
            let mean = |members: Tensor<1>| (fixed.clone() * members.clone()).sum() / members.sum().clamp_min(1.0);
            let undesirable = answers.desirable.clone() * -1.0 + 1.0;
            shifted = shifted - (mean(answers.desirable.clone()) + mean(undesirable)) * 0.5;
        }
        let sign = answers.desirable.clone() * -2.0 + 1.0;
        Ok(AnswerLosses { per_answer: softplus(shifted * sign), reward: reward.detach() })
    }
}
