//! MM-DPO: β grows with the strength of the preference.

use serde::Deserialize;

use super::entry::{Build, pair};
use super::needs::present;
use super::options::{NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "mm-dpo",
    aliases: &[],
    formula: "−log σ(β(δ)·d),  β(δ) = β₀·(1 + w·(1 − e^{−k·δ})),  δ the strength of the pair",
    gradient: "∂/∂log π(y_w) = −β(δ)·σ(−β(δ)·d) = −∂/∂log π(y_l)",
    when: "Strengths come with the labels (ratings, reward margins).",
    limits: "Strengths must be non-negative and of one scale.",
    paper: "Zhang et al. 2025 (MM-RLHF), arXiv 2502.10391",
    needs: Needs { strengths: true, ..Needs::REFERENCE },
    options: &[
        OptionDoc { key: "beta", default: "0.1", meaning: "β₀", source: "the paper", ..OptionDoc::POSITIVE },
        OptionDoc {
            key: "weight",
            default: "0.5",
            meaning: "w, how much β grows at most",
            source: "the paper",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "rate",
            default: "0.5",
            meaning: "k, how fast it grows with the strength",
            source: "the paper",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<MmDpo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MmDpo {
    beta: f64,
    weight: f64,
    rate: f64,
}

impl Objective for MmDpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let strengths = present(self.name(), "strengths", logps.strengths.as_ref())?;
        let beta = (-(strengths.clone() * -self.rate).exp() + 1.0) * (self.weight * self.beta) + self.beta;
        let per_pair = softplus(-(ratios.delta() * beta));
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<burn::tensor::Tensor<1>>, CoreError> {
        Ok(Some(super::dpo::ln_2(logps)))
    }
}
