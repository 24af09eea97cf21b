//! DiscoPOP: the log-ratio modulated loss that was found by search.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::options::OptionDoc;
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::{exp_bounded, log_sigmoid, sigmoid, softplus};
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "discopop",
    aliases: &[],
    formula: "−log σ(β·d)·(1 − σ(β·d/τ)) + exp(−β·d)·σ(β·d/τ)",
    gradient: "the derivative of the formula by the product rule, odd in the two sides",
    when: "An empirical alternative to dpo.",
    limits: "Neither convex nor monotone: wrongly ordered pairs near a margin of 0 may stay where they are.",
    paper: "Lu et al. 2024, arXiv 2406.08414",
    needs: Needs::REFERENCE,
    options: &[
        BETA,
        OptionDoc {
            key: "tau",
            default: "0.05",
            meaning: "temperature of the blend",
            source: "the paper's value",
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: true,
    build: Build::Pair(pair::<Discopop>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Discopop {
    beta: f64,
    tau: f64,
}

impl Objective for Discopop {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let margin = ratios.delta() * self.beta;
        let scaled = margin.clone() * self.tau.recip();
        // The exponential is joined with the blend in log space: alone it overflows where the blend is zero.
        let exponential = exp_bounded(log_sigmoid(scaled.clone()) - margin.clone());
        let per_pair = softplus(-margin) * sigmoid(-scaled) + exponential;
        Ok(ratios.losses(per_pair, self.beta))
    }
}
