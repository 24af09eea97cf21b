//! A loss: the squared hinge on the DPO margin.

use burn::tensor::Tensor;
use serde::Deserialize;
use spo_core::objective::{Build, Entry, OptionDoc, Ratios, pair};
use spo_core::{CoreError, Needs, Objective, PairLogps, PairLosses};

pub(crate) static SQUARED_HINGE: Entry = Entry {
    name: "squared-hinge",
    formula: "max(0, 1 − β·d)²",
    gradient: "∂/∂log π(y_w) = −2β·max(0, 1 − β·d) = −∂/∂log π(y_l)",
    when: "Pairs that are far from separated should pull more.",
    limits: "No gradient beyond the margin; a wrong label pulls hard.",
    needs: Needs::REFERENCE,
    options: &[OptionDoc { key: "beta", default: "0.1", meaning: "factor β of the margin", ..OptionDoc::POSITIVE }],
    difference_only: true,
    ..Entry::new(Build::Pair(pair::<SquaredHinge>))
};

#[derive(Debug, Deserialize)]
struct SquaredHinge {
    beta: f64,
}

impl Objective for SquaredHinge {
    fn name(&self) -> &'static str {
        SQUARED_HINGE.name
    }

    fn needs(&self) -> Needs {
        SQUARED_HINGE.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let per_pair = (-(ratios.delta() * self.beta) + 1.0).clamp_min(0.0).powi_scalar(2);
        Ok(ratios.losses(per_pair, self.beta))
    }

    // The run checks its first loss against this.
    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        Ok(Some(logps.policy_chosen.clone().detach().mean().ones_like()))
    }
}
