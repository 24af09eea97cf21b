//! Odds ratio preference optimisation: likelihood plus log-odds, no reference.

use serde::Deserialize;

use super::entry::{Build, pair};
use super::options::{NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, normalised, with_rewards};
use crate::numerics::{log1mexp, softplus};
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "orpo",
    aliases: &[],
    formula: "−p̄_w − λ·log σ((p̄_w − p̄_l) − (log(1−e^{p̄_w}) − log(1−e^{p̄_l}))),  p̄ = log π(y)/|y|",
    gradient: "∂/∂p̄_w = −1 − λ·σ(−o)/(1−e^{p̄_w}),  ∂/∂p̄_l = λ·σ(−o)/(1−e^{p̄_l}),  o the log-odds difference",
    when: "Supervised tuning and preferences in one pass from a base model.",
    limits: "The likelihood term dominates: rejected answers may rise too.",
    paper: "Hong et al. 2024, arXiv 2403.07691; likelihood of the answer only",
    needs: Needs { lengths: true, ..Needs::POLICY },
    options: &[OptionDoc {
        key: "lambda",
        default: "0.1",
        meaning: "weight λ of the log-odds term",
        source: "the paper",
        range: NON_NEGATIVE,
        ..OptionDoc::POSITIVE
    }],
    difference_only: false,
    build: Build::Pair(pair::<Orpo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Orpo {
    lambda: f64,
}

impl Objective for Orpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let means = normalised(self.name(), logps)?;
        let odds = means.delta() - (log1mexp(means.chosen.clone()) - log1mexp(means.rejected.clone()));
        let per_pair = softplus(-odds) * self.lambda - means.chosen.clone();
        Ok(with_rewards(per_pair, means, self.lambda))
    }
}
