//! SafeDPO: DPO on pairs that safety labels turn around or drop, with a wider margin between safe and unsafe.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::needs::present;
use super::options::{NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "safe-dpo",
    aliases: &["safedpo"],
    formula: "−log σ(β·d − Δ·(h_l − h_w)),  h = 1 for an unsafe answer; of a pair whose chosen answer alone is unsafe with both \
              answers exchanged; 0 of a pair of two unsafe ones",
    gradient: "∂/∂log π(y_w) = −β·σ(−m) = −∂/∂log π(y_l),  m the logit, y_w the answer that is preferred in the end",
    when: "Pairs are ranked by helpfulness and each answer has a safety label.",
    limits: "Says nothing of pairs of two unsafe answers, which still take a place in their batch. Accuracies and margins that are \
             reported go by the labels as they are.",
    paper: "Kim et al. 2025, arXiv 2505.20065",
    needs: Needs { safety: true, ..Needs::REFERENCE },
    options: &[
        BETA,
        OptionDoc {
            key: "safety-margin",
            default: "10.0",
            meaning: "margin Δ between a safe and an unsafe answer, in nats of reward",
            source: "the paper's runs",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<SafeDpo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SafeDpo {
    beta: f64,
    safety_margin: f64,
}

impl Objective for SafeDpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let safety = present(self.name(), "safety labels", logps.safety.as_ref())?;
        let (chosen, rejected) = (safety.chosen.clone(), safety.rejected.clone());
        let kept = chosen.clone() + rejected.clone() - chosen.clone() * rejected.clone();
        let turned = rejected.clone() - chosen.clone() * rejected.clone();
        let unlike = (chosen - rejected).abs();
        let margin = ratios.delta() * (turned * -2.0 + 1.0) * self.beta - unlike * self.safety_margin;
        let per_pair = softplus(-margin) * kept;
        Ok(ratios.losses(per_pair, self.beta))
    }
}
