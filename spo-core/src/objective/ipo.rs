//! Identity preference optimisation.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::needs::present;
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "ipo",
    aliases: &[],
    formula: "(d̄ − 1/(2β))²,  d̄ = lw/|y_w| − ll/|y_l|",
    gradient: "∂/∂log π(y_w) = 2·(d̄ − 1/(2β))/|y_w|,  ∂/∂log π(y_l) = −2·(d̄ − 1/(2β))/|y_l|",
    when: "Labels are deterministic and DPO over-fits: the margin has a finite target.",
    limits: "The target 1/(2β) is per token: β has another scale than in DPO.",
    paper: "Azar et al. 2023, arXiv 2310.12036; length average as in TRL",
    needs: Needs { lengths: true, ..Needs::REFERENCE },
    options: &[BETA],
    difference_only: true,
    build: Build::Pair(pair::<Ipo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ipo {
    beta: f64,
}

impl Objective for Ipo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let lengths = present(self.name(), "answer lengths", logps.lengths.as_ref())?;
        let chosen = ratios.chosen.clone() / lengths.chosen.clone().clamp_min(1.0);
        let rejected = ratios.rejected.clone() / lengths.rejected.clone().clamp_min(1.0);
        let per_pair = (chosen - rejected - (2.0 * self.beta).recip()).square();
        Ok(ratios.losses(per_pair, self.beta))
    }
}
