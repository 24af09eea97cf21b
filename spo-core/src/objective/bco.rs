//! Binary classifier optimisation on pairs.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::options::{ANY, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "bco",
    aliases: &["bco-pair"],
    formula: "−log σ(r_w − δ) − log σ(δ − r_l),  r = β·log π/π_ref",
    gradient: "∂/∂log π(y_w) = −β·σ(δ − r_w),  ∂/∂log π(y_l) = β·σ(r_l − δ)",
    when: "Chosen and rejected answers should be told apart each on its own.",
    limits: "With `shift` off a drift of all rewards is not compensated.",
    paper: "Jung et al. 2024, arXiv 2404.04656; δ = 0 as in TRL 1.16",
    needs: Needs::REFERENCE,
    options: &[
        BETA,
        OptionDoc {
            key: "shift",
            default: "false",
            meaning: "δ is the mean reward of the window (a constant for the gradient) instead of 0",
            source: "off, to be equal to today's trainers",
            range: ANY,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<Bco>),
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
        Needs { whole_window: self.shift, ..ENTRY.needs }
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let (mut chosen, mut rejected) = (ratios.chosen.clone() * self.beta, ratios.rejected.clone() * self.beta);
        if self.shift {
            let mean = (chosen.clone() + rejected.clone()).detach().mean() * 0.5;
            (chosen, rejected) = (chosen - mean.clone(), rejected - mean);
        }
        let per_pair = softplus(-chosen) + softplus(rejected);
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<burn::tensor::Tensor<1>>, CoreError> {
        Ok(Some(super::dpo::ln_2(logps) * 2.0))
    }
}
