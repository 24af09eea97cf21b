//! DPO-Shift: DPO in which the rejected answer counts less.

use std::ops::Bound;

use burn::tensor::Tensor;
use serde::Deserialize;

use super::dpo::{BETA, ln_2};
use super::entry::{Build, pair};
use super::options::OptionDoc;
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "dpo-shift",
    aliases: &[],
    formula: "−log σ(β·(w − f·l)),  w, l = log π/π_ref of the chosen and the rejected answer",
    gradient: "∂/∂log π(y_w) = −β·σ(−m), ∂/∂log π(y_l) = f·β·σ(−m),  m the logit",
    when: "The chosen answers become less likely under DPO.",
    limits: "A smaller f buys likelihood of the chosen answers for margin between both.",
    paper: "Yang et al. 2025, arXiv 2502.07599, with a fixed f",
    needs: Needs::REFERENCE,
    options: &[
        BETA,
        OptionDoc {
            key: "rejected-factor",
            default: "0.95",
            meaning: "factor f of the rejected answer's log-ratio; 1 is DPO",
            source: "chosen here: the smallest step away from DPO that shows",
            range: (Bound::Excluded(0.0), Bound::Included(1.0)),
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<DpoShift>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DpoShift {
    beta: f64,
    rejected_factor: f64,
}

impl Objective for DpoShift {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let margin = ratios.chosen.clone() - ratios.rejected.clone() * self.rejected_factor;
        Ok(ratios.losses(softplus(-margin * self.beta), self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        Ok(Some(ln_2(logps)))
    }
}
