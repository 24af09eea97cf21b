//! What a run does, as a list: the run executes these stages, its forecast adds them up, `spo plan` prints them.
//!
//! A stage says which rows it works on, who scores or samples what, and how many tokens that takes. Nothing here needs a
//! model: the list follows from the plan and the rows.

use crate::config::spec::LoraCondition;
use crate::config::{GatePlan, RoundPlan, RunPlan};
use crate::evaluate::steered::Asked;
use crate::phase::NOISE_EVERY;
use crate::run::gradients;
use crate::run::online::Making;
use crate::run::place::{ArmPlace, PhaseData, Place, first_policy, places};
use crate::run::reference::{Draw, Made, Scoring};
use crate::task::data::TaskData;
use held::HeldAnswers;
use serde::Serialize;
use spo_data::{Dataset, Example};
use spo_eval::front_weights;
use std::collections::HashSet;

pub(crate) mod held;
#[cfg(test)]
mod tests;

/// One stage of a run. What it made is on disk and in the journal before the next one begins.
#[derive(Debug)]
pub(crate) enum Stage<'a> {
    /// The starting model is loaded and described.
    Start,
    /// A phase makes a policy.
    Train(Training<'a>),
    /// A policy answers prompts that the losses of the next round need an answer to.
    Sample { policy: String, draws: Vec<Draw<'a>> },
    /// A policy scores all that is needed of it later on.
    Score(Scoring<'a>),
    /// The frozen model makes what users are told apart by of every row.
    Embed { answers: usize, tokens: u64 },
    /// A policy's scores on the held-out rows of each user, steered by the user's other rows.
    Steer { place: Place<'a>, answers: usize, tokens: u64 },
    /// A policy's scores on the held-out rows, and answers of its own where its bounds are on those.
    Evaluate { place: Place<'a>, held: HeldAnswers },
    /// A conditional policy's scores on the held-out rows at weights over the whole simplex.
    Front {
        place: Place<'a>,
        /// Answers that it scores, at all weights.
        answers: usize,
        /// Their tokens with their prompts.
        tokens: u64,
    },
    /// A policy answers the prompts that the report shows.
    Show { policy: String, responses: Responses },
    /// A policy answers held-out prompts, for its distance from others.
    Respond { policy: String, responses: Responses },
    /// A scorer says what it thinks of what a policy answered.
    Judge { policy: String, responses: usize },
    /// A program of the user's measures a policy.
    Benchmark { policy: String },
    /// An online round makes its pairs.
    Make(Making<'a>),
    /// A round's policy is held against its gate; `path` are the policies that it comes from.
    Gate { policy: String, path: Vec<String>, round: &'a RoundPlan, plan: &'a GatePlan },
    /// The policies of a round on the same rows: the main one, which comes first, against each control.
    Compare { round: &'a RoundPlan, policies: Vec<String> },
    /// A reference scores what these policies answered.
    Distance { reference: String, policies: Vec<String> },
    /// A policy becomes a whole model.
    Export { policy: String },
}

/// A phase with its rows.
#[derive(Debug)]
pub(crate) struct Training<'a> {
    /// Its place in the plan.
    pub place: Place<'a>,
    /// Its rows, with which of them it visits and in which order.
    pub data: &'a PhaseData,
    /// What its policy must reach.
    pub gate: Option<&'a GatePlan>,
    /// Tokens trained on, shared prompts counted once.
    pub tokens: u64,
    /// Evaluations of the running policy on held-out rows.
    pub evaluations: u64,
    /// Tokens scored in all of them, at least.
    pub evaluation_tokens: u64,
    /// What is sampled in all of them, for the KL budget.
    pub evaluation_responses: Responses,
    /// What the policy writes for its loss.
    pub written: Written,
    /// What it writes for its bounds.
    pub held: Responses,
}

/// Answers that a loss is of, at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Answers in a step: at both sides of each direction.
    pub per_step: Responses,
    /// Answers in all steps, those that show the noise included.
    pub steps: Responses,
    /// Answers in all evaluations on the way.
    pub evaluations: Responses,
}

impl Written {
    /// Of a phase whose loss is of what its policy writes; none of others.
    fn of(place: &Place, data: &PhaseData, evaluations: u64) -> Self {
        let online = place.arm.and_then(|arm| arm.round.online.as_ref());
        let Some(online) = online.filter(|_| data.train.is_written()) else { return Self::default() };
        let Place { training, .. } = place;
        let passes = 2 * training.zeroth_order.map_or(1, |settings| settings.zo_estimates);
        let batch = training.pairs_per_step.min(data.train.len()) * online.samples;
        let noise = training.steps.div_ceil(NOISE_EVERY) as usize;
        let held_out = data.held_out.as_ref().map_or(0, TaskData::len) * online.samples;
        let of = |count: usize| Responses { count, max_new_tokens: online.max_new_tokens };
        Self {
            per_step: of(batch * passes),
            steps: of(batch * (passes * training.steps as usize + noise)),
            evaluations: of(held_out * evaluations as usize),
        }
    }
}

/// How much is sampled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Responses {
    /// Responses.
    pub count: usize,
    /// Most tokens of one.
    pub max_new_tokens: usize,
}

impl Responses {
    /// Tokens of all of them, at most.
    pub fn tokens(self) -> u64 {
        (self.count * self.max_new_tokens) as u64
    }
}

impl<'a> Stage<'a> {
    /// The phase that it trains, if it does.
    pub fn training(&self) -> Option<&Training<'a>> {
        if let Self::Train(training) = self { Some(training) } else { None }
    }

    /// Its name, as the journal has it. Runs that older versions began go on by these names: they stay.
    pub fn name(&self) -> String {
        match self {
            Self::Start => "start".into(),
            Self::Train(training) => format!("train {}", training.place.policy),
            Self::Sample { policy, .. } => format!("sample {policy}"),
            Self::Score(scoring) => format!("score {}", scoring.policy),
            Self::Evaluate { place, .. } => format!("evaluate {}", place.policy),
            Self::Embed { .. } => "embed".into(),
            Self::Steer { place, .. } => format!("steer {}", place.policy),
            Self::Front { place, .. } => format!("front {}", place.policy),
            Self::Show { policy, .. } => format!("show {policy}"),
            Self::Respond { policy, .. } => format!("draw {policy}"),
            Self::Judge { policy, .. } => format!("judge {policy}"),
            Self::Benchmark { policy } => format!("command on {policy}"),
            Self::Make(making) => format!("pair for {}", making.round.name),
            Self::Gate { round, .. } => format!("gate {}", round.name),
            Self::Compare { round, .. } => format!("compare {}", round.name),
            Self::Distance { reference, .. } => format!("KL to {reference}"),
            Self::Export { .. } => "export".into(),
        }
    }
}

impl Stage<'_> {
    /// What it does, in numbers.
    pub fn summary(&self) -> StageSummary {
        let mut summary = StageSummary { stage: self.name(), ..StageSummary::default() };
        match self {
            Self::Train(training) => {
                summary.rows = training.data.train.visited().count();
                summary.steps = training.place.training.steps;
                summary.trained_tokens = training.tokens;
                summary.scored_tokens = training.evaluation_tokens;
                let Written { steps, evaluations, .. } = training.written;
                let sampled = [training.evaluation_responses, steps, evaluations, training.held];
                summary.sampled_tokens = sampled.into_iter().map(Responses::tokens).sum();
            }
            Self::Sample { draws, .. } => {
                let of = |draw: &Draw| Responses { count: draw.prompts.len(), max_new_tokens: draw.max_new_tokens };
                summary.rows = draws.iter().map(|draw| of(draw).count).sum();
                summary.sampled_tokens = draws.iter().map(|draw| of(draw).tokens()).sum();
            }
            Self::Score(scoring) => (summary.rows, summary.scored_tokens) = (scoring.answers, scoring.tokens),
            Self::Embed { answers, tokens } | Self::Steer { answers, tokens, .. } => {
                (summary.rows, summary.scored_tokens) = (*answers, *tokens);
            }
            Self::Front { answers, tokens, .. } => (summary.rows, summary.scored_tokens) = (*answers, *tokens),
            Self::Judge { responses, .. } => summary.rows = *responses,
            Self::Make(making) => {
                summary.rows = making.answers();
                summary.sampled_tokens = (making.answers() * making.plan.max_new_tokens) as u64;
                // By the reference at least.
                let rows = making.arms[0].1.train.lengths();
                summary.scored_tokens = rows.into_iter().map(|tokens| tokens as u64).sum();
            }
            Self::Show { responses, .. } | Self::Respond { responses, .. } => {
                (summary.rows, summary.sampled_tokens) = (responses.count, responses.tokens());
            }
            Self::Evaluate { held, .. } => {
                summary.rows = held.written.count;
                (summary.scored_tokens, summary.sampled_tokens) = (held.scored_tokens, held.written.tokens());
            }
            Self::Start
            | Self::Benchmark { .. }
            | Self::Gate { .. }
            | Self::Compare { .. }
            | Self::Distance { .. }
            | Self::Export { .. } => {}
        }
        summary
    }
}

/// A stage of a run in numbers; 0 is what it does not do.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StageSummary {
    /// What is done, and with which policy: its name in the run's journal.
    pub stage: String,
    /// Rows that it visits, answers that it scores, or responses that it samples.
    pub rows: usize,
    /// Optimiser steps.
    pub steps: u64,
    /// Tokens trained on, shared prompts counted once.
    pub trained_tokens: u64,
    /// Tokens scored without gradients, shared prompts counted once; of sampled answers at most.
    pub scored_tokens: u64,
    /// Tokens of sampled responses, at most.
    pub sampled_tokens: u64,
}

/// The stages of a run, in order; `data` are the rows of its phases, as [`PhaseData::all`] gives them,
/// and the sets what is trained on, held out, and drives λ.
pub(crate) fn schedule<'a>(
    plan: &'a RunPlan,
    data: &'a [PhaseData],
    [train, held_out, driving]: [&'a Dataset; 3],
) -> Vec<Stage<'a>> {
    let phases = places(plan).into_iter().zip(data).collect();
    let prompts: HashSet<&[u32]> = held_out.examples.iter().map(|example| example.prompt.as_slice()).collect();
    // A reward model writes nothing.
    let kl_prompts = if plan.gives_rewards() { 0 } else { plan.evaluation.kl_samples.min(prompts.len()) };
    Facts { plan, phases, data, train, held_out, driving, kl_prompts }.stages()
}

/// What the list follows from.
struct Facts<'a> {
    plan: &'a RunPlan,
    phases: Vec<(Place<'a>, &'a PhaseData)>,
    /// The rows of all of them.
    data: &'a [PhaseData],
    train: &'a Dataset,
    held_out: &'a Dataset,
    /// The pairs that drive λ.
    driving: &'a Dataset,
    /// Prompts that distances are sampled on.
    kl_prompts: usize,
}

impl<'a> Facts<'a> {
    fn stages(&self) -> Vec<Stage<'a>> {
        let start = first_policy(self.plan);
        let warm_up = self.phases.iter().filter(|(place, _)| place.arm.is_none());
        let mut stages = vec![Stage::Start];
        stages.extend(self.embedding());
        stages.extend(warm_up.map(|(place, data)| self.training(place, data)));
        // A fresh score head says nothing that anybody asks for.
        if !self.plan.gives_rewards() {
            stages.extend(self.asked(start, 0));
            stages.extend(self.answers(start));
            stages.extend(self.benchmark(start));
        }
        for (index, round) in self.plan.rounds.iter().enumerate() {
            let mut policies = vec![];
            stages.extend(self.making(index, round));
            for (place, data) in &self.phases {
                if let Some(arm) = place.arm.filter(|arm| arm.index == index) {
                    stages.push(self.training(place, data));
                    stages.extend(self.judged(place, &arm));
                    policies.push(place.policy.clone());
                }
            }
            stages.push(Stage::Compare { round, policies });
        }
        stages.extend(self.distances());
        let last = self.plan.rounds.last().map_or(start, |round| &round.name);
        stages.push(Stage::Export { policy: last.into() });
        stages
    }

    /// How a round makes its own pairs, if it does.
    fn making(&self, index: usize, round: &'a RoundPlan) -> Option<Stage<'a>> {
        let plan = round.online.as_ref()?;
        let own = |(place, _): &&(Place<'a>, &'a PhaseData)| place.arm.is_some_and(|arm| arm.index == index);
        let arms: Vec<(Place<'a>, &'a PhaseData)> = self.phases.iter().filter(own).cloned().collect();
        let prompts = arms.first()?.1.prompts()?;
        Some(Stage::Make(Making { round, plan, prompts, arms }))
    }

    fn training(&self, place: &Place<'a>, data: &'a PhaseData) -> Stage<'a> {
        let training = place.training;
        let evaluations = match training.eval_every {
            0 => 0,
            every => training.steps.div_ceil(every),
        };
        let held_out = self.held_out.examples.iter().map(|example| example.tokens() as u64).sum::<u64>();
        let looks_at_kl = training.max_kl > 0.0 || self.plan.evaluation.kl_path && place.arm.is_some();
        let sampled = if looks_at_kl { evaluations as usize * self.kl_prompts } else { 0 };
        let driving = HeldAnswers::driving(self.plan, place, self.driving);
        let scored = self.driving_tokens(place) + driving.scored_tokens + self.probed_tokens(place);
        Stage::Train(Training {
            place: place.clone(),
            data,
            gate: place.arm.as_ref().and_then(gate),
            tokens: self.trained_tokens(place, data),
            evaluations,
            evaluation_tokens: evaluations * held_out + scored,
            evaluation_responses: self.responses(sampled),
            written: Written::of(place, data, evaluations),
            held: driving.written,
        })
    }

    /// Tokens of all steps, of replayed rows too.
    fn trained_tokens(&self, place: &Place, data: &PhaseData) -> u64 {
        let phase = place.visiting(self.plan.seed);
        let replayed = data.replayed.iter().enumerate();
        let replayed = replayed.map(|(index, rows)| phase.replayed_tokens(index, &rows.data.lengths())).sum::<u64>();
        phase.tokens(data.train.units(), &data.train.lengths()) + replayed
    }

    /// Tokens of the pairs that drive λ in all updates of a phase.
    fn driving_tokens(&self, place: &Place) -> u64 {
        let hold = place.arm.and_then(|arm| arm.plan.hold.as_ref().filter(|hold| hold.sampled.is_none()));
        let Some(hold) = hold else { return 0 };
        let held = |example: &&Example| {
            let mut names = hold.dimensions.keys();
            names.any(|name| example.pair(name).is_some() || example.desirable(name).is_some())
        };
        let tokens = self.driving.examples.iter().filter(held).map(|example| example.tokens() as u64).sum::<u64>();
        tokens * hold.updates(place.training.steps)
    }

    /// Tokens of the pairs that gradients are compared on, in all looks of a phase.
    fn probed_tokens(&self, place: &Place) -> u64 {
        let looks = place.training.steps.div_ceil(self.plan.evaluation.gradient_every);
        looks * gradients::tokens(&gradients::probed(self.plan, place, self.data))
    }

    /// What follows the training of an arm's policy.
    fn judged(&self, place: &Place<'a>, arm: &ArmPlace<'a>) -> Vec<Stage<'a>> {
        // No later round starts from a control.
        let later = if arm.is_control() { self.plan.rounds.len() } else { arm.index + 1 };
        let mut stages = self.asked(&place.policy, later);
        let held = HeldAnswers::judging(self.plan, place, self.held_out);
        stages.push(Stage::Evaluate { place: place.clone(), held });
        stages.extend(self.steered(place, arm));
        stages.extend(self.front(place));
        stages.extend(self.answers(&place.policy));
        stages.extend(self.benchmark(&place.policy));
        stages.extend(gate(arm).map(|plan| {
            let (policy, path) = (place.policy.clone(), place.path.clone());
            Stage::Gate { policy, path, round: arm.round, plan }
        }));
        stages
    }

    /// In a run of several users every answer is embedded.
    fn embedding(&self) -> Option<Stage<'a>> {
        self.plan.steering.as_ref()?;
        let examples = || self.train.examples.iter().chain(&self.held_out.examples);
        let answers = examples().map(|example| example.answers.len()).sum();
        Some(Stage::Embed { answers, tokens: examples().map(|example| example.tokens() as u64).sum() })
    }

    /// The held-out pairs of all users, once for each number of contexts and kind of labels.
    fn steered(&self, place: &Place<'a>, arm: &ArmPlace) -> Option<Stage<'a>> {
        let steering = self.plan.steering.as_ref().filter(|_| !self.held_out.examples.is_empty())?;
        let own = [arm.round.dimension.clone()];
        let users = if steering.users.is_empty() { &own[..] } else { &steering.users };
        let pairs = || users.iter().flat_map(|user| self.held_out.pairs(user));
        let passes = Asked::all(&steering.evaluate).len();
        let tokens: u64 = pairs().map(|pair| self.held_out.examples[pair.example].tokens() as u64).sum();
        let (answers, tokens) = (2 * passes * pairs().count(), passes as u64 * tokens);
        Some(Stage::Steer { place: place.clone(), answers, tokens })
    }

    /// What the losses of the rounds from `from` on need of a policy.
    fn asked(&self, policy: &str, from: usize) -> Vec<Stage<'a>> {
        let (mut visited, mut made, mut draws) = (vec![false; self.train.examples.len()], vec![], vec![]);
        for (place, data) in &self.phases {
            let Some(arm) = place.arm.filter(|arm| arm.index >= from) else { continue };
            // What an online round trains on is not there yet.
            let known = data.prompts().is_none().then_some(&data.train);
            let replayed = data.replayed.iter().filter(|rows| rows.looks_at(from)).map(|rows| &rows.data);
            made.extend(replayed.clone().map(Made::Derived));
            let seen = known.into_iter().chain(replayed).flat_map(TaskData::visited_examples);
            seen.for_each(|example| visited[example] = true);
            for rows in known.into_iter().chain(&data.held_out) {
                made.push(Made::Derived(rows));
                // The next round's reference is this policy.
                if arm.index == from {
                    made.push(Made::Mismatched(rows));
                    let draw = Draw::of(rows, self.plan.seed, place.round());
                    draws.extend(draw.clone());
                    made.extend(draw.map(Made::Sampled));
                }
            }
        }
        // The start and the policy that a round starts from are what its bounds are measured against.
        let bounded = |(place, _): &(Place, &PhaseData)| {
            let on_pairs = |arm: &ArmPlace| arm.plan.hold.as_ref().is_some_and(|hold| hold.sampled.is_none());
            place.arm.is_some_and(|arm| arm.index >= from && on_pairs(&arm))
        };
        made.extend(self.phases.iter().any(bounded).then_some(Made::Driving(self.driving)));
        let examples = (0..visited.len()).filter(|&example| visited[example]).collect();
        let score = Stage::Score(Scoring::new(policy, self.train, self.held_out, examples, made));
        let sample = (!draws.is_empty()).then(|| Stage::Sample { policy: policy.into(), draws });
        sample.into_iter().chain([score]).collect()
    }

    fn benchmark(&self, policy: &str) -> Option<Stage<'a>> {
        self.plan.evaluation.command.as_ref().map(|_| Stage::Benchmark { policy: policy.into() })
    }

    /// What a conditional policy is worth at weights over the whole simplex.
    fn front(&self, place: &Place<'a>) -> Option<Stage<'a>> {
        let (dimensions, held_out) = (self.plan.front().len(), &self.held_out.examples);
        let conditional = self.plan.lora.as_ref().is_some_and(|lora| lora.condition == LoraCondition::Weights);
        if !conditional || held_out.is_empty() {
            return None;
        }
        let points = front_weights(dimensions).len();
        let answers = points * held_out.iter().map(|example| example.answers.len()).sum::<usize>();
        let tokens = points as u64 * held_out.iter().map(|example| example.tokens() as u64).sum::<u64>();
        Some(Stage::Front { place: place.clone(), answers, tokens })
    }

    /// What a policy writes to prompts of the evaluation.
    fn answers(&self, policy: &str) -> Vec<Stage<'a>> {
        if self.plan.gives_rewards() {
            return vec![];
        }
        let (evaluation, policy) = (&self.plan.evaluation, policy.to_string());
        let shown = self.responses(evaluation.samples + evaluation.sample_prompts.len());
        let mut stages = vec![Stage::Show { policy: policy.clone(), responses: shown }];
        if self.kl_prompts > 0 {
            stages.push(Stage::Respond { policy: policy.clone(), responses: self.responses(self.kl_prompts) });
            if evaluation.scorer.is_some() {
                stages.push(Stage::Judge { policy, responses: self.kl_prompts });
            }
        }
        stages
    }

    fn responses(&self, count: usize) -> Responses {
        Responses { count, max_new_tokens: self.plan.evaluation.kl_max_new_tokens }
    }

    /// Each policy's distance from `π_0` and from the policy it started from, a reference at a time.
    fn distances(&self) -> Vec<Stage<'a>> {
        let mut references: Vec<(String, Vec<String>)> = vec![];
        let arms = self.phases.iter().map(|(place, _)| place).filter(|place| place.arm.is_some());
        for place in arms.filter(|_| self.kl_prompts > 0) {
            let mut wanted = vec![&place.path[0], &place.path[place.path.len() - 1]];
            wanted.dedup();
            for reference in wanted {
                match references.iter_mut().find(|(found, _)| found == reference) {
                    Some((_, policies)) => policies.push(place.policy.clone()),
                    None => references.push((reference.clone(), vec![place.policy.clone()])),
                }
            }
        }
        references.into_iter().map(|(reference, policies)| Stage::Distance { reference, policies }).collect()
    }
}

/// What the policy of an arm must reach: a control may reach what it likes.
fn gate<'a>(arm: &ArmPlace<'a>) -> Option<&'a GatePlan> {
    arm.round.gate.as_ref().filter(|_| !arm.is_control())
}
