//! Bi-factorial preference optimisation: helpfulness and safety in one target.

use serde::Deserialize;

use super::entry::{Build, pair};
use super::needs::present;
use super::options::{ANY, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "bfpo",
    aliases: &[],
    formula: "(d − (3/2·s_w − 1/2·s_l − α)/τ)²,  s = 1 for a safe answer, else 0",
    gradient: "∂/∂log π(y_w) = 2·(d − target) = −∂/∂log π(y_l)",
    when: "Pairs are ranked by helpfulness and each answer has a safety label.",
    limits: "Targets are of size 1/τ: losses are large, learning rates small.",
    paper: "Zhang et al. 2024, arXiv 2408.15313; the authors' code (github.com/wx-zhang/bfpo) has the same target with B_1 = 3, B_3 = 1/(B_1 − 1)",
    needs: Needs { safety: true, ..Needs::REFERENCE },
    options: &[
        OptionDoc {
            key: "tau",
            default: "0.1",
            meaning: "strength of the KL anchor (β of DPO)",
            source: "the authors' default",
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "alpha",
            default: "0.5",
            meaning: "shift of the target; ½ makes swapped pairs have opposite targets",
            source: "the authors' default",
            range: ANY,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<Bfpo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Bfpo {
    tau: f64,
    alpha: f64,
}

impl Objective for Bfpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let safety = present(self.name(), "safety labels", logps.safety.as_ref())?;
        let target = safety.chosen.clone() * 1.5 - safety.rejected.clone() * 0.5 - self.alpha;
        let per_pair = (ratios.delta() - target * self.tau.recip()).square();
        Ok(ratios.losses(per_pair, self.tau))
    }
}
