//! Robust DPO: an unbiased loss under label noise.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::options::{BELOW_HALF, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "robust",
    aliases: &[],
    formula: "((1−ε)·(−log σ(β·d)) − ε·(−log σ(−β·d))) / (1−2ε)",
    gradient: "∂/∂log π(y_w) = −β·((1−ε)·σ(−β·d) + ε·σ(β·d)) / (1−2ε) = −∂/∂log π(y_l)",
    when: "Labels are flipped at a known rate ε and the clean loss should be estimated without bias.",
    limits: "May be negative, and the gradient never vanishes for ε > 0: stop early.",
    paper: "Chowdhury et al. 2024, arXiv 2403.00409",
    needs: Needs::REFERENCE,
    options: &[
        BETA,
        OptionDoc {
            key: "label-smoothing",
            default: "0.1",
            meaning: "share ε of flipped labels",
            source: "the noise rate of the paper's experiments",
            range: BELOW_HALF,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: true,
    build: Build::Pair(pair::<Robust>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Robust {
    beta: f64,
    label_smoothing: f64,
}

impl Objective for Robust {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let margin = ratios.delta() * self.beta;
        let (clean, flipped) = (softplus(-margin.clone()), softplus(margin));
        let epsilon = self.label_smoothing;
        let per_pair = (clean * (1.0 - epsilon) - flipped * epsilon) * (1.0 - 2.0 * epsilon).recip();
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<burn::tensor::Tensor<1>>, CoreError> {
        Ok(Some(super::dpo::ln_2(logps)))
    }
}
