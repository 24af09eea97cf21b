//! The data of one arm of a round: its rows, what frozen policies must say of them, and the task they make.

use crate::TrainError;
use crate::config::{ArmPlan, DataShape};
use crate::policy::logps::PolicyLogps;
use crate::policy::sampling::Samples;
use crate::task::{ListTask, Mismatched, PairInputs, PreferenceTask, Sampled, Task, UnpairedTask};
use burn::tensor::Device;
use spo_core::objective::{self, ListObjective, UnpairedObjective};
use spo_core::{Needs, Objective, Sides};
use spo_data::{AnswerRef, Dataset, Example, PairRef};
use spo_model::CausalLm;
use std::fmt::Debug;

/// The rows of an arm in the shape that its objective takes.
#[derive(Debug)]
enum Rows {
    Pairs(Vec<PairRef>, Box<dyn Objective>),
    Answers(Vec<AnswerRef>, Box<dyn UnpairedObjective>),
    Lists(Vec<usize>, Box<dyn ListObjective>),
}

/// An arm on its training data.
#[derive(Debug)]
pub(crate) struct ArmData<'d, 'p> {
    dataset: &'d Dataset,
    dimension: &'p str,
    arm: &'p ArmPlan,
    rows: Rows,
}

/// A task and SPO's `c` on its visited pairs, where there is one.
type TaskWithOffset<'a> = (Box<dyn Task + 'a>, Option<Vec<f64>>);

/// What a task of an arm is made of, beside its data.
pub(crate) struct Frozen<'a> {
    /// Names of `π_0 … π_{n−1}`.
    pub names: &'a [String],
    /// Their log-probs, in the same order.
    pub history: &'a [PolicyLogps],
    /// Answers that `π_{n−1}` drew, where the arm needs them.
    pub samples: Option<Samples>,
    /// `π_{n−1}` itself, where the arm needs it.
    pub reference: Option<CausalLm>,
    /// In which order the rows come: what mismatched answers are chosen by.
    pub order: Vec<usize>,
    /// Most tokens of a prompt with its answer.
    pub limit: usize,
}

impl<'d, 'p> ArmData<'d, 'p> {
    /// The rows of `dimension` for an arm.
    ///
    /// # Errors
    /// Options that the objective refuses.
    pub fn new(dataset: &'d Dataset, dimension: &'p str, arm: &'p ArmPlan) -> Result<Self, TrainError> {
        let rows = match arm.data {
            DataShape::Pairs => Rows::Pairs(dataset.pairs(dimension), objective::build(&arm.objective, &arm.options)?),
            DataShape::Answers => {
                Rows::Answers(dataset.answers(dimension), objective::build_unpaired(&arm.objective, &arm.options)?)
            }
            DataShape::Lists => {
                Rows::Lists(dataset.lists(dimension), objective::build_list(&arm.objective, &arm.options)?)
            }
        };
        Ok(Self { dataset, dimension, arm, rows })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Pairs(pairs, _) => pairs.len(),
            Rows::Answers(answers, _) => answers.len(),
            Rows::Lists(lists, _) => lists.len(),
        }
    }

    /// Index of a row's example.
    pub fn example(&self, row: usize) -> usize {
        match &self.rows {
            Rows::Pairs(pairs, _) => pairs[row].example,
            Rows::Answers(answers, _) => answers[row].example,
            Rows::Lists(lists, _) => lists[row],
        }
    }

    /// Tokens of a row, its prompt counted once.
    pub fn tokens(&self, row: usize) -> usize {
        let example = &self.dataset.examples[self.example(row)];
        let answers = match &self.rows {
            Rows::Pairs(pairs, _) => vec![pairs[row].chosen, pairs[row].rejected],
            Rows::Answers(answers, _) => vec![answers[row].answer],
            Rows::Lists(..) => (0..example.answers.len()).collect(),
        };
        example.prompt.len() + answers.into_iter().map(|answer| example.answers[answer].len()).sum::<usize>()
    }

    /// What a paired objective needs.
    fn needs(&self) -> Needs {
        match &self.rows {
            Rows::Pairs(_, objective) => objective.needs(),
            _ => Needs::POLICY,
        }
    }

    /// Whether the round needs its reference in memory.
    pub fn needs_reference_model(&self) -> bool {
        self.needs().sequence_kl
    }

    /// How many tokens the reference writes to each prompt at most, if it has to.
    pub fn sampled_tokens(&self) -> Option<usize> {
        let tokens = self.arm.options.get("max-new-tokens").and_then(serde_json::Value::as_u64);
        self.needs().sampled.then(|| tokens.unwrap_or(128) as usize)
    }

    /// The distinct prompts of the visited rows.
    pub fn prompts(&self, visits: &[bool]) -> Vec<&'d [u32]> {
        let mut seen = std::collections::HashSet::new();
        let visited = (0..self.len()).filter(|&row| visits[row]);
        let prompts = visited.map(|row| self.dataset.examples[self.example(row)].prompt.as_slice());
        prompts.filter(|prompt| seen.insert(*prompt)).collect()
    }

    /// Fails where the data lack what the objective needs; `names` are those of the policies before the round.
    ///
    /// # Errors
    /// The first row that lacks something, or an earlier policy that there is not.
    pub fn check(&self, names: &[String]) -> Result<(), TrainError> {
        let id = |row: usize| &self.dataset.examples[self.example(row)].id;
        match &self.rows {
            Rows::Pairs(pairs, _) => {
                let needs = self.needs();
                for (row, pair) in pairs.iter().enumerate() {
                    let example = &self.dataset.examples[pair.example];
                    match example.score_difference(self.dimension, pair.chosen, pair.rejected) {
                        _ if !needs.strengths => {}
                        Some(strength) if strength >= 0.0 => {}
                        found => {
                            let found = found.map_or("no scores".into(), |found| format!("a difference of {found}"));
                            return Err(self.lacks(format!(
                                "it takes the strength of a preference from the difference of the answers' scores \
                                 along {:?}, and row {} has {found}, expected 0 or more (layouts with scores: \
                                 score_chosen and score_rejected of `trl`, `scores` of `prefs`, `scored-list`, …)",
                                self.dimension,
                                id(row)
                            )));
                        }
                    }
                    if needs.safety && example.safe.len() != example.answers.len() {
                        return Err(self.lacks(format!(
                            "it needs to know whether each answer is safe, and row {} does not say (keys: `safe` with a \
                             list of true or false, `chosen_safe` and `rejected_safe`, or `is_response_0_safe` and \
                             `is_response_1_safe`)",
                            id(row)
                        )));
                    }
                }
                if needs.mixture {
                    self.mixture(names)?;
                }
                Ok(())
            }
            Rows::Lists(lists, objective) if objective.grades() => {
                let negative = |list: &usize| {
                    let example = &self.dataset.examples[*list];
                    let score = example.list_scores(self.dimension)?.iter().find(|score| **score < 0.0)?;
                    Some((&example.id, *score))
                };
                match lists.iter().find_map(negative) {
                    Some((id, score)) => Err(self.lacks(format!(
                        "its gains are grades, and row {id} has the score {score} along {:?}, expected 0 or more",
                        self.dimension
                    ))),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn lacks(&self, reason: String) -> TrainError {
        TrainError::Objective { name: self.arm.objective.clone(), reason }
    }

    /// Indices of the policies that are mixed with the round's reference.
    fn mixture(&self, names: &[String]) -> Result<Vec<usize>, TrainError> {
        let others = &names[..names.len() - 1];
        let wanted = self.arm.options.get("references").and_then(serde_json::Value::as_array);
        let wanted: Vec<&str> = wanted.into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
        if others.is_empty() {
            let start = &names[names.len() - 1];
            return Err(self.lacks(format!(
                "it mixes its reference with earlier policies, and before this round there is none but {start:?}: use it \
                 in a later round"
            )));
        }
        if wanted.is_empty() {
            return Ok((0..others.len()).collect());
        }
        let index = |name: &&str| {
            others.iter().position(|other| other == name).ok_or_else(|| {
                self.lacks(format!(
                    "`references` names {name:?}, which is none of the policies before: {}",
                    others.join(", ")
                ))
            })
        };
        wanted.iter().map(index).collect()
    }

    /// Answers beside the data's own that every earlier policy must score: those of visited pairs cut to the length of
    /// the pair's shorter one, where the tokens beyond count less.
    pub fn shortened(&self, visits: &[bool]) -> Vec<Example> {
        let (Rows::Pairs(pairs, _), Some(_)) = (&self.rows, self.needs().length_desensitising) else { return vec![] };
        let short = |(_, pair): (usize, &PairRef)| {
            let example = &self.dataset.examples[pair.example];
            let [chosen, rejected] = [pair.chosen, pair.rejected].map(|answer| &example.answers[answer]);
            let (long, length) = match chosen.len().cmp(&rejected.len()) {
                std::cmp::Ordering::Equal => return None,
                std::cmp::Ordering::Greater => (chosen, rejected.len()),
                std::cmp::Ordering::Less => (rejected, chosen.len()),
            };
            Some(row(&example.id, &example.prompt, &long[..length]))
        };
        pairs.iter().enumerate().filter(|(row, _)| visits[*row]).filter_map(short).collect()
    }

    /// Prompts with answers of other rows that the reference must score.
    pub fn mismatched(&self, visits: &[bool], order: &[usize], limit: usize) -> Vec<Example> {
        let (Rows::Answers(answers, _), Some(mismatched)) = (&self.rows, self.partners(order, limit)) else {
            return vec![];
        };
        let visited = (0..answers.len()).filter(|&row| visits[row]);
        let example = |index: usize| {
            let (prompt, answer) = mismatched.row(self.dataset, answers, index);
            row(&self.dataset.examples[answers[index].example].id, prompt, answer)
        };
        visited.map(example).collect()
    }

    /// Each row borrows the answer of the row that comes before it in `order`, as TRL does within a batch.
    fn partners(&self, order: &[usize], limit: usize) -> Option<Mismatched> {
        let Rows::Answers(answers, objective) = &self.rows else { return None };
        let mut partner = vec![0; answers.len()];
        for (place, &row) in order.iter().enumerate() {
            partner[row] = order[(place + order.len() - 1) % order.len()];
        }
        objective.needs_kl().then_some(Mismatched { partner, limit, reference: vec![] })
    }

    /// The task of this arm; numbers of rows that `visits` leaves out are not looked up. With SPO's `c` on the visited
    /// pairs, where there is one.
    ///
    /// # Errors
    /// Log-probs that are not in the cache.
    pub fn task(self, frozen: Frozen<'_>, visits: &[bool], device: Device) -> Result<TaskWithOffset<'d>, TrainError> {
        let reference = frozen.history.last().expect("every round has a policy before it");
        let look_up = |row: usize, example: &Example, answer: &[u32]| match visits[row] {
            true => reference.logp(&example.id, &example.prompt, answer),
            false => Ok(f64::NAN),
        };
        let (needs, mixture) = (self.needs(), if self.needs().mixture { self.mixture(frozen.names)? } else { vec![] });
        let mismatched = self.partners(&frozen.order, frozen.limit);
        match self.rows {
            Rows::Pairs(pairs, objective) => {
                let of = |logps: &PolicyLogps| sides(logps, self.dataset, &pairs, visits, needs.length_desensitising);
                let earlier = frozen.history.iter().map(of).collect::<Result<Vec<_>, _>>()?;
                let mixed = mixture.into_iter().map(|index| earlier[index].clone()).collect();
                let mut inputs = PairInputs::new(self.dataset, &pairs, earlier);
                inputs.numbers.length_desensitised = needs.length_desensitising;
                inputs.numbers.mixture = mixed;
                if needs.strengths {
                    let strength = |pair: &PairRef| {
                        let example = &self.dataset.examples[pair.example];
                        example.score_difference(self.dimension, pair.chosen, pair.rejected).map_or(f64::NAN, f64::from)
                    };
                    inputs.numbers.strengths = Some(pairs.iter().map(strength).collect());
                }
                if needs.safety {
                    let safe = |pair: &PairRef, answer: usize| {
                        self.dataset.examples[pair.example].safe.get(answer).map_or(f64::NAN, |safe| f64::from(*safe))
                    };
                    inputs.numbers.safety = Some(Sides {
                        chosen: pairs.iter().map(|pair| safe(pair, pair.chosen)).collect(),
                        rejected: pairs.iter().map(|pair| safe(pair, pair.rejected)).collect(),
                    });
                }
                if let Some(samples) = &frozen.samples {
                    let mut sampled = Sampled::default();
                    for (row, pair) in pairs.iter().enumerate() {
                        let example = &self.dataset.examples[pair.example];
                        let answer = samples.get(&example.prompt).unwrap_or_default();
                        sampled.logps.push(look_up(row, example, answer)?);
                        sampled.answers.push(answer.to_vec());
                    }
                    inputs = inputs.with_sampled(sampled);
                }
                inputs.reference = frozen.reference;
                let task = PreferenceTask::new(self.dataset, pairs, objective, inputs, device)?;
                let visited: Vec<usize> = (0..task.len()).filter(|&row| visits[row]).collect();
                let margin_offset = task.margin_offset(&visited)?;
                Ok((Box::new(task), margin_offset))
            }
            Rows::Answers(answers, objective) => {
                let own = |(row, answer): (usize, &AnswerRef)| {
                    let example = &self.dataset.examples[answer.example];
                    look_up(row, example, &example.answers[answer.answer])
                };
                let own = answers.iter().enumerate().map(own).collect::<Result<Vec<_>, _>>()?;
                let mismatched = match mismatched {
                    Some(mut mismatched) => {
                        for row in 0..answers.len() {
                            let example = &self.dataset.examples[answers[row].example];
                            let (_, answer) = mismatched.row(self.dataset, &answers, row);
                            mismatched.reference.push(look_up(row, example, answer)?);
                        }
                        Some(mismatched)
                    }
                    None => None,
                };
                let task = UnpairedTask::new(self.dataset, answers, objective, own, mismatched, device)?;
                Ok((Box::new(task), None))
            }
            Rows::Lists(lists, objective) => {
                let of = |(row, list): (usize, &usize)| {
                    let example = &self.dataset.examples[*list];
                    example.answers.iter().map(|answer| look_up(row, example, answer)).collect::<Result<Vec<_>, _>>()
                };
                let logps = lists.iter().enumerate().map(of).collect::<Result<Vec<_>, _>>()?;
                Ok((Box::new(ListTask::new(self.dataset, self.dimension, objective, logps, device)), None))
            }
        }
    }
}

/// A prompt with one answer, to be scored.
pub(crate) fn row(id: &str, prompt: &[u32], answer: &[u32]) -> Example {
    Example { id: id.into(), prompt: prompt.into(), answers: vec![answer.into()], ..Default::default() }
}

/// A policy's log-probs of pairs. With `alpha` the tokens beyond the pair's shorter answer count that much: the sum up
/// to there is the log-prob of the shortened answer.
fn sides(
    logps: &PolicyLogps,
    dataset: &Dataset,
    pairs: &[PairRef],
    visits: &[bool],
    alpha: Option<f64>,
) -> Result<Sides<Vec<f64>>, TrainError> {
    let mut sides = logps.sides(dataset, pairs, |row| visits[row])?;
    let Some(alpha) = alpha else { return Ok(sides) };
    for (row, pair) in pairs.iter().enumerate().filter(|(row, _)| visits[*row]) {
        let example = &dataset.examples[pair.example];
        let [chosen, rejected] = [pair.chosen, pair.rejected].map(|answer| example.answers[answer].as_slice());
        for (own, other, sum) in
            [(chosen, rejected, &mut sides.chosen[row]), (rejected, chosen, &mut sides.rejected[row])]
        {
            if own.len() > other.len() {
                let short = logps.logp(&example.id, &example.prompt, &own[..other.len()])?;
                *sum = short + alpha * (*sum - short);
            }
        }
    }
    Ok(sides)
}
