//! Sums of scorers, one number or one per dimension.

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;

use crate::entry::{Entry, OpenError, decoded};
use crate::{Item, ScoreError, Scorer, ScorerSpec, Scores, Watch};

pub(crate) const ENTRY: Entry = Entry {
    name: "weighted",
    summary: "a weighted sum of scorers, or one sum for each dimension that the parts name",
    example: r#"{ kind = "weighted", parts = [{ scorer = "rules:ends=1", weight = 0.5, dimension = "style" }] }"#,
    options: || schema_for!(Weighted),
    argument: None,
    check: |options| {
        let Weighted { parts } = decoded(options)?;
        if parts.is_empty() {
            return Err(OpenError::Options("no parts".into()));
        }
        match parts.iter().find(|part| !part.weight.is_finite()) {
            Some(part) => Err(OpenError::Options(format!("the weight {} is not a finite number", part.weight))),
            None => Ok(()),
        }
    },
    open: |options, opening, open| {
        let Weighted { parts } = decoded(options)?;
        let opened = |part: Part| Ok((open(&part.scorer, opening)?, part));
        Ok(Box::new(Sum { parts: parts.into_iter().map(opened).collect::<Result<_, OpenError>>()? }))
    },
};

/// Options of `weighted`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Weighted {
    /// The scorers. An answer that one of them declines to judge has no score at all.
    parts: Vec<Part>,
}

/// One scorer of a sum.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Part {
    /// The scorer.
    scorer: ScorerSpec,
    /// What its scores are multiplied with.
    #[serde(default = "one")]
    weight: f64,
    /// The dimension that its score counts for; without one it counts for the one number.
    dimension: Option<String>,
}

fn one() -> f64 {
    1.0
}

struct Sum {
    parts: Vec<(Box<dyn Scorer>, Part)>,
}

impl Scorer for Sum {
    fn score(&mut self, items: &[Item], watch: Watch) -> Result<Vec<Option<Scores>>, ScoreError> {
        let mut sums: Vec<Option<Scores>> = vec![Some(Scores::default()); items.len()];
        let parts = self.parts.len();
        for (index, (scorer, part)) in self.parts.iter_mut().enumerate() {
            let found = scorer.score(items, &mut |done| watch((index * items.len() + done) / parts))?;
            for ((sum, found), item) in sums.iter_mut().zip(found).zip(items) {
                let (Some(so_far), Some(found)) = (sum.as_mut(), found) else {
                    *sum = None;
                    continue;
                };
                add(so_far, &found, part, item)?;
            }
        }
        Ok(sums)
    }
}

/// Adds what one part says of an item.
fn add(sum: &mut Scores, found: &Scores, part: &Part, item: &Item) -> Result<(), ScoreError> {
    match &part.dimension {
        Some(name) => {
            let score = found.of(Some(name)).ok_or_else(|| ScoreError::NoDimension {
                scorer: part.scorer.to_string(),
                id: item.id.clone(),
                dimension: name.clone(),
                found: found.by_dimension.keys().cloned().collect::<Vec<_>>().join(", "),
            })?;
            *sum.by_dimension.entry(name.clone()).or_default() += part.weight * score;
        }
        None => {
            if let Some(score) = found.score {
                *sum.score.get_or_insert(0.0) += part.weight * score;
            }
            for (name, score) in &found.by_dimension {
                *sum.by_dimension.entry(name.clone()).or_default() += part.weight * score;
            }
        }
    }
    Ok(())
}
