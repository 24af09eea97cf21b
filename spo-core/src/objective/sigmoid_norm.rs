//! DPO on length-averaged log-ratios.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::needs::present;
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "sigmoid-norm",
    aliases: &[],
    formula: "−log σ(β·(lw/|y_w| − ll/|y_l|))",
    gradient: "∂/∂log π(y_w) = −β·σ(−β·d̄)/|y_w|,  ∂/∂log π(y_l) = β·σ(−β·d̄)/|y_l|",
    when: "Answers differ much in length and DPO drifts to long ones.",
    limits: "β has another scale than in DPO: per token instead of per answer.",
    paper: "Lambert et al. 2024 (Tülu 3), arXiv 2411.15124",
    needs: Needs { lengths: true, ..Needs::REFERENCE },
    options: &[BETA],
    difference_only: true,
    build: Build::Pair(pair::<SigmoidNorm>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SigmoidNorm {
    beta: f64,
}

impl Objective for SigmoidNorm {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let lengths = present(self.name(), "answer lengths", logps.lengths.as_ref())?;
        let chosen = ratios.chosen.clone() / lengths.chosen.clone().clamp_min(1.0);
        let rejected = ratios.rejected.clone() / lengths.rejected.clone().clamp_min(1.0);
        let per_pair = softplus((rejected - chosen) * self.beta);
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<burn::tensor::Tensor<1>>, CoreError> {
        Ok(Some(super::dpo::ln_2(logps)))
    }
}
