//! Options that every paired objective takes: f-divergences, a likelihood anchor, WPO weights, LD-DPO, preference degrees.

use burn::tensor::Tensor;
use serde::Deserialize;
use serde_json::Value;

use super::degrees::{self, Degrees};
use super::needs::present;
use super::options::{ANY, NON_NEGATIVE, OptionDoc, SHARE};
use super::{Entry, Needs, Objective, PairLosses, normalised};
use crate::numerics::{exp_bounded, log_sigmoid};
use crate::{CoreError, PairLogps};

/// The options.
pub const OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        key: "nll-weight",
        default: "0.0",
        meaning: "weight of the likelihood anchor −log π(y_w)/|y_w| (RPO)",
        source: "off; Pang et al. 2024, arXiv 2404.19733, use 1",
        range: NON_NEGATIVE,
        ..OptionDoc::POSITIVE
    },
    OptionDoc {
        key: "wpo",
        default: "false",
        meaning: "weigh each pair by how likely the policy itself would write it, at most 1",
        source: "off; Zhou et al. 2024, arXiv 2406.11827",
        range: ANY,
        ..OptionDoc::POSITIVE
    },
    OptionDoc {
        key: "ld-alpha",
        default: "null",
        meaning: "weight of tokens beyond the shorter answer's length in both log-probabilities (LD-DPO); 1 if absent",
        source: "off; Liu et al. 2024, arXiv 2409.06411",
        range: SHARE,
        ..OptionDoc::POSITIVE
    },
    OptionDoc {
        key: "divergence",
        default: "\"reverse-kl\"",
        meaning: "regulariser instead of the reverse KL: `reverse-kl`, `forward-kl`, `js` or `alpha`; log-ratios become f′(ratio)",
        source: "DPO; Wang et al. 2023, arXiv 2309.16240",
        range: ANY,
        choices: &["reverse-kl", "forward-kl", "js", "alpha"],
        ..OptionDoc::POSITIVE
    },
    OptionDoc {
        key: "divergence-alpha",
        default: "0.5",
        meaning: "a of the α-divergence: the log-ratio l becomes (1 − e^(−a·l))/a",
        source: "half-way between reverse (a → 0) and forward (a = 1) KL",
        ..OptionDoc::POSITIVE
    },
    degrees::OPTIONS[0],
    degrees::OPTIONS[1],
    degrees::OPTIONS[2],
    degrees::OPTIONS[3],
];

/// The first of [`OPTIONS`] that is not at its default.
pub(crate) fn switched_on(options: &serde_json::Map<String, Value>) -> Option<&'static OptionDoc> {
    OPTIONS.iter().find(|option| options.get(option.key).is_some_and(|value| *value != option.default_value()))
}

/// The regulariser between policy and reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Divergence {
    ReverseKl,
    ForwardKl,
    Js,
    Alpha,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    nll_weight: f64,
    wpo: bool,
    ld_alpha: Option<f64>,
    divergence: Divergence,
    divergence_alpha: f64,
    #[serde(flatten)]
    degrees: Degrees,
}

impl Settings {
    /// `f′(u)` as a function of the log-ratio `log u`: `log u`, `1 − 1/u`, `log(2u/(1+u))`, `(1 − u^(−a))/a`; all are 0
    /// where policy and reference agree.
    fn score(&self, ratio: Tensor<1>) -> Tensor<1> {
        match self.divergence {
            Divergence::ReverseKl => ratio,
            Divergence::ForwardKl => -exp_bounded(-ratio) + 1.0,
            Divergence::Js => log_sigmoid(ratio) + std::f64::consts::LN_2,
            Divergence::Alpha => (-exp_bounded(ratio * -self.divergence_alpha) + 1.0) * self.divergence_alpha.recip(),
        }
    }
}

/// An objective with some of the shared options switched on.
#[derive(Debug)]
pub(crate) struct Modified {
    inner: Box<dyn Objective>,
    settings: Settings,
}

impl Modified {
    /// `inner` itself where all shared options are off.
    pub fn wrap(entry: &Entry, inner: Box<dyn Objective>, options: Value) -> Result<Box<dyn Objective>, CoreError> {
        let invalid = |found: String, expected: &str| CoreError::InvalidOption {
            objective: entry.name.into(),
            key: "divergence".into(),
            found,
            expected: expected.into(),
        };
        if !options["degrees"].is_u64() {
            return Err(CoreError::InvalidOption {
                objective: entry.name.into(),
                key: "degrees".into(),
                found: options["degrees"].to_string(),
                expected: "a whole number ≥ 2 and ≤ 64".into(),
            });
        }
        let settings: Settings = serde_json::from_value(options)
            .map_err(|error| invalid(error.to_string(), "reverse-kl, forward-kl, js or alpha"))?;
        if settings.divergence != Divergence::ReverseKl && !entry.difference_only {
            let expected = "reverse-kl: this loss looks at more than the difference of log-ratios";
            return Err(invalid(format!("{:?}", settings.divergence), expected));
        }
        let plain = settings.nll_weight == 0.0
            && !settings.wpo
            && settings.ld_alpha.is_none()
            && settings.divergence == Divergence::ReverseKl
            && settings.degrees.weight == 0.0;
        Ok(if plain { inner } else { Box::new(Self { inner, settings }) })
    }
}

impl Objective for Modified {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn needs(&self) -> Needs {
        let own = Needs {
            lengths: self.settings.nll_weight > 0.0,
            on_policy: self.settings.wpo,
            length_desensitising: self.settings.ld_alpha,
            ..Needs::POLICY
        };
        self.inner.needs().and(own)
    }

    fn sampled_tokens(&self) -> Option<usize> {
        self.inner.sampled_tokens()
    }

    fn mixed_policies(&self) -> &[String] {
        self.inner.mixed_policies()
    }

    fn degrees(&self) -> Option<Degrees> {
        Some(self.settings.degrees).filter(|degrees| degrees.weight > 0.0)
    }

    fn with_lambda(&self, round: usize, lambda: &[f64]) -> Option<Box<dyn Objective>> {
        let inner = self.inner.with_lambda(round, lambda)?;
        Some(Box::new(Self { inner, settings: self.settings.clone() }))
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let mut losses = self.inner.forward(logps)?;
        if self.settings.divergence != Divergence::ReverseKl {
            let reference = present(self.name(), "reference log-probabilities", logps.reference.as_ref())?;
            let score = |policy: &Tensor<1>, reference: &Tensor<1>| {
                reference.clone() + self.settings.score(policy.clone() - reference.clone())
            };
            let mut scored = logps.clone();
            scored.policy_chosen = score(&logps.policy_chosen, &reference.chosen);
            scored.policy_rejected = score(&logps.policy_rejected, &reference.rejected);
            // Rewards stay β·log-ratio, so that runs with different divergences can be compared.
            losses.per_pair = self.inner.forward(&scored)?.per_pair;
        }
        if self.settings.wpo {
            let weights = present(self.name(), "on-policy weights", logps.on_policy.as_ref())?;
            let log_weight = (weights.chosen.clone() + weights.rejected.clone()).detach();
            losses.per_pair = losses.per_pair * log_weight.clamp_max(0.0).exp();
        }
        if self.settings.nll_weight > 0.0 {
            let likelihood = normalised(self.name(), logps)?.chosen;
            losses.per_pair = losses.per_pair - likelihood * self.settings.nll_weight;
        }
        Ok(losses)
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        if self.settings.wpo || self.settings.nll_weight > 0.0 { Ok(None) } else { self.inner.step_zero(logps) }
    }
}
