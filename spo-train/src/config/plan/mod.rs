//! The resolved run: plain values, stored as plan.json in the run directory and read again on resume.

mod condition;
mod evaluation;
mod hold;
mod lines;
mod meta;
mod mixing;
mod online;
mod parallel;
mod steering;
mod step;

use spo_core::objective;
use spo_data::Fold;
use spo_model::family;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::TrainError;

use super::defaults::MATMUL;
use super::spec::{
    Best, DataEntry, Dtype, Located, LoraCondition, LoraRounds, LoraTargets, MetaUse, OnMiss, OptimizerName,
    QuantisedBase, Recompute, Schedule, Slopes, StoppingMetric, TextSpec,
};
pub use condition::Condition;
pub use evaluation::EvaluationPlan;
pub use hold::{Bound, HeldPlan, HoldPlan, SampledPlan};
pub use lines::{Origin, PlanLine};
pub use mixing::CombinePlan;
pub use online::OnlinePlan;
pub use parallel::ParallelPlan;
pub(crate) use parallel::unshared;
pub use steering::SteeringPlan;

/// A run with every value settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunPlan {
    /// Version of the run file's layout.
    pub schema: u32,
    /// Name of the run.
    pub name: String,
    /// Seed of data order, split, sampling and adapter initialisation.
    pub seed: u64,
    /// Run directory.
    pub out: PathBuf,
    /// Starting model π_0.
    pub model: ModelPlan,
    /// Adapters; `None` = all weights are trained.
    pub lora: Option<LoraPlan>,
    /// What makes it one policy for many users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steering: Option<SteeringPlan>,
    /// Sources of pairs.
    pub data: Vec<DataEntry>,
    /// How text becomes tokens.
    pub text: TextSpec,
    /// Share of the prompts held out; `None` if some data has `split = "test"`, or if it is a part of them.
    pub holdout: Option<f64>,
    /// The part of the prompts that is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout_fold: Option<Fold>,
    /// Share of the training prompts that drives λ; `None` if no round has `hold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_share: Option<f64>,
    /// Directory of tokenised data; `None` keeps none.
    #[serde(default)]
    pub token_cache: Option<PathBuf>,
    /// Supervised warm-up before round 1.
    pub warmup: Option<WarmupPlan>,
    /// Rounds in order.
    pub rounds: Vec<RoundPlan>,
    /// What is measured.
    pub evaluation: EvaluationPlan,
    /// What is warned of.
    pub watchdog: WatchdogPlan,
    /// What is saved inside a round.
    pub checkpoints: CheckpointPlan,
    /// How several processes share it.
    #[serde(default)]
    pub parallel: ParallelPlan,
    /// Where the run is also told.
    #[serde(default)]
    pub track: TrackPlan,
    /// Names of the Hugging Face Hub, with the commits that they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hub: Vec<Located>,
    /// Where each value came from, by dotted key; values that are not listed are defaults.
    pub origins: BTreeMap<String, Origin>,
    /// The families that the model may be of; a plan that is read from a file has the builtin ones.
    #[serde(skip)]
    pub families: family::Registry,
}

impl RunPlan {
    /// Whether any arm finds its λ by bounds.
    pub fn holds(&self) -> bool {
        self.rounds.iter().flat_map(|round| &round.arms).any(|arm| arm.hold.is_some())
    }

    /// Whether the run makes a reward model: then it has one round, whose arms all do.
    pub fn gives_rewards(&self) -> bool {
        self.rounds.iter().any(|round| round.main().gives_rewards())
    }

    /// The dimensions that the run's only round weighs, if it weighs several.
    pub fn front(&self) -> &[String] {
        self.rounds.first().map_or(&[], |round| &round.front)
    }

    /// Most tokens of a critique, where the run's reward model writes one before it scores.
    pub fn critique_tokens(&self) -> Option<usize> {
        let arms = self.rounds.iter().flat_map(|round| &round.arms).filter(|arm| arm.gives_rewards());
        let built = arms.filter_map(|arm| arm.objectives.build_reward(&arm.objective, &arm.options).ok());
        built.filter_map(|objective| objective.critique()).map(|critique| critique.max_tokens).max()
    }

    /// The plan in a run directory. Keys that are newer than the run get the values that it had without them.
    ///
    /// # Errors
    /// There is none, or it is not one that this version can read.
    pub fn read(run: &Path) -> Result<Self, TrainError> {
        let path = run.join("plan.json");
        let text = std::fs::read_to_string(&path).map_err(|e| TrainError::io(&path, e))?;
        let unread = |e: serde_json::Error| match e.classify() {
            serde_json::error::Category::Data => format!("{e}; another version of spo wrote it"),
            _ => e.to_string(),
        };
        serde_json::from_str(&text).map_err(|e| TrainError::Damaged { reason: unread(e), path })
    }
}

/// `[model]`, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModelPlan {
    /// Model directory.
    pub path: PathBuf,
    /// Number format of the weights.
    pub dtype: Dtype,
    /// Device name, as `spo-model` reads it.
    pub device: String,
    /// How a card multiplies, as `spo-model` calls it; runs from before have their device's own way.
    #[serde(default = "auto")]
    pub matmul: String,
}

fn auto() -> String {
    MATMUL.into()
}

/// `[lora]`, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoraPlan {
    /// Adapter directory that the run starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Rank of the factors.
    pub rank: usize,
    /// Scale numerator.
    pub alpha: f64,
    /// Layers with an adapter.
    pub targets: LoraTargets,
    /// Scale by alpha / √rank.
    pub rslora: bool,
    /// With magnitudes: DoRA.
    #[serde(default)]
    pub dora: bool,
    /// Share of an adapter's inputs dropped in training.
    #[serde(default)]
    pub dropout: f64,
    /// Modules trained in full.
    #[serde(default)]
    pub modules_to_save: Vec<String>,
    /// What the adapter is conditioned on.
    #[serde(default)]
    pub condition: LoraCondition,
    /// Rank of the part that all weights or contexts share, with a condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_rank: Option<usize>,
    /// Matrices that contexts weigh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    /// Parameter of the distribution that weights are drawn from, where they are the condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concentration: Option<f64>,
    /// What a round does with the adapter it starts from.
    #[serde(default)]
    pub rounds: LoraRounds,
    /// Directions of earlier rounds' adapters that a fresh one stays out of; 0 = none.
    #[serde(default)]
    pub project: usize,
    /// How the frozen weights are kept.
    #[serde(default)]
    pub quantised_base: QuantisedBase,
}

/// `[warmup]`, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WarmupPlan {
    /// Dimensions whose preferred answers are learnt.
    pub dimensions: Vec<String>,
    /// Settings; `pairs_per_step` counts answers.
    #[serde(flatten)]
    pub training: TrainingPlan,
}

/// One round with its arms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RoundPlan {
    /// Name in reports and directories.
    pub name: String,
    /// Dimension trained on; of a round that weighs several their names with `+` between them.
    pub dimension: String,
    /// The dimensions that it weighs; empty in a round of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub front: Vec<String>,
    /// Their weights; none where a conditional adapter draws them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dimension_weights: BTreeMap<String, f64>,
    /// The main arm first (its policy starts the next round), then the controls.
    pub arms: Vec<ArmPlan>,
    /// What the main arm's policy must reach.
    pub gate: Option<GatePlan>,
    /// How it makes its own pairs; `None` = it learns from the data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<OnlinePlan>,
}

impl RoundPlan {
    /// The arm whose policy is carried on.
    pub fn main(&self) -> &ArmPlan {
        self.arms.first().expect("resolve gives every round a main arm")
    }

    /// The dimensions that it learns: one, or those that it weighs.
    pub fn dimensions(&self) -> &[String] {
        if self.front.is_empty() { std::slice::from_ref(&self.dimension) } else { &self.front }
    }

    /// The arms that are only compared.
    pub fn controls(&self) -> &[ArmPlan] {
        &self.arms[1..]
    }
}

/// One way of training a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ArmPlan {
    /// Unique in its round; the main arm is called `main`.
    pub name: String,
    /// Name in the objective registry.
    pub objective: String,
    /// The shape in which the objective takes the dimension's data.
    #[serde(default)]
    pub data: DataShape,
    /// What the round computes or keeps besides the policy in training.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// All of the objective's options, defaults included, as [`objective::Registry::build`] takes them. For `spo`: `alpha`,
    /// `lambda` (one per earlier round, oldest first), `earlier` (alpha and lambda of each earlier round), `margin`.
    pub options: Map<String, Value>,
    /// Most contexts of a user, where they are not the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contexts: Option<usize>,
    /// What stands before the prompts that it learns from, where the data have meta-prompts.
    #[serde(default, skip_serializing_if = "MetaUse::is_own")]
    pub meta_prompts: MetaUse,
    /// Bounds that λ is found by; `None` = it is the one in `options`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldPlan>,
    /// Optimiser settings.
    #[serde(flatten)]
    pub training: TrainingPlan,
    /// Where the objective's name is looked up; a plan that is read from a file has the builtin ones.
    #[serde(skip)]
    pub objectives: objective::Registry,
}

impl ArmPlan {
    /// Whether it makes a reward model.
    pub fn gives_rewards(&self) -> bool {
        super::objective::gives_rewards(&self.objectives, &self.objective)
    }
}

/// What one row of a round is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataShape {
    /// A chosen and a rejected answer.
    #[default]
    Pairs,
    /// One answer that is desirable or not.
    Answers,
    /// Scored answers to one prompt.
    Lists,
    /// A prompt, which the policy answers.
    Prompts,
}

impl DataShape {
    /// The rows in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Answers => "labelled answers",
            Self::Lists => "scored lists",
            Self::Prompts => "prompts",
        }
    }
}

/// How one arm, or the warm-up, is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrainingPlan {
    /// Optimiser steps.
    pub steps: u64,
    /// Passes over the pairs if the length was given that way.
    pub epochs: Option<f64>,
    /// Pairs (answers, lists) per optimiser step.
    pub pairs_per_step: usize,
    /// Token budget of a micro-batch; 0 leaves it to the device.
    pub tokens_per_micro_batch: usize,
    /// What changes the weights.
    #[serde(default)]
    pub optimizer: OptimizerName,
    /// Its settings, if it goes by losses alone.
    #[serde(flatten)]
    pub zeroth_order: Option<ZerothOrderPlan>,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Course of the learning rate after its warm-up.
    pub schedule: Schedule,
    /// Steps of linear rise.
    pub warmup_steps: u64,
    /// Learning rate at the end as a share of the peak.
    pub final_learning_rate_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// AdamW's moment decay rates.
    pub adam_betas: [f64; 2],
    /// AdamW's denominator addend.
    pub adam_eps: f64,
    /// Clip norm; 0 = none.
    pub max_grad_norm: f64,
    /// New random order each epoch.
    pub shuffle: bool,
    /// Activation recompute.
    pub recompute: Recompute,
    /// Each block is updated in the backward pass.
    #[serde(default)]
    pub update_in_backward: bool,
    /// Weight of the loss that spreads tokens over experts; 0 = none.
    #[serde(default)]
    pub router_loss: f64,
    /// Rows per head chunk; 0 = automatic.
    pub head_chunk_rows: usize,
    /// Steps between two evaluations of the running policy; 0 = none.
    #[serde(default)]
    pub eval_every: u64,
    /// When it ends before its steps are done.
    pub early_stopping: Option<EarlyStoppingPlan>,
    /// Most KL to the policy it started from, nats per response; 0 = no budget.
    #[serde(default)]
    pub max_kl: f64,
    /// Shares of a step's pairs that are drawn from earlier dimensions' pairs, with the losses of their rounds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replay: BTreeMap<String, f64>,
    /// How the gradients of several dimensions become one, where their weights are fixed.
    #[serde(flatten)]
    pub combine: Option<CombinePlan>,
}

/// The keys of the zeroth-order optimisers, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ZerothOrderPlan {
    /// Rank of SubZero's subspaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zo_rank: Option<usize>,
    /// Steps in one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zo_refresh: Option<u64>,
    /// Distance of the two losses.
    pub zo_eps: f64,
    /// Directions of a step.
    pub zo_estimates: usize,
    /// Decay of the sum of earlier estimates.
    pub zo_momentum: f64,
    /// What the slope along a direction is of.
    #[serde(default)]
    pub zo_slopes: Slopes,
}

/// `early-stopping`, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EarlyStoppingPlan {
    /// What must get better.
    pub metric: StoppingMetric,
    /// Whose pairs it is measured on; `None` in a warm-up.
    pub dimension: Option<String>,
    /// Evaluations without a new best before the end.
    pub patience: usize,
}

/// `[rounds.gate]`, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GatePlan {
    /// What a miss does.
    pub on_miss: OnMiss,
    /// Evaluations in a row at which the running policy passes that end the round; `None` = it takes all its steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admit_after: Option<u64>,
    /// Most accuracy that a dimension may lose, 0 to 1.
    pub max_forgetting: Option<f64>,
    /// Conditions per dimension.
    #[serde(flatten)]
    pub dimensions: BTreeMap<String, GateConditions>,
}

/// Conditions on one dimension.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GateConditions {
    /// On the accuracy, 0 to 1.
    pub accuracy: Option<Condition>,
    /// On the mean margin, in nats.
    pub margin: Option<Condition>,
}

/// `[watchdog]`, resolved; 0 = off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WatchdogPlan {
    /// Gradient norm over the median of the steps before.
    pub gradient_norm_factor: f64,
    /// Nats per token that chosen answers lost.
    pub chosen_drop: f64,
    /// Share of pairs with a saturated loss.
    pub saturated_share: f64,
    /// Length of sampled responses over the start's, or the other way round.
    pub length_factor: f64,
    /// Evaluations in a row at which the held-out loss rose.
    pub overfitting: usize,
    /// Duration of a step over the median of the steps before.
    pub slow_step_factor: f64,
}

/// `[track]`, resolved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrackPlan {
    /// Address of an MLflow server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mlflow: Option<String>,
    /// The experiment there.
    pub experiment: String,
}

/// `[checkpoints]`, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckpointPlan {
    /// Optimiser steps between two; 0 = not by steps.
    pub every_steps: u64,
    /// Minutes between two at most; 0 = not by time.
    pub every_minutes: f64,
    /// How many of the last ones are kept.
    pub keep_last: usize,
    /// By what the best of each round is kept.
    pub keep_best: Best,
}
