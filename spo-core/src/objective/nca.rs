//! Noise contrastive alignment, pairwise.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "nca",
    aliases: &["nca-pair"],
    formula: "−log σ(r_w) − ½·log σ(−r_w) − ½·log σ(−r_l),  r = β·log π/π_ref",
    gradient: "∂/∂log π(y_w) = −β·(σ(−r_w) − ½·σ(r_w)),  ∂/∂log π(y_l) = ½·β·σ(r_l)",
    when: "The likelihood of chosen answers must not fall.",
    limits: "Bounds both rewards: margins stay small.",
    paper: "Chen et al. 2024, arXiv 2402.05369",
    needs: Needs::REFERENCE,
    options: &[BETA],
    difference_only: false,
    build: Build::Pair(pair::<Nca>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Nca {
    beta: f64,
}

impl Objective for Nca {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let (chosen, rejected) = (ratios.chosen.clone() * self.beta, ratios.rejected.clone() * self.beta);
        let per_pair = softplus(-chosen.clone()) + (softplus(chosen) + softplus(rejected)) * 0.5;
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<burn::tensor::Tensor<1>>, CoreError> {
        Ok(Some(super::dpo::ln_2(logps) * 2.0))
    }
}
