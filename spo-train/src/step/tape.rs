//! The only place where gradients are switched on, and the only one that calls `backward`.
//!
//! A tape spans one module at a time: the decoder is walked back block by block, so a block's
//! activations live no longer than its own step. With [`Recompute::Blocks`] they are not even kept
//! in the forward pass: the block runs again on its saved input. Both ways run the same operations
//! in the same order and give the same bits.

use crate::config::spec::Recompute;
use crate::step::gradients::{Gradients, Trainable};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients as TapeGradients, IndexingUpdateOp, Int, Tensor, TensorData};
use spo_core::logprob::divergence::{Head, token_kl_backward};
use spo_core::logprob::{HeadGradient, HeadOptions, HeadPass, token_logps};
use spo_data::PackedBatch;
use spo_model::CausalLm;
use spo_model::decoder::{Attend, Block, PackedInputs, pull};
use spo_model::parameters::ModulePath;

/// The path of a head of its own.
const HEAD: &str = "lm_head.weight";
/// The embedding table's path.
const EMBEDDING: &str = "embed_tokens.weight";
/// That of the learned positions.
const POSITIONS: &str = "embed_positions.weight";

/// How a micro-batch is differentiated.
#[derive(Debug, Clone)]
pub struct TapeOptions {
    /// Whether blocks keep their activations or run again on the way back.
    pub recompute: Recompute,
    /// What is trained.
    pub trainable: Trainable,
    /// The log-prob head.
    pub head: HeadOptions,
}

/// What the head knows of a micro-batch; a *row* is a token that is predicted.
#[derive(Debug)]
pub struct Scored<'a> {
    /// `log p(target)`, `[rows]`.
    pub logps: &'a [f32],
    /// Final hidden states, `[rows, hidden]`.
    pub hidden: &'a Tensor<2>,
    /// The head's weight, `[vocab, hidden]`.
    pub weight: &'a Tensor<2>,
    /// The batch on the model's device.
    pub inputs: &'a PackedInputs,
    /// How the head computes.
    pub head: &'a HeadOptions,
}

/// Derivatives of a loss with respect to what the head gives.
#[derive(Debug, Clone)]
pub struct Slopes {
    /// With respect to each `log p(target)`, `[rows]`.
    pub logps: Vec<f32>,
    /// With respect to each row's `KL(reference ‖ policy)` over the vocabulary, where the loss looks at that.
    pub divergence: Option<DivergenceSlopes>,
}

/// See [`Slopes::divergence`].
#[derive(Debug, Clone)]
pub struct DivergenceSlopes {
    /// The reference's hidden states of the same rows and its head.
    pub reference: Head,
    /// `[rows]`
    pub slopes: Vec<f32>,
}

impl From<Vec<f32>> for Slopes {
    fn from(logps: Vec<f32>) -> Self {
        Self { logps, divergence: None }
    }
}

/// Runs one micro-batch forward without a tape and hands over what the head knows.
pub fn observe<T>(model: &CausalLm, batch: &PackedBatch, head: &HeadOptions, f: impl FnOnce(&Scored) -> T) -> T {
    let inputs = PackedInputs::new(batch, model.spec(), model.dtype(), &model.device());
    let (hidden, weight) = (model.hidden(&inputs), model.head_weight());
    let head = &model.spec().head(head);
    let logps = token_logps(hidden.clone(), weight.clone(), inputs.targets.clone(), head);
    let logps: Vec<f32> = logps.into_data().iter::<f32>().collect();
    f(&Scored { logps: &logps, hidden: &hidden, weight: &weight, inputs: &inputs, head })
}

/// [`differentiate_scored`] for a loss that looks at the log-probs of the targets alone, `[rows]`.
///
/// # Errors
/// What `slopes` returns; nothing is added then.
pub fn differentiate<E>(
    model: &CausalLm,
    batch: &PackedBatch,
    options: &TapeOptions,
    gradients: &mut Gradients,
    slopes: impl FnOnce(&[f32]) -> Result<Vec<f32>, E>,
) -> Result<(), E> {
    differentiate_scored(model, batch, options, gradients, |scored| slopes(scored.logps).map(Slopes::from))
}

/// Runs one micro-batch forward, asks `slopes` for the derivative of the loss with respect to each
/// token log-prob (both `[rows]`), and adds the gradients of all trained parameters to `gradients`.
///
/// # Errors
/// What `slopes` returns; nothing is added then.
pub fn differentiate_scored<E>(
    model: &CausalLm,
    batch: &PackedBatch,
    options: &TapeOptions,
    gradients: &mut Gradients,
    slopes: impl FnOnce(&Scored) -> Result<Slopes, E>,
) -> Result<(), E> {
    differentiate_in_parts(model.clone(), batch, options, gradients, slopes, |model, _| Ok(model)).map(|_| ())
}

/// As [`differentiate_scored`], and calls `part_done` whenever the gradients of a part of the model are complete: of a
/// head of its own, the final norm, each block from the last to the first, the embedding. It may take them and change
/// these parameters: no gradient that is still to come depends on them. If `model` has the only handle of its weights,
/// they can be changed in their own memory.
///
/// # Errors
/// What `slopes` or `part_done` returns.
pub fn differentiate_in_parts<E>(
    mut model: CausalLm,
    batch: &PackedBatch,
    options: &TapeOptions,
    gradients: &mut Gradients,
    slopes: impl FnOnce(&Scored) -> Result<Slopes, E>,
    mut part_done: impl FnMut(CausalLm, &mut Gradients) -> Result<CausalLm, E>,
) -> Result<CausalLm, E> {
    let device = model.device();
    let inputs = PackedInputs::new(batch, model.spec(), model.dtype(), &device);
    let lowest = lowest_trained(&model, options.trainable);

    let (blocks, in_rows) = (model.layers.len(), model.ends_in_rows());
    let rows_of = |layer| (in_rows && layer + 1 == blocks).then(|| inputs.score_rows.clone());

    let mut x = model.embed(inputs.ids.clone(), inputs.positions.clone());
    let mut steps = vec![];
    for (layer, block) in model.layers.iter().enumerate() {
        if layer < lowest {
            x = match rows_of(layer) {
                Some(rows) => block.forward_rows(x, &inputs.rope, &mut inputs.attention(), rows),
                None => block.forward(x, &inputs.rope, &mut inputs.attention()),
            };
            continue;
        }
        // With a tape even if it is dropped at once: without one, fused operations round differently.
        let tape = BlockTape::record(block, layer, x, &inputs, rows_of(layer), options.trainable);
        x = tape.output.clone().inner();
        steps.push(if options.recompute.keeps(layer) { Step::Tape(tape) } else { Step::Input(tape.input.inner()) });
    }

    let shape = x.dims();
    let rows = if in_rows { x } else { x.select(0, inputs.score_rows.clone()) };
    let HeadGradient { hidden: d_hidden, weight } =
        head_backward(&model, model.norm.forward(rows.clone()), &inputs, options, gradients, slopes)?;
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
    let mut d_x = if in_rows { d_rows } else { spread(d_rows, &inputs.score_rows, shape[0]) };
    for (layer, step) in steps.into_iter().enumerate().rev().map(|(index, step)| (index + lowest, step)) {
        let tape = match step {
            Step::Tape(tape) => tape,
            Step::Input(x) => {
                BlockTape::record(&model.layers[layer], layer, x, &inputs, rows_of(layer), options.trainable)
            }
        };
        d_x = tape.backward(layer, d_x, &inputs, options.trainable, gradients);
        model = part_done(model, gradients)?;
    }
    if let Some(sum) = shared {
        gradients.add(EMBEDDING, sum);
    }
    if trains_embedding(options.trainable) {
        embedding_backward(&model, &inputs, d_x, options.trainable, gradients);
        model = part_done(model, gradients)?;
    }
    Ok(model)
}

/// Runs the head on hidden states `[rows, hidden]`, asks for the slopes, and goes back through it. The weight's gradient is
/// returned with its sum of `gradients`.
fn head_backward<E>(
    model: &CausalLm,
    hidden: Tensor<2>,
    inputs: &PackedInputs,
    options: &TapeOptions,
    gradients: &mut Gradients,
    slopes: impl FnOnce(&Scored) -> Result<Slopes, E>,
) -> Result<HeadGradient, E> {
    let weight = model.head_weight();
    let name = if model.lm_head.is_some() { HEAD } else { EMBEDDING };
    let train_head = options.trainable.contains(name);
    let head_options = model.spec().head(&options.head);
    let head = HeadPass::new(hidden.clone(), weight.clone(), inputs.targets.clone(), train_head, &head_options);
    let logps: Vec<f32> = head.logps.clone().into_data().iter::<f32>().collect();
    let scored = Scored { logps: &logps, hidden: &hidden, weight: &weight, inputs, head: &head_options };
    let slopes = slopes(&scored)?;
    let per_row = |slopes: Vec<f32>| Tensor::from_data(TensorData::new(slopes, [logps.len()]), &hidden.device());
    let sum = gradients.remove(name).map(|sum| sum.into_whole().reshape(weight.dims()));
    let mut head = head.backward(per_row(slopes.logps), sum);
    if let Some(DivergenceSlopes { reference, slopes }) = slopes.divergence {
        let slopes = per_row(slopes);
        let more = token_kl_backward((hidden, weight), reference, slopes, train_head, &head_options);
        head.hidden = head.hidden + more.hidden;
        head.weight = head.weight.zip(more.weight).map(|(sum, gradient)| sum + gradient);
    }
    Ok(head)
}

/// The first block with a trained parameter: nothing below it is walked back through.
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

/// A block that has run forward with two tapes, before and after the attention, whose own
/// derivative is in closed form: no score matrix is kept.
struct BlockTape {
    block: Block,
    input: Tensor<2>,
    /// Queries, keys and values, on the first tape.
    projected: [Tensor<3>; 3],
    /// The input once more and the attention's result, where the second tape starts.
    residual: Tensor<2>,
    attended: Tensor<2>,
    output: Tensor<2>,
    /// The rows of both that the second tape has, in the last block: those that are scored.
    rows: Option<Tensor<1, Int>>,
}

impl BlockTape {
    fn record(
        block: &Block,
        layer: usize,
        x: Tensor<2>,
        inputs: &PackedInputs,
        rows: Option<Tensor<1, Int>>,
        trainable: Trainable,
    ) -> Self {
        let block = lift(block.clone(), &prefix(layer), trainable);
        let leaf = |x: Tensor<2>| x.autodiff().require_grad();
        let input = leaf(x.clone());
        let projected = block.before_attention(input.clone(), &inputs.rope);
        let [q, k, v] = projected.clone().map(Tensor::inner);
        let attended = inputs.attention().attend(layer, block.self_attn.spec(), q, k, v);
        let [residual, attended] = [x, attended].map(|x| match &rows {
            Some(rows) => leaf(x.select(0, rows.clone())),
            None => leaf(x),
        });
        let output = block.after_attention(residual.clone(), attended.clone());
        Self { block, input, projected, residual, attended, output, rows }
    }

    /// Adds the block's gradients and returns that of its input, `[tokens, hidden]`.
    fn backward(
        self,
        layer: usize,
        d_output: Tensor<2>,
        inputs: &PackedInputs,
        trainable: Trainable,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let reached = "the block's output depends on it";
        let mut tape = pull([(&self.output, &d_output)]).backward();
        let d_residual = self.residual.grad_remove(&mut tape).expect(reached);
        let d_attended = self.attended.grad_remove(&mut tape).expect(reached);
        let tokens = self.input.dims()[0];
        let [d_residual, d_attended] = [d_residual, d_attended].map(|slope| match &self.rows {
            Some(rows) => spread(slope, rows, tokens),
            None => slope,
        });
        collect(&self.block, &prefix(layer), trainable, &mut tape, gradients);

        let [q, k, v] = self.projected.clone().map(Tensor::inner);
        let slopes = inputs.attention().backward(self.block.self_attn.spec(), q, k, v, d_attended);
        let [q, k, v] = &self.projected;
        let [d_q, d_k, d_v] = &slopes;
        let mut tape = pull([(q, d_q), (k, d_k), (v, d_v)]).backward();
        let d_input = self.input.grad_remove(&mut tape).expect(reached);
        collect(&self.block, &prefix(layer), trainable, &mut tape, gradients);
        d_residual + d_input
    }
}

/// Rows added up at their tokens: `[rows, width]` → `[tokens, width]`.
fn spread(x: Tensor<2>, rows: &Tensor<1, Int>, tokens: usize) -> Tensor<2> {
    let zeros = Tensor::<2>::zeros([tokens, x.dims()[1]], (&x.device(), x.dtype()));
    zeros.select_assign(0, rows.clone(), x, IndexingUpdateOp::Add)
}

fn prefix(layer: usize) -> String {
    format!("layers.{layer}.")
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
    trainable.contains(EMBEDDING) || trainable.contains(POSITIONS)
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
        gradients.add_rows(POSITIONS, positions.weight.dims(), inputs.positions.clone(), d_x.clone());
    }
    if trainable.contains(EMBEDDING) {
        let d_tokens = match model.embedding_scale() {
            Some(scale) => d_x * scale,
            None => d_x,
        };
        gradients.add_rows(EMBEDDING, model.embed_tokens.weight.dims(), inputs.ids.clone(), d_tokens);
    }
}

/// The module with gradients switched on for its trained parameters; frozen ones are constants.
fn lift<M: Module>(module: M, prefix: &str, trainable: Trainable) -> M {
    module.map(&mut Lift { path: ModulePath::new(prefix), trainable })
}

struct Lift {
    path: ModulePath,
    trainable: Trainable,
}

impl ModuleMapper for Lift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.trainable.contains(&self.path.join()) {
            true => param.map(|value| value.autodiff().require_grad()),
            false => param,
        }
    }
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
}

/// Moves the gradients of a lifted module's trained parameters from the tape to the sums.
fn collect(
    module: &impl Module,
    prefix: &str,
    trainable: Trainable,
    tape: &mut TapeGradients,
    gradients: &mut Gradients,
) {
    module.visit(&mut Collect { path: ModulePath::new(prefix), trainable, tape, gradients });
}

struct Collect<'a> {
    path: ModulePath,
    trainable: Trainable,
    tape: &'a mut TapeGradients,
    gradients: &'a mut Gradients,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join();
        if self.trainable.contains(&path)
            && let Some(gradient) = param.val().grad_remove(self.tape)
        {
            self.gradients.add(&path, gradient);
        }
    }
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
}
