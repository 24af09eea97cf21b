//! Alignment by optimal transport: the distribution of one side must dominate that of the other.

use burn::tensor::{Int, Tensor};
use serde::Deserialize;

use super::dpo::{BETA, LABEL_SMOOTHING, smoothed};
use super::entry::{Build, pair};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::{CoreError, PairLogps};

pub(crate) const PAIRED: Entry = Entry {
    name: "aot",
    aliases: &["aot-pair"],
    formula: "−log σ(β·(δ_(k) − δ_ref,(k))),  δ = log π(y_w)/π(y_l), both sorted over the batch",
    gradient: "as dpo, with the reference margin of the same rank in place of the pair's own",
    when: "Chosen answers should dominate as a distribution, not pair by pair.",
    limits: "Depends on the batch: use batches of some dozens of pairs or more.",
    paper: "Melnyk et al. 2024, arXiv 2406.05882",
    needs: Needs { whole_batch: true, ..Needs::REFERENCE },
    options: &[BETA, LABEL_SMOOTHING],
    difference_only: false,
    build: Build::Pair(pair::<Aot>),
};

pub(crate) const UNPAIRED: Entry = Entry {
    name: "aot-unpaired",
    aliases: &[],
    formula: "−log σ(β·(lw_(k) − ll_(k))),  log-ratios of both sides, each sorted over the batch",
    gradient: "as dpo, between answers of the same rank",
    when: "Chosen and rejected answers do not belong to the same prompts.",
    build: Build::Pair(pair::<AotUnpaired>),
    ..PAIRED
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Aot {
    beta: f64,
    label_smoothing: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct AotUnpaired {
    beta: f64,
    label_smoothing: f64,
}

/// For each entry of `of` the index of the entry of `among` with the same rank.
fn same_rank(of: &Tensor<1>, among: &Tensor<1>) -> Tensor<1, Int> {
    let ranks = of.clone().detach().argsort(0).argsort(0);
    among.clone().detach().argsort(0).select(0, ranks)
}

impl Objective for Aot {
    fn name(&self) -> &'static str {
        PAIRED.name
    }

    fn needs(&self) -> Needs {
        PAIRED.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let policy = logps.policy_chosen.clone() - logps.policy_rejected.clone();
        let reference = policy.clone() - ratios.delta();
        let opposite = reference.clone().select(0, same_rank(&policy, &reference));
        let per_pair = smoothed((policy - opposite.detach()) * self.beta, self.label_smoothing);
        Ok(ratios.losses(per_pair, self.beta))
    }
}

impl Objective for AotUnpaired {
    fn name(&self) -> &'static str {
        UNPAIRED.name
    }

    fn needs(&self) -> Needs {
        UNPAIRED.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let opposite = ratios.rejected.clone().select(0, same_rank(&ratios.chosen, &ratios.rejected));
        let per_pair = smoothed((ratios.chosen.clone() - opposite) * self.beta, self.label_smoothing);
        Ok(ratios.losses(per_pair, self.beta))
    }
}
