//! Multi-objective DPO: one dimension against fixed rewards of the others.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::needs::present;
use super::options::{BETWEEN_0_AND_1, NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, with_rewards};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps, Sides};

/// `β_i` of the other dimensions.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Betas {
    Same(f64),
    Each(Vec<f64>),
}

pub(crate) const ENTRY: Entry = Entry {
    name: "modpo",
    aliases: &[],
    formula: "−log σ((1/w_k)·(β·Δlog(π/π_0) − Σ_i w_i·Δr_i)),  r_i = β_i·log(π_i/π_0)",
    gradient: "∂/∂log π(y_w) = −(β/w_k)·σ(−m) = −∂/∂log π(y_l),  m the logit",
    when: "The reference stays π_0 and other dimensions enter by their own DPO policies.",
    limits: "One run per weight vector; rewards of the others must be of one scale.",
    paper: "Zhou et al. 2023, arXiv 2310.03708",
    needs: Needs { history: true, ..Needs::POLICY },
    options: &[
        BETA,
        OptionDoc {
            key: "weight",
            default: "0.5",
            meaning: "w_k of the dimension in training",
            source: "equal weights of two dimensions",
            range: BETWEEN_0_AND_1,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "others",
            default: "[]",
            meaning: "w_i of the other dimensions, in the order of π_1, π_2, …; if empty, they share 1 − w_k",
            source: "weights sum to one",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "margin-beta",
            default: "0.1",
            meaning: "β_i of the other dimensions: one number or one per dimension",
            source: "β of DPO",
            accepts_list: true,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<Modpo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Modpo {
    beta: f64,
    weight: f64,
    others: Vec<f64>,
    margin_beta: Betas,
}

impl Objective for Modpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { earlier: if self.others.is_empty() { 0 } else { 1 + self.others.len() }, ..ENTRY.needs }
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let [start, policies @ ..] = logps.earlier.as_slice() else {
            return present(self.name(), "log-probabilities of all earlier policies", None);
        };
        let count = policies.len();
        let shared = (1.0 - self.weight) / count.max(1) as f64;
        let weights = if self.others.is_empty() { vec![shared; count] } else { self.others.clone() };
        let betas = match &self.margin_beta {
            Betas::Same(beta) => vec![*beta; count],
            Betas::Each(betas) => betas.clone(),
        };
        for (key, found) in [("others", weights.len()), ("margin-beta", betas.len())] {
            if found != count {
                let input = format!("option `{key}` of objective `{}`", self.name());
                return Err(CoreError::Length { input, found, expected: count });
            }
        }
        let chosen = logps.policy_chosen.clone() - start.chosen.clone();
        let rejected = logps.policy_rejected.clone() - start.rejected.clone();
        let mut margin = (chosen.clone() - rejected.clone()) * self.beta;
        for ((policy, weight), beta) in policies.iter().zip(weights).zip(betas) {
            margin = margin - (policy.delta() - start.delta()) * (weight * beta);
        }
        let per_pair = softplus(-(margin * self.weight.recip()));
        Ok(with_rewards(per_pair, Sides { chosen, rejected }, self.beta))
    }
}
