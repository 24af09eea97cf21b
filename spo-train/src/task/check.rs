//! Whether the data and the rounds before have what a loss needs, before anything is trained.

use crate::TrainError;
use crate::task::RewardPair;
use crate::task::data::{Rows, TaskData};
use crate::task::rewards::CRITIQUES;
use spo_core::Objective;
use spo_core::objective::RewardObjective;
use spo_data::PairRef;
use spo_model::ModelError;

impl TaskData {
    /// Fails where the data lack what the objective needs; `names` are those of the policies before the round.
    ///
    /// # Errors
    /// The first row that lacks something, or an earlier policy that there is not.
    pub fn check(&self, names: &[String]) -> Result<(), TrainError> {
        match &self.rows {
            Rows::Pairs(pairs, objective) => self.check_pairs(pairs, objective.as_ref(), names),
            Rows::Lists(lists, objective) if objective.grades() => self.check_grades(lists),
            Rows::Rewards(pairs, objective) => self.check_rewards(pairs, objective.as_ref()),
            _ => Ok(()),
        }
    }

    /// Fails where the loss takes preference degrees and no pair has any.
    ///
    /// # Errors
    /// As said.
    pub fn check_degrees(&self) -> Result<(), TrainError> {
        let (Some(without), Some((rows, _))) = (self.without_degrees(), &self.degrees) else { return Ok(()) };
        if without < self.len() {
            return Ok(());
        }
        Err(self.lacks(format!(
            "`degree-weight` takes chosen answers with key phrases removed, and none of {without} along {:?} has {} different \
             phrases and comes back with the same tokens when it is decoded and encoded again; with fewer `degrees` shorter \
             answers will do",
            self.dimension,
            rows.degrees.count - 1
        )))
    }

    fn check_pairs(&self, pairs: &[PairRef], objective: &dyn Objective, names: &[String]) -> Result<(), TrainError> {
        let needs = objective.needs();
        if self.front.is_some() && needs.whole_batch {
            return Err(
                self.lacks("it compares the pairs of a batch, and a conditional round weighs each by itself".into())
            );
        }
        for (row, pair) in pairs.iter().enumerate() {
            if needs.strengths {
                self.check_strength(pair, self.dimension_of(row))?;
            }
            if needs.safety {
                self.check_safety(pair)?;
            }
        }
        self.mixture(names).map(drop)
    }

    fn check_rewards(&self, pairs: &[RewardPair], objective: &dyn RewardObjective) -> Result<(), TrainError> {
        if objective.needs_strengths() {
            let judged = pairs.iter().filter(|pair| !pair.tie);
            judged.map(|pair| &pair.answers).try_for_each(|pair| self.check_strength(pair, &self.dimension))?;
        }
        if objective.critique().is_some() && pairs.iter().all(|pair| pair.critiqued.iter().all(Option::is_none)) {
            let [chosen, rejected] = CRITIQUES;
            return Err(self.lacks(format!(
                "`critique = true` learns critiques, and no row along {:?} has a text under `{chosen}` or `{rejected}`",
                self.dimension
            )));
        }
        for (row, pair) in pairs.iter().enumerate() {
            let group = pair.group(&self.dataset);
            let found = group.prompt.len() + group.answers.iter().map(|answer| answer.len()).max().unwrap_or(0);
            if found > self.limit {
                return Err(ModelError::TooLong { id: self.example(row).id.clone(), found, context: self.limit }.into());
            }
        }
        Ok(())
    }

    fn check_strength(&self, pair: &PairRef, dimension: &str) -> Result<(), TrainError> {
        let example = &self.dataset.examples[pair.example];
        let found = match example.score_difference(dimension, pair.chosen, pair.rejected) {
            Some(strength) if strength >= 0.0 => return Ok(()),
            Some(negative) => format!("a difference of {negative}"),
            None => "no scores".into(),
        };
        Err(self.lacks(format!(
            "it takes the strength of a preference from the difference of the answers' scores along {dimension:?}, and row {} \
             has {found}, expected 0 or more (layouts with scores: score_chosen and score_rejected of `trl`, `scores` \
             of `prefs`, `scored-list`, …)",
            example.id
        )))
    }

    fn check_safety(&self, pair: &PairRef) -> Result<(), TrainError> {
        let example = &self.dataset.examples[pair.example];
        if example.safe.len() == example.answers.len() {
            return Ok(());
        }
        Err(self.lacks(format!(
            "it needs to know whether each answer is safe, and row {} does not say (keys: `safe` with a list of true or \
             false, `chosen_safe` and `rejected_safe`, or `is_response_0_safe` and `is_response_1_safe`)",
            example.id
        )))
    }

    fn check_grades(&self, lists: &[usize]) -> Result<(), TrainError> {
        let negative = |list: &usize| {
            let example = &self.dataset.examples[*list];
            let score = example.list_scores(&self.dimension)?.iter().find(|score| **score < 0.0)?;
            Some((&example.id, *score))
        };
        let Some((id, score)) = lists.iter().find_map(negative) else { return Ok(()) };
        Err(self.lacks(format!(
            "its gains are grades, and row {id} has the score {score} along {:?}, expected 0 or more",
            self.dimension
        )))
    }

    /// Indices of the policies that are mixed with the round's reference, the last of `names`.
    pub(super) fn mixture(&self, names: &[String]) -> Result<Vec<usize>, TrainError> {
        let Rows::Pairs(_, objective) = &self.rows else { return Ok(vec![]) };
        let (Some((start, others)), true) = (names.split_last(), objective.needs().mixture) else { return Ok(vec![]) };
        if others.is_empty() {
            return Err(self.lacks(format!(
                "it mixes its reference with earlier policies, and before this round there is none but {start:?}: use it \
                 in a later round"
            )));
        }
        let index = |name: &String| {
            others.iter().position(|other| other == name).ok_or_else(|| {
                self.lacks(format!(
                    "`references` names {name:?}, which is none of the policies before: {}",
                    others.join(", ")
                ))
            })
        };
        match objective.mixed_policies() {
            [] => Ok((0..others.len()).collect()),
            wanted => wanted.iter().map(index).collect(),
        }
    }

    fn lacks(&self, reason: String) -> TrainError {
        TrainError::Objective { name: self.objective.clone(), reason }
    }
}
