//! DPO on rankings: the Plackett-Luce likelihood of the order.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, list};
use super::list::{ListLogps, ListLosses, ListObjective};
use super::{Entry, Needs};
use crate::CoreError;
use crate::numerics::with_derivative;

pub(crate) const ENTRY: Entry = Entry {
    name: "plackett-luce",
    aliases: &[],
    formula: "−Σ_k log( e^{s_k} / Σ_{j≥k} e^{s_j} ),  s = β·log π/π_ref in the order of falling gains",
    gradient: "∂/∂s_i = −1 + Σ_{k≤i} e^{s_i} / Σ_{j≥k} e^{s_j}",
    when: "Full rankings of answers; two answers make it dpo.",
    limits: "Answers with equal gains count in the order in which they are given.",
    paper: "Rafailov et al. 2023, arXiv 2305.18290, appendix on the Plackett-Luce model",
    needs: Needs { scores: true, ..Needs::REFERENCE },
    options: &[BETA],
    difference_only: false,
    build: Build::List(list::<PlackettLuce>),
};

#[derive(Debug, Clone, Deserialize)]
struct PlackettLuce {
    beta: f64,
}

/// A score that no sum of exponentials notices.
pub(crate) const NOWHERE: f64 = -1e30;

impl ListObjective for PlackettLuce {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn grades(&self) -> bool {
        false
    }

    fn forward(&self, lists: &ListLogps) -> Result<ListLosses, CoreError> {
        let [rows, answers] = lists.policy.dims();
        let tracked = (lists.policy.clone() - lists.reference.clone()) * self.beta;
        let scores = tracked.clone().detach();
        // `behind[i, j]`: j is ranked at or behind i: a larger gain first, then the position.
        let (own, other) = (lists.gains.clone().unsqueeze_dim::<3>(2), lists.gains.clone().unsqueeze_dim::<3>(1));
        let shape = [rows, answers, answers];
        let (own, other) = (own.expand(shape), other.expand(shape));
        let later = Tensor::<2>::ones([answers, answers], (&scores.device(), scores.dtype())).triu(0);
        let later = later.unsqueeze::<3>().expand(shape).greater_scalar(0.5);
        let behind = own.clone().greater(other.clone()).bool_or(own.equal(other).bool_and(later));
        let real = lists.present.clone().unsqueeze_dim::<3>(1).expand(shape).greater_scalar(0.5);
        let others = scores.clone().unsqueeze_dim::<3>(1).expand(shape);
        let others = others.clone().full_like(NOWHERE).mask_where(behind.bool_and(real), others);
        let largest = others.clone().max_dim(2);
        // The largest weight of a sum is 1, beside which e^−700 is nothing, and quicker than what underflows.
        let weights = (others - largest.clone()).clamp_min(-700.0).exp();
        let sums = weights.clone().sum_dim(2);
        let terms = ((sums.clone().log() + largest).reshape([rows, answers]) - scores.clone()) * lists.present.clone();
        // Rows of padding take no part.
        let shares = weights / sums * lists.present.clone().unsqueeze_dim::<3>(2).expand(shape);
        let derivative = shares.sum_dim(1).reshape([rows, answers]) - lists.present.clone();
        let terms = with_derivative(tracked, terms, derivative);
        Ok(ListLosses { per_list: terms.sum_dim(1).reshape([rows]), reward: scores })
    }
}
