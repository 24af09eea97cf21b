//! Direct preference optimisation.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::entry::{Build, pair};
use super::options::{BELOW_HALF, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

/// `β` of the DPO family.
pub const BETA: OptionDoc = OptionDoc {
    key: "beta",
    default: "0.1",
    meaning: "strength of the KL anchor to the reference: small values move further",
    source: "the default of the DPO authors' code and of today's trainers",
    ..OptionDoc::POSITIVE
};

/// `ε` of label smoothing.
pub(crate) const LABEL_SMOOTHING: OptionDoc = OptionDoc {
    key: "label-smoothing",
    default: "0.0",
    meaning: "assumed share ε of flipped labels",
    source: "0 trusts the labels",
    range: BELOW_HALF,
    ..OptionDoc::POSITIVE
};

pub(crate) const ENTRY: Entry = Entry {
    name: "dpo",
    aliases: &["sigmoid"],
    formula: "−log σ(β·d),  d = log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)",
    gradient: "∂/∂log π(y_w) = −β·σ(−β·d) = −∂/∂log π(y_l)",
    when: "The default for one set of preferences.",
    limits: "Separable labels have no finite minimiser; the chosen log-probability may fall together with the rejected.",
    paper: "Rafailov et al. 2023, arXiv 2305.18290",
    needs: Needs::REFERENCE,
    options: &[BETA, LABEL_SMOOTHING],
    difference_only: true,
    build: Build::Pair(pair::<Dpo>),
};

/// `−log σ(β·d)`, smoothed if `label_smoothing` is above zero.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dpo {
    /// Strength of the anchor.
    pub beta: f64,
    /// Assumed share of flipped labels.
    pub label_smoothing: f64,
}

/// `(1−ε)·(−log σ(x)) + ε·(−log σ(−x))`.
pub(crate) fn smoothed(x: Tensor<1>, epsilon: f64) -> Tensor<1> {
    match epsilon {
        0.0 => softplus(-x),
        epsilon => softplus(-x.clone()) * (1.0 - epsilon) + softplus(x) * epsilon,
    }
}

/// `ln 2` as a `[1]` tensor beside the policy's.
pub(crate) fn ln_2(logps: &PairLogps) -> Tensor<1> {
    logps.policy_chosen.clone().detach().slice(0..1).full_like(std::f64::consts::LN_2)
}

impl Objective for Dpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let per_pair = smoothed(ratios.delta() * self.beta, self.label_smoothing);
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        Ok(Some(ln_2(logps)))
    }
}
