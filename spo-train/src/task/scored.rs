//! What a scorer says of answers that the policy writes itself: a loss without a gradient.

use super::{StepRows, StepTally, Task};
use crate::TrainError;
use crate::policy::dealt;
use crate::policy::sampling::{BATCH, Drawing};
use crate::step::tape::{LogpGradients, Scored};
use spo_data::{Group, PackedBatch, Prompt, Tokenizer};
use spo_model::CausalLm;
use spo_model::generate::{Control, DecodeOptions, GenerateOptions, Generation, Generator};
use spo_model::lora::mix;
use spo_score::{Item, Scorer};
use spo_team::{Team, TeamError};
use std::sync::{Arc, Mutex, PoisonError};

/// Who scores, and how answers are drawn.
#[derive(Clone)]
pub(crate) struct Judged {
    /// The scorer; the tasks of a phase share it. Rank 0 alone has it.
    pub scorer: Option<Arc<Mutex<Box<dyn Scorer>>>>,
    /// Decodes answers.
    pub tokenizer: Arc<Tokenizer>,
    /// Most tokens of an answer, how they are drawn, and how many answers each prompt gets.
    pub drawing: Drawing,
}

/// Minus the mean score of the answers that a policy draws to prompts. At one step every policy draws with the same random
/// numbers (common random numbers: Spall 1992), so that the difference of two losses is of the policies.
pub(crate) struct ScoredTask<'a> {
    prompts: &'a [Prompt],
    dimension: &'a str,
    judged: Judged,
    /// Held-out prompts have the same random numbers whenever they are answered.
    held_out: bool,
}

impl<'a> ScoredTask<'a> {
    /// The task of answering these prompts.
    pub fn new(prompts: &'a [Prompt], dimension: &'a str, held_out: bool, judged: Judged) -> Self {
        Self { prompts, dimension, judged, held_out }
    }

    /// The answers of a policy, one prompt's behind each other, so many sequences at a time.
    fn draw(&self, model: &CausalLm, step: &StepRows, batch: usize, team: &Team) -> Result<Vec<Generation>, TeamError> {
        let Drawing { samples, max_new_tokens, sampling, stop, seed } = self.judged.drawing.clone();
        let first = step.rows.first().map_or(0, |row| (row * samples) as u64);
        let (seed, first_stream) = if self.held_out { (seed, first) } else { (mix(seed ^ mix(step.done)), 0) };
        let options = GenerateOptions { max_new_tokens, sampling, seed, first_stream, stop };
        let ids = step.rows.iter().map(|row| self.prompts[*row].ids.as_slice());
        let wanted: Vec<&[u32]> = ids.flat_map(|ids| std::iter::repeat_n(ids, samples)).collect();
        let decode = DecodeOptions { batch, drafts: 0, ..DecodeOptions::default() };
        let mut generator = Generator::new(model.clone(), &decode);
        dealt::continued(team, &mut generator, batch, &wanted, &options, &mut |_, _| Control::Continue)
    }

    /// The scores of those answers that the scorer judges along the dimension.
    fn judge(&self, rows: &[usize], drawn: &[Generation]) -> Result<Vec<f64>, TrainError> {
        let samples = self.judged.drawing.samples;
        let of = |(index, answer): (usize, &Generation)| self.item(rows[index / samples], &answer.ids);
        let items = drawn.iter().enumerate().map(of).collect::<Result<Vec<_>, _>>()?;
        let scorer = self.judged.scorer.as_ref().expect("rank 0 has opened it");
        let scores = scorer.lock().unwrap_or_else(PoisonError::into_inner).score(&items, &mut |_| true)?;
        Ok(scores.into_iter().flatten().filter_map(|scores| scores.of(Some(self.dimension))).collect())
    }

    fn item(&self, row: usize, ids: &[u32]) -> Result<Item, TrainError> {
        let prompt = &self.prompts[row];
        Ok(Item {
            id: prompt.id.clone(),
            prompt: prompt.text.clone(),
            response: self.judged.tokenizer.decode(ids)?.trim().to_string(),
            prompt_ids: prompt.ids.clone(),
            response_ids: ids.to_vec(),
            dimension: Some(self.dimension.to_owned()),
        })
    }
}

impl Task for ScoredTask<'_> {
    fn len(&self) -> usize {
        self.prompts.len()
    }

    fn group(&self, row: usize) -> Group<'_> {
        Group { prompt: &self.prompts[row].ids, answers: vec![] }
    }

    fn id(&self, row: usize) -> &str {
        &self.prompts[row].id
    }

    fn is_written(&self) -> bool {
        true
    }

    fn written(
        &self,
        model: &CausalLm,
        step: &StepRows,
        otherwise: bool,
        team: &Team,
    ) -> Result<Option<StepTally>, TrainError> {
        let samples = self.judged.drawing.samples;
        let half = (step.rows.len() * samples).min(BATCH).div_ceil(2);
        let drawn = self.draw(model, step, if otherwise { half } else { BATCH }, team)?;
        let scores = team.root_unhurried(|| self.judge(step.rows, &drawn))?;
        let tally = ScoreTally {
            answers: drawn.len() as f64,
            judged: scores.len() as f64,
            score: scores.iter().sum(),
            tokens: drawn.iter().map(|answer| answer.ids.len() as f64).sum(),
        };
        if tally.judged == 0.0 {
            let reason = format!(
                "its scorer judged none of {} answers along {:?}: the mean of none is no loss",
                drawn.len(),
                self.dimension
            );
            return Err(TrainError::Objective { name: "score".into(), reason });
        }
        Ok(Some(StepTally { weight: tally.judged, loss: -tally.score, scores: Some(tally), ..StepTally::default() }))
    }

    fn logp_gradients(
        &self,
        _: &[usize],
        _: &PackedBatch,
        _: &Scored,
        _: &mut StepTally,
    ) -> Result<LogpGradients, TrainError> {
        let reason = "a scorer's opinion has no gradient with respect to log-probs".into();
        Err(TrainError::Objective { name: "score".into(), reason })
    }
}

/// Sums over answers that a policy wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ScoreTally {
    /// Answers.
    pub answers: f64,
    /// Those that the scorer judged.
    pub judged: f64,
    /// Their scores.
    pub score: f64,
    /// Tokens of all answers.
    pub tokens: f64,
}

impl ScoreTally {
    /// Adds the sums of other answers.
    pub fn merge(&mut self, other: Self) {
        self.answers += other.answers;
        self.judged += other.judged;
        self.score += other.score;
        self.tokens += other.tokens;
    }

    /// Mean score of the judged answers.
    pub fn mean(&self) -> f64 {
        self.score / self.judged
    }
}
