//! Token-level DPO: the margin also counts how far the policy has moved from the reference along each answer.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::dpo::{BETA, ln_2};
use super::entry::{Build, pair};
use super::needs::present;
use super::options::{NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const FIRST: Entry = Entry {
    name: "tdpo-1",
    aliases: &["tdpo1"],
    formula: "−log σ(β·d − β·(K_l − K_w)),  K = Σ_t KL(π_ref ‖ π) along the answer",
    gradient: "∂/∂log π(y_w) = −β·σ(−m) = −∂/∂log π(y_l);  ∂/∂K_w = −β·σ(−m) = −∂/∂K_l",
    when: "The token-level KL should stay even between chosen and rejected answers.",
    limits: "Needs the full next-token distributions of policy and reference.",
    paper: "Zeng et al. 2024, arXiv 2404.11999",
    needs: Needs { sequence_kl: true, ..Needs::REFERENCE },
    options: &[BETA],
    difference_only: false,
    build: Build::Pair(pair::<First>),
};

pub(crate) const SECOND: Entry = Entry {
    name: "tdpo-2",
    aliases: &["tdpo2", "tdpo"],
    formula: "−log σ(β·d − α·β·(K_l − sg(K_w))),  sg: no gradient",
    gradient: "∂/∂log π(y_w) = −β·σ(−m) = −∂/∂log π(y_l);  ∂/∂K_l = α·β·σ(−m)",
    when: "As tdpo-1, with the chosen side's KL as a fixed base line: the authors' choice.",
    options: &[
        BETA,
        OptionDoc {
            key: "alpha",
            default: "0.5",
            meaning: "weight α of the KL difference",
            source: "the paper",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
    ],
    build: Build::Pair(pair::<Second>),
    ..FIRST
};

#[derive(Debug, Clone, Deserialize)]
struct First {
    beta: f64,
}

#[derive(Debug, Clone, Deserialize)]
struct Second {
    beta: f64,
    alpha: f64,
}

impl Objective for First {
    fn name(&self) -> &'static str {
        FIRST.name
    }

    fn needs(&self) -> Needs {
        FIRST.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let kl = present(self.name(), "sequence KL to the reference", logps.sequence_kl.as_ref())?;
        let per_pair = softplus(-((ratios.delta() + kl.delta()) * self.beta));
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        Ok(Some(ln_2(logps)))
    }
}

impl Objective for Second {
    fn name(&self) -> &'static str {
        SECOND.name
    }

    fn needs(&self) -> Needs {
        SECOND.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let kl = present(self.name(), "sequence KL to the reference", logps.sequence_kl.as_ref())?;
        let excess = kl.rejected.clone() - kl.chosen.clone().detach();
        let per_pair = softplus(-((ratios.delta() - excess * self.alpha) * self.beta));
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        Ok(Some(ln_2(logps)))
    }
}
