//! The running policy on held-out rows, in the middle of a phase.

use crate::TrainError;
use crate::config::TrainingPlan;
use crate::config::spec::Best;
use crate::evaluate::labelled_set::Judged;
use crate::events::reporter::Reporter;
use crate::events::{HeldOut, HeldOutDimension};
use crate::policy::dealt;
use crate::policy::logps::score_answers;
use crate::step::tape::observe;
use crate::task::{DegreeTally, PreferenceTally, StepAhead, StepRows, StepTally, Task};
use spo_core::Sides;
use spo_core::logprob::HeadOptions;
use spo_data::{Dataset, Group, micro_batches};
use spo_model::CausalLm;
use std::collections::HashMap;
use std::time::Instant;

/// Groups scored between two checks of the stop flag.
const CHUNK: usize = 256;
/// Micro-batches of a process between two checks.
const WAVE: usize = 8;

/// What is computed from one pass over the held-out rows.
pub struct HeldOutTasks<'a> {
    /// The phase's own task on held-out rows: its loss.
    pub own: Box<dyn Task + 'a>,
    /// Its dimension, one of those below; `None` for a warm-up.
    pub dimension: Option<String>,
    /// What every dimension's labels say of `log(π/π_0)`.
    pub dimensions: Vec<HeldOutMargins<'a>>,
}

/// The judged rows of one dimension with their log-probs under `π_0`.
#[derive(Debug)]
pub struct HeldOutMargins<'a> {
    /// Name of the dimension.
    pub dimension: String,
    /// The held-out data.
    pub dataset: &'a Dataset,
    /// Its rows.
    pub rows: Vec<Judged>,
    /// `log π_0` of each; 0 for an absent answer. `None` where rewards are compared.
    pub start: Option<Sides<Vec<f64>>>,
}

/// Sequence log-probs, or rewards, by prompt and answer.
type Scores<'g> = HashMap<(&'g [u32], &'g [u32]), f64>;

impl HeldOutTasks<'_> {
    /// Scores every answer once and computes everything from that. Memory: one micro-batch without a
    /// tape, and a number per answer.
    ///
    /// # Errors
    /// A value that is not finite, an objective's error, or the user's interruption.
    pub fn evaluate(
        &self,
        model: &CausalLm,
        (phase, training): (&str, &TrainingPlan),
        step: u64,
        reporter: &Reporter,
    ) -> Result<HeldOut, TrainError> {
        let started = Instant::now();
        let token_budget = 2 * training.micro_batch_tokens(&model.device());
        let (mut scores, mut tokens) = (Scores::new(), 0);
        let own = own_loss(
            self.own.as_ref(),
            model,
            training.pairs_per_step,
            token_budget,
            reporter,
            &mut scores,
            &mut tokens,
        )?;
        let loss = own.mean_loss();
        reporter.check_finite(phase, step, &[("the held-out loss", loss)], Vec::new)?;
        tokens += complete(self.dimensions.iter(), &mut scores, model, token_budget, reporter)?;
        Ok(HeldOut {
            phase: phase.into(),
            step,
            steps: training.steps,
            loss,
            degree_accuracy: own.degrees.map(|degrees| degrees.accuracy()),
            score: own.scores.map(|scores| scores.mean()),
            dimensions: self.dimensions.iter().map(|margins| margins.figures(&scores)).collect(),
            tokens,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// Scores the answers of these rows that have no score yet; the tokens that took.
fn complete<'t>(
    dimensions: impl Iterator<Item = &'t HeldOutMargins<'t>>,
    scores: &mut Scores<'t>,
    model: &CausalLm,
    token_budget: usize,
    reporter: &Reporter,
) -> Result<u64, TrainError> {
    let groups = missing(dimensions, scores);
    for chunk in groups.chunks(CHUNK) {
        reporter.check_stop()?;
        let score = |groups: &[Group]| score_answers(model, groups, token_budget);
        // Critiques are not of a length that is known before: which answers are read together depends on all of them.
        let found = match model.score.as_ref().is_some_and(|head| head.critic.is_some()) {
            true => score(chunk),
            false => dealt::scored(&reporter.team, chunk, token_budget, score)?,
        };
        for (group, answers) in chunk.iter().zip(found) {
            scores.extend(group.answers.iter().zip(answers).map(|(answer, score)| ((group.prompt, *answer), score)));
        }
    }
    Ok(groups.iter().map(|group| group.tokens() as u64).sum())
}

/// The margins `Δ log(π/π_0)` of a model on the rows of each set, in their order.
///
/// # Errors
/// The user's interruption.
pub fn row_margins(
    sets: &[&HeldOutMargins],
    model: &CausalLm,
    token_budget: usize,
    reporter: &Reporter,
) -> Result<Vec<Vec<f64>>, TrainError> {
    let mut scores = Scores::new();
    complete(sets.iter().copied(), &mut scores, model, token_budget, reporter)?;
    Ok(sets
        .iter()
        .map(|set| set.ratios(&scores).map(|[chosen, rejected]| difference(chosen, rejected)).collect())
        .collect())
}

/// Chosen minus rejected, of which an absent one is 0.
fn difference(chosen: Option<f64>, rejected: Option<f64>) -> f64 {
    chosen.unwrap_or(0.0) - rejected.unwrap_or(0.0)
}

impl HeldOutTasks<'_> {
    /// How well the model's head tells the preference degrees of held-out answers apart; `None` where none are classified.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn degrees(
        &self,
        model: &CausalLm,
        training: &TrainingPlan,
        reporter: &Reporter,
    ) -> Result<Option<DegreeTally>, TrainError> {
        let token_budget = 2 * training.micro_batch_tokens(&model.device());
        let (task, per_step) = (self.own.as_ref(), training.pairs_per_step);
        let found = own_loss(task, model, per_step, token_budget, reporter, &mut Scores::new(), &mut 0)?;
        Ok(found.degrees)
    }

    /// The value by which the best checkpoint is chosen, higher is better; `None` if there is none.
    pub fn value(&self, found: &HeldOut, by: Best) -> Option<f64> {
        let own = found.dimensions.iter().find(|score| Some(&score.dimension) == self.dimension.as_ref());
        match by {
            Best::None => None,
            Best::Loss => Some(-found.loss),
            Best::Accuracy => own.map(|score| score.accuracy),
            Best::Margin => own.map(|score| score.margin),
        }
    }
}

impl HeldOutMargins<'_> {
    /// The answers of a row with their places in the example.
    fn answers(&self, row: &Judged) -> (&[u32], [Option<&[u32]>; 2]) {
        let example = &self.dataset.examples[row.example];
        let tokens = |answer: Option<usize>| answer.map(|answer| example.answers[answer].as_slice());
        (&example.prompt, [tokens(row.chosen), tokens(row.rejected)])
    }

    /// `log(π/π_0)` of each row's chosen and rejected answer.
    fn ratios<'s>(&'s self, scores: &'s Scores) -> impl Iterator<Item = [Option<f64>; 2]> + 's {
        self.rows.iter().enumerate().map(move |(index, row)| {
            let (prompt, [chosen, rejected]) = self.answers(row);
            let start =
                |side: fn(&Sides<Vec<f64>>) -> &Vec<f64>| self.start.as_ref().map_or(0.0, |all| side(all)[index]);
            let ratio = |answer: Option<&[u32]>, start: f64| answer.map(|answer| scores[&(prompt, answer)] - start);
            [ratio(chosen, start(|sides| &sides.chosen)), ratio(rejected, start(|sides| &sides.rejected))]
        })
    }

    fn figures(&self, scores: &Scores) -> HeldOutDimension {
        let mut sums = PreferenceTally::default();
        for [chosen, rejected] in self.ratios(scores) {
            sums.add(chosen.map(|ratio| (ratio, ratio)), rejected.map(|ratio| (ratio, ratio)));
        }
        let (rows, of_ratios) = (self.rows.len() as f64, self.start.is_some());
        HeldOutDimension {
            dimension: self.dimension.clone(),
            pairs: self.rows.len(),
            accuracy: sums.correct / rows,
            margin: sums.margin / rows,
            chosen_log_ratio: (of_ratios && sums.chosen > 0.0).then(|| sums.chosen_log_ratio / sums.chosen),
            rejected_log_ratio: (of_ratios && sums.rejected > 0.0).then(|| sums.rejected_log_ratio / sums.rejected),
        }
    }
}

/// The sums of a task over all its rows, in batches of `per_step` rows: some losses compare the rows of a batch. Every
/// answer's log-prob goes to `scores`. The micro-batches are dealt to the processes.
fn own_loss<'t>(
    task: &'t dyn Task,
    model: &CausalLm,
    per_step: usize,
    token_budget: usize,
    reporter: &Reporter,
    scores: &mut Scores<'t>,
    tokens: &mut u64,
) -> Result<StepTally, TrainError> {
    let (all, head, team) = ((0..task.len()).collect::<Vec<usize>>(), HeadOptions::default(), &*reporter.team);
    let (mut total, mut pieces) = (StepTally::default(), vec![]);
    for rows in all.chunks(per_step) {
        reporter.check_stop()?;
        if let Some(sums) = task.written(model, &StepRows { all: &all, rows, done: 0 }, false, team)? {
            *tokens += sums.scores.map_or(0, |scores| scores.tokens as u64);
            total.weight += sums.weight;
            total.merge(sums);
            continue;
        }
        let groups: Vec<Group> = rows.iter().map(|&row| task.group(row)).collect();
        let batches = micro_batches(&groups.iter().map(Group::tokens).collect::<Vec<_>>(), token_budget);
        let ahead = task.look_ahead(&StepAhead { model, rows, batches: &batches, token_budget, head: &head, team })?;
        let empty = StepTally { weight: task.weight(&groups), ahead, ..Default::default() };
        total.weight += empty.weight;
        for members in batches {
            let rows = members.into_iter().map(|member| rows[member]).collect();
            pieces.push(Piece { rows, empty: empty.clone() });
        }
    }
    for wave in pieces.chunks(WAVE * team.size()) {
        reporter.check_stop()?;
        let found = team.deal(wave.len(), |index| wave[index].score(task, model, &head))?;
        for (piece, (sums, of_answers, of_piece)) in wave.iter().zip(found) {
            scores.extend(piece.answers(task).zip(of_answers));
            *tokens += of_piece;
            total.merge(sums);
        }
    }
    Ok(total)
}

/// The rows of a micro-batch, and the sums that theirs are added to.
struct Piece {
    rows: Vec<usize>,
    empty: StepTally,
}

impl Piece {
    /// The answers that the rows are about, with their prompts. A group may have more.
    fn answers<'t>(&self, task: &'t dyn Task) -> impl Iterator<Item = (&'t [u32], &'t [u32])> {
        self.rows.iter().flat_map(move |&row| {
            let prompt = task.group(row).prompt;
            task.answers(row).into_iter().map(move |answer| (prompt, answer))
        })
    }

    /// The sums, the log-prob or reward of each answer, and the tokens that it took.
    fn score(
        &self,
        task: &dyn Task,
        model: &CausalLm,
        head: &HeadOptions,
    ) -> Result<(StepTally, Vec<f64>, u64), TrainError> {
        let groups: Vec<Group> = self.rows.iter().map(|&row| task.group(row)).collect();
        let batch = task.pack(model, &self.rows, &groups);
        let (mut sums, mut scores) = (self.empty.clone(), vec![]);
        observe(model, &batch, head, |scored| {
            let mut first = 0;
            for (&row, group) in self.rows.iter().zip(&groups) {
                scores.extend((first..first + task.answers(row).len()).map(|sequence| match task.gives_rewards() {
                    true => f64::from(scored.values[sequence]),
                    false => sum(&scored.logps[batch.sequences[sequence].clone()]),
                }));
                first += group.answers.len();
            }
            task.logp_gradients(&self.rows, &batch, scored, &mut sums)
        })?;
        Ok((sums, scores, batch.tokens() as u64))
    }
}

/// Each answer that has no score yet once, with its prompt.
fn missing<'t>(dimensions: impl Iterator<Item = &'t HeldOutMargins<'t>>, scores: &Scores) -> Vec<Group<'t>> {
    let mut seen = std::collections::HashSet::new();
    let rows = dimensions.flat_map(|margins| margins.rows.iter().map(|row| margins.answers(row)));
    let groups = rows.filter_map(|(prompt, answers)| {
        let absent = answers.into_iter().flatten().filter(|answer| !scores.contains_key(&(prompt, *answer)));
        let answers: Vec<&[u32]> = absent.filter(|answer| seen.insert((prompt, *answer))).collect();
        (!answers.is_empty()).then_some(Group { prompt, answers })
    });
    groups.collect()
}

fn sum(logps: &[f32]) -> f64 {
    logps.iter().map(|logp| f64::from(*logp)).sum()
}
