//! The files of an online round: answers, scores, pairs.

use crate::TrainError;
use crate::persist::durable;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use spo_data::{Dataset, Example, Preference, Prompt, PromptText};
use spo_eval::OnlinePairs;
use spo_score::pairing::{ScoredPair, pairs};
use spo_score::{Item, Scores};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::spec::Unfinished;
use crate::config::{OnlinePlan, RoundPlan};

/// Directory of what online rounds made, in the run directory.
const DIR: &str = "online";

/// One prompt with its answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Answers {
    pub id: String,
    /// Text or messages.
    pub prompt: Value,
    pub prompt_ids: Vec<u32>,
    pub responses: Vec<String>,
    pub answer_ids: Vec<Vec<u32>>,
    /// Whether each ended by itself.
    pub finished: Vec<bool>,
    /// How many there are of the policy; those behind are the data's.
    pub sampled: usize,
}

/// What a scorer says of each answer to one prompt.
pub(super) type PromptScores = Vec<Option<Scores>>;

/// A file of an online round, relative to the run directory.
pub(super) fn file(round: &RoundPlan, what: &str) -> PathBuf {
    Path::new(DIR).join(format!("{}.{what}.jsonl", round.name))
}

/// Writes rows, one a line.
pub(super) fn write<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), TrainError> {
    let dir = path.parent().expect("the file is in a directory");
    std::fs::create_dir_all(dir).map_err(|error| TrainError::io(dir, error))?;
    let line = |row: &T| serde_json::to_string(row).expect("rows are plain data") + "\n";
    durable::write(path, rows.iter().map(line).collect::<String>().as_bytes())
}

/// Reads them again.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, TrainError> {
    let text = std::fs::read_to_string(path).map_err(|error| TrainError::io(path, error))?;
    let damaged = |(line, error): (usize, serde_json::Error)| TrainError::Damaged {
        path: path.into(),
        reason: format!("line {}: {error}", line + 1),
    };
    let row = |(line, text)| serde_json::from_str(text).map_err(|error| damaged((line, error)));
    text.lines().enumerate().map(row).collect()
}

impl Answers {
    /// A prompt without answers.
    pub fn none(prompt: &Prompt) -> Self {
        Self {
            id: prompt.id.clone(),
            prompt: prompt.text.to_json(),
            prompt_ids: prompt.ids.clone(),
            responses: vec![],
            answer_ids: vec![],
            finished: vec![],
            sampled: 0,
        }
    }

    /// What the scorer is asked.
    pub fn items(&self, dimension: &str) -> Vec<Item> {
        let prompt = PromptText::of_json(&self.prompt).unwrap_or_default();
        let item = |(response, ids): (&String, &Vec<u32>)| Item {
            id: self.id.clone(),
            prompt: prompt.clone(),
            response: response.clone(),
            prompt_ids: self.prompt_ids.clone(),
            response_ids: ids.clone(),
            dimension: Some(dimension.into()),
        };
        self.responses.iter().zip(&self.answer_ids).map(item).collect()
    }
}

/// The pairs of a round, from answers and scores.
#[derive(Debug)]
pub(super) struct Paired {
    /// To train on.
    pub dataset: Arc<Dataset>,
    /// The same as rows of the layout `prefs`.
    pub rows: Vec<Value>,
    /// In numbers.
    pub figures: OnlinePairs,
}

impl Paired {
    pub fn new(
        round: &RoundPlan,
        plan: &OnlinePlan,
        policy: &str,
        answers: &[Answers],
        scores: &[PromptScores],
    ) -> Self {
        let (mut examples, mut rows) = (vec![], vec![]);
        let mut figures = Figures::default();
        for (number, (answers, scores)) in answers.iter().zip(scores).enumerate() {
            let dimension = round.dimension.as_str();
            figures.sampled(&scores[..answers.sampled], dimension);
            let counted: PromptScores = scores
                .iter()
                .zip(&answers.finished)
                .map(|(scores, finished)| {
                    let counts = *finished || plan.unfinished == Unfinished::Keep;
                    scores.clone().filter(|_| counts)
                })
                .collect();
            let own = |pair: &ScoredPair| pair.prefs.get(dimension).is_some_and(|sign| *sign != 0);
            let found = pairs(&counted, dimension, plan.pair, plan.min_gap, number as u64);
            for pair in found.into_iter().filter(own) {
                figures.pair(&pair, answers, dimension);
                let id = format!("{}/{}-{}", answers.id, pair.a + 1, pair.b + 1);
                rows.push(row(&id, &pair, answers));
                examples.push(example(id, &pair, answers));
            }
        }
        let dataset = Arc::new(Dataset { examples, report: Default::default() });
        Self { figures: figures.of(round, policy, answers), dataset, rows }
    }
}

fn row(id: &str, pair: &ScoredPair, answers: &Answers) -> Value {
    json!({
        "id": id,
        "prompt": answers.prompt,
        "response_a": answers.responses[pair.a],
        "response_b": answers.responses[pair.b],
        "prefs": pair.prefs,
        "scores": pair.scores,
    })
}

fn example(id: String, pair: &ScoredPair, answers: &Answers) -> Example {
    let labels = pair.prefs.iter().map(|(name, sign)| (name.clone(), Preference::from_sign(f64::from(*sign))));
    let scores = pair.scores.iter().map(|(name, scores)| (name.clone(), scores.map(|score| score as f32).to_vec()));
    Example {
        id,
        prompt: answers.prompt_ids.clone().into(),
        answers: [pair.a, pair.b].map(|answer| answers.answer_ids[answer].clone().into()).to_vec(),
        labels: Arc::new(labels.collect::<BTreeMap<_, _>>()),
        scores: scores.collect(),
        ..Example::default()
    }
}

/// Sums over the pairs of a round.
#[derive(Default)]
struct Figures {
    scores: Vec<f64>,
    silent: usize,
    pairs: usize,
    gap: f64,
    chosen_tokens: usize,
    rejected_tokens: usize,
    /// Pairs of a sampled answer and one of the data, and those that the data's wins.
    mixed: usize,
    data_wins: usize,
}

impl Figures {
    fn sampled(&mut self, scores: &[Option<Scores>], dimension: &str) {
        let found = scores.iter().map(|scores| scores.as_ref().and_then(|scores| scores.of(Some(dimension))));
        for score in found {
            match score {
                Some(score) => self.scores.push(score),
                None => self.silent += 1,
            }
        }
    }

    fn pair(&mut self, pair: &ScoredPair, answers: &Answers, dimension: &str) {
        let [a, b] = pair.scores[dimension];
        let (chosen, rejected) = if a > b { (pair.a, pair.b) } else { (pair.b, pair.a) };
        self.pairs += 1;
        self.gap += (a - b).abs();
        self.chosen_tokens += answers.answer_ids[chosen].len();
        self.rejected_tokens += answers.answer_ids[rejected].len();
        let of_data = |answer: usize| answer >= answers.sampled;
        self.mixed += usize::from(of_data(chosen) != of_data(rejected));
        self.data_wins += usize::from(of_data(chosen) && !of_data(rejected));
    }

    fn of(self, round: &RoundPlan, policy: &str, answers: &[Answers]) -> OnlinePairs {
        let over = |sum: f64, count: usize| if count == 0 { 0.0 } else { sum / count as f64 };
        OnlinePairs {
            round: round.name.clone(),
            policy: policy.into(),
            dimension: round.dimension.clone(),
            prompts: answers.len(),
            answers: answers.iter().map(|answers| answers.sampled).sum(),
            mean_score: over(self.scores.iter().sum(), self.scores.len()),
            silent: self.silent,
            pairs: self.pairs,
            mean_gap: over(self.gap, self.pairs),
            chosen_tokens: over(self.chosen_tokens as f64, self.pairs),
            rejected_tokens: over(self.rejected_tokens as f64, self.pairs),
            data_wins: (self.mixed > 0).then(|| self.data_wins as f64 / self.mixed as f64),
        }
    }
}
