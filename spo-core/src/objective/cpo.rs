//! Contrastive preference optimisation: no reference, with a likelihood term.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::options::{NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, normalised, with_rewards};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps, Sides};

pub(crate) const ENTRY: Entry = Entry {
    name: "cpo",
    aliases: &[],
    formula: "−log σ(β·(log π(y_w) − log π(y_l))) − w·log π(y_w)/|y_w|",
    gradient: "∂/∂log π(y_w) = −β·σ(−m) − w/|y_w|,  ∂/∂log π(y_l) = β·σ(−m)",
    when: "Translation-like tasks with good chosen answers and no reference at hand.",
    limits: "Long chosen answers lose: log-probabilities are sums.",
    paper: "Xu et al. 2024, arXiv 2401.08417; the likelihood term per token",
    needs: Needs { lengths: true, ..Needs::POLICY },
    options: &[
        BETA,
        OptionDoc {
            key: "cpo-alpha",
            default: "1.0",
            meaning: "weight w of the likelihood term",
            source: "the paper",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<Cpo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cpo {
    beta: f64,
    cpo_alpha: f64,
}

impl Objective for Cpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let delta = logps.policy_chosen.clone() - logps.policy_rejected.clone();
        let likelihood = normalised(self.name(), logps)?.chosen;
        let per_pair = softplus(-(delta * self.beta)) - likelihood * self.cpo_alpha;
        let policy = Sides { chosen: logps.policy_chosen.clone(), rejected: logps.policy_rejected.clone() };
        Ok(with_rewards(per_pair, policy, self.beta))
    }
}
