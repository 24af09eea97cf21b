//! Per-dimension tallies, regression of earlier rounds, intervals and reports
pub mod bootstrap;
mod distribution;
mod error;
mod pairwise;
pub mod pareto;
mod regression;
mod sampling;
mod score;
mod summary;
mod tally;

pub use bootstrap::Bootstrap;
pub use distribution::{Distribution, SATURATION};
pub use error::EvalError;
pub use pairwise::{DimensionScore, PairScore, Subset, score_dimension};
pub use regression::{
    Forgetting, PairedDifference, dimensions, find_score, forgetting, paired_difference, policies,
};
pub use sampling::{KlEstimate, estimate_kl};
pub use score::ScoreKind;
pub use summary::{
    Artefact, ConflictCount, CurvePoint, DataSummary, ModelSummary, Phase, RoundSummary,
    RunSummary, SCHEMA, Sample, Setting,
};
pub use tally::Tally;
