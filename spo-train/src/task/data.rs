//! The rows of a phase: in the shape that its loss takes, which of them it visits, and what frozen policies must score
//! for it.

use crate::TrainError;
use crate::config::{ArmPlan, DataShape, SteeringPlan, WarmupPlan};
use crate::step::gradients::Trainable;
use crate::task::contexts::UserPairs;
use crate::task::{DegradedRows, FrontRows, Mismatched, RewardPair, SupervisedTask, Weighing};
use spo_core::objective::{ListObjective, RewardObjective, UnpairedObjective};
use spo_core::{Needs, Objective};
use spo_data::{AnswerRef, Dataset, Example, Group, PairRef, Prompt, Tokenizer, Units};
use spo_model::CausalLm;
use std::collections::HashSet;
use std::sync::Arc;

/// Rows in the shape that a loss takes, with the loss.
#[derive(Debug, Clone)]
pub(super) enum Rows {
    /// Preferred answers, learnt by maximum likelihood.
    Supervised(Vec<AnswerRef>),
    Pairs(Vec<PairRef>, Arc<dyn Objective>),
    Answers(Vec<AnswerRef>, Arc<dyn UnpairedObjective>),
    /// Indices of examples.
    Lists(Vec<usize>, Arc<dyn ListObjective>),
    /// Pairs for a score head, ties behind the others.
    Rewards(Vec<RewardPair>, Arc<dyn RewardObjective>),
    /// Prompts that the policy answers, held out or not.
    Prompts(Vec<Prompt>, bool),
}

/// The rows of a phase and its loss: what a task is made of before any policy is known.
#[derive(Debug, Clone)]
pub(crate) struct TaskData {
    pub(super) dataset: Arc<Dataset>,
    /// What is learnt.
    pub dimension: String,
    /// Name of the loss.
    pub objective: String,
    pub(super) rows: Rows,
    /// Whether the phase comes to each row.
    pub(super) visits: Vec<bool>,
    /// In which order the rows come: what mismatched answers are chosen by.
    order: Vec<usize>,
    /// Most tokens of a prompt with an answer that a loss makes.
    pub(super) limit: usize,
    /// Whose each row is, in a run of several users, and the most contexts of one.
    pub(super) users: Option<(UserPairs, usize)>,
    /// The dimensions that are weighed, where there are several.
    pub(super) front: Option<FrontRows>,
    /// The degrees of the pairs' chosen answers, where the loss takes any, and what makes rewards of log-ratios.
    pub(super) degrees: Option<(Arc<DegradedRows>, f64)>,
}

impl TaskData {
    fn new(dataset: &Arc<Dataset>, dimension: String, objective: &str, rows: Rows, limit: usize) -> Self {
        let (visits, order) = (vec![], vec![]);
        let (dataset, objective) = (dataset.clone(), objective.into());
        let (users, front, degrees) = (None, None, None);
        let data = Self { dataset, dimension, objective, rows, visits, order, limit, users, front, degrees };
        let rows = data.len();
        data.visiting(vec![true; rows], (0..rows).collect())
    }

    /// The rows of a dimension for an arm, all of them visited in their own order.
    ///
    /// # Errors
    /// Options that the objective refuses, a critique or an answer's degrees that cannot be encoded.
    pub fn of_arm(
        dataset: &Arc<Dataset>,
        dimension: &str,
        arm: &ArmPlan,
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<Self, TrainError> {
        let (name, options) = (arm.objective.as_str(), &arm.options);
        let rows = match arm.data {
            DataShape::Pairs if arm.gives_rewards() => {
                let objective: Arc<dyn RewardObjective> = arm.objectives.build_reward(name, options)?.into();
                Rows::Rewards(RewardPair::all(dataset, dimension, objective.as_ref(), tokenizer)?, objective)
            }
            DataShape::Pairs => Rows::Pairs(dataset.pairs(dimension), arm.objectives.build(name, options)?.into()),
            DataShape::Answers => {
                Rows::Answers(dataset.answers(dimension), arm.objectives.build_unpaired(name, options)?.into())
            }
            DataShape::Lists => Rows::Lists(dataset.lists(dimension), arm.objectives.build_list(name, options)?.into()),
            DataShape::Prompts => unreachable!("`of_prompts` makes these"),
        };
        let degrees = match &rows {
            Rows::Pairs(pairs, objective) => objective.degrees().map(|degrees| (pairs, degrees)),
            _ => None,
        };
        let degrees = degrees.map(|(pairs, degrees)| DegradedRows::new(dataset, pairs, degrees, tokenizer, limit));
        // Losses that make no reward of log-ratios have DPO's usual β in the comparison with the last degree.
        let beta = arm.objectives.reward_scale(name, options).unwrap_or(0.1);
        let degrees = degrees.transpose()?.map(|rows| (Arc::new(rows), beta));
        Ok(Self { degrees, ..Self::new(dataset, dimension.into(), name, rows, limit) })
    }

    /// The pairs of several dimensions for an arm that weighs them, in the order of their examples.
    ///
    /// # Errors
    /// Options that the objective refuses.
    pub fn of_front(
        dataset: &Arc<Dataset>,
        dimensions: &[String],
        arm: &ArmPlan,
        weighing: Weighing,
        limit: usize,
    ) -> Result<Self, TrainError> {
        let (name, options) = (arm.objective.as_str(), &arm.options);
        let of =
            |(index, dimension): (usize, &String)| dataset.pairs(dimension).into_iter().map(move |pair| (pair, index));
        let mut pairs: Vec<(PairRef, usize)> = dimensions.iter().enumerate().flat_map(of).collect();
        pairs.sort_by_key(|(pair, _)| pair.example);
        let (pairs, of_row) = pairs.into_iter().unzip();
        let rows = Rows::Pairs(pairs, arm.objectives.build(name, options)?.into());
        let front = Some(FrontRows { dimensions: dimensions.to_vec(), of_row, weighing });
        Ok(Self { front, ..Self::new(dataset, dimensions.join(" + "), name, rows, limit) })
    }

    /// The dimensions that are weighed, where there are several.
    pub fn front(&self) -> Option<&FrontRows> {
        self.front.as_ref()
    }

    /// Whether the loss is one of the log-probs of a pair's two answers, whatever the other pairs and users are.
    pub fn is_of_single_pairs(&self) -> bool {
        let needs = self.needs();
        matches!(self.rows, Rows::Pairs(..))
            && self.users.is_none()
            && self.degrees.is_none()
            && !(needs.whole_batch || needs.sequence_kl || needs.sampled)
    }

    /// The first rows that are visited, in their order, of those that are wanted.
    pub fn first(&self, rows: usize, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        self.order.iter().copied().filter(|&row| self.visits[row] && wanted(row)).take(rows).collect()
    }

    /// The dimension that a row is of.
    pub(super) fn dimension_of(&self, row: usize) -> &str {
        self.front.as_ref().map_or(&self.dimension, |front| front.dimension(row))
    }

    /// The pairs of all users for an arm, all of them visited in their own order.
    ///
    /// # Errors
    /// Options that the objective refuses, rows that name no user.
    pub fn of_users(
        dataset: &Arc<Dataset>,
        dimension: &str,
        (arm, steering): (&ArmPlan, &SteeringPlan),
        limit: usize,
    ) -> Result<Self, TrainError> {
        let users = UserPairs::of(dataset, dimension, steering)?;
        let (name, options) = (arm.objective.as_str(), &arm.options);
        let rows = match arm.gives_rewards() {
            true => {
                let pairs = users.pairs.iter().copied().map(RewardPair::plain).collect();
                Rows::Rewards(pairs, arm.objectives.build_reward(name, options)?.into())
            }
            false => Rows::Pairs(users.pairs.clone(), arm.objectives.build(name, options)?.into()),
        };
        let dimension = if steering.users.is_empty() { dimension.to_owned() } else { steering.users.join(" + ") };
        let data = Self::new(dataset, dimension, name, rows, limit);
        let contexts = arm.contexts.unwrap_or(steering.contexts);
        Ok(Self { users: Some((users, contexts)), ..data })
    }

    /// The preferred answers of the warm-up's dimensions, all of them visited in their own order.
    pub fn of_warm_up(dataset: &Arc<Dataset>, warmup: &WarmupPlan, limit: usize) -> Self {
        let rows = Rows::Supervised(SupervisedTask::rows(dataset, &warmup.dimensions));
        Self::new(dataset, warmup.dimensions.join(" + "), "sft", rows, limit)
    }

    /// Prompts whose answers a scorer judges along a dimension, all of them visited in their own order.
    pub fn of_prompts(prompts: Vec<Prompt>, dimension: &str, objective: &str, held_out: bool, limit: usize) -> Self {
        let example = |prompt: &Prompt| Example {
            id: prompt.id.clone(),
            prompt: prompt.ids.clone().into(),
            ..Example::default()
        };
        let dataset = Dataset { examples: prompts.iter().map(example).collect(), ..Dataset::default() };
        Self::new(&Arc::new(dataset), dimension.into(), objective, Rows::Prompts(prompts, held_out), limit)
    }

    /// Whether the policy writes what the loss is of.
    pub fn is_written(&self) -> bool {
        matches!(self.rows, Rows::Prompts(..))
    }

    /// The same rows where a phase comes only to those that `visits` names, in the order `order`.
    #[must_use]
    pub fn visiting(self, visits: Vec<bool>, order: Vec<usize>) -> Self {
        Self { visits, order, ..self }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Pairs(pairs, _) => pairs.len(),
            Rows::Answers(answers, _) | Rows::Supervised(answers) => answers.len(),
            Rows::Lists(lists, _) => lists.len(),
            Rows::Rewards(pairs, _) => pairs.len(),
            Rows::Prompts(prompts, _) => prompts.len(),
        }
    }

    /// Index of a row's example.
    fn example_index(&self, row: usize) -> usize {
        match &self.rows {
            Rows::Pairs(pairs, _) => pairs[row].example,
            Rows::Answers(answers, _) | Rows::Supervised(answers) => answers[row].example,
            Rows::Lists(lists, _) => lists[row],
            Rows::Rewards(pairs, _) => pairs[row].answers.example,
            Rows::Prompts(..) => row,
        }
    }

    /// Which rows belong together.
    pub fn units(&self) -> Units {
        self.dataset.units((0..self.len()).map(|row| self.example_index(row)))
    }

    pub(super) fn example(&self, row: usize) -> &Example {
        &self.dataset.examples[self.example_index(row)]
    }

    /// The prompt of a row with the answers that its loss looks at.
    pub fn group(&self, row: usize) -> Group<'_> {
        if let Rows::Rewards(pairs, _) = &self.rows {
            return pairs[row].group(&self.dataset);
        }
        let example = self.example(row);
        let answers = match &self.rows {
            Rows::Prompts(..) => vec![],
            Rows::Pairs(pairs, _) => vec![pairs[row].chosen, pairs[row].rejected],
            Rows::Answers(answers, _) | Rows::Supervised(answers) => vec![answers[row].answer],
            Rows::Lists(..) | Rows::Rewards(..) => (0..example.answers.len()).collect(),
        };
        let own = answers.into_iter().map(|answer| example.answers[answer].as_slice());
        let degrees = self.degrees.iter().flat_map(|(degrees, _)| degrees.of(row)).map(Vec::as_slice);
        Group { prompt: &example.prompt, answers: own.chain(degrees).collect() }
    }

    /// Tokens of each row, its prompt counted once.
    pub fn lengths(&self) -> Vec<usize> {
        (0..self.len()).map(|row| self.group(row).tokens()).collect()
    }

    /// The rows that are visited.
    pub fn visited(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|row| self.visits[*row])
    }

    /// Indices of the data's examples whose rows are visited; one may come several times.
    pub fn visited_examples(&self) -> impl Iterator<Item = usize> {
        self.visited().filter(|_| !self.is_written()).map(|row| self.example_index(row))
    }

    /// What a paired objective needs.
    pub(super) fn needs(&self) -> Needs {
        match &self.rows {
            Rows::Pairs(_, objective) => objective.needs(),
            _ => Needs::POLICY,
        }
    }

    /// Whether the loss looks at policies before its reference.
    pub fn looks_at_all_policies(&self) -> bool {
        let needs = self.needs();
        needs.history || needs.earlier > 0 || needs.mixture
    }

    /// Whether the round needs its reference in memory.
    pub fn needs_reference_model(&self) -> bool {
        self.needs().sequence_kl
    }

    /// How many tokens the reference writes to each prompt at most, if it has to.
    pub fn sampled_tokens(&self) -> Option<usize> {
        match &self.rows {
            Rows::Pairs(_, objective) if objective.needs().sampled => objective.sampled_tokens(),
            _ => None,
        }
    }

    /// The distinct prompts of the visited rows.
    pub fn prompts(&self) -> Vec<&[u32]> {
        let mut seen = HashSet::new();
        let prompts = self.visited().map(|row| self.example(row).prompt.as_slice());
        prompts.filter(|prompt| seen.insert(*prompt)).collect()
    }

    /// The model with a fresh head for preference degrees, where the loss classifies them.
    pub fn with_head(&self, model: CausalLm) -> CausalLm {
        match &self.degrees {
            Some((rows, _)) if rows.degrees.loss.classifies() => model.with_zero_head(rows.degrees.count),
            _ => model,
        }
    }

    /// What is trained, that head too.
    pub fn trainable(&self, trainable: Trainable) -> Trainable {
        let classifies = self.degrees.as_ref().is_some_and(|(rows, _)| rows.degrees.loss.classifies());
        if classifies { trainable.with_score_head() } else { trainable }
    }

    /// Values of that head.
    pub fn head_values(&self, hidden: usize) -> usize {
        let heads = self.degrees.iter().filter(|(rows, _)| rows.degrees.loss.classifies());
        heads.map(|(rows, _)| rows.degrees.count * hidden).sum()
    }

    /// How many of the pairs have no degrees, where the loss takes any.
    pub fn without_degrees(&self) -> Option<usize> {
        self.degrees.as_ref().map(|(rows, _)| rows.left_out())
    }

    /// Number of degrees, and length and degree of every answer that is classified; nothing where none is.
    pub fn classified(&self) -> Option<(usize, Vec<(usize, usize)>)> {
        let (Rows::Pairs(pairs, _), Some((rows, _))) = (&self.rows, &self.degrees) else { return None };
        let classifies = rows.degrees.loss.classifies();
        classifies.then(|| (rows.degrees.count, rows.lengths(&self.dataset, pairs).collect()))
    }

    /// Answers beside the data's own that every earlier policy must score: those of visited pairs cut to the length of
    /// the pair's shorter one, where the tokens beyond count less; the last degree of a chosen answer, where it is compared.
    pub fn derived(&self) -> Vec<Example> {
        let Rows::Pairs(pairs, _) = &self.rows else { return vec![] };
        let of_row = |row: usize| {
            let degrees = self.degrees.as_ref();
            degrees.and_then(|(degrees, _)| degrees.compared(row, self.example(row)))
        };
        self.shortened(pairs).into_iter().chain(self.visited().filter_map(of_row)).collect()
    }

    fn shortened(&self, pairs: &[PairRef]) -> Vec<Example> {
        if self.needs().length_desensitising.is_none() {
            return vec![];
        }
        let short = |row: usize| {
            let (pair, example) = (&pairs[row], self.example(row));
            let [chosen, rejected] = [pair.chosen, pair.rejected].map(|answer| &example.answers[answer]);
            let (long, length) = match chosen.len().cmp(&rejected.len()) {
                std::cmp::Ordering::Equal => return None,
                std::cmp::Ordering::Greater => (chosen, rejected.len()),
                std::cmp::Ordering::Less => (rejected, chosen.len()),
            };
            Some(answered(&example.id, &example.prompt, &long[..length]))
        };
        self.visited().filter_map(short).collect()
    }

    /// Prompts of visited rows with answers of other rows, that the reference must score.
    pub fn mismatched(&self) -> Vec<Example> {
        let (Rows::Answers(answers, _), Some(mismatched)) = (&self.rows, self.partners()) else { return vec![] };
        let example = |row: usize| {
            let (prompt, answer) = mismatched.row(&self.dataset, answers, row);
            answered(&self.example(row).id, prompt, answer)
        };
        self.visited().map(example).collect()
    }

    /// Each row borrows the answer of the row that comes before it in the phase's order, as TRL does within a batch.
    pub(super) fn partners(&self) -> Option<Mismatched> {
        let Rows::Answers(answers, objective) = &self.rows else { return None };
        let (order, mut partner) = (&self.order, vec![0; answers.len()]);
        for (place, &row) in order.iter().enumerate() {
            partner[row] = order[(place + order.len() - 1) % order.len()];
        }
        objective.needs_kl().then_some(Mismatched { partner, limit: self.limit, reference: vec![] })
    }
}

/// By how much the chosen answer of a pair is better; NaN where the data do not say.
pub(super) fn strength(dataset: &Dataset, dimension: &str, pair: &PairRef) -> f64 {
    let example = &dataset.examples[pair.example];
    example.score_difference(dimension, pair.chosen, pair.rejected).map_or(f64::NAN, f64::from)
}

/// A prompt with one answer, to be scored.
pub(crate) fn answered(id: &str, prompt: &[u32], answer: &[u32]) -> Example {
    Example { id: id.into(), prompt: prompt.into(), answers: vec![answer.into()], ..Default::default() }
}
