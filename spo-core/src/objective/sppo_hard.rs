//! Self-play preference optimisation with hard labels.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "sppo-hard",
    aliases: &["sppo"],
    formula: "(lw − 1/(2β))² + (ll + 1/(2β))²",
    gradient: "∂/∂log π(y_w) = 2·(lw − 1/(2β)),  ∂/∂log π(y_l) = 2·(ll + 1/(2β))",
    when: "Each log-ratio should reach a finite target on its own, in self-play rounds.",
    limits: "Losses are of size 1/β²: lower the learning rate.",
    paper: "Wu et al. 2024, arXiv 2405.00675",
    needs: Needs::REFERENCE,
    options: &[BETA],
    difference_only: false,
    build: Build::Pair(pair::<SppoHard>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SppoHard {
    beta: f64,
}

impl Objective for SppoHard {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let target = (2.0 * self.beta).recip();
        let per_pair = (ratios.chosen.clone() - target).square() + (ratios.rejected.clone() + target).square();
        Ok(ratios.losses(per_pair, self.beta))
    }
}
