//! Ordinal preference optimisation: a smooth NDCG of the policy's ranking.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, list};
use super::list::{ListLogps, ListLosses, ListObjective};
use super::options::{ANY, NON_NEGATIVE, OptionDoc};
use super::plackett_luce::NOWHERE;
use super::{Entry, Needs};
use crate::CoreError;
use crate::numerics::sigmoid;

pub(crate) const ENTRY: Entry = Entry {
    name: "opo",
    aliases: &[],
    formula: "1 − NDCG(s, 2^ψ − 1),  s = β·log π/π_ref; ApproxNDCG: rank_i = 1 + Σ_{j≠i} σ(α·(s_j − s_i)); NeuralNDCG: gains sorted by a relaxed permutation",
    gradient: "that of the smooth ranks (approx) or of the relaxed permutation (neural)",
    when: "Answers have graded labels ψ and the top of the list matters most.",
    limits: "The gradient vanishes where the order is settled; lists whose gains are all zero give 0.",
    paper: "Zhao et al. 2024, arXiv 2410.04346",
    needs: Needs { scores: true, ..Needs::REFERENCE },
    options: &[
        BETA,
        OptionDoc {
            key: "variant",
            default: "\"approx\"",
            meaning: "`approx` (ApproxNDCG) or `neural` (NeuralNDCG)",
            source: "the simpler of the paper's two",
            range: ANY,
            choices: &["approx", "neural"],
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "alpha",
            default: "25.0",
            meaning: "steepness α of the smooth ranks (approx)",
            source: "the paper",
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "tau",
            default: "1.0",
            meaning: "temperature τ of the relaxed permutation (neural)",
            source: "NeuralSort's neutral value",
            ..OptionDoc::POSITIVE
        },
        OptionDoc {
            key: "sinkhorn",
            default: "50",
            meaning: "steps that make the relaxed permutation doubly stochastic (neural)",
            source: "NeuralNDCG, Pobrotyn & Białobrzeski 2021, arXiv 2102.07831",
            range: NON_NEGATIVE,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: false,
    build: Build::List(list::<Opo>),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Variant {
    Approx,
    Neural,
}

#[derive(Debug, Clone, Deserialize)]
struct Opo {
    beta: f64,
    variant: Variant,
    alpha: f64,
    tau: f64,
    sinkhorn: usize,
}

/// `ln 2 / ln(1 + rank)`.
fn discount(rank: Tensor<2>) -> Tensor<2> {
    (rank + 1.0).log().recip() * std::f64::consts::LN_2
}

/// The ranks 1 … n as a row `[1, n]`.
fn ranks(like: &Tensor<2>) -> Tensor<2> {
    let [_, answers] = like.dims();
    Tensor::ones([1, answers], (&like.device(), like.dtype())).cumsum(1)
}

/// `matrix` with sums of one along `dimension`; sums that are all but zero (padding, underflow) stay.
fn scaled(matrix: Tensor<3>, dimension: usize) -> Tensor<3> {
    let sums = matrix.clone().sum_dim(dimension);
    let empty = sums.clone().detach().lower_scalar(1e-6);
    matrix / sums.mask_fill(empty, 1.0)
}

impl Opo {
    /// `Σ gain · discount(smooth rank)`, `[lists, 1]`.
    fn approx(&self, scores: Tensor<2>, gains: Tensor<2>, present: Tensor<2>) -> Tensor<2> {
        let [rows, answers] = scores.dims();
        let shape = [rows, answers, answers];
        let own = scores.clone().unsqueeze_dim::<3>(2).expand(shape);
        let other = scores.unsqueeze_dim::<3>(1).expand(shape);
        let above = sigmoid((other - own) * self.alpha) * present.unsqueeze_dim::<3>(1).expand(shape);
        // Every answer counts itself with σ(0) = ½, so the sum is one half short of the rank.
        let rank = above.sum_dim(2).reshape([rows, answers]) + 0.5;
        (gains * discount(rank)).sum_dim(1)
    }

    /// `Σ_k discount(k) · (P̂ gains)_k`, `[lists, 1]`, with NeuralSort's P̂ (Grover et al. 2019, arXiv 1903.08850).
    fn neural(&self, scores: Tensor<2>, gains: Tensor<2>, present: Tensor<2>) -> Tensor<2> {
        let [rows, answers] = scores.dims();
        let shape = [rows, answers, answers];
        let columns = present.clone().unsqueeze_dim::<3>(1).expand(shape);
        let count = present.sum_dim(1);
        let position = ranks(&scores).expand([rows, answers]);
        let distance = (scores.clone().unsqueeze_dim::<3>(1).expand(shape)
            - scores.clone().unsqueeze_dim::<3>(2).expand(shape))
        .abs();
        let spread = (distance * columns.clone()).sum_dim(2).reshape([rows, 1, answers]).expand(shape);
        let coefficient = count.clone() + 1.0 - position.clone() * 2.0;
        let logits =
            coefficient.unsqueeze_dim::<3>(2).expand(shape) * scores.unsqueeze_dim::<3>(1).expand(shape) - spread;
        let logits = logits * self.tau.recip() + (columns - 1.0) * -NOWHERE;
        let logits = logits.clone() - logits.detach().max_dim(2);
        let weights = logits.exp();
        let real = position.lower_equal(count.expand([rows, answers])).float().cast(gains.dtype());
        let mut relaxed = weights.clone() / weights.sum_dim(2) * real.unsqueeze_dim::<3>(2).expand(shape);
        for _ in 0..self.sinkhorn {
            relaxed = scaled(relaxed, 1);
            relaxed = scaled(relaxed, 2);
        }
        let sorted = (relaxed * gains.unsqueeze_dim::<3>(1).expand(shape)).sum_dim(2).reshape([rows, answers]);
        (sorted.clone() * discount(ranks(&sorted)).expand([rows, answers])).sum_dim(1)
    }
}

impl ListObjective for Opo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn grades(&self) -> bool {
        true
    }

    fn forward(&self, lists: &ListLogps) -> Result<ListLosses, CoreError> {
        let [rows, answers] = lists.policy.dims();
        let scores = (lists.policy.clone() - lists.reference.clone()) * self.beta;
        let reward = scores.clone().detach();
        let gains = (lists.gains.clone() * std::f64::consts::LN_2).exp() - 1.0;
        let ideal = gains.clone().sort_descending(1) * discount(ranks(&gains)).expand([rows, answers]);
        let ideal = ideal.sum_dim(1);
        let found = match self.variant {
            Variant::Approx => self.approx(scores, gains, lists.present.clone()),
            Variant::Neural => self.neural(scores, gains, lists.present.clone()),
        };
        let without_gain = ideal.clone().lower_equal_scalar(0.0);
        let loss = (-found / ideal.clamp_min(1e-30) + 1.0).mask_fill(without_gain, 0.0);
        Ok(ListLosses { per_list: loss.reshape([rows]), reward })
    }
}
