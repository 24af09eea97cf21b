//! Accuracy and mean margin of a set of pairs.

use serde::{Deserialize, Serialize};

use crate::bootstrap::{Bootstrap, TAIL, clusters};
use crate::{EvalError, PairScore};

/// Totals over a set of pairs under one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Number of pairs.
    pub pairs: usize,
    /// Number of distinct prompts, the units of the interval; equals `pairs` when prompts were not given.
    pub prompts: usize,
    /// Pairs with a positive margin; a margin of exactly zero counts one half.
    pub correct: f64,
    /// Pairs with a margin of exactly zero.
    pub tied: usize,
    /// `correct / pairs`, between 0 and 1.
    pub accuracy: f64,
    /// 95 % interval of the accuracy: percentile bootstrap over prompts. Where every pair is right, or every pair is wrong, the
    /// bootstrap has no spread and the exact binomial bound with `prompts` trials is given instead. A single prompt with
    /// mixed results says nothing about others: 0 to 1.
    pub interval: (f64, f64),
    /// Mean margin, in the unit of the score (nats for log-ratios).
    pub mean_margin: f64,
    /// Prompts all of whose pairs have a positive margin: their share is ACC+. Absent in events of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_prompts: Option<usize>,
    /// Standard error of `mean_margin`, clustered by prompt; 0 for a single prompt, where it cannot be estimated.
    pub margin_stderr: f64,
}

/// What a pair counts: 1 right, 0 wrong, ½ tied.
#[must_use]
pub fn credit(margin: f64) -> f64 {
    if margin > 0.0 {
        1.0
    } else if margin < 0.0 {
        0.0
    } else {
        0.5
    }
}

impl Tally {
    /// Tally of `pairs`, or `None` of an empty set.
    pub(crate) fn of(pairs: &[&PairScore], bootstrap: &Bootstrap) -> Result<Option<Self>, EvalError> {
        if pairs.is_empty() {
            return Ok(None);
        }
        let groups = clusters(pairs.iter().map(|pair| (pair.cluster(), [credit(pair.margin), pair.margin])));
        let count = pairs.len() as f64;
        let correct: f64 = groups.iter().map(|group| group.sums[0]).sum();
        let mean_margin = groups.iter().map(|group| group.sums[1]).sum::<f64>() / count;
        let residuals = groups.iter().map(|group| group.sums[1] - mean_margin * group.count as f64);
        let prompts = groups.len();
        let margin_stderr = standard_error(residuals, prompts, count);
        let tied = pairs.iter().filter(|pair| pair.margin == 0.0).count();
        let accuracy = correct / count;
        let [bootstrapped, _] = bootstrap.intervals(&groups)?;
        let bound = TAIL.powf(1.0 / prompts as f64);
        let interval = if accuracy == 1.0 {
            (bound, 1.0)
        } else if accuracy == 0.0 {
            (0.0, 1.0 - bound)
        } else if prompts == 1 && tied < pairs.len() {
            (0.0, 1.0)
        } else {
            bootstrapped
        };
        let whole_prompts = Some(groups.iter().filter(|group| group.sums[0] == group.count as f64).count());
        Ok(Some(Self {
            pairs: pairs.len(),
            prompts,
            correct,
            tied,
            accuracy,
            interval,
            mean_margin,
            whole_prompts,
            margin_stderr,
        }))
    }

    /// ACC+: the share of prompts all of whose pairs have a positive margin.
    #[must_use]
    pub fn accuracy_of_prompts(&self) -> Option<f64> {
        self.whole_prompts.map(|whole| whole as f64 / self.prompts as f64)
    }

    /// Whether every margin was zero, as of the start against itself.
    #[must_use]
    pub fn all_tied(&self) -> bool {
        self.tied == self.pairs
    }
}

/// Cluster-robust standard error of a mean over `count` values: `sqrt(G/(G−1) Σ_g e_g²) / count`, `e_g` the residual sum of a group.
fn standard_error(residuals: impl Iterator<Item = f64>, groups: usize, count: f64) -> f64 {
    if groups < 2 {
        return 0.0;
    }
    let squares: f64 = residuals.map(|residual| residual * residual).sum();
    (squares * groups as f64 / (groups - 1) as f64).sqrt() / count
}
