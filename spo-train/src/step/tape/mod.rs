//! The only place where gradients are switched on, and the only one that calls `backward`.
//!
//! A tape spans one module at a time: the backward pass goes block by block, so a block's
//! activations live no longer than its own step. With [`Recompute::Blocks`] they are not even stored
//! in the forward pass: the block runs again on its saved input. Both run the same operations
//! in the same order and give the same bits.

mod block;
mod layer_inputs;
mod lifted;
mod steering;
mod value_head;

use crate::step::gradients::{Gradients, Trainable};
use block::{BlockTape, spread};
use burn::tensor::{Tensor, TensorData};
pub use lifted::module_gradients;
use lifted::{collect, lift};
use spo_core::logprob::divergence::{Head, token_kl_backward};
use spo_core::logprob::{HeadGradient, HeadOptions, HeadPass, token_logps};
use spo_data::PackedBatch;
use spo_kernels::host::read;
use spo_model::CausalLm;
use spo_model::decoder::{Balance, Block, PackedInputs, pull};
use spo_model::layer_inputs::{Embedded, TABLE};

/// The path of a head of its own.
const HEAD: &str = "lm_head.weight";
/// The embedding table's path.
const EMBEDDING: &str = "embed_tokens.weight";
/// That of the learned positions.
const POSITIONS: &str = "embed_positions.weight";

/// Which decoder blocks drop their activations and run a second time in the backward pass, with the same bits as a
/// result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recompute {
    /// None: fastest, most memory.
    #[default]
    None,
    /// All: only the blocks' inputs are in memory.
    Blocks,
    /// Every second block.
    EverySecond,
    /// Every fourth block.
    EveryFourth,
}

impl Recompute {
    /// Whether the block of this index keeps its activations.
    pub fn keeps(self, layer: usize) -> bool {
        match self {
            Self::None => true,
            Self::Blocks => false,
            Self::EverySecond => layer % 2 == 1,
            Self::EveryFourth => !layer.is_multiple_of(4),
        }
    }
}

/// How a micro-batch is differentiated.
#[derive(Debug, Clone, Default)]
pub struct TapeOptions {
    /// Which blocks run again in the backward pass.
    pub recompute: Recompute,
    /// What is trained.
    pub trainable: Trainable,
    /// The log-prob head.
    pub head: HeadOptions,
    /// Weight of the loss that spreads tokens over the experts of a mixture; 0 leaves it out. It counts the blocks from the
    /// first trained one on, and is no part of what a loss is given.
    pub router_loss: f64,
}

impl TapeOptions {
    /// For the loss times a factor: what of it is no part of what a loss is given.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { router_loss: self.router_loss * factor, ..self }
    }
}

/// What the head gives for a micro-batch.
///
/// # Shapes
/// A *row* is a token that is predicted, in the order of [`PackedBatch::targets`].
#[derive(Debug)]
pub struct Scored<'a> {
    /// `log p(target)` in nats, `[rows]`.
    pub logps: &'a [f32],
    /// What the score head gives, `[values]`: its scores of each answer of a batch for a score head, in their order.
    pub values: &'a [f32],
    /// Final hidden states, `[rows, hidden]`; behind them those that the score head reads.
    pub hidden: &'a Tensor<2>,
    /// The head's weight, `[vocab, hidden]`.
    pub weight: &'a Tensor<2>,
    /// The batch on the model's device.
    pub inputs: &'a PackedInputs,
    /// How the head computes.
    pub head: &'a HeadOptions,
}

/// The gradient of a loss with respect to what the head gives.
#[derive(Debug, Clone)]
pub struct LogpGradients {
    /// With respect to each `log p(target)`, `[rows]`.
    pub logps: Vec<f32>,
    /// With respect to each of the score head's values, `[values]`.
    pub values: Vec<f32>,
    /// Whether the values say nothing to the policy: only the score head learns from them.
    pub head_only: bool,
    /// With respect to each row's `KL(reference ‖ policy)` over the vocabulary, where the loss looks at that.
    pub divergence: Option<DivergenceGradients>,
}

/// See [`LogpGradients::divergence`].
#[derive(Debug, Clone)]
pub struct DivergenceGradients {
    /// The reference's hidden states of the same rows, `[rows, hidden]`, and its head, `[vocab, hidden]`.
    pub reference: Head,
    /// `[rows]`
    pub rows: Vec<f32>,
}

impl LogpGradients {
    /// Those of the loss times a factor.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        if factor != 1.0 {
            let rows = self.divergence.as_mut().map(|divergence| &mut divergence.rows);
            let all = [Some(&mut self.logps), Some(&mut self.values), rows];
            all.into_iter().flatten().flatten().for_each(|gradient| *gradient *= factor as f32);
        }
        self
    }
}

impl From<Vec<f32>> for LogpGradients {
    fn from(logps: Vec<f32>) -> Self {
        Self { logps, values: vec![], head_only: false, divergence: None }
    }
}

/// Runs one micro-batch forward without a tape and hands over what the head gives.
///
/// # Shapes
/// Those of [`Scored`].
pub fn observe<T>(model: &CausalLm, batch: &PackedBatch, head: &HeadOptions, f: impl FnOnce(&Scored) -> T) -> T {
    let inputs = PackedInputs::new(batch, model.spec(), &model.device());
    let (hidden, weight) = (model.hidden(&inputs), model.head_weight());
    let head = &model.spec().head(head);
    let Rows { predicting, read } = Rows::of(&hidden, &inputs);
    let logps = predicting.map(|rows| token_logps(rows, weight.clone(), inputs.targets.clone(), head));
    let (logps, values) = (logps.map_or(vec![], host), read.map_or(vec![], |read| value_head::forward(model, read)));
    f(&Scored { logps: &logps, values: &values, hidden: &hidden, weight: &weight, inputs: &inputs, head })
}

/// [`differentiate_scored`] for a loss that looks at the log-probs of the targets alone.
///
/// # Shapes
/// - log-probs and the gradient with respect to them: `[rows]`
///
/// # Errors
/// What `logp_gradients` returns; nothing is added then.
pub fn differentiate<E>(
    model: &CausalLm,
    batch: &PackedBatch,
    options: &TapeOptions,
    gradients: &mut Gradients,
    logp_gradients: impl FnOnce(&[f32]) -> Result<Vec<f32>, E>,
) -> Result<(), E> {
    differentiate_scored(model, batch, options, gradients, |scored| {
        logp_gradients(scored.logps).map(LogpGradients::from)
    })
}

/// Runs one micro-batch forward, asks `logp_gradients` for the derivative of the loss with respect to each
/// token log-prob, and adds the gradients of all trained parameters to `gradients`.
///
/// # Shapes
/// - what `logp_gradients` is given and returns: [`Scored`] and [`LogpGradients`], `[rows]`
/// - each of the gradients: flat, `[elements]` of its parameter
///
/// # Errors
/// What `logp_gradients` returns; nothing is added then.
pub fn differentiate_scored<E>(
    model: &CausalLm,
    batch: &PackedBatch,
    options: &TapeOptions,
    gradients: &mut Gradients,
    logp_gradients: impl FnOnce(&Scored) -> Result<LogpGradients, E>,
) -> Result<(), E> {
    differentiate_in_parts(model.clone(), batch, options, gradients, logp_gradients, |model, _| Ok(model)).map(|_| ())
}

/// As [`differentiate_scored`], and calls `part_done` whenever the gradients of a part of the model are complete: of a
/// head of its own, the final norm, each block from the last to the first, the embedding. It may take them and change
/// these parameters: no gradient that is still to come depends on them. If `model` has the only handle of its weights,
/// they can be changed in their own memory.
///
/// # Errors
/// What `logp_gradients` or `part_done` returns.
pub fn differentiate_in_parts<E>(
    mut model: CausalLm,
    batch: &PackedBatch,
    options: &TapeOptions,
    gradients: &mut Gradients,
    logp_gradients: impl FnOnce(&Scored) -> Result<LogpGradients, E>,
    mut part_done: impl FnMut(CausalLm, &mut Gradients) -> Result<CausalLm, E>,
) -> Result<CausalLm, E> {
    let device = model.device();
    let inputs = PackedInputs::new(batch, model.spec(), &device);
    let lowest = lowest_trained(&model, options.trainable);

    // Every token of the last block counts for the balance.
    let (blocks, in_rows) = (model.layers.len(), model.ends_in_rows() && options.router_loss == 0.0);
    let rows_of = |layer| (in_rows && layer + 1 == blocks).then(|| inputs.score_rows.clone());

    let Embedded { mut x, own } = model.embed(inputs.ids.clone(), inputs.positions.clone());
    let through_own = trains_embedding(options.trainable) && model.layer_inputs.is_some();
    let (embedded, mut d_own) = (through_own.then(|| x.clone()), vec![]);
    let own_of = |layer| {
        let own = own.of(layer)?;
        Some(if through_own { own.autodiff().require_grad() } else { own })
    };
    let (mut steps, mut balance) = (vec![], Balance::default());
    for (layer, block) in model.layers.iter().enumerate() {
        if layer < lowest {
            x = match rows_of(layer) {
                Some(rows) => block.forward_rows(x, own.of(layer), &inputs.rope, &mut inputs.attention(), rows),
                None => block.forward(x, own.of(layer), &inputs.rope, &mut inputs.attention()),
            };
            continue;
        }
        // With a tape even if it is dropped at once: without one, fused operations round differently.
        let tape = BlockTape::record(block, layer, (x, own_of(layer)), &inputs, rows_of(layer), options.trainable);
        if let (Some(experts), Some(scores)) = (&block.moe, tape.scores.as_ref().filter(|_| options.router_loss != 0.0))
        {
            balance.add(experts, scores);
        }
        x = tape.output.clone().inner();
        steps.push(if options.recompute.keeps(layer) { Step::Tape(tape) } else { Step::Input(tape.input.inner()) });
    }

    let shape = x.dims();
    let rows = if in_rows { x } else { x.select(0, inputs.score_rows.clone()) };
    let HeadGradient { hidden: d_hidden, weight } =
        head_backward(&model, model.norm.forward(rows.clone()), &inputs, options, gradients, logp_gradients)?;
    // The gradient of a shared weight is complete at the embedding only.
    let shared = match weight {
        Some(sum) if model.lm_head.is_some() => {
            gradients.add(HEAD, sum);
            model = part_done(model, gradients)?;
            None
        }
        shared => shared,
    };
    let d_rows = norm_backward(&model, rows, d_hidden, options.trainable, gradients);
    model = part_done(model, gradients)?;
    let mut d_x = if in_rows { d_rows } else { spread(d_rows, &inputs.on_host.score_rows, shape[0]) };
    for (layer, step) in steps.into_iter().enumerate().rev().map(|(index, step)| (index + lowest, step)) {
        let tape = match step {
            Step::Tape(tape) => tape,
            Step::Input(x) => {
                let given = (x, own_of(layer));
                BlockTape::record(&model.layers[layer], layer, given, &inputs, rows_of(layer), options.trainable)
            }
        };
        let scores = tape.scores.clone().filter(|_| options.router_loss != 0.0);
        let d_scores = scores.map(|scores| balance.gradient(options.router_loss, scores));
        let of_own;
        (d_x, of_own) = tape.backward(layer, (d_x, d_scores), &inputs, options.trainable, gradients);
        d_own.extend(of_own);
        model = part_done(model, gradients)?;
    }
    if let Some(sum) = shared {
        gradients.add(EMBEDDING, sum);
    }
    if let (Some(layer_inputs), Some(x)) = (&model.layer_inputs, embedded) {
        d_own.reverse();
        d_x = d_x + layer_inputs::backward(&model, layer_inputs, (x, &inputs), d_own, options.trainable, gradients);
    }
    if trains_embedding(options.trainable) {
        embedding_backward(&model, &inputs, d_x, options.trainable, gradients);
        model = part_done(model, gradients)?;
    }
    steering::backward(&model, options.trainable, gradients);
    Ok(model)
}

/// Runs the head on hidden states `[rows, hidden]`, asks for the gradient, and runs backward. The weight's gradient is
/// returned with its sum of `gradients`.
fn head_backward<E>(
    model: &CausalLm,
    hidden: Tensor<2>,
    inputs: &PackedInputs,
    options: &TapeOptions,
    gradients: &mut Gradients,
    logp_gradients: impl FnOnce(&Scored) -> Result<LogpGradients, E>,
) -> Result<HeadGradient, E> {
    let weight = model.head_weight();
    let name = if model.lm_head.is_some() { HEAD } else { EMBEDDING };
    let train_head = options.trainable.contains(name);
    let head_options = model.spec().head(&options.head);
    let Rows { predicting, read } = Rows::of(&hidden, inputs);
    let pass = |rows| HeadPass::new(rows, weight.clone(), inputs.targets.clone(), train_head, &head_options);
    let head = predicting.map(pass);
    let logps: Vec<f32> = head.as_ref().map_or(vec![], |head| host(head.logps.clone()));
    let values = read.clone().map_or(vec![], |read| value_head::forward(model, read));
    let scored =
        Scored { logps: &logps, values: &values, hidden: &hidden, weight: &weight, inputs, head: &head_options };
    let LogpGradients { logps: per_token, values: per_value, head_only, divergence } = logp_gradients(&scored)?;
    let device = hidden.device();
    let per_row = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [logps.len()]), &device);
    let d_read = read.map(|read| value_head::backward(model, read, per_value, options.trainable, gradients));
    let d_read = if head_only { d_read.map(|d_read| d_read.zeros_like()) } else { d_read };
    let Some(head) = head else {
        let hidden = d_read.expect("a batch has rows that predict, or rows that the score head reads");
        return Ok(HeadGradient { hidden, weight: None });
    };
    let sum = gradients.remove(name).map(|sum| sum.into_whole().reshape(weight.dims()));
    let mut head = head.backward(per_row(per_token), sum);
    if let Some(DivergenceGradients { reference, rows }) = divergence {
        let predicting = hidden.narrow(0, 0, logps.len());
        let more = token_kl_backward((predicting, weight), reference, per_row(rows), train_head, &head_options);
        head.hidden = head.hidden + more.hidden;
        head.weight = head.weight.zip(more.weight).map(|(sum, gradient)| sum + gradient);
    }
    if let Some(d_read) = d_read {
        head.hidden = Tensor::cat(vec![head.hidden, d_read], 0);
    }
    Ok(head)
}

/// The hidden states of a batch's rows, by which head reads them.
struct Rows {
    /// Those that predict a token, unless the batch is for a score head alone.
    predicting: Option<Tensor<2>>,
    /// Those that the score head reads, where there are any.
    read: Option<Tensor<2>>,
}

impl Rows {
    fn of(hidden: &Tensor<2>, inputs: &PackedInputs) -> Self {
        let (all, predicting) = (hidden.dims()[0], inputs.targets.dims()[0]);
        if all == predicting {
            return Self { predicting: Some(hidden.clone()), read: None };
        }
        let part = |start: usize, rows: usize| hidden.clone().narrow(0, start, rows);
        let read = Some(part(predicting, all - predicting));
        Self { predicting: (predicting > 0).then(|| part(0, predicting)), read }
    }
}

/// One number per row.
fn host(values: Tensor<1>) -> Vec<f32> {
    read(values).iter::<f32>().collect()
}

/// The first block with a trained parameter: the backward pass ends there.
fn lowest_trained(model: &CausalLm, trainable: Trainable) -> usize {
    if trains_embedding(trainable) {
        return 0;
    }
    let trained = |block: &Block| spo_model::parameters::count(block, |path| trainable.contains(path)) > 0;
    model.layers.iter().position(trained).unwrap_or(model.layers.len())
}

#[allow(clippy::large_enum_variant, reason = "there is one per block, most are tapes")]
enum Step {
    Input(Tensor<2>),
    Tape(BlockTape),
}

/// The gradient of the final norm's input, `[rows, hidden]`; adds that of its weight.
fn norm_backward(
    model: &CausalLm,
    rows: Tensor<2>,
    d_hidden: Tensor<2>,
    trainable: Trainable,
    gradients: &mut Gradients,
) -> Tensor<2> {
    let norm = lift(model.norm.clone(), "norm.", trainable);
    let rows = rows.autodiff().require_grad();
    let mut tape = pull([(&norm.forward(rows.clone()), &d_hidden)]).backward();
    collect(&norm, "norm.", trainable, &mut tape, gradients);
    rows.grad_remove(&mut tape).expect("the norm's output depends on its input")
}

/// Whether the tables below the first block are trained.
fn trains_embedding(trainable: Trainable) -> bool {
    [EMBEDDING, POSITIONS, TABLE].into_iter().any(|table| trainable.contains(table))
}

/// Adds each token's gradient to its row of the embedding table, and to that of its position.
fn embedding_backward(
    model: &CausalLm,
    inputs: &PackedInputs,
    d_x: Tensor<2>,
    trainable: Trainable,
    gradients: &mut Gradients,
) {
    if let Some(positions) = model.embed_positions.as_ref().filter(|_| trainable.contains(POSITIONS)) {
        gradients.add_rows(POSITIONS, positions.weight.dims(), &inputs.on_host.positions, d_x.clone());
    }
    if trainable.contains(EMBEDDING) {
        let d_tokens = match model.embedding_scale() {
            Some(scale) => d_x * scale,
            None => d_x,
        };
        gradients.add_rows(EMBEDDING, model.embed_tokens.weight.dims(), &inputs.on_host.ids, d_tokens);
    }
}
