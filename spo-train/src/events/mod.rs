//! What a run says while it goes on. `events.jsonl` is the truth; bars, tables and reports only
//! read events.

pub mod reporter;
pub mod sink;
pub mod summary;
pub mod watchdog;

use crate::TrainError;
use serde::{Deserialize, Serialize};
use spo_eval::{
    AnswerScores, Artefact, Benchmark, ConflictCount, DataSummary, DegreeScore, DimensionScore, Distribution,
    FrontSummary, GateSummary, GradientGram, HoldSummary, KlEstimate, OnlinePairs, PairedDifference, ProcessCost,
    PromptTally, Sample, Steer, SteeredScores, WinRate,
};
use std::path::PathBuf;

/// One thing that happened. `phase` is the name of the warm-up (`warmup`), of a round or of a
/// round's control; it is also the name of the policy that comes out of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The run is set up.
    RunStarted {
        /// Its name.
        name: String,
        /// Version of this program.
        version: String,
        /// The device, in words.
        device: String,
        /// Storage type of the weights.
        dtype: String,
        /// Model family.
        family: String,
        /// All parameters.
        parameters: u64,
        /// Those that are trained.
        trainable: u64,
        /// Phases to come, in order: name and optimiser steps.
        phases: Vec<(String, u64)>,
    },
    /// Data are being read and tokenised. Not kept in `events.jsonl`.
    Reading {
        /// `train` or `held-out`.
        split: String,
        /// Rows so far.
        rows: usize,
    },
    /// Files of the Hugging Face Hub come into the cache. Not kept in `events.jsonl`.
    Downloading {
        /// The name.
        name: String,
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The data are read and tokenised.
    DataLoaded {
        /// Per dimension and split.
        sets: Vec<DataSummary>,
        /// How often two dimensions contradict each other.
        conflicts: Vec<ConflictCount>,
    },
    /// Hashes of what goes in.
    Lineage {
        /// Starting weights, rows, configuration.
        artefacts: Vec<Artefact>,
    },
    /// An interrupted run goes on. Not kept in `events.jsonl`, which tells the run as if it had never stopped.
    Resumed {
        /// Where: the stage that was finished last, or the step of a phase.
        from: String,
        /// Checkpoints and files that were damaged, in words; what they held is done again.
        damaged: Vec<String>,
    },
    /// A frozen policy's log-probs of a data set's answers are being computed.
    Scoring {
        /// The policy.
        policy: String,
        /// Answers done, those found in the cache included.
        done: usize,
        /// Answers in all.
        total: usize,
    },
    /// A policy answers the prompts of an online round. Not kept in `events.jsonl`.
    Answering {
        /// The policy.
        policy: String,
        /// Answers so far.
        done: usize,
        /// Answers in all.
        total: usize,
    },
    /// A scorer reads the answers of a policy. Not kept in `events.jsonl`.
    Judging {
        /// The policy.
        policy: String,
        /// Answers so far.
        done: usize,
        /// Answers in all.
        total: usize,
    },
    /// An online round made its pairs.
    PairsMade(OnlinePairs),
    /// A conditional policy was scored on the held-out pairs at weights over the whole simplex.
    Front(FrontSummary),
    /// What a scorer says of a policy's responses to held-out prompts.
    AnswersScored(AnswerScores),
    /// A policy against the start in a scorer's eyes.
    WinRate(WinRate),
    /// What a program of the user's measured of a policy.
    Benchmarked(Benchmark),
    /// How far a policy follows the preference that it is asked for.
    Steered(Steer),
    /// They are all in the cache.
    Scored {
        /// The policy.
        policy: String,
        /// Answers in all.
        answers: usize,
        /// Found in the cache.
        cached: usize,
        /// Tokens run through the model.
        tokens: u64,
        /// Time taken.
        seconds: f64,
    },
    /// A policy is taken over from an earlier run that made it in the same way; what happened there follows.
    Reused {
        /// The policy.
        policy: String,
        /// The earlier run's directory.
        from: PathBuf,
    },
    /// A phase of optimiser steps begins.
    PhaseStarted {
        /// Its name.
        phase: String,
        /// What it learns.
        dimension: String,
        /// Name of the objective.
        objective: String,
        /// Whether it is only for comparison.
        control: bool,
        /// The policy it starts from.
        start: String,
        /// Its pairs (answers in a supervised warm-up).
        pairs: usize,
        /// Optimiser steps.
        steps: u64,
        /// SPO's `c` on the pairs it will train on.
        #[serde(default, alias = "carry", skip_serializing_if = "Option::is_none")]
        margin_offset: Option<Distribution>,
    },
    /// One optimiser step is done.
    #[serde(alias = "window")]
    Step(StepFigures),
    /// The running policy was scored on the held-out pairs in the middle of a phase.
    HeldOut(HeldOut),
    /// How well the head of a phase that is over tells preference degrees apart; the head itself goes then.
    DegreesClassified(DegreeScore),
    /// λ was moved to hold earlier dimensions at their bounds; step 0 is its start value.
    Held(Held),
    /// How the gradients of dimensions stand to each other at the running policy.
    Gradients(GradientGram),
    /// A finished policy was held against the bounds of its round, on held-out pairs.
    HoldJudged(HoldSummary),
    /// The running policy's distance from the one its phase started from, on sampled responses.
    RunningKl {
        /// The phase.
        phase: String,
        /// Optimiser steps done.
        step: u64,
        /// The estimate.
        estimate: KlEstimate,
    },
    /// A phase ended before its steps were done, or went back to an earlier policy.
    PhaseEnded {
        /// The phase.
        phase: String,
        /// Optimiser steps done.
        step: u64,
        /// Steps of the phase.
        steps: u64,
        /// Steps after which its policy was as it is now.
        policy_of: u64,
        /// Why, in plain words.
        reason: String,
    },
    /// A finished policy was scored on the held-out pairs.
    Evaluated {
        /// The policy.
        policy: String,
        /// After how many steps of its phase.
        step: u64,
        /// Per dimension and kind of score.
        scores: Vec<DimensionScore>,
        /// Margins `Δ log(π/π_0)` per dimension.
        margins: Vec<Distribution>,
        /// What it gets right of each prompt, where that was asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        prompts: Vec<PromptTally>,
    },
    /// Every answer was embedded by the frozen model.
    Embedded {
        /// Answers.
        answers: usize,
    },
    /// A policy steered by a few pairs of each user, on all of the user's held-out pairs.
    SteeredScores(SteeredScores),
    /// Two policies compared on the same pairs.
    Compared(PairedDifference),
    /// A round's policy was held against its gate.
    GateChecked(GateSummary),
    /// Responses to held-out prompts were sampled from a policy.
    #[serde(alias = "drawn")]
    ResponsesSampled {
        /// The policy.
        policy: String,
        /// After how many steps of its phase.
        step: u64,
        /// Responses.
        responses: usize,
        /// Mean number of tokens of a response.
        mean_tokens: f64,
        /// Share of the responses that were cut at the limit of tokens, 0 to 1.
        cut: f64,
    },
    /// A policy's distance from another, on sampled responses.
    KlEstimated(KlEstimate),
    /// The same prompt answered by several policies.
    Sampled(Sample),
    /// A policy is on disk, was read back and gave the same log-probs.
    PolicySaved {
        /// Its name.
        policy: String,
        /// Its directory.
        path: PathBuf,
        /// Hash of its weights.
        hash: String,
        /// Largest difference of a sequence log-prob after reading it back, in nats.
        drift: f64,
    },
    /// A policy was written as a whole model, and read back.
    ModelExported {
        /// The policy.
        policy: String,
        /// The directory.
        path: PathBuf,
        /// Largest change of a sequence log-prob that writing made (merging, where adapters were
        /// trained), in nats.
        drift: f64,
        /// The same for exchanging the quantised base, on which the adapters were trained, for the one
        /// they were merged into.
        #[serde(skip_serializing_if = "Option::is_none")]
        quantisation_drift: Option<f64>,
    },
    /// A phase is over.
    PhaseFinished {
        /// Its name.
        phase: String,
        /// Time taken.
        seconds: f64,
        /// Tokens trained on.
        tokens: u64,
        /// Largest resident memory of the process so far, bytes; 0 where the system does not say.
        peak_bytes: u64,
        /// What each of the processes did that shared its steps; empty where there is one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        processes: Vec<ProcessCost>,
    },
    /// The others wait for one of the processes that share a phase. Not kept in `events.jsonl`, which is the same however
    /// many processes there are.
    SlowProcess {
        /// The phase.
        phase: String,
        /// Optimiser steps done.
        step: u64,
        /// Its rank.
        process: usize,
        /// Share of the time since the last look that another one has waited longer than it.
        share: f64,
    },
    /// Something a user should know.
    Warning {
        /// In plain words.
        text: String,
    },
    /// The run ended before it was over.
    RunStopped {
        /// Why, in plain words.
        reason: String,
    },
    /// The run is over.
    RunFinished {
        /// Time taken.
        seconds: f64,
        /// The final model.
        model: PathBuf,
        /// The report.
        report: PathBuf,
    },
}

/// The figures of one optimiser step; means over all its pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepFigures {
    /// The phase.
    pub phase: String,
    /// The step, from 1.
    pub step: u64,
    /// Steps of the phase.
    pub steps: u64,
    /// Passes over the data, this batch included.
    pub epoch: f64,
    /// Mean loss.
    pub loss: f64,
    /// Global L2 norm of the mean gradient, before clipping.
    pub grad_norm: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Share of pairs whose chosen answer has the higher reward; absent in a supervised warm-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Mean reward margin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Mean log-ratio to the reference of the chosen answers, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen_log_ratio: Option<f64>,
    /// The same of the rejected answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_log_ratio: Option<f64>,
    /// Mean length of the chosen answers, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen_tokens: Option<f64>,
    /// Mean of SPO's `c`.
    #[serde(default, alias = "carry", skip_serializing_if = "Option::is_none")]
    pub margin_offset: Option<f64>,
    /// The estimate of the KL from the reference that the loss looks at (kto, tdpo), nats per answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Share of the answers whose preference degree the head names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degree_accuracy: Option<f64>,
    /// Their mean cross-entropy, in nats; `loss` has it times `degree-weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degree_loss: Option<f64>,
    /// Of an optimiser that goes by losses, in some steps: how far the two losses along its first direction are apart, over what
    /// other micro-batches change of one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_to_noise: Option<f64>,
    /// Mean score of the answers that the policy wrote at both sides of its directions, where the loss is minus that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Their mean length, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_tokens: Option<f64>,
    /// The pairs of earlier dimensions in this step; no other figure but `grad-norm` and `tokens` has them in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replayed: Vec<Replayed>,
    /// Tokens run through the model, shared prompts counted once.
    pub tokens: u64,
    /// Time taken.
    pub seconds: f64,
    /// Resident memory of the process after the step, bytes; 0 where the system does not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_bytes: u64,
}

/// The pairs of an earlier dimension in a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Replayed {
    /// The dimension.
    pub dimension: String,
    /// Its pairs.
    pub pairs: usize,
    /// Mean loss of its round's objective on them.
    pub loss: f64,
    /// Share of them whose chosen answer has the higher reward.
    pub accuracy: f64,
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// How the running policy does on the held-out pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HeldOut {
    /// The phase.
    pub phase: String,
    /// Optimiser steps done.
    pub step: u64,
    /// Steps of the phase.
    pub steps: u64,
    /// Mean loss of the phase's objective on the held-out pairs of its dimension; in a supervised
    /// warm-up per answer token.
    pub loss: f64,
    /// Share of its answers whose preference degree the head names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degree_accuracy: Option<f64>,
    /// Mean score of its answers to held-out prompts, where the loss is minus that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Per dimension of the run; empty in a warm-up, which has no π_0 yet.
    pub dimensions: Vec<HeldOutDimension>,
    /// Tokens scored.
    pub tokens: u64,
    /// Time taken.
    pub seconds: f64,
}

/// The running policy on the held-out pairs of one dimension, by its log-ratio to π_0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HeldOutDimension {
    /// The dimension.
    pub dimension: String,
    /// Its pairs and single answers.
    pub pairs: usize,
    /// Share of them with a positive margin.
    pub accuracy: f64,
    /// Mean margin `Δ log(π/π_0)`, in nats.
    pub margin: f64,
    /// Mean `log(π/π_0)` of the chosen answers, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen_log_ratio: Option<f64>,
    /// The same of the rejected answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_log_ratio: Option<f64>,
}

/// The multipliers of a phase after an update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Held {
    /// The phase.
    pub phase: String,
    /// Optimiser steps done.
    pub step: u64,
    /// Steps of the phase.
    pub steps: u64,
    /// The held dimensions.
    pub dimensions: Vec<HeldDimension>,
}

/// A held dimension on the pairs that drive its λ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HeldDimension {
    /// The dimension.
    pub dimension: String,
    /// What is bounded: `accuracy`, `margin` or `reward`.
    pub measure: String,
    /// What the running policy has of it.
    pub reached: f64,
    /// What it must have at this step.
    pub bound: f64,
    /// λ from here on.
    pub lambda: f64,
    /// Mean λ over the updates since half of the phase's steps; before that λ.
    pub mean_lambda: f64,
}

/// Where events go.
pub trait Sink {
    /// Takes one event, `seconds` after the start of the run.
    ///
    /// # Errors
    /// The event could not be kept: the run ends. [`TrainError::sink`] makes it of any error.
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError>;

    /// Takes one event that an earlier process of a resumed run has already told. Sinks that only say what happens now
    /// leave it.
    ///
    /// # Errors
    /// The event could not be kept.
    fn earlier(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        let _ = (seconds, event);
        Ok(())
    }

    /// What went wrong since it was last asked and does not end the run; told as warnings.
    fn warnings(&mut self) -> Vec<String> {
        vec![]
    }
}
