//! What a policy does under each of the meta-prompts that held-out rows are asked with.

use crate::TrainError;
use crate::policy::logps::PolicyLogps;
use spo_data::meta::{AskedBy, MetaPrompts, TAG_ASKED, TAG_ASKED_BY};
use spo_data::{Dataset, Example};
use spo_eval::{
    Bootstrap, DimensionScore, OpposedPair, PairScore, Steer, SteerArm, SteeredScores, score_dimension, steer,
    with_shuffled_labels, without_condition,
};
use std::collections::BTreeMap;

/// Held-out rows, each once for every way to ask, with a policy's log-probs.
pub(crate) struct Asked<'a> {
    /// The rows.
    pub dataset: &'a Dataset,
    /// The meta-prompts that they have.
    pub meta: &'a MetaPrompts,
    /// Name of the policy.
    pub policy: &'a str,
    /// Its log-probs, or a reward model's rewards.
    pub logps: &'a PolicyLogps,
    /// Those of `π_0` under the same meta-prompts; a reward model has none.
    pub start: Option<&'a PolicyLogps>,
    /// For the intervals.
    pub bootstrap: &'a Bootstrap,
}

/// A way to ask for a dimension, or for none.
type Way<'a> = (AskedBy, Option<&'a str>);

impl<'a> Asked<'a> {
    /// The scores of every dimension's pairs under each way to ask: a row of the matrix each.
    ///
    /// # Errors
    /// Log-probs that are not there, or a score that is not finite.
    pub fn scores(&self) -> Result<Vec<SteeredScores>, TrainError> {
        let mut found = vec![];
        for by in AskedBy::ALL {
            for asked in self.ways(by) {
                let rows = self.rows((by, asked));
                let of = |dimension| self.score(dimension, &rows).transpose();
                let scores = self.meta.dimensions().into_iter().filter_map(of).collect::<Result<Vec<_>, _>>()?;
                if !scores.is_empty() {
                    found.push(SteeredScores { policy: self.policy.to_owned(), setting: setting(by, asked), scores });
                }
            }
        }
        Ok(found)
    }

    /// STEER between every two dimensions with exactly opposed pairs, by each kind of texts, with its controls.
    ///
    /// # Errors
    /// As [`scores`](Self::scores).
    pub fn steer(&self) -> Result<Vec<Steer>, TrainError> {
        let names: Vec<&str> = self.meta.dimensions().into_iter().collect();
        let mut found = vec![];
        for (index, first) in names.iter().enumerate() {
            for second in &names[index + 1..] {
                found.extend(self.between(first, second)?);
            }
        }
        Ok(found)
    }

    fn between(&self, first: &'a str, second: &'a str) -> Result<Vec<Steer>, TrainError> {
        let figure = |setting: &str, arm, pairs: &[OpposedPair]| {
            Ok::<_, TrainError>(steer(self.policy, (first, second), setting, arm, pairs, self.bootstrap)?)
        };
        let mut found = vec![];
        for by in [AskedBy::Trained, AskedBy::HeldOut, AskedBy::Combined] {
            // A dimension without held-out texts is asked for by a trained one beside one that has some.
            let of = |name| {
                if by == AskedBy::HeldOut && !self.meta.held_out.contains_key(name) { AskedBy::Trained } else { by }
            };
            let ways = [first, second].map(|name| (of(name), Some(name)));
            let pairs = self.opposed(first, second, ways)?;
            if pairs.is_empty() || ways.iter().all(|(own, _)| *own != by) {
                continue;
            }
            found.push(figure(by.name(), SteerArm::Conditioned, &pairs)?);
            if by == AskedBy::Trained {
                let shuffled = with_shuffled_labels(&pairs, self.bootstrap.seed);
                found.push(figure(&format!("{}, shuffled", by.name()), SteerArm::ShuffledLabels, &shuffled)?);
            }
        }
        let pairs = self.opposed(first, second, [(AskedBy::Nothing, None); 2])?;
        if !pairs.is_empty() {
            let margins: Vec<f64> = pairs.iter().map(|pair| pair.under_a).collect();
            let pairs = without_condition(&pairs, &margins)?;
            found.push(figure(AskedBy::Nothing.name(), SteerArm::Unconditioned, &pairs)?);
        }
        Ok(found)
    }

    /// The pairs whose labels are each other's opposite, under both ways to ask.
    fn opposed(&self, first: &str, second: &str, ways: [Way; 2]) -> Result<Vec<OpposedPair>, TrainError> {
        let row_of = |example: &usize| self.dataset.examples[*example].source.map(|source| source.row);
        let under_b: BTreeMap<_, usize> =
            self.rows(ways[1]).into_iter().filter_map(|example| Some((row_of(&example)?, example))).collect();
        let mut pairs = vec![];
        for example in self.rows(ways[0]) {
            let row = &self.dataset.examples[example];
            let (Some((chosen, rejected)), Some(against)) = (row.pair(first), row.pair(second)) else { continue };
            let other = row_of(&example).and_then(|row| under_b.get(&row));
            if let (true, Some(&other)) = (against == (rejected, chosen), other) {
                pairs.push(OpposedPair {
                    example,
                    prompt: Some(row.prompt_key()),
                    under_a: self.margin(row, (chosen, rejected))?,
                    under_b: self.margin(&self.dataset.examples[other], (chosen, rejected))?,
                });
            }
        }
        Ok(pairs)
    }

    /// The score of a dimension's pairs among these rows; `None` where there are none.
    fn score(&self, dimension: &str, rows: &[usize]) -> Result<Option<DimensionScore>, TrainError> {
        let mut pairs = vec![];
        for &example in rows {
            let row = &self.dataset.examples[example];
            if let Some(pair) = row.pair(dimension) {
                let others = self.meta.dimensions().into_iter().filter(|other| *other != dimension);
                let agreeing = others.filter_map(|other| row.pair(other)).map(|other| other == pair);
                pairs.push(PairScore {
                    example,
                    margin: self.margin(row, pair)?,
                    agreeing: agreeing.reduce(|all, one| all && one),
                    prompt: Some(row.prompt_key()),
                    ..PairScore::default()
                });
            }
        }
        if pairs.is_empty() {
            Ok(None)
        } else {
            Ok(Some(score_dimension(self.policy, dimension, &pairs, self.bootstrap)?))
        }
    }

    /// `Δ log(π/π_0)`, or `Δr`, in favour of the first answer.
    fn margin(&self, row: &Example, (first, second): (usize, usize)) -> Result<f64, TrainError> {
        let delta = |logps: &PolicyLogps| {
            let of = |answer: usize| logps.logp(&row.id, &row.prompt, &row.answers[answer]);
            Ok::<f64, TrainError>(of(first)? - of(second)?)
        };
        Ok(delta(self.logps)? - self.start.map_or(Ok(0.0), delta)?)
    }

    /// The dimensions that are asked for by these texts, `None` for a prompt that asks for none.
    fn ways(&self, by: AskedBy) -> Vec<Option<&'a str>> {
        let names = |all: &'a BTreeMap<String, Vec<String>>| all.keys().map(|name| Some(name.as_str())).collect();
        match by {
            AskedBy::Trained | AskedBy::Combined => names(&self.meta.texts),
            AskedBy::HeldOut => names(&self.meta.held_out),
            AskedBy::Nothing => vec![None],
        }
    }

    /// The rows that are asked this way.
    fn rows(&self, (by, asked): Way) -> Vec<usize> {
        let matches = |example: &Example| {
            let tag = |name: &str| example.tags.get(name).map(String::as_str);
            tag(TAG_ASKED_BY) == Some(by.name()) && (asked.is_none() || tag(TAG_ASKED) == asked)
        };
        let examples = self.dataset.examples.iter().enumerate();
        examples.filter(|(_, example)| matches(example)).map(|(index, _)| index).collect()
    }
}

/// A way to ask, in words.
fn setting(by: AskedBy, asked: Option<&str>) -> String {
    match asked {
        None => by.name().to_owned(),
        Some(dimension) => format!("{dimension}, {}", by.name()),
    }
}
