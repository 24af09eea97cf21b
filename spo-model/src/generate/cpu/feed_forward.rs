//! A block's feed-forward part on a few rows: one block for all, or the experts of each row. A row's result has the same
//! bits whatever rows run beside it.

use super::weights::{FeedForward, Gated, Use};
use crate::ModelSpec;
use crate::decoder::experts::Routing;
use crate::spec::{Activation, ExpertsSpec};
use spo_kernels::cpu::decode::Rows;
use spo_kernels::cpu::decode::elementwise::{Gate, gated};

impl FeedForward {
    /// `[rows, hidden]` → `[rows, hidden]`
    pub fn forward(&self, x: &Rows, spec: &ModelSpec, weights: Use) -> Rows {
        let gate = match spec.activation {
            Activation::Silu => Gate::Silu,
            Activation::Clamped { alpha, limit } => Gate::Clamped { alpha: alpha as f32, limit: limit as f32 },
            _ => Gate::GeluTanh,
        };
        let (Self::Experts { router, experts, shared }, Some(of)) = (self, &spec.experts) else {
            let Self::Dense(block) = self else { unreachable!("experts have a spec") };
            return block.forward(x, gate, weights);
        };
        let scores = router.forward(x, Use::Full);
        let mut y = mixed(x, &scores, experts, of, |block, x| block.forward(x, gate, weights));
        if let Some((block, amount)) = shared {
            let (given, amount) = (block.forward(x, gate, weights), amount.forward(x, Use::Full));
            for (row, y) in y.rows_mut().enumerate() {
                let factor = 1.0 / (1.0 + (-amount.row(row)[0]).exp());
                y.iter_mut().zip(given.row(row)).for_each(|(y, given)| *y += factor * given);
            }
        }
        y
    }
}

impl Gated {
    fn forward(&self, x: &Rows, gate: Gate, weights: Use) -> Rows {
        self.down.forward(&gated(&self.gate_up.forward(x, weights), gate), weights)
    }
}

/// What the experts of each row give, weighted.
fn mixed(x: &Rows, scores: &Rows, experts: &[Gated], of: &ExpertsSpec, run: impl Fn(&Gated, &Rows) -> Rows) -> Rows {
    let flat: Vec<f32> = (0..scores.len()).flat_map(|row| scores.row(row).iter().copied()).collect();
    let routing = Routing::new(&flat, of.count, of.active);
    let mut y = Rows::new(x.len(), x.width());
    for (index, (expert, tokens)) in experts.iter().zip(&routing.tokens).enumerate() {
        if tokens.is_empty() {
            continue;
        }
        let mut own = Rows::new(tokens.len(), x.width());
        own.rows_mut().zip(tokens).for_each(|(own, token)| own.copy_from_slice(x.row(*token)));
        let given = run(expert, &own);
        for (row, token) in tokens.iter().enumerate() {
            let weight = share(scores.row(*token), index, routing.experts_of(*token, of), of.renormalised);
            y.row_mut(*token).iter_mut().zip(given.row(row)).for_each(|(y, given)| *y += weight * given);
        }
    }
    y
}

/// The weight of an expert among the chosen ones, or among all.
fn share(scores: &[f32], expert: usize, chosen: impl Iterator<Item = usize>, renormalised: bool) -> f32 {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |score: f32| (score - top).exp();
    let sum: f32 = match renormalised {
        true => chosen.map(|expert| exp(scores[expert])).sum(),
        false => scores.iter().map(|score| exp(*score)).sum(),
    };
    exp(scores[expert]) / sum
}
