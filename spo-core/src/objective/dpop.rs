//! DPO-Positive: DPO that holds up the chosen answer.

use serde::Deserialize;

use super::dpo::{BETA, ln_2};
use super::entry::{Build, pair};
use super::options::{NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};
use burn::tensor::Tensor;

pub(crate) const ENTRY: Entry = Entry {
    name: "dpop",
    aliases: &["dpo-positive"],
    formula: "−log σ(β·(d − λ·max(0, −w))),  w = log π(y_w)/π_ref(y_w), λ the penalty",
    gradient: "∂/∂log π(y_w) = −β·(1 + λ·[w < 0])·σ(−m), ∂/∂log π(y_l) = β·σ(−m),  m the logit",
    when: "The chosen answers become less likely under DPO, as where both answers are much alike.",
    limits: "Where the chosen answer is less likely than under the reference, the penalty outweighs the preference itself.",
    paper: "Pal et al. 2024, arXiv 2402.13228",
    needs: Needs::REFERENCE,
    options: &[
        BETA,
        OptionDoc {
            key: "penalty",
            default: "50.0",
            meaning: "weight λ of the chosen answer's loss of log-probability",
            source: "the paper's runs",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<Dpop>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Dpop {
    beta: f64,
    penalty: f64,
}

impl Objective for Dpop {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        // At the kink, where every round begins, the chosen answer has lost nothing: no derivative.
        let lost = -ratios.chosen.clone();
        let lost = lost.clone().mask_fill(lost.detach().lower_equal_scalar(0.0), 0.0);
        let per_pair = softplus(-(ratios.delta() - lost * self.penalty) * self.beta);
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        Ok(Some(ln_2(logps)))
    }
}
