//! Simple preference optimisation: no reference, a target margin.

use serde::Deserialize;

use super::entry::{Build, pair};
use super::options::{NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, normalised, with_rewards};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "simpo",
    aliases: &[],
    formula: "−log σ(β·(log π(y_w)/|y_w| − log π(y_l)/|y_l|) − γ)",
    gradient: "∂/∂log π(y_w) = −β·σ(−m)/|y_w|,  ∂/∂log π(y_l) = β·σ(−m)/|y_l|,  m the logit",
    when: "There is no room or time for a reference.",
    limits: "Nothing holds the policy: small learning rates and one epoch.",
    paper: "Meng et al. 2024, arXiv 2405.14734",
    needs: Needs { lengths: true, ..Needs::POLICY },
    options: &[
        OptionDoc {
            key: "beta",
            default: "2.0",
            meaning: "scale of the mean log-probabilities",
            source: "the value of the authors' recipes",
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "gamma",
            default: "1.0",
            meaning: "target margin γ",
            source: "γ/β = 0.5, the ratio of the authors' recipes",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<Simpo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Simpo {
    beta: f64,
    gamma: f64,
}

impl Objective for Simpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let means = normalised(self.name(), logps)?;
        let per_pair = softplus(-(means.delta() * self.beta) + self.gamma);
        Ok(with_rewards(per_pair, means, self.beta))
    }
}
