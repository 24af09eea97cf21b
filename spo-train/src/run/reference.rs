//! What is kept of a policy before the next one takes its place in memory: answers it drew, log-probs it gave.

use crate::TrainError;
use crate::config::{ArmPlan, RoundPlan};
use crate::persist::directory;
use crate::persist::journal::DETAIL;
use crate::policy::logps::{LogpCache, PolicyLogps};
use crate::policy::sampling::Samples;
use crate::run::reuse::rows_hash;
use crate::run::stages::Driver;
use crate::task::build::{ArmData, row};
use spo_data::{Dataset, Example};
use spo_model::CausalLm;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// An arm's rows, which of them it visits, and in which order.
type VisitedRows<'d, 'p> = (ArmData<'d, 'p>, Vec<bool>, Vec<usize>);

impl<'a> Driver<'a> {
    /// The answers that an arm needs of its reference; drawn by `model` if they are not on disk yet.
    pub(super) fn samples(
        &self,
        data: &ArmData,
        visits: &[bool],
        parent: &str,
        index: usize,
        model: Option<&CausalLm>,
    ) -> Result<Option<Samples>, TrainError> {
        let Some((path, prompts, tokens, seed)) = self.samples_place(data, visits, parent, index) else {
            return Ok(None);
        };
        match (Samples::read(&path)?, model) {
            (None, Some(model)) => {
                Samples::draw(model, &prompts, tokens, &self.stop, seed, &path, &self.reporter).map(Some)
            }
            (samples, _) => Ok(samples),
        }
    }

    /// The file of an arm's sampled answers, the prompts, the limit of tokens, and the seed; if it needs any.
    fn samples_place<'d>(
        &self,
        data: &ArmData<'d, '_>,
        visits: &[bool],
        parent: &str,
        index: usize,
    ) -> Option<(PathBuf, Vec<&'d [u32]>, usize, u64)> {
        let tokens = data.sampled_tokens()?;
        let (prompts, seed) = (data.prompts(visits), self.plan.seed.wrapping_add(index as u64 + 1));
        let cache = self.reporter.out.join(directory::CACHE);
        let path = Samples::path(&cache, self.policies.hash(parent), &prompts, tokens, seed);
        Some((path, prompts, tokens, seed))
    }

    /// An arm's training rows and, where it is evaluated on the way, its held-out rows; with which of them it visits and
    /// in which order.
    fn rows<'p>(
        &self,
        index: usize,
        round: &'p RoundPlan,
        arm: &'p ArmPlan,
    ) -> Result<Vec<VisitedRows<'a, 'p>>, TrainError> {
        let data = ArmData::new(&self.prepared.train.dataset, &round.dimension, arm)?;
        let phase = self.phase(index, arm, "");
        let (visits, order) = (phase.visits(data.len()), phase.epoch(data.len()));
        let mut rows = vec![(data, visits, order)];
        if arm.training.eval_every > 0 {
            let data = ArmData::new(&self.prepared.held_out.dataset, &round.dimension, arm)?;
            let (visits, order) = (vec![true; data.len()], (0..data.len()).collect());
            rows.push((data, visits, order));
        }
        Ok(rows)
    }

    /// Draws the answers that the next round needs of a policy.
    fn sample(&mut self, name: &str, index: usize) -> Result<(), TrainError> {
        let Some(round) = self.plan.rounds.get(index) else { return Ok(()) };
        let rows = round.arms.iter().map(|arm| self.rows(index, round, arm)).collect::<Result<Vec<_>, _>>()?;
        let rows: Vec<VisitedRows> = rows.into_iter().flatten().collect();
        let places = rows.iter().filter_map(|(data, visits, _)| self.samples_place(data, visits, name, index));
        let relative = |path: PathBuf| path.strip_prefix(&self.reporter.out).unwrap_or(&path).to_path_buf();
        let files: Vec<PathBuf> = places.map(|(path, ..)| relative(path)).collect();
        if files.is_empty() {
            return Ok(());
        }
        self.stage(&format!("sample {name}"), &files, |run| {
            run.load(name)?;
            let (_, model) = run.current.as_ref().expect("it was just loaded");
            rows.iter()
                .try_for_each(|(data, visits, _)| run.samples(data, visits, name, index, Some(model)).map(|_| ()))
        })
    }

    /// Stores a policy's log-probs of the held-out pairs and of the pairs that the rounds from
    /// `from` on will visit: from then on nothing else of it is needed.
    pub(super) fn freeze(&mut self, name: &str, from: usize) -> Result<PolicyLogps, TrainError> {
        self.sample(name, from)?;
        let train = &self.prepared.train.dataset;
        let mut wanted = vec![false; train.examples.len()];
        let mut more = vec![];
        for (index, round) in self.plan.rounds.iter().enumerate().skip(from) {
            for arm in &round.arms {
                let rows = self.rows(index, round, arm)?;
                let (data, visits, _) = &rows[0];
                (0..data.len()).filter(|&row| visits[row]).for_each(|row| wanted[data.example(row)] = true);
                for (data, visits, order) in &rows {
                    // The next round's reference is this policy.
                    let reference = (index == from).then_some(name);
                    more.extend(self.more_rows(data, visits, order, index, reference)?);
                }
            }
        }
        let examples = train.examples.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        let mut examples: Vec<Example> = examples.map(|(example, _)| example.clone()).collect();
        let mut seen = HashSet::new();
        examples.extend(more.into_iter().filter(|example| seen.insert(example.answer_hash(0))));
        let later = Dataset { examples, report: Default::default() };
        let hash = self.policies.hash(name).to_string();
        let held_out = &self.prepared.held_out.dataset;
        // Other rows, as of a changed run file, are other stages.
        let rows = rows_hash(&[&later, held_out]);
        let stage = |what: &str| format!("{what} {name}{DETAIL}{}", &rows[..8]);
        let stored = self.stage(&stage("cache"), &[], |run| run.cache.stored(&hash))?;
        let file = Path::new(directory::CACHE).join(LogpCache::file_name(&hash));
        self.stage(&stage("score"), &[file], |run| {
            run.load(name)?;
            let (_, model) = run.current.as_ref().expect("it was just loaded");
            let (sets, budget) = ([&later, held_out], run.budget());
            run.cache.fill(name, &hash, stored, model, &sets, budget, &mut run.reporter).map(|_| ())
        })?;
        self.cache.read(name, &hash)
    }

    /// Prompts and answers beside the data's own that a frozen policy must score for an arm; `reference` is the policy
    /// that the arm starts from, if it is this one.
    fn more_rows(
        &self,
        data: &ArmData,
        visits: &[bool],
        order: &[usize],
        index: usize,
        reference: Option<&str>,
    ) -> Result<Vec<Example>, TrainError> {
        let mut rows = data.shortened(visits);
        if let Some(name) = reference {
            rows.extend(data.mismatched(visits, order, self.prepared.model.context));
            if let Some(samples) = self.samples(data, visits, name, index, None)? {
                let drawn = samples.iter().filter(|(_, answer)| !answer.is_empty());
                rows.extend(drawn.map(|(prompt, answer)| row("a sampled answer", prompt, answer)));
            }
        }
        Ok(rows)
    }
}
