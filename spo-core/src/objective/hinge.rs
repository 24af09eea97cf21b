//! Hinge loss on the DPO margin (SLiC).

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "hinge",
    aliases: &[],
    formula: "max(0, 1 − β·d)",
    gradient: "∂/∂log π(y_w) = −β where β·d < 1, else 0 = −∂/∂log π(y_l)",
    when: "Pairs that are already separated should not pull any more.",
    limits: "No gradient beyond the margin; a kink at β·d = 1.",
    paper: "Zhao et al. 2023, arXiv 2305.10425; Liu et al. 2023, arXiv 2309.06657",
    needs: Needs::REFERENCE,
    options: &[BETA],
    difference_only: true,
    build: Build::Pair(pair::<Hinge>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Hinge {
    beta: f64,
}

impl Objective for Hinge {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let per_pair = (-(ratios.delta() * self.beta) + 1.0).clamp_min(0.0);
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<burn::tensor::Tensor<1>>, CoreError> {
        Ok(Some(super::dpo::ln_2(logps).ones_like()))
    }
}
