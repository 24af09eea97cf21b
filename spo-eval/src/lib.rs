//! What a preference-trained policy gained and lost: accuracy and margins per dimension with honest intervals, forgetting of earlier
//! dimensions, sampled KL divergence, Pareto fronts, and reports.
//!
//! Everything here works on plain numbers. Log-probabilities come from elsewhere; this crate loads no model and prints nothing.
//!
//! ```
//! use spo_eval::{Bootstrap, PairScore, RunSummary, Subset, report, score_dimension};
//!
//! // Δ log(π/π_0) of four held-out pairs; the second contradicts the other dimension's label.
//! let margins = [2.0, -1.5, 0.7, 3.1];
//! let pairs: Vec<PairScore> = margins
//!     .iter()
//!     .enumerate()
//!     .map(|(example, &margin)| PairScore { example, margin, agreeing: Some(example != 1), ..PairScore::default() })
//!     .collect();
//! let score = score_dimension("round 1", "honesty", &pairs, &Bootstrap::default())?;
//! let all = score.tally(Subset::All).expect("four pairs");
//! assert_eq!((all.pairs, all.accuracy), (4, 0.75));
//!
//! let summary = RunSummary { name: "example".to_owned(), matrix: vec![score], ..RunSummary::default() };
//! assert!(report::markdown(&summary).contains("75.0"));
//! # Ok::<(), spo_eval::EvalError>(())
//! ```

mod answers;
pub mod bootstrap;
mod by_prompt;
mod degrees;
mod distribution;
mod error;
mod front;
mod gradients;
mod hold;
mod number;
mod pair;
mod pairwise;
pub mod pareto;
mod regression;
pub mod report;
mod sampling;
mod score;
mod steer;
pub mod study;
mod summary;
mod sweep;
mod tally;
mod verdict;
mod win_rate;

pub use answers::{AnswerScores, OnlinePairs};
pub use bootstrap::Bootstrap;
pub use by_prompt::PromptTally;
pub use degrees::{DegreeScore, length_accuracy};
pub use distribution::{Distribution, SATURATION};
pub use error::EvalError;
pub use front::{FrontPoint, FrontSummary, front_weights, score_front};
pub use gradients::GradientGram;
pub use hold::{HoldPoint, HoldSummary};
pub use pair::PairScore;
pub use pairwise::{DimensionScore, Subset, score_dimension};
pub use regression::{Forgetting, PairedDifference, dimensions, find_score, forgetting, paired_difference, policies};
pub use sampling::{KlEstimate, estimate_kl};
pub use score::ScoreKind;
pub use steer::{OpposedPair, Steer, SteerArm, SteeredScores, steer, with_shuffled_labels, without_condition};
pub use summary::{
    Artefact, Benchmark, ConflictCount, CurvePoint, DataSummary, Evaluation, GateCheck, GateOutcome, GateSummary,
    ModelSummary, Phase, ProcessCost, RoundSummary, RunSummary, SCHEMA, Sample, Setting, slow_process,
};
pub use sweep::{FinishedRun, SweepRun, SweepSummary};
pub use tally::{Tally, credit};
pub use verdict::verdict;
pub use win_rate::{Duel, WinRate, win_rate};
