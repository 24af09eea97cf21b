//! Self-exploring language models: DPO with an optimism term.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::needs::present;
use super::options::{NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::softplus;
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "selm",
    aliases: &["xpo"],
    formula: "−log σ(β·d) + α·β·log(π/π_ref)(y_s),  y_s an answer sampled from the reference",
    gradient: "∂/∂log π(y_w) = −β·σ(−β·d) = −∂/∂log π(y_l),  ∂/∂log π(y_s) = α·β",
    when: "Iterated or online rounds: leave what the reference already says.",
    limits: "Needs a fresh sample per prompt; α above 1e-2 unlearns fluency.",
    paper: "Zhang et al. 2024, arXiv 2405.19332",
    needs: Needs { sampled: true, ..Needs::REFERENCE },
    options: &[
        BETA,
        OptionDoc {
            key: "alpha",
            default: "0.001",
            meaning: "weight α of the optimism term",
            source: "the upper end of the range in use, 1e-4 … 1e-3",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "max-new-tokens",
            default: "128",
            meaning: "most tokens of the answers that `spo train` lets the reference write, at temperature 1",
            source: "about a paragraph, chosen here",
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<Selm>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Selm {
    beta: f64,
    alpha: f64,
    max_new_tokens: usize,
}

impl Objective for Selm {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn sampled_tokens(&self) -> Option<usize> {
        Some(self.max_new_tokens)
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let sampled = present(self.name(), "an answer sampled from the reference", logps.sampled.as_ref())?;
        let optimism = (sampled.policy.clone() - sampled.reference.clone()) * (self.alpha * self.beta);
        let per_pair = softplus(-(ratios.delta() * self.beta)) + optimism;
        Ok(ratios.losses(per_pair, self.beta))
    }
}
