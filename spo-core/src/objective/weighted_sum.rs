//! A weighted sum of objectives (MPO and the like).

use burn::tensor::Tensor;
use serde::Deserialize;
use serde::de::Error;
use serde_json::{Map, Value};

use super::entry::{Build, Made};
use super::options::{ANY, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Registry};
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "weighted-sum",
    aliases: &["mpo"],
    formula: "Σ_j w_j·ℓ_j",
    gradient: "the same sum of the terms' gradients",
    when: "Mixed preference optimisation: preference, quality and likelihood terms together.",
    limits: "Rewards and margin offset that are reported are those of the first term.",
    paper: "Wang et al. 2024 (MPO), arXiv 2411.10442",
    needs: Needs { lengths: true, whole_batch: true, ..Needs::REFERENCE }, // of the default terms
    options: &[OptionDoc {
        key: "terms",
        default: r#"[{"name": "dpo", "weight": 0.8}, {"name": "bco", "weight": 0.2}, {"name": "sft", "weight": 1.0}]"#,
        meaning: "objectives as {name, weight, options …}",
        source: "MPO's weights",
        range: ANY,
        ..OptionDoc::POSITIVE
    }],
    difference_only: false,
    build: Build::Pair(make),
};

#[derive(Debug)]
struct WeightedSum {
    terms: Vec<Term>,
}

#[derive(Debug)]
struct Term {
    weight: f64,
    objective: Box<dyn Objective>,
}

#[derive(Deserialize)]
struct Spec {
    terms: Vec<TermSpec>,
}

#[derive(Deserialize)]
struct TermSpec {
    name: String,
    weight: f64,
    #[serde(flatten)]
    options: Map<String, Value>,
}

fn make(options: Value, registry: &Registry) -> Made<dyn Objective> {
    let Spec { terms } = serde_json::from_value(options)?;
    let terms = terms.into_iter().map(|spec| Term::of(spec, registry)).collect::<Result<_, _>>();
    Ok(Box::new(WeightedSum { terms: terms.map_err(serde_json::Error::custom)? }))
}

impl Term {
    fn of(spec: TermSpec, registry: &Registry) -> Result<Self, String> {
        let objective = registry.build(&spec.name, &spec.options).map_err(|error| match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        })?;
        if objective.needs().length_desensitising.is_some() {
            return Err("`ld-alpha` belongs to the whole sum, not to one term".into());
        }
        if objective.degrees().is_some() {
            return Err("`degree-weight` belongs to the whole sum, not to one term".into());
        }
        Ok(Self { weight: spec.weight, objective })
    }
}

impl Objective for WeightedSum {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        self.terms.iter().map(|term| term.objective.needs()).fold(Needs::POLICY, Needs::and)
    }

    fn sampled_tokens(&self) -> Option<usize> {
        self.terms.iter().filter_map(|term| term.objective.sampled_tokens()).max()
    }

    fn mixed_policies(&self) -> &[String] {
        let named = self.terms.iter().map(|term| term.objective.mixed_policies());
        named.into_iter().find(|names| !names.is_empty()).unwrap_or_default()
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let mut total: Option<PairLosses> = None;
        for term in &self.terms {
            let mut losses = term.objective.forward(logps)?;
            losses.per_pair = losses.per_pair * term.weight;
            total = Some(match total {
                Some(sum) => PairLosses { per_pair: sum.per_pair.clone() + losses.per_pair, ..sum },
                None => losses,
            });
        }
        total.ok_or_else(|| self.no_terms())
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        let mut total: Option<Tensor<1>> = None;
        for term in &self.terms {
            let Some(value) = term.objective.step_zero(logps)? else {
                return Ok(None);
            };
            let value = value * term.weight;
            total = Some(match total {
                Some(sum) => sum + value,
                None => value,
            });
        }
        Ok(total)
    }

    fn validate(&self) -> Result<(), CoreError> {
        if self.terms.is_empty() { Err(self.no_terms()) } else { Ok(()) }
    }
}

impl WeightedSum {
    fn no_terms(&self) -> CoreError {
        CoreError::InvalidOption {
            objective: ENTRY.name.into(),
            key: "terms".into(),
            found: "[]".into(),
            expected: "at least one term".into(),
        }
    }
}
