//! The named scores a pair's margin can be measured in. They answer different questions and are reported apart.

use serde::{Deserialize, Serialize};

/// What a margin measures; `Δf = f(chosen) − f(rejected)`, `π_0` the start, `π_n` the scored policy.
///
/// Source: Sequential Preference Optimization, arXiv 2405.12739; the recursion is the inverse of the round's closed form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScoreKind {
    /// `Δ log(π_n/π_0)`, without a coefficient: the scale of the main table.
    #[default]
    LogRatio,
    /// `α_n Δ log(π_n/π_{n−1})`: the round's own step.
    RoundReward,
    /// `Δr̂_n = α_n Δ log(π_n/π_{n−1}) − Σ_i λ_{n,i} Δr̂_i`: the reward the round's loss fits.
    ImplicitReward,
    /// `β Δ log(π_n/π_0)`: everything since the start.
    TotalReward,
    /// `Δr` of a reward model: the scale of its main table.
    Reward,
}

impl ScoreKind {
    /// Every kind, in the order of the report.
    pub const ALL: [Self; 5] =
        [Self::LogRatio, Self::RoundReward, Self::ImplicitReward, Self::TotalReward, Self::Reward];

    /// Whether it is the scale of a main table.
    #[must_use]
    pub fn is_main(self) -> bool {
        matches!(self, Self::LogRatio | Self::Reward)
    }

    /// The formula as plain text.
    #[must_use]
    pub fn formula(self) -> &'static str {
        match self {
            Self::LogRatio => "log π_n/π_0",
            Self::RoundReward => "α log π_n/π_{n−1}",
            Self::ImplicitReward => "r̂_n",
            Self::TotalReward => "β log π_n/π_0",
            Self::Reward => "r",
        }
    }

    /// The question this score answers.
    #[must_use]
    pub fn question(self) -> &'static str {
        match self {
            Self::LogRatio => "which answer did all training so far make likelier, relative to the start?",
            Self::RoundReward => "which answer did this round alone make likelier?",
            Self::ImplicitReward => "does the reward that this round fitted rank the pair as labelled?",
            Self::Reward => "does the reward model rank the pair as labelled?",
            Self::TotalReward => "how large is the whole change since the start, in units of reward?",
        }
    }
}
