//! Anchored preference optimisation.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::dpo::{BETA, ln_2};
use super::entry::{Build, pair};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::sigmoid;
use crate::{CoreError, PairLogps};

pub(crate) const ZERO: Entry = Entry {
    name: "apo-zero",
    aliases: &[],
    formula: "1 − σ(β·lw) + σ(β·ll)",
    gradient: "∂/∂log π(y_w) = −β·σ′(β·lw),  ∂/∂log π(y_l) = β·σ′(β·ll)",
    when: "Chosen answers are better than what the policy writes: raise them, lower the rejected.",
    limits: "Saturates on both sides: far-off answers stay where they are.",
    paper: "D'Oosterlinck et al. 2024, arXiv 2408.06266",
    needs: Needs::REFERENCE,
    options: &[BETA],
    difference_only: false,
    build: Build::Pair(pair::<ApoZero>),
};

pub(crate) const DOWN: Entry = Entry {
    name: "apo-down",
    formula: "σ(β·lw) + 1 − σ(β·d)",
    gradient: "∂/∂log π(y_w) = β·σ′(β·lw) − β·σ′(β·d),  ∂/∂log π(y_l) = β·σ′(β·d)",
    when: "The policy is better than the chosen answers: lower both, the rejected more.",
    build: Build::Pair(pair::<ApoDown>),
    ..ZERO
};

#[derive(Debug, Clone, Deserialize)]
struct ApoZero {
    beta: f64,
}

#[derive(Debug, Clone, Deserialize)]
struct ApoDown {
    beta: f64,
}

impl Objective for ApoZero {
    fn name(&self) -> &'static str {
        ZERO.name
    }

    fn needs(&self) -> Needs {
        ZERO.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let per_pair = sigmoid(-(ratios.chosen.clone() * self.beta)) + sigmoid(ratios.rejected.clone() * self.beta);
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        Ok(Some(ln_2(logps).ones_like()))
    }
}

impl Objective for ApoDown {
    fn name(&self) -> &'static str {
        DOWN.name
    }

    fn needs(&self) -> Needs {
        DOWN.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let per_pair = sigmoid(ratios.chosen.clone() * self.beta) + sigmoid(-(ratios.delta() * self.beta));
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        Ok(Some(ln_2(logps).ones_like()))
    }
}
