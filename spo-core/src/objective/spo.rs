//! Sequential preference optimisation: one round on a new dimension while holding the earlier ones.
//!
//! With `r̂_1 = β_1 log(π_1/π_0)` and, for later rounds, `r̂_k = α_k log(π_k/π_{k−1}) − Σ_{i<k} λ_{k,i} r̂_i`, round `n`
//! minimises `−log σ(α_n Δlog(π_θ/π_{n−1}) − c)` with `c = Σ_{i<n} λ_{n,i} Δr̂_i`. `Δ` is chosen minus rejected.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::dpo::smoothed;
use super::entry::{Build, pair};
use super::needs::present;
use super::options::{ANY, BELOW_HALF, NON_NEGATIVE, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "spo",
    aliases: &[],
    formula: "−log σ(α·Δlog(π/π_{n−1}) − c),  c = Σ_{i<n} λ_{n,i}·Δr̂_i,  r̂_k = α_k·log(π_k/π_{k−1}) − Σ_{i<k} λ_{k,i}·r̂_i",
    gradient: "∂/∂log π(y_w) = −α·σ(c − α·Δlog(π/π_{n−1})) = −∂/∂log π(y_l)",
    when: "Round n of a sequence: learn a new dimension without losing the earlier ones.",
    limits: "|c| ≫ 1 saturates the loss: watch the margin offset. A fixed λ over- or under-holds the earlier dimensions.",
    paper: "Lou et al., AAAI 2025, arXiv 2405.12739",
    needs: Needs { history: true, ..Needs::REFERENCE },
    options: &[
        OptionDoc {
            key: "alpha",
            default: "0.1",
            meaning: "strength of the KL anchor to the previous round",
            source: "β of DPO: round 1 is DPO",
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "beta",
            default: "null",
            meaning: "α of round 1, where `earlier` does not list the rounds; `alpha` if absent",
            source: "equal anchors in all rounds",
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "lambda",
            default: "1.0",
            meaning: "weight of the earlier dimensions' rewards: one number, or one per earlier round, oldest first",
            source: "λ = 1 gives every earlier reward the weight of its own round again",
            range: NON_NEGATIVE,
            accepts_list: true,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "earlier",
            default: "[]",
            meaning: "rounds 1 … n−1 as {alpha, lambda: [..]}, oldest first; if empty, they had `beta`, `alpha` and the one number `lambda`",
            source: "a sequence with constant coefficients",
            range: ANY,
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "margin",
            default: "\"recursive\"",
            meaning: "`recursive` takes earlier dimensions out of each r̂_k; `raw` uses α_k·log(π_k/π_{k−1})",
            source: "the inverse of the rounds' closed form",
            range: ANY,
            choices: &["recursive", "raw"],
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "label-smoothing",
            default: "0.0",
            meaning: "assumed share ε of flipped labels: (1−ε)·(−log σ(z)) + ε·(−log σ(−z)), z = α·Δlog(π/π_{n−1}) − c; above 0 a pair \
                      whose z is too large is pushed back, so that a dimension that was lost can be won back",
            source: "off: the paper's loss",
            range: BELOW_HALF,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::Pair(pair::<Spo>),
};

/// Coefficients of a finished round.
#[derive(Debug, Clone, PartialEq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct EarlierRound {
    /// `α_k` (round 1: `β_1`).
    pub alpha: f64,
    /// `λ_{k,i}` of the rounds before it, oldest first.
    #[serde(default)]
    pub lambda: Vec<f64>,
}

/// `λ_{n,i}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Lambda {
    /// The same for every earlier round.
    Constant(f64),
    /// One per earlier round, oldest first.
    PerRound(Vec<f64>),
}

/// What stands for an earlier dimension's reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Margin {
    /// `r̂_k` by the recursion.
    Recursive,
    /// `α_k log(π_k/π_{k−1})`.
    Raw,
}

/// Round `n` of a sequence.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Spo {
    /// `α_n`.
    pub alpha: f64,
    /// `β_1` where `earlier` is empty.
    pub beta: Option<f64>,
    /// `λ_{n,i}`.
    pub lambda: Lambda,
    /// Rounds `1 … n−1`, oldest first.
    pub earlier: Vec<EarlierRound>,
    /// How `r̂_i` is made.
    pub margin: Margin,
    /// Assumed share of flipped labels, `ε`.
    pub label_smoothing: f64,
}

impl Spo {
    /// Rounds `1 … n` (the last is this one) for a history of `n` earlier policies.
    fn rounds(&self, policies: usize) -> Result<Vec<EarlierRound>, CoreError> {
        let finished = policies - 1;
        let mut rounds = match (self.earlier.is_empty(), &self.lambda) {
            (false, _) => self.earlier.clone(),
            (true, Lambda::Constant(lambda)) => (0..finished).map(|k| self.constant_round(k, *lambda)).collect(),
            (true, Lambda::PerRound(_)) if finished > 1 => {
                return Err(self.invalid("earlier", "[]".into(), format!("{finished} rounds {{alpha, lambda}}")));
            }
            (true, Lambda::PerRound(_)) => (0..finished).map(|k| self.constant_round(k, 0.0)).collect(),
        };
        let lambda = match &self.lambda {
            Lambda::Constant(lambda) => vec![*lambda; finished],
            Lambda::PerRound(lambda) => lambda.clone(),
        };
        for (found, key) in [(rounds.len(), "earlier"), (lambda.len(), "lambda")] {
            if found != finished {
                return Err(self.invalid(
                    key,
                    format!("{found} entries"),
                    format!("{finished}, one per earlier round"),
                ));
            }
        }
        rounds.push(EarlierRound { alpha: self.alpha, lambda });
        Ok(rounds)
    }

    fn constant_round(&self, index: usize, lambda: f64) -> EarlierRound {
        let alpha = if index == 0 { self.beta.unwrap_or(self.alpha) } else { self.alpha };
        EarlierRound { alpha, lambda: vec![lambda; index] }
    }

    fn invalid(&self, key: &str, found: String, expected: String) -> CoreError {
        CoreError::InvalidOption { objective: ENTRY.name.into(), key: key.into(), found, expected }
    }

    /// `c`, `[pairs]`; `None` in round 1.
    fn margin_offset(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        if logps.earlier.len() <= 1 {
            self.rounds(1)?;
            return Ok(None);
        }
        let rounds = self.rounds(logps.earlier.len())?;
        let deltas: Vec<Tensor<1>> = logps.earlier.iter().map(|sides| sides.delta()).collect();
        let mut rewards: Vec<Tensor<1>> = Vec::new();
        for (round, step) in rounds.iter().zip(deltas.windows(2)) {
            let raw = (step[1].clone() - step[0].clone()) * round.alpha;
            rewards.push(match (self.margin, weighted(&round.lambda, &rewards)) {
                (Margin::Recursive, Some(held)) => raw - held,
                _ => raw,
            });
        }
        Ok(weighted(&rounds[rounds.len() - 1].lambda, &rewards))
    }
}

/// `Σ_i λ_i r̂_i`; `None` of nothing.
fn weighted(lambda: &[f64], rewards: &[Tensor<1>]) -> Option<Tensor<1>> {
    lambda.iter().zip(rewards).map(|(lambda, reward)| reward.clone() * *lambda).reduce(|sum, term| sum + term)
}

impl Objective for Spo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        let finished = match &self.lambda {
            Lambda::PerRound(lambda) => lambda.len(),
            Lambda::Constant(_) => self.earlier.len(),
        };
        Needs { earlier: if finished == 0 { 0 } else { finished + 1 }, ..Needs::REFERENCE }
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let margin = ratios.delta() * self.alpha;
        let margin_offset = self.margin_offset(logps)?;
        let per_pair = match &margin_offset {
            Some(margin_offset) => smoothed(margin - margin_offset.clone(), self.label_smoothing),
            None => smoothed(margin, self.label_smoothing),
        };
        Ok(PairLosses { margin_offset, ..ratios.losses(per_pair, self.alpha) })
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        present(self.name(), "reference log-probabilities", logps.reference.as_ref())?;
        Ok(Some(match self.margin_offset(logps)? {
            Some(margin_offset) => smoothed(-margin_offset, self.label_smoothing).mean(),
            None => super::dpo::ln_2(logps),
        }))
    }

    fn with_lambda(&self, round: usize, lambda: &[f64]) -> Option<Box<dyn Objective>> {
        let mut other = self.clone();
        if round == self.earlier.len() {
            other.lambda = Lambda::PerRound(lambda.into());
        } else {
            other.earlier.get_mut(round)?.lambda = lambda.into();
        }
        (lambda.len() == round && other.validate().is_ok()).then(|| Box::new(other) as Box<dyn Objective>)
    }

    fn validate(&self) -> Result<(), CoreError> {
        for (index, round) in self.earlier.iter().enumerate() {
            let fine =
                round.alpha > 0.0 && round.alpha.is_finite() && round.lambda.iter().all(|l| *l >= 0.0 && l.is_finite());
            if !fine || round.lambda.len() != index {
                let expected = format!("alpha > 0 and {index} lambdas ≥ 0 in round {}", index + 1);
                return Err(self.invalid("earlier", format!("{round:?}"), expected));
            }
        }
        match &self.lambda {
            Lambda::PerRound(lambda) if !self.earlier.is_empty() && lambda.len() != self.earlier.len() => {
                Err(self.invalid("lambda", format!("{} entries", lambda.len()), format!("{}", self.earlier.len())))
            }
            _ => Ok(()),
        }
    }
}
