//! An online round: the policy that it starts from answers prompts, a scorer scores the answers, and those that differ
//! become its pairs. Sampling, scoring and pairing are stages of their own; what each made is a file in `online/`.

pub(crate) mod prompts;
mod rows;

use crate::TrainError;
use crate::config::{OnlinePlan, RoundPlan};
use crate::events::Event;
use crate::policy::sampling::{Drawing, draw_answers};
use crate::run::place::{PhaseData, Place};
use crate::run::reference::{Draw, Made, Scoring};
use crate::run::stages::Driver;
use crate::task::data::TaskData;
use prompts::Prompts;
use rows::{Answers, Paired, PromptScores};
use spo_data::Dataset;
use spo_model::generate::Ended;
use spo_score::Item;
use std::sync::Arc;

/// The pairs of a round that are yet to be made, with the phases that train on them.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    /// The round.
    pub round: &'a RoundPlan,
    /// How.
    pub plan: &'a OnlinePlan,
    /// What is answered.
    pub prompts: &'a Prompts,
    /// The round's arms, the main one first, with the rows that they get.
    pub arms: Vec<(Place<'a>, &'a PhaseData)>,
}

impl<'a> Making<'a> {
    /// The main arm's place.
    pub fn place(&self) -> &Place<'a> {
        &self.arms[0].0
    }

    /// Answers that are sampled.
    pub fn answers(&self) -> usize {
        self.prompts.list.len() * self.plan.samples
    }
}

impl<'a> Driver<'a> {
    /// Makes the pairs of a round, and has all policies that its losses look at score them.
    pub(super) fn make_pairs(&mut self, name: &str, making: &Making<'a>) -> Result<(), TrainError> {
        let (round, parent) = (making.round, making.place().parent().to_owned());
        let [answers, scores, pairs] = ["answers", "scores", "pairs"].map(|what| rows::file(round, what));
        let out = self.reporter.out.clone();
        self.stage(&format!("answer for {}", round.name), std::slice::from_ref(&answers), |run| {
            let made = run.answer(&parent, making)?;
            run.reporter.team.root(|| rows::write(&out.join(&answers), &made))
        })?;
        self.stage(&format!("judge for {}", round.name), std::slice::from_ref(&scores), |run| {
            let found = run.judge_answers(making, &rows::read(&out.join(&answers))?)?;
            run.reporter.team.root(|| rows::write(&out.join(&scores), &found))
        })?;
        let answered: Vec<Answers> = rows::read(&out.join(&answers))?;
        let paired = Paired::new(round, making.plan, &parent, &answered, &rows::read(&out.join(&scores))?);
        self.stage(name, std::slice::from_ref(&pairs), |run| {
            run.reporter.team.root(|| rows::write(&out.join(&pairs), &paired.rows))?;
            run.reporter.emit(Event::PairsMade(paired.figures.clone()))?;
            match paired.figures.pairs {
                0 => Err(TrainError::NoOnlinePairs { round: round.name.clone(), reason: why_none(making, &answered) }),
                _ => Ok(()),
            }
        })?;
        self.hand_out(making, &paired.dataset)
    }

    /// Gives each arm its rows, and has the policies before score them.
    fn hand_out(&mut self, making: &Making<'a>, dataset: &Arc<Dataset>) -> Result<(), TrainError> {
        let mut policies: Vec<&String> = vec![];
        for (place, data) in &making.arms {
            let arm = place.arm.expect("an online round has arms").plan;
            let made = TaskData::of_arm(
                dataset,
                &making.round.dimension,
                arm,
                &self.prepared.tokenizer,
                self.prepared.model.context,
            )?;
            made.check(&place.path)?;
            let (phase, units) = (place.visiting(self.plan.seed), made.units());
            data.make(made.visiting(phase.visits(units.clone()), phase.epoch(units)));
            let rows = data.rows();
            let needs_all = rows.looks_at_all_policies();
            let last = place.path.len() - 1;
            policies
                .extend(place.path.iter().enumerate().filter(|(at, _)| needs_all || *at == last).map(|(_, name)| name));
        }
        let parent = making.place().parent();
        let rows = || making.arms.iter().map(|(_, data)| data.rows());
        let draws: Vec<Draw> =
            rows().filter_map(|rows| Draw::of(rows, self.plan.seed, making.place().round())).collect();
        if !draws.is_empty() {
            self.sample(&format!("sample for {}", making.round.name), parent, &draws)?;
        }
        policies.sort();
        policies.dedup();
        for policy in policies {
            let mut made: Vec<Made> = rows().map(Made::Derived).collect();
            if policy == parent {
                made.extend(draws.iter().cloned().map(Made::Sampled));
            }
            let examples = (0..dataset.examples.len()).collect();
            let scoring = Scoring::new(policy, dataset, &Dataset::default(), examples, made);
            self.score(&format!("score {policy} for {}", making.round.name), &scoring)?;
        }
        Ok(())
    }

    /// Samples a policy's answers, and adds the data's own where they take part.
    fn answer(&mut self, parent: &str, making: &Making) -> Result<Vec<Answers>, TrainError> {
        let plan = making.plan;
        let list = &making.prompts.list;
        let drawing = Drawing::of(plan, self.stop.clone(), self.plan.seed.wrapping_add(making.place().round()));
        let ids: Vec<&[u32]> = list.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let model = self.resident.get(parent)?;
        let drawn = draw_answers(parent, model, &ids, &drawing, &mut self.reporter)?;
        let tokenizer = &self.prepared.tokenizer;
        let text = |ids: &[u32]| Ok::<_, TrainError>(tokenizer.decode(ids)?.trim().to_string());
        let mut all = vec![];
        for (prompt, generations) in list.iter().zip(drawn.chunks(plan.samples)) {
            let mut answers = Answers::none(prompt);
            for generation in generations {
                answers.responses.push(text(&generation.ids)?);
                answers.finished.push(generation.ended == Ended::Stop);
                answers.answer_ids.push(generation.ids.clone());
            }
            answers.sampled = generations.len();
            for ids in making.prompts.of_data(prompt).filter(|_| plan.include_data) {
                answers.responses.push(text(ids)?);
                answers.finished.push(true);
                answers.answer_ids.push(ids.to_vec());
            }
            all.push(answers);
        }
        Ok(all)
    }

    fn judge_answers(&mut self, making: &Making, answers: &[Answers]) -> Result<Vec<PromptScores>, TrainError> {
        let items: Vec<Item> = answers.iter().flat_map(|answers| answers.items(&making.round.dimension)).collect();
        let mut found = self.judge(&making.plan.scorer, &items, making.place().parent())?.into_iter();
        Ok(answers.iter().map(|answers| found.by_ref().take(answers.responses.len()).collect()).collect())
    }
}

/// Why no two answers make a pair.
fn why_none(making: &Making, answers: &[Answers]) -> String {
    let all: usize = answers.iter().map(|answers| answers.responses.len()).sum();
    let cut: usize = answers.iter().map(|answers| answers.finished.iter().filter(|finished| !**finished).count()).sum();
    format!(
        "of {all} answers {cut} were cut at max-new-tokens = {}, and no two of the others to one prompt have scores along \
         {:?} that differ by at least {}",
        making.plan.max_new_tokens, making.round.dimension, making.plan.min_gap
    )
}
