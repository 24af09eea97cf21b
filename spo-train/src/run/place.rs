//! The phases of a plan, in order: the warm-up, then every arm of every round; and their rows, read once.

use crate::TrainError;
use crate::config::{ArmPlan, DataShape, RoundPlan, RunPlan, TrainingPlan};
use crate::persist::directory::{START, WARMUP, policy_name};
use crate::phase::Phase;
use crate::policy::sampling::distinct_prompts;
use crate::run::online::prompts::{Prompts, Texts};
use crate::step::gradients::Trainable;
use crate::task::data::TaskData;
use crate::task::{Weighing, WeightDraws};
use spo_data::{Dataset, Tokenizer};
use spo_model::ModelSpec;
use std::sync::{Arc, OnceLock};

/// Where a phase stands in the plan.
#[derive(Debug, Clone)]
pub struct Place<'p> {
    /// Name of the phase and of the policy it makes.
    pub policy: String,
    /// The policies that it comes from, `π_0` first: it starts from the last one, which is its reference. Of a warm-up
    /// the starting model.
    pub path: Vec<String>,
    /// Its settings.
    pub training: &'p TrainingPlan,
    /// Its arm; `None` for the warm-up.
    pub arm: Option<ArmPlace<'p>>,
}

/// An arm's place in its round.
#[derive(Debug, Clone, Copy)]
pub struct ArmPlace<'p> {
    /// Index of the round, from 0.
    pub index: usize,
    /// Index of the arm in its round; the main arm is the first.
    pub number: usize,
    /// The round.
    pub round: &'p RoundPlan,
    /// The arm.
    pub plan: &'p ArmPlan,
}

impl ArmPlace<'_> {
    /// Whether the arm is only compared with the main one.
    pub fn is_control(&self) -> bool {
        self.number > 0
    }
}

impl Place<'_> {
    /// The policy that the phase starts from.
    pub fn parent(&self) -> &str {
        self.path.last().expect("every phase starts from a policy")
    }

    /// Number of the round in the run, from 1; 0 for the warm-up.
    pub fn round(&self) -> u64 {
        self.arm.map_or(0, |arm| arm.index as u64 + 1)
    }

    /// How the phase visits its rows: what is trained makes no difference to that.
    pub fn visiting(&self, seed: u64) -> Phase<'_> {
        let (training, trainable) = (self.training, Trainable::All);
        Phase {
            name: &self.policy,
            round: self.round(),
            training,
            trainable,
            seed,
            hold: None,
            probes: None,
            shards: 1,
        }
    }
}

/// Name of `π_0`, which the first round starts from.
pub fn first_policy(plan: &RunPlan) -> &'static str {
    if plan.warmup.is_some() { WARMUP } else { START }
}

/// The phases of a plan, in order.
pub fn places(plan: &RunPlan) -> Vec<Place<'_>> {
    let warmup = plan.warmup.iter().map(|warmup| Place {
        policy: WARMUP.into(),
        path: vec![START.into()],
        training: &warmup.training,
        arm: None,
    });
    let mut all: Vec<Place> = warmup.collect();
    let mut path = vec![first_policy(plan).to_string()];
    for (index, round) in plan.rounds.iter().enumerate() {
        all.extend(round.arms.iter().enumerate().map(|(number, arm)| Place {
            policy: policy_name(round, arm),
            path: path.clone(),
            training: &arm.training,
            arm: Some(ArmPlace { index, number, round, plan: arm }),
        }));
        path.push(round.name.clone());
    }
    all
}

/// The rows of a phase.
#[derive(Debug)]
pub(crate) struct PhaseData {
    /// Those that it trains on, or in an online round those that it may train on at most.
    pub train: TaskData,
    /// Those of earlier dimensions that it replays.
    pub replayed: Vec<ReplayedData>,
    /// Held-out rows, where it is evaluated on the way.
    pub held_out: Option<TaskData>,
    /// What an online round answers, and the rows that come of it.
    online: Option<(Prompts, OnceLock<TaskData>)>,
}

/// The rows of an earlier dimension that a phase replays.
#[derive(Debug)]
pub(crate) struct ReplayedData {
    /// Index of the dimension's round.
    pub round: usize,
    /// The rows with the loss of that round.
    pub data: TaskData,
}

impl ReplayedData {
    /// Those of a phase, as far as it visits them.
    fn all(
        plan: &RunPlan,
        place: &Place,
        train: &Arc<Dataset>,
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<Vec<Self>, TrainError> {
        let (Some(arm), phase) = (place.arm, place.visiting(plan.seed)) else { return Ok(vec![]) };
        let of = |(index, (dimension, _)): (usize, (&str, usize))| {
            let earlier = plan.rounds[..arm.index].iter().rposition(|round| round.dimension == *dimension);
            let round = earlier.expect("only earlier dimensions can be replayed");
            let data = TaskData::of_arm(train, dimension, plan.rounds[round].main(), tokenizer, limit)?;
            let (rows, visits) = (data.len(), phase.replayed_visits(index, data.len()));
            Ok(Self { round, data: data.visiting(visits, (0..rows).collect()) })
        };
        place.training.replayed_pairs().enumerate().map(of).collect()
    }

    /// Whether a policy that the round of this index starts from, or a later one, must score the rows.
    pub fn looks_at(&self, from: usize) -> bool {
        from <= self.round
    }
}

impl PhaseData {
    /// The rows of every phase of a plan, in the order of [`places`]; the tokenizer encodes what losses take beside prompts
    /// and answers.
    ///
    /// # Errors
    /// An objective that needs what the data or the rounds before lack; no held-out rows where there must be some.
    pub fn all(
        plan: &RunPlan,
        train: &Arc<Dataset>,
        held_out: &Arc<Dataset>,
        model: &ModelSpec,
        texts: (&Texts, &Tokenizer),
    ) -> Result<Vec<Self>, TrainError> {
        places(plan).iter().map(|place| Self::of(plan, place, train, held_out, model, texts)).collect()
    }

    /// What an online round answers.
    pub fn prompts(&self) -> Option<&Prompts> {
        self.online.as_ref().map(|(prompts, _)| prompts)
    }

    /// The rows that it trains on, as far as they are there yet.
    pub fn rows(&self) -> &TaskData {
        self.online.as_ref().and_then(|(_, made)| made.get()).unwrap_or(&self.train)
    }

    /// The rows that an online round made.
    pub fn make(&self, rows: TaskData) {
        if let Some((_, made)) = &self.online {
            // A second time they are the same ones.
            let _ = made.set(rows);
        }
    }

    fn of(
        plan: &RunPlan,
        place: &Place,
        train: &Arc<Dataset>,
        held_out: &Arc<Dataset>,
        model: &ModelSpec,
        (texts, tokenizer): (&Texts, &Tokenizer),
    ) -> Result<Self, TrainError> {
        if let Some(arm) = place.arm.filter(|arm| arm.plan.data == DataShape::Prompts) {
            return Self::of_prompts(plan, place, &arm, train, held_out, model, (texts, tokenizer));
        }
        let limit = model.context;
        let online = place.arm.and_then(|arm| Some((arm, arm.round.online.as_ref()?)));
        let prompts = online
            .map(|(_, online)| Prompts::of(place, online, (&plan.text, texts, tokenizer), train, (model, plan.seed)));
        let prompts = prompts.transpose()?;
        let expected = online.zip(prompts.as_ref()).map(|((arm, online), prompts)| {
            Arc::new(prompts.expected(&arm.round.dimension, online.max_new_tokens, model))
        });
        let (labelled, train) = (train, expected.as_ref().unwrap_or(train));
        let rows = |dataset: &Arc<Dataset>| match (&place.arm, &plan.warmup) {
            (Some(arm), _) if plan.steering.is_some() => {
                let steering = plan.steering.as_ref().expect("it is there");
                TaskData::of_users(dataset, &arm.round.dimension, (arm.plan, steering), limit)
            }
            (Some(arm), _) if !arm.round.front.is_empty() => {
                TaskData::of_front(dataset, &arm.round.front, arm.plan, weighing(plan, place, arm.round), limit)
            }
            (Some(arm), _) => {
                // Whatever an arm learns from, held-out rows are asked for what their labels say.
                let dimension = arm.round.dimension.as_str();
                let dimension = if Arc::ptr_eq(dataset, held_out) { dimension } else { arm.plan.learns(dimension) };
                TaskData::of_arm(dataset, dimension, arm.plan, tokenizer, limit)
            }
            (None, Some(warmup)) => Ok(TaskData::of_warm_up(dataset, warmup, limit)),
            (None, None) => unreachable!("only the warm-up is no arm"),
        };
        let train = rows(train)?;
        train.check(&place.path)?;
        train.check_degrees()?;
        // Its loss on held-out rows is computed on the way, and in the end how well preference degrees are told apart.
        let classifies = train.classified().is_some() && !held_out.examples.is_empty();
        let held_out = (place.training.eval_every > 0 || classifies).then(|| rows(held_out)).transpose()?;
        if let Some(held_out) = &held_out {
            held_out.check(&place.path)?;
            if let (Some(arm), 0) = (place.arm.filter(|_| place.training.eval_every > 0), held_out.len()) {
                let what = format!("held-out {} of `{}`", arm.plan.data.words(), arm.round.dimension);
                return Err(TrainError::no_pairs(what));
            }
        }
        let (phase, units) = (place.visiting(plan.seed), train.units());
        let train = train.visiting(phase.visits(units.clone()), phase.epoch(units));
        let replayed = ReplayedData::all(plan, place, labelled, tokenizer, limit)?;
        Ok(Self { train, replayed, held_out, online: prompts.map(|prompts| (prompts, OnceLock::new())) })
    }
}

impl PhaseData {
    /// The prompts of an arm whose policy is scored by what it writes, and `kl-samples` held-out ones.
    fn of_prompts(
        plan: &RunPlan,
        place: &Place,
        arm: &ArmPlace,
        train: &Dataset,
        held_out: &Dataset,
        model: &ModelSpec,
        (texts, tokenizer): (&Texts, &Tokenizer),
    ) -> Result<Self, TrainError> {
        let online = arm.round.online.as_ref().expect("the resolver gives it a scorer");
        let of = |prompts, held_out| {
            TaskData::of_prompts(prompts, &arm.round.dimension, &arm.plan.objective, held_out, model.context)
        };
        let prompts = Prompts::of(place, online, (&plan.text, texts, tokenizer), train, (model, plan.seed))?;
        let train = of(prompts.list, false);
        let (phase, units) = (place.visiting(plan.seed), train.units());
        let train = train.visiting(phase.visits(units.clone()), phase.epoch(units));
        let asked = |ids: Vec<u32>| texts.prompt("a held-out prompt", &ids, tokenizer);
        let held_out = match place.training.eval_every {
            0 => None,
            _ => {
                let prompts = distinct_prompts(held_out, plan.evaluation.kl_samples).into_iter();
                Some(of(prompts.map(asked).collect::<Result<Vec<_>, _>>()?, true))
            }
        };
        if held_out.as_ref().is_some_and(|held_out| held_out.len() == 0) {
            return Err(TrainError::no_pairs(format!("held-out prompts for {}", place.policy)));
        }
        Ok(Self { train, replayed: vec![], held_out, online: None })
    }
}

/// Where the weights of a phase of several dimensions come from.
fn weighing(plan: &RunPlan, place: &Place, round: &RoundPlan) -> Weighing {
    let lora = plan.lora.as_ref();
    match lora.and_then(|lora| lora.concentration) {
        Some(concentration) => Weighing::Drawn {
            draws: WeightDraws { seed: plan.seed, round: place.round(), concentration },
            fresh: lora.is_none_or(|lora| lora.start.is_none()),
        },
        None => Weighing::Fixed(round.front.iter().map(|dimension| round.dimension_weights[dimension]).collect()),
    }
}
