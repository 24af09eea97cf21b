//! One adapter for every weighting of several preferences, after PBLoRA (Lin et al. 2025, PARM, arXiv 2505.06274).

mod files;
mod point;

pub use crate::decoder::front_core::{FrontCore, equal};
pub use files::{CONFIG as FRONT_CONFIG, front_of};
pub use point::Weights;

pub(super) use files::{load, save};

/// What makes an adapter conditional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontSpec {
    /// What its matrices are weighed by.
    pub condition: Condition,
    /// Rank of the part that all weightings share.
    pub shared_rank: usize,
}

/// What the matrices of a conditional adapter are weighed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Weights of these preferences, one matrix for each, in the order of the weights.
    Weights(Vec<String>),
    /// What a user's contexts say: so many matrices.
    Contexts(usize),
}

impl FrontSpec {
    /// Matrices that are weighed.
    pub fn matrices(&self) -> usize {
        match &self.condition {
            Condition::Weights(dimensions) => dimensions.len(),
            Condition::Contexts(matrices) => *matrices,
        }
    }

    /// The preferences that are weighed; none where contexts say how.
    pub fn dimensions(&self) -> &[String] {
        match &self.condition {
            Condition::Weights(dimensions) => dimensions,
            Condition::Contexts(_) => &[],
        }
    }

    /// Ranks of the shared and the weighed part together, where `rank` is that of the weighed one.
    pub fn total_rank(&self, rank: usize) -> usize {
        self.shared_rank + rank
    }

    /// Numbers in the core of a layer.
    pub fn core_elements(&self, rank: usize) -> usize {
        self.shared_rank.pow(2) + self.matrices() * rank.pow(2)
    }

    /// Refuses what no front can have.
    pub(super) fn check(&self) -> Option<String> {
        if self.shared_rank == 0 {
            return Some("shared-rank: found 0, expected at least 1".into());
        }
        match &self.condition {
            _ if self.matrices() >= 2 => None,
            Condition::Weights(found) => Some(format!("a front has two dimensions or more; found {found:?}")),
            Condition::Contexts(found) => Some(format!("components: found {found}, expected at least 2")),
        }
    }
}
