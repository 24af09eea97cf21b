//! Direct preference optimisation.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::entry::{Build, pair};
use super::options::{OptionDoc, POSITIVE};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

/// `β` of the DPO family.
pub(crate) const BETA: OptionDoc = OptionDoc {
    key: "beta",
    default: "0.1",
    meaning: "strength of the KL anchor to the reference: small values move further",
    source: "DPO paper, section 6; the usual default of trainers",
    range: POSITIVE,
};

pub(crate) const ENTRY: Entry = Entry {
    name: "dpo",
    formula: "−log σ(β·d),  d = log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)",
    gradient: "∂/∂log π(y_w) = −β·σ(−β·d) = −∂/∂log π(y_l)",
    when: "The default for one set of preferences.",
    limits: "Deterministic labels have no finite minimiser; the chosen log-probability may fall together with the rejected.",
    paper: "Rafailov et al. 2023, arXiv 2305.18290, eq. 7",
    needs: Needs::REFERENCE,
    options: &[BETA],
    build: Build::Pair(pair::<Dpo>),
};

/// `−log σ(β·d)`.
#[derive(Debug, Clone, Deserialize)]
pub struct Dpo {
    /// Strength of the anchor.
    pub beta: f64,
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
        let per_pair = softplus(-(ratios.delta() * self.beta));
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        Ok(Some(
            logps
                .policy_chosen
                .clone()
                .detach()
                .slice(0..1)
                .full_like(std::f64::consts::LN_2),
        ))
    }
}
