//! R-DPO: DPO with a length penalty.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::needs::present;
use super::options::{NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "r-dpo",
    aliases: &["rdpo"],
    formula: "−log σ(β·d + α·(|y_w| − |y_l|))",
    gradient: "∂/∂log π(y_w) = −β·σ(−m) = −∂/∂log π(y_l),  m the logit",
    when: "Preferred answers are longer and the policy learns length.",
    limits: "α is per token: too large a value makes short answers the only goal.",
    paper: "Park et al. 2024, arXiv 2403.19159",
    needs: Needs { lengths: true, ..Needs::REFERENCE },
    options: &[
        BETA,
        OptionDoc {
            key: "alpha",
            default: "0.01",
            meaning: "penalty α per token of length difference",
            source: "a tenth of β, chosen here",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<RDpo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RDpo {
    beta: f64,
    alpha: f64,
}

impl Objective for RDpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let lengths = present(self.name(), "answer lengths", logps.lengths.as_ref())?;
        let per_pair = softplus(-(ratios.delta() * self.beta + lengths.delta() * self.alpha));
        Ok(ratios.losses(per_pair, self.beta))
    }
}
