//! Everything a report says about a run, as plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AnswerScores, DegreeScore, DimensionScore, Distribution, FrontSummary, GradientGram, HoldPoint, HoldSummary,
    KlEstimate, OnlinePairs, PairedDifference, PromptTally, Steer, SteeredScores, WinRate,
};

/// Version of the JSON form of [`RunSummary`].
pub const SCHEMA: u32 = 1;

/// A run in numbers. The first policy of the chain is `start`; every round names the policy it made and the one it left from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSummary {
    /// Format version, [`SCHEMA`].
    pub schema: u32,
    /// Name of the run.
    pub name: String,
    /// Seed of the run.
    pub seed: u64,
    /// Component and version, such as `("spo", "0.1.0")`.
    pub versions: Vec<(String, String)>,
    /// The model that was trained.
    pub model: ModelSummary,
    /// The data sets.
    pub data: Vec<DataSummary>,
    /// How often the labels of two dimensions contradict each other.
    pub conflict: Vec<ConflictCount>,
    /// Name of π_0, the policy before the first preference round.
    pub start: String,
    /// Rounds in the order they ran, controls included.
    pub rounds: Vec<RoundSummary>,
    /// Policy × dimension scores on held-out pairs in `Δ log(π/π_0)`; rows and columns appear in order of first mention.
    pub matrix: Vec<DimensionScore>,
    /// The same pairs under the other score kinds.
    pub scores: Vec<DimensionScore>,
    /// What policies get right of each held-out prompt, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<PromptTally>,
    /// Paired comparisons of two policies on the same pairs.
    pub differences: Vec<PairedDifference>,
    /// Sampled KL divergences, to the start and to the previous round.
    pub kl: Vec<KlEstimate>,
    /// What a scorer says of each policy's answers to held-out prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<AnswerScores>,
    /// The policies against the start in that scorer's eyes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub win_rates: Vec<WinRate>,
    /// What a program of the user's measured of each policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub benchmarks: Vec<Benchmark>,
    /// Conditional policies at weights over the whole simplex.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fronts: Vec<FrontSummary>,
    /// How far policies follow the preference that they are asked for, with the controls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steer: Vec<Steer>,
    /// How policies do for each user by a few of the user's pairs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steered: Vec<SteeredScores>,
    /// How the gradients of dimensions stood to each other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gradients: Vec<GradientGram>,
    /// What online rounds trained on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub online: Vec<OnlinePairs>,
    /// How well preference degrees are told apart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub degrees: Vec<DegreeScore>,
    /// Histograms of held-out margins.
    pub margins: Vec<Distribution>,
    /// The same prompts answered by several policies.
    pub samples: Vec<Sample>,
    /// Time and memory of each phase.
    pub timing: Vec<Phase>,
    /// Rounds that were held against a gate.
    pub gates: Vec<GateSummary>,
    /// Rounds that were held against bounds on earlier dimensions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HoldSummary>,
    /// What the reader should know before trusting the run.
    pub warnings: Vec<String>,
    /// Hashes of what went in and came out.
    pub lineage: Vec<Artefact>,
}

impl Default for RunSummary {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            name: String::new(),
            seed: 0,
            versions: Vec::new(),
            model: ModelSummary::default(),
            data: Vec::new(),
            conflict: Vec::new(),
            start: String::new(),
            rounds: Vec::new(),
            matrix: Vec::new(),
            scores: Vec::new(),
            prompts: Vec::new(),
            differences: Vec::new(),
            kl: Vec::new(),
            answers: Vec::new(),
            win_rates: Vec::new(),
            benchmarks: Vec::new(),
            fronts: Vec::new(),
            steer: Vec::new(),
            steered: Vec::new(),
            gradients: Vec::new(),
            online: Vec::new(),
            degrees: Vec::new(),
            margins: Vec::new(),
            samples: Vec::new(),
            timing: Vec::new(),
            gates: Vec::new(),
            holds: Vec::new(),
            warnings: Vec::new(),
            lineage: Vec::new(),
        }
    }
}

impl RunSummary {
    /// The round that made `policy`.
    #[must_use]
    pub fn round(&self, policy: &str) -> Option<&RoundSummary> {
        self.rounds.iter().find(|round| round.policy == policy)
    }

    /// Policies from the start to `policy`, along the references of the rounds.
    #[must_use]
    pub fn path<'a>(&'a self, policy: &'a str) -> Vec<&'a str> {
        let mut path = vec![policy];
        let mut current = policy;
        while let Some(round) = self.round(current) {
            // A round that leads back to itself would be a broken summary; stop instead of turning in circles.
            if path.contains(&round.reference.as_str()) {
                break;
            }
            current = &round.reference;
            path.push(current);
        }
        path.reverse();
        path
    }

    /// Sampled divergence of `policy` from `reference`.
    #[must_use]
    pub fn kl(&self, policy: &str, reference: &str) -> Option<&KlEstimate> {
        self.kl.iter().find(|estimate| estimate.policy == policy && estimate.reference == reference)
    }
}

/// The trained model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelSummary {
    /// Name or directory as the user gave it.
    pub name: String,
    /// Model family.
    pub family: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Number of trained parameters.
    pub trainable: u64,
    /// What is trained, such as "full" or "LoRA rank 8".
    pub method: String,
    /// Storage type of the weights.
    pub precision: String,
    /// Device.
    pub device: String,
}

/// One dimension's pairs in one split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataSummary {
    /// Dimension, or the name of the set.
    pub dimension: String,
    /// "train" or "held-out".
    pub split: String,
    /// Pairs that are used.
    pub pairs: usize,
    /// Distinct prompts among them.
    pub prompts: usize,
    /// Pairs with a boilerplate answer among them.
    pub boilerplate: usize,
    /// Rows that were left out, with the reason.
    pub dropped: Vec<(String, usize)>,
    /// Columns of the split's files that were not used, a line for each file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<String>,
}

/// How the labels of two dimensions relate on the pairs that have both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConflictCount {
    /// "train" or "held-out".
    pub split: String,
    /// First dimension.
    pub first: String,
    /// Second dimension.
    pub second: String,
    /// Pairs with the same preferred answer.
    pub agreeing: usize,
    /// Pairs with opposite preferred answers.
    pub conflicting: usize,
    /// Conflicting pairs with a boilerplate answer.
    pub conflicting_boilerplate: usize,
}

/// A setting and where it came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Key as in the run file.
    pub key: String,
    /// Value as text.
    pub value: String,
    /// "default", "file", "flag".
    pub origin: String,
}

/// One training round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoundSummary {
    /// Name of the policy that the round made.
    pub policy: String,
    /// Name of the policy it started from and is measured against.
    pub reference: String,
    /// Dimension of its pairs.
    pub dimension: String,
    /// Objective, such as "dpo", "spo", "sft".
    pub objective: String,
    /// Whether the round is a control: the same as another round from the same reference, but with λ = 0.
    pub control: bool,
    /// Earlier dimension and its λ.
    pub lambda: Vec<(String, f64)>,
    /// Resolved settings.
    pub settings: Vec<Setting>,
    /// Training curve, one point per logged batch.
    pub curve: Vec<CurvePoint>,
    /// Evaluations on the held-out pairs on the way.
    #[serde(alias = "looks")]
    pub evaluations: Vec<Evaluation>,
    /// λ on the way, where it followed bounds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HoldPoint>,
    /// Why it ended before its steps were done, or went back to an earlier policy.
    pub ended: Option<String>,
    /// Distribution of the margin offset `c` over the round's training pairs.
    #[serde(alias = "carried")]
    pub margin_offset: Option<Distribution>,
}

/// One point of a training curve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CurvePoint {
    /// Optimiser step, from 0.
    pub step: u64,
    /// Mean loss of the batch.
    pub loss: f64,
    /// Pair accuracy of the batch, 0 to 1.
    pub accuracy: Option<f64>,
    /// Mean reward margin of the batch.
    pub margin: Option<f64>,
    /// Mean score of the answers that the policy wrote, where the loss is minus that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Mean loss of each dimension that is replayed, on its pairs of the batch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replayed: Vec<(String, f64)>,
}

/// The running policy on held-out pairs, in the middle of a round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// Optimiser step, from 0.
    pub step: u64,
    /// Mean loss of the round's objective on the held-out pairs of its dimension.
    pub loss: f64,
    /// Mean score of its answers to held-out prompts, where the loss is minus that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Dimension, accuracy (0 to 1), mean margin `Δ log(π/π_0)` in nats.
    pub dimensions: Vec<(String, f64, f64)>,
    /// KL divergence from the start with its standard error, nats per response, where it was estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<(f64, f64)>,
}

/// A round's policy against its gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateSummary {
    /// Policy of the round.
    pub policy: String,
    /// What was asked of it.
    pub checks: Vec<GateCheck>,
    /// What followed.
    pub outcome: GateOutcome,
}

impl GateSummary {
    /// The checks that were missed, in words.
    #[must_use]
    pub fn missed(&self) -> Vec<String> {
        let words = |check: &GateCheck| format!("{} is {:.4}, wanted {}", check.what, check.found, check.wanted);
        self.checks.iter().filter(|check| !check.passed).map(words).collect()
    }
}

/// One condition of a gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateCheck {
    /// What was measured, such as "honesty accuracy".
    pub what: String,
    /// Its value.
    pub found: f64,
    /// The condition, such as ">= 0.6".
    pub wanted: String,
    /// Whether it holds.
    pub passed: bool,
}

/// What followed from a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateOutcome {
    /// The last policy of the round passed.
    Passed,
    /// The last policy missed it; the round went back to an earlier one, which passes.
    RolledBack,
    /// It was missed, and the next round began all the same.
    WentOn,
    /// The run was stopped.
    Stopped,
}

/// One prompt and its answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Prompt.
    pub prompt: String,
    /// Policy and its answer.
    pub by_policy: Vec<(String, String)>,
}

/// Cost of one phase of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phase {
    /// Name of the phase.
    pub name: String,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Tokens processed, if the phase counts them.
    pub tokens: Option<u64>,
    /// Highest memory use in bytes, if it was measured.
    pub peak_bytes: Option<u64>,
    /// What each of the processes did that shared its steps, in the order of the ranks; empty where there was one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<ProcessCost>,
}

/// What one of the processes that share a run did in the steps of a phase, since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessCost {
    /// Tokens of its shards.
    pub tokens: u64,
    /// Seconds that it computed.
    pub seconds: f64,
    /// Seconds that it waited for another process.
    pub waited: f64,
    /// Seconds in which numbers were exchanged.
    pub exchanged: f64,
    /// Bytes that it gave to others.
    pub bytes: u64,
    /// Highest memory use of the process so far, in bytes; 0 where it is not known.
    pub peak_bytes: u64,
}

/// Share of the time by which others must have waited longer than a process for it to be called slow.
const SLOW: f64 = 0.2;

/// The process that the others wait for: its rank, and the share of the `seconds` that the most patient one has waited
/// longer than it. `None` where that is below a fifth.
pub fn slow_process(waited: &[f64], seconds: f64) -> Option<(usize, f64)> {
    let most = waited.iter().copied().fold(0.0, f64::max);
    let (rank, least) = waited.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let share = (most - least) / seconds;
    (share >= SLOW).then_some((rank, share))
}

/// What a program of the user's measured of a policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Benchmark {
    /// The policy.
    pub policy: String,
    /// Numbers by what they are called.
    pub results: BTreeMap<String, f64>,
    /// Time taken.
    pub seconds: f64,
}

/// Something a run read or wrote, with its hash.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Artefact {
    /// What it is, such as "data honesty" or "weights round 1".
    pub name: String,
    /// Hash as text, with its algorithm.
    pub hash: String,
}
