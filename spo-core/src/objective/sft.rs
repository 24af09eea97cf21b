//! Supervised likelihood of the chosen answers.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::needs::present;
use super::options::{ANY, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios, with_rewards};
use crate::{CoreError, PairLogps, Sides};

pub(crate) const ENTRY: Entry = Entry {
    name: "sft",
    aliases: &["nll"],
    formula: "−log π(y_w)/ℓ,  ℓ the mean length of the batch's chosen answers",
    gradient: "∂/∂log π(y_w) = −1/ℓ,  ∂/∂log π(y_l) = 0",
    when: "Warm-up on preferred answers, or one term of a weighted sum.",
    limits: "Does not see the rejected answers.",
    paper: "maximum likelihood",
    needs: Needs { lengths: true, whole_batch: true, ..Needs::POLICY },
    options: &[
        OptionDoc {
            key: "per",
            default: "\"token\"",
            meaning: "`token`: every token of the batch counts the same; `answer`: every answer does (ℓ is its own length)",
            source: "the token mean of today's trainers",
            range: ANY,
            choices: &["token", "answer"],
            ..OptionDoc::POSITIVE
        },
        OptionDoc { meaning: "scale of the reported rewards; the loss does not use it", ..BETA },
    ],
    difference_only: false,
    build: Build::Pair(pair::<Sft>),
};

#[derive(Debug, Clone, Deserialize)]
struct Sft {
    per: Per,
    beta: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Per {
    Token,
    Answer,
}

impl Objective for Sft {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { whole_batch: self.per == Per::Token, ..ENTRY.needs }
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let lengths = present(self.name(), "answer lengths", logps.lengths.as_ref())?;
        let lengths = lengths.chosen.clone().detach().clamp_min(1.0);
        let scale = match self.per {
            Per::Token => lengths.mean(),
            Per::Answer => lengths,
        };
        let per_pair = -logps.policy_chosen.clone() / scale;
        if logps.reference.is_some() {
            return Ok(Ratios::new(self.name(), logps)?.losses(per_pair, self.beta));
        }
        let policy = Sides { chosen: logps.policy_chosen.clone(), rejected: logps.policy_rejected.clone() };
        Ok(with_rewards(per_pair, policy, self.beta))
    }
}
