//! Sums over the rows of one batch.

use super::{Ahead, ScoreTally};
use serde::{Deserialize, Serialize};
use spo_team::{Team, TeamError};

/// Sums over the pairs (or answers, lists, answer tokens) of one batch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepTally {
    /// Rows, or answer tokens, of the whole batch: what sums are divided by.
    pub weight: f64,
    /// Sum of losses.
    pub loss: f64,
    /// Sums that only preference tasks have.
    pub preference: Option<PreferenceTally>,
    /// Sums over the answers whose degree is classified, where any is.
    pub degrees: Option<DegreeTally>,
    /// Sums over the answers that the policy wrote, where the loss is of those.
    pub scores: Option<ScoreTally>,
    /// Loss that the batch must have if the policy still is the reference, summed; where theory gives it.
    pub step_zero: Option<f64>,
    /// Sums over the rows of each dimension that is replayed, which are in `weight` and `loss` and nowhere else.
    pub replayed: Vec<ReplayTally>,
    /// What the task found out about the whole batch before its first micro-batch.
    #[serde(skip)]
    pub ahead: Option<Ahead>,
}

impl StepTally {
    /// The sums of a batch that begin as `start`: those of the micro-batches of all processes, added in their order.
    ///
    /// # Errors
    /// Another process has failed.
    pub(crate) fn of_all(start: Self, own: Vec<Self>, team: &Team) -> Result<Self, TeamError> {
        let mut all = own;
        if !team.is_solo() {
            let call = "sums of a step";
            // Not as JSON, which knows no infinity.
            let mut bytes = vec![];
            ciborium::into_writer(&all, &mut bytes)
                .map_err(|error| TeamError::Library { call, text: error.to_string() })?;
            all.clear();
            for bytes in team.gather(&bytes)? {
                let theirs: Vec<Self> = ciborium::from_reader(bytes.as_slice())
                    .map_err(|error| TeamError::Library { call, text: error.to_string() })?;
                all.extend(theirs);
            }
        }
        Ok(all.into_iter().fold(start, |mut sum, tally| {
            sum.merge(tally);
            sum
        }))
    }

    /// Adds the sums of another micro-batch of the same batch.
    pub fn merge(&mut self, other: Self) {
        self.loss += other.loss;
        if self.ahead.is_none() {
            self.ahead = other.ahead;
        }
        self.step_zero = self.step_zero.zip(other.step_zero).map(|(a, b)| a + b);
        self.replayed.resize(self.replayed.len().max(other.replayed.len()), ReplayTally::default());
        for (sums, other) in self.replayed.iter_mut().zip(&other.replayed) {
            sums.merge(other);
        }
        if let Some(other) = other.degrees {
            self.degrees.get_or_insert_default().merge(other);
        }
        if let Some(other) = other.scores {
            self.scores.get_or_insert_default().merge(other);
        }
        if let Some(other) = other.preference {
            self.preference.get_or_insert_default().merge(other);
        }
    }

    /// The mean loss, which the step descends.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.weight
    }

    /// The mean loss of the rows that are not replayed.
    pub fn own_loss(&self) -> f64 {
        (self.loss - self.replayed.iter().map(|sums| sums.loss).sum::<f64>()) / (self.weight - self.replayed_pairs())
    }

    /// Replayed rows.
    pub fn replayed_pairs(&self) -> f64 {
        self.replayed.iter().map(|sums| sums.pairs).sum()
    }

    /// The estimate of the KL from the reference that the loss used, nats per answer.
    pub fn kl(&self) -> Option<f64> {
        match (&self.ahead, self.preference.as_ref().and_then(|sums| sums.kl)) {
            (Some(Ahead::Kl(kl)), _) => Some(kl.max(0.0)),
            (_, Some(sum)) => Some(sum / self.weight),
            _ => None,
        }
    }
}

/// Sums over the rows of a dimension that is replayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayTally {
    /// Rows.
    pub pairs: f64,
    /// Losses.
    pub loss: f64,
    /// Those that the rewards order as the labels do.
    pub correct: f64,
}

impl ReplayTally {
    fn merge(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.loss += other.loss;
        self.correct += other.correct;
    }
}

/// Sums over answers whose preference degree is classified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DegreeTally {
    /// Answers.
    pub answers: f64,
    /// Those whose degree has the highest score.
    pub correct: f64,
    /// Cross-entropy, in nats.
    pub loss: f64,
}

impl DegreeTally {
    fn merge(&mut self, other: Self) {
        self.answers += other.answers;
        self.correct += other.correct;
        self.loss += other.loss;
    }

    /// Share of the answers whose degree has the highest score.
    pub fn accuracy(&self) -> f64 {
        self.correct / self.answers
    }

    /// Mean cross-entropy, in nats.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.answers
    }
}

/// Sums over judged answers: pairs have a chosen and a rejected one, a list its best and its worst, a labelled answer
/// is one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PreferenceTally {
    /// Rows that the rewards order as the labels do: the chosen answer's reward is higher than the rejected one's, where
    /// one of them is absent than 0.
    pub correct: f64,
    /// Reward margins; an absent answer counts 0.
    pub margin: f64,
    /// Log-ratios of the chosen answers to the reference.
    pub chosen_log_ratio: f64,
    /// Chosen answers.
    pub chosen: f64,
    /// Log-ratios of the rejected answers.
    pub rejected_log_ratio: f64,
    /// Rejected answers.
    pub rejected: f64,
    /// Tokens of the chosen answers.
    pub chosen_tokens: f64,
    /// SPO's `c`, if the objective has one.
    pub margin_offset: Option<f64>,
    /// Mean of the two answers' sequence KL from the reference, if the objective looks at it.
    pub kl: Option<f64>,
}

impl PreferenceTally {
    fn merge(&mut self, other: Self) {
        self.correct += other.correct;
        self.margin += other.margin;
        self.chosen_log_ratio += other.chosen_log_ratio;
        self.chosen += other.chosen;
        self.rejected_log_ratio += other.rejected_log_ratio;
        self.rejected += other.rejected;
        self.chosen_tokens += other.chosen_tokens;
        for (sum, other) in [(&mut self.margin_offset, other.margin_offset), (&mut self.kl, other.kl)] {
            if let Some(other) = other {
                *sum.get_or_insert_default() += other;
            }
        }
    }

    /// Adds one row: the reward and the log-ratio of each answer that it has.
    pub(crate) fn add(&mut self, chosen: Option<(f64, f64)>, rejected: Option<(f64, f64)>) {
        let reward = |side: Option<(f64, f64)>| side.map_or(0.0, |(reward, _)| reward);
        let margin = reward(chosen) - reward(rejected);
        self.correct += if margin > 0.0 { 1.0 } else { 0.0 };
        self.margin += margin;
        if let Some((_, log_ratio)) = chosen {
            self.chosen_log_ratio += log_ratio;
            self.chosen += 1.0;
        }
        if let Some((_, log_ratio)) = rejected {
            self.rejected_log_ratio += log_ratio;
            self.rejected += 1.0;
        }
    }
}
