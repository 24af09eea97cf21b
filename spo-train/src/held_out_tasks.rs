//! The running policy on held-out pairs, in the middle of a phase.

use crate::TrainError;
use crate::event::{HeldOut, HeldOutDimension};
use crate::phase::Phase;
use crate::session::Session;
use crate::task::{PreferenceTask, Task, WindowTally};
use spo_core::logprob::HeadOptions;
use spo_data::{Group, PackedBatch};
use spo_model::CausalLm;
use std::collections::HashMap;
use std::time::Instant;

/// Groups scored between two looks at the stop flag.
const CHUNK: usize = 256;

/// What is computed from one pass over the held-out pairs.
pub struct HeldOutTasks<'a> {
    /// The phase's own task on held-out rows: its loss.
    pub own: Box<dyn Task + 'a>,
    /// Per dimension a task whose reward is `log(π/π_0)`.
    pub dimensions: Vec<(String, PreferenceTask<'a>)>,
}

/// Token log-probs by prompt and answer.
type Scores<'g> = HashMap<(&'g [u32], &'g [u32]), Vec<f32>>;

impl HeldOutTasks<'_> {
    /// Scores every answer once and computes all tasks from that. Memory: one micro-batch without a
    /// tape, and a number per answer token.
    ///
    /// # Errors
    /// A value that is not finite, an objective's error, or the user's interruption.
    pub fn evaluate(
        &self,
        model: &CausalLm,
        phase: &Phase,
        step: u64,
        session: &Session,
    ) -> Result<HeldOut, TrainError> {
        let started = Instant::now();
        let tasks = || std::iter::once(self.own.as_ref()).chain(self.dimensions.iter().map(|(_, task)| task as _));
        let (groups, tokens) = distinct(tasks());
        let scores = score(model, &groups, 2 * phase.training.tokens_per_micro_batch, session)?;
        let tallies = tasks().map(|task| tally(task, &scores, phase.training.pairs_per_step));
        let mut tallies = tallies.collect::<Result<Vec<_>, _>>()?.into_iter();
        let own = tallies.next().expect("the first is the phase's own");
        let loss = own.loss / own.weight;
        session.check_finite(phase.name, step, &[("the held-out loss", loss)], Vec::new)?;
        let dimensions = self.dimensions.iter().zip(tallies).map(|((dimension, task), tally)| {
            let sums = tally.preference.unwrap_or_default();
            let mean = |sum: f64| sum / task.len() as f64;
            HeldOutDimension {
                dimension: dimension.clone(),
                pairs: task.len(),
                accuracy: mean(sums.correct),
                margin: mean(sums.margin),
                chosen_log_ratio: mean(sums.chosen_log_ratio),
                rejected_log_ratio: mean(sums.rejected_log_ratio),
            }
        });
        Ok(HeldOut {
            phase: phase.name.into(),
            step,
            steps: phase.training.steps,
            loss,
            dimensions: dimensions.collect(),
            tokens,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// Each answer once, with its prompt, and the tokens of all groups.
fn distinct<'t>(tasks: impl Iterator<Item = &'t (dyn Task + 't)>) -> (Vec<Group<'t>>, u64) {
    let mut seen = std::collections::HashSet::new();
    let rows = tasks.flat_map(|task| (0..task.len()).map(|row| task.group(row)));
    let groups = rows.filter_map(|group| {
        let prompt = group.prompt;
        let absent: Vec<&[u32]> = group.answers.into_iter().filter(|answer| seen.insert((prompt, *answer))).collect();
        (!absent.is_empty()).then_some(Group { prompt, answers: absent })
    });
    let groups: Vec<Group> = groups.collect();
    let tokens = groups.iter().map(|group| group.tokens() as u64).sum();
    (groups, tokens)
}

fn score<'g>(
    model: &CausalLm,
    groups: &[Group<'g>],
    token_budget: usize,
    session: &Session,
) -> Result<Scores<'g>, TrainError> {
    let mut scores = Scores::new();
    for chunk in groups.chunks(CHUNK) {
        session.check_stop()?;
        let scored = model.score(chunk, token_budget, &HeadOptions::default(), &mut |_| ());
        for (group, answers) in chunk.iter().zip(scored) {
            scores.extend(group.answers.iter().zip(answers).map(|(answer, logps)| ((group.prompt, *answer), logps)));
        }
    }
    Ok(scores)
}

/// A task's sums over all its rows, in windows of `window` rows: some losses compare the pairs of a
/// window.
fn tally(task: &dyn Task, scores: &Scores, window: usize) -> Result<WindowTally, TrainError> {
    let rows: Vec<usize> = (0..task.len()).collect();
    let mut total = WindowTally::default();
    for rows in rows.chunks(window) {
        let groups: Vec<Group> = rows.iter().map(|&row| task.group(row)).collect();
        let answers = groups.iter().flat_map(|group| group.answers.iter().map(|answer| (group.prompt, *answer)));
        let logps: Vec<f32> = answers.flat_map(|answer| scores[&answer].iter().copied()).collect();
        let mut sums = WindowTally { weight: task.weight(&groups), ..Default::default() };
        task.slopes(rows, &PackedBatch::new(&groups), &logps, &mut sums)?;
        total.weight += sums.weight;
        total.merge(sums);
    }
    Ok(total)
}
