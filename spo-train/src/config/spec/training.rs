//! `[training]`, the defaults of all rounds, and `[warmup]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[training]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TrainingSpec {
    /// Length in optimiser steps. Excludes `epochs`.
    #[schemars(range(min = 1))]
    pub steps: Option<u64>,
    /// Length in passes over the round's pairs; may be a fraction. Excludes `steps`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub epochs: Option<f64>,
    /// Pairs averaged into one optimiser step (a batch), whatever the micro-batches are.
    #[schemars(range(min = 1))]
    pub pairs_per_step: Option<usize>,
    /// Most tokens computed at once; a batch is split into micro-batches that fit. Changes memory and speed, not results.
    /// 0 = 512 on the CPU, which is as fast there as more, and 4096 on a GPU.
    pub tokens_per_micro_batch: Option<usize>,
    /// What changes the weights. `adamw` goes by gradients. `mezo` and `subzero` go by losses alone: no backward pass runs,
    /// training takes hardly more memory than scoring, and many times the steps; dropout, clipping and weight decay are off.
    pub optimizer: Option<OptimizerName>,
    /// Of `subzero`: rank of the subspace that each matrix moves in, at most its shorter side (arXiv 2410.08989).
    #[schemars(range(min = 1))]
    pub zo_rank: Option<usize>,
    /// Of `subzero`: optimiser steps in one subspace, before the next is drawn and the sum goes into the weights.
    #[schemars(range(min = 1))]
    pub zo_refresh: Option<u64>,
    /// Of `mezo` and `subzero`: how far to both sides of the weights the loss is looked at. Without `[lora]` 1e-3, with
    /// `[lora]` 1e-2 (arXiv 2305.17333).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub zo_eps: Option<f64>,
    /// Of `mezo` and `subzero`: directions that a step takes the mean of, of two passes over the batch each.
    #[schemars(range(min = 1))]
    pub zo_estimates: Option<usize>,
    /// Of `mezo` and `subzero`: decay of the sum of earlier steps' estimates; of `subzero` within one subspace. `mezo` keeps
    /// the sum for every trained weight.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub zo_momentum: Option<f64>,
    /// Of `mezo` and `subzero`: what the slope along a direction is of. `loss`: of the batch's mean loss. `pairs`: of each
    /// answer's log-prob, times the loss's derivative half-way between both sides, so that the curvature of the loss falls out; for
    /// losses on log-probs alone.
    pub zo_slopes: Option<Slopes>,
    /// Peak learning rate. Without `[lora]` 5e-6, with `[lora]` 5e-5; in `[warmup]` 2e-5 and 2e-4. Of `mezo` and `subzero`
    /// 1e-6, with `[lora]` 1e-4 (arXiv 2305.17333).
    #[schemars(range(min = 0))]
    pub learning_rate: Option<f64>,
    /// Course of the learning rate after its warm-up. Of `mezo` and `subzero` it is `constant`, without a warm-up, unless
    /// these keys say otherwise.
    pub schedule: Option<Schedule>,
    /// Steps over which the learning rate rises linearly from 0. Excludes `warmup-ratio`.
    pub warmup_steps: Option<u64>,
    /// The same as a share of the round's steps, rounded up. Excludes `warmup-steps`.
    #[schemars(range(min = 0, max = 1))]
    pub warmup_ratio: Option<f64>,
    /// Learning rate that the schedule ends at, one step after the last, as a share of the peak; `constant` ignores it.
    #[schemars(range(min = 0, max = 1))]
    pub final_learning_rate_ratio: Option<f64>,
    /// AdamW's decoupled weight decay.
    #[schemars(range(min = 0))]
    pub weight_decay: Option<f64>,
    /// AdamW's decay rates of the first and second moment, each in [0, 1).
    #[schemars(extend("items" = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}))]
    pub adam_betas: Option<[f64; 2]>,
    /// AdamW's addend to the denominator.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub adam_eps: Option<f64>,
    /// Global gradient norm is clipped to this, after averaging over the batch; 0 = no clipping.
    #[schemars(range(min = 0))]
    pub max_grad_norm: Option<f64>,
    /// Draw the pairs in a new random order each epoch (a function of seed, round and epoch); false = file order.
    pub shuffle: Option<bool>,
    /// Recompute activations in the backward pass to save memory. Gradients are the same.
    pub recompute: Option<Recompute>,
    /// Update each block with its gradient as soon as that is there, and free it: gradients take the memory of one block, or
    /// of the embedding if that is larger. A batch is one micro-batch then, whatever `tokens-per-micro-batch` says. Needs
    /// `max-grad-norm = 0`, as the global norm is known at the end only, and no `[lora]`.
    pub update_in_backward: Option<bool>,
    /// Weight of the loss that spreads tokens over the experts of a mixture (arXiv 2101.03961, eq. 4), beside the round's own
    /// loss, which is reported without it; 0 = none. Models without experts refuse it.
    #[schemars(range(min = 0))]
    pub router_loss: Option<f64>,
    /// Rows per chunk of the log-prob head; 0 = chosen so that a chunk's logits take at most 64 MiB.
    pub head_chunk_rows: Option<usize>,
    /// Optimiser steps between two evaluations on the held-out pairs while the round goes on, and one more after the last step;
    /// 0 = none. Each costs one pass over the held-out pairs without gradients.
    pub eval_every: Option<u64>,
    /// End the round when it gets no better at `eval-every`'s evaluations, and go back to its best policy:
    /// `early-stopping = { metric = "accuracy", dimension = "honesty", patience = 3 }`.
    pub early_stopping: Option<EarlyStoppingSpec>,
    /// KL budget: end the round when the sampled KL divergence to the policy it started from exceeds this many nats per
    /// response at one of `eval-every`'s evaluations, and go back to the last policy within it; 0 = no budget. Each look then also
    /// samples `kl-samples` responses, and reads the starting policy again.
    #[schemars(range(min = 0))]
    pub max_kl: Option<f64>,
}

/// What changes the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerName {
    /// AdamW (arXiv 1711.05101), by gradients.
    #[default]
    Adamw,
    /// MeZO (arXiv 2305.17333): by losses at both sides of the weights along a random direction of all of them.
    Mezo,
    /// SubZero (arXiv 2410.08989): as MeZO, in a random low-rank subspace of each matrix of the blocks, or of each factor
    /// of `[lora]`.
    Subzero,
}

/// What a zeroth-order optimiser takes the slope of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Slopes {
    /// The mean loss.
    #[default]
    Loss,
    /// Each answer's log-prob.
    Pairs,
}

impl OptimizerName {
    /// Whether it goes by losses alone.
    pub fn is_zeroth_order(self) -> bool {
        self != Self::Adamw
    }
}

/// When a round ends early.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EarlyStoppingSpec {
    /// What must get better; default `loss`, the round's own loss on held-out pairs.
    pub metric: Option<StoppingMetric>,
    /// Whose held-out pairs `accuracy` and `margin` are measured on; default the round's dimension.
    pub dimension: Option<String>,
    /// Evaluations without a new best before the round ends; default 3.
    #[schemars(range(min = 1))]
    pub patience: Option<usize>,
}

/// What early stopping looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StoppingMetric {
    /// Loss on the held-out pairs of the round's dimension: lower is better.
    Loss,
    /// Share of a dimension's held-out pairs with a positive margin.
    Accuracy,
    /// Mean margin `Δ log(π/π_0)` of a dimension's held-out pairs.
    Margin,
}

/// Course of the learning rate between its warm-up and the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Half a cosine from the peak down to the final ratio.
    Cosine,
    /// A straight line from the peak down to the final ratio.
    Linear,
    /// The peak throughout.
    Constant,
}

/// What is computed a second time in the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// Nothing: fastest, most memory.
    None,
    /// Each decoder block: keeps only the blocks' inputs.
    Blocks,
    /// Every second block.
    #[serde(rename = "every-2")]
    EverySecond,
    /// Every fourth block.
    #[serde(rename = "every-4")]
    EveryFourth,
    /// Blocks where the activations of a micro-batch would take more than 2 GiB.
    Auto,
}

/// `[warmup]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct WarmupSpec {
    /// Dimensions whose preferred answers are learnt; default: those of all rounds.
    #[schemars(length(min = 1))]
    pub dimensions: Option<Vec<String>>,
    /// Overrides of `[training]`.
    #[serde(flatten)]
    pub training: TrainingSpec,
}
