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
    /// The preferences that are weighed, in the order of the weights.
    pub dimensions: Vec<String>,
    /// Rank of the part that all weightings share.
    pub shared_rank: usize,
}

impl FrontSpec {
    /// Ranks of the shared and the weighed part together, where `rank` is that of the weighed one.
    pub fn total_rank(&self, rank: usize) -> usize {
        self.shared_rank + rank
    }

    /// Numbers in the core of a layer.
    pub fn core_elements(&self, rank: usize) -> usize {
        self.shared_rank.pow(2) + self.dimensions.len() * rank.pow(2)
    }

    /// Refuses what no front can have.
    pub(super) fn check(&self) -> Option<String> {
        if self.shared_rank == 0 {
            return Some("shared-rank: found 0, expected at least 1".into());
        }
        let few = self.dimensions.len() < 2;
        few.then(|| format!("a front has two dimensions or more; found {:?}", self.dimensions))
    }
}
