//! Policies that an earlier run made in the same way: they are taken over instead of being trained again.
//!
//! A policy follows from the model, the data, every setting but the rounds, and its own and the earlier rounds. Where
//! an earlier run has all of these alike, its policy is this run's.

use crate::TrainError;
use crate::config::RunPlan;
use crate::events::Event;
use crate::events::sink::read_events;
use crate::persist::directory;
use serde_json::Value;
use spo_data::{Dataset, Example, Preference};
use spo_eval::Artefact;
use std::path::{Path, PathBuf};

/// Earlier runs that a run may take policies from.
#[derive(Debug, Default)]
pub(crate) struct SourceRuns {
    runs: Vec<SourceRun>,
}

#[derive(Debug)]
struct SourceRun {
    dir: PathBuf,
    plan: RunPlan,
    events: Vec<Event>,
}

/// A policy of an earlier run.
#[derive(Debug)]
pub(crate) struct Finished<'d> {
    /// The run.
    pub dir: &'d Path,
    /// Hash of its weights.
    pub hash: &'d str,
    /// What happened from the start of its phase until it was saved.
    pub events: Vec<Event>,
}

impl SourceRuns {
    /// Those of `dirs` that started from the same weights and rows with the same settings. `lineage` is this run's.
    pub fn new(dirs: &[PathBuf], plan: &RunPlan, lineage: &[Artefact]) -> Result<Self, TrainError> {
        let mut runs = vec![];
        for dir in dirs {
            if !dir.join(directory::PLAN).exists() {
                continue;
            }
            let theirs = RunPlan::read(dir)?;
            let records = read_events(&dir.join(directory::EVENTS))?;
            let events: Vec<Event> = records.into_iter().map(|record| record.event).collect();
            let same_input = events.iter().any(|event| match event {
                Event::Lineage { artefacts } => inputs(artefacts).eq(inputs(lineage)),
                _ => false,
            });
            if same_input && base(plan) == base(&theirs) {
                runs.push(SourceRun { dir: dir.clone(), plan: theirs, events });
            }
        }
        Ok(Self { runs })
    }

    /// A policy of an earlier run that is this one: of a round's arm, or of the warm-up.
    pub fn find(&self, plan: &RunPlan, name: &str, place: Option<(usize, usize)>) -> Option<Finished<'_>> {
        let alike = |run: &&SourceRun| place.is_none_or(|place| path(plan, place) == path(&run.plan, place));
        self.runs.iter().filter(alike).find_map(|run| run.finished(name))
    }

    /// Directories of the runs.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.runs.iter().map(|run| run.dir.as_path())
    }
}

impl SourceRun {
    fn finished(&self, name: &str) -> Option<Finished<'_>> {
        let starts = |event: &Event| matches!(event, Event::PhaseStarted { phase, .. } if phase == name);
        let first = self.events.iter().position(starts)?;
        let (last, hash) = self.events.iter().enumerate().skip(first).find_map(|(index, event)| match event {
            Event::PolicySaved { policy, hash, .. } if policy == name => Some((index, hash.as_str())),
            _ => None,
        })?;
        // The watchdogs of this run say the same again.
        let told = self.events[first..=last].iter().filter(|event| !matches!(event, Event::Warning { .. }));
        Some(Finished { dir: &self.dir, hash, events: told.cloned().collect() })
    }
}

/// Hashes of what goes into a run, without that of its plan.
fn inputs(artefacts: &[Artefact]) -> impl Iterator<Item = &Artefact> {
    // Where they come from says nothing that their own hashes do not.
    artefacts.iter().filter(|artefact| artefact.name != directory::PLAN_ARTEFACT && !artefact.name.starts_with("hf://"))
}

/// Every setting but the rounds and what only names things.
fn base(plan: &RunPlan) -> Value {
    let mut value = serde_json::to_value(plan).expect("a plan holds only strings and numbers");
    if let Value::Object(table) = &mut value {
        for key in ["name", "out", "origins", "rounds", "watchdog", "hub", "track"] {
            table.remove(key);
        }
    }
    value
}

/// The main arms of the rounds before a place, and its own arm.
fn path(plan: &RunPlan, (round, arm): (usize, usize)) -> Option<Value> {
    let part = |round: usize, arm: usize| {
        let plan = plan.rounds.get(round)?;
        serde_json::to_value((
            &plan.name,
            plan.dimensions(),
            &plan.dimension_weights,
            &plan.gate,
            &plan.online,
            plan.arms.get(arm)?,
        ))
        .ok()
    };
    let main: Option<Vec<Value>> = (0..round).map(|round| part(round, 0)).collect();
    Some(Value::from(vec![Value::Array(main?), part(round, arm)?]))
}

/// Hash of what data sets' rows say, in their order.
pub(crate) fn rows_hash(sets: &[&Dataset]) -> String {
    let mut hasher = blake3::Hasher::new();
    for example in sets.iter().flat_map(|set| &set.examples) {
        for answer in 0..example.answers.len() {
            hasher.update(&example.answer_hash(answer));
        }
        hash_labels(&mut hasher, example);
    }
    hasher.finalize().to_hex()[..32].to_string()
}

/// What a row's labels say, each list behind its length, so that no two run together.
fn hash_labels(hasher: &mut blake3::Hasher, example: &Example) {
    let text = |hasher: &mut blake3::Hasher, text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    hasher.update(&(example.labels.len() as u64).to_le_bytes());
    for (dimension, label) in &*example.labels {
        text(hasher, dimension);
        hasher.update(&[match label {
            Preference::First => 1,
            Preference::Second => 2,
            Preference::Tie => 3,
        }]);
    }
    hasher.update(&(example.scores.len() as u64).to_le_bytes());
    for (dimension, scores) in &example.scores {
        text(hasher, dimension);
        hasher.update(&(scores.len() as u64).to_le_bytes());
        for score in scores {
            hasher.update(&score.to_le_bytes());
        }
    }
    hasher.update(&(example.safe.len() as u64).to_le_bytes());
    for safe in &example.safe {
        hasher.update(&[u8::from(*safe)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_rows_is_that_of_every_build() {
        let mut example =
            Example { id: "a".into(), prompt: vec![1, 2].into(), answers: vec![vec![3].into()], ..Example::default() };
        let alone = rows_hash(&[&Dataset { examples: vec![example.clone()], report: Default::default() }]);
        example.scores.insert("honesty".into(), vec![1.5]);
        example.safe = vec![true];
        let scored = rows_hash(&[&Dataset { examples: vec![example], report: Default::default() }]);
        assert_eq!(
            (alone.as_str(), scored.as_str()),
            ("9768cab303210f0156e805d20c1effd6", "6eb982160cbf5512d06c4f80e80b6291")
        );
    }
}
