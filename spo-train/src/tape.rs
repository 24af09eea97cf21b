//! The only place where gradients are switched on, and the only one that calls `backward`.
//!
//! A tape spans one module at a time: the decoder is walked back block by block, so a block's
//! activations live no longer than its own step. With [`Recompute::Blocks`] they are not even kept
//! in the forward pass: the block runs again on its saved input. Both ways run the same operations
//! in the same order and give the same bits.

use crate::config::spec::Recompute;
use crate::gradients::{Gradients, Trainable};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients as TapeGradients, IndexingUpdateOp, Int, Tensor, TensorData};
use spo_core::logprob::{HeadOptions, HeadPass};
use spo_data::PackedBatch;
use spo_model::CausalLm;
use spo_model::decoder::{Attend, Block, PackedInputs, pull};
use spo_model::parameters::ModulePath;

/// The embedding table's path.
const EMBEDDING: &str = "embed_tokens.weight";

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

/// Runs one micro-batch forward, asks `slopes` for the derivative of the loss with respect to each
/// token log-prob (both `[rows]`), and adds the gradients of all trained parameters to `gradients`.
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
    let device = model.device();
    let inputs = PackedInputs::new(batch, model.spec(), model.dtype(), &device);
    let lowest = lowest_trained(model, options.trainable);
    let keep = options.recompute != Recompute::Blocks;

    let mut x = model.embed(inputs.ids.clone());
    let mut steps = vec![];
    for (layer, block) in model.layers.iter().enumerate() {
        if layer < lowest {
            x = block.forward(x, &inputs.rope, &mut inputs.attention());
            continue;
        }
        // With a tape even if it is dropped at once: without one, fused operations round differently.
        let tape = BlockTape::record(block, layer, x, &inputs, options.trainable);
        x = tape.output.clone().inner();
        steps.push(if keep { Step::Tape(tape) } else { Step::Input(tape.input.inner()) });
    }

    let shape = x.dims();
    let rows = x.select(0, inputs.score_rows.clone());
    let hidden = model.norm.forward(rows.clone());
    let weight = model.head_weight();
    let head_name = if model.lm_head.is_some() { "lm_head.weight" } else { EMBEDDING };
    let train_head = options.trainable.contains(head_name);
    let head = HeadPass::new(hidden, weight, inputs.targets.clone(), train_head, &options.head);
    let logps: Vec<f32> = head.logps.clone().into_data().iter::<f32>().collect();
    let slopes = slopes(&logps)?;
    let head = head.backward(Tensor::from_data(TensorData::new(slopes, [logps.len()]), &device));
    if let Some(gradient) = head.weight {
        gradients.add(head_name, gradient);
    }

    let d_rows = norm_backward(model, rows, head.hidden, options.trainable, gradients);
    let zeros = Tensor::<2>::zeros(shape, (&device, d_rows.dtype()));
    let mut d_x = zeros.select_assign(0, inputs.score_rows.clone(), d_rows, IndexingUpdateOp::Add);
    for (layer, step) in steps.into_iter().enumerate().rev().map(|(index, step)| (index + lowest, step)) {
        let tape = match step {
            Step::Tape(tape) => tape,
            Step::Input(x) => BlockTape::record(&model.layers[layer], layer, x, &inputs, options.trainable),
        };
        d_x = tape.backward(layer, d_x, &inputs, options.trainable, gradients);
    }
    if options.trainable.contains(EMBEDDING) {
        embedding_backward(model, inputs.ids, d_x, gradients);
    }
    Ok(())
}

/// The first block with a trained parameter: nothing below it is walked back through.
fn lowest_trained(model: &CausalLm, trainable: Trainable) -> usize {
    if trainable.contains(EMBEDDING) {
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
}

impl BlockTape {
    fn record(block: &Block, layer: usize, x: Tensor<2>, inputs: &PackedInputs, trainable: Trainable) -> Self {
        let block = lift(block.clone(), &prefix(layer), trainable);
        let leaf = |x: Tensor<2>| x.autodiff().require_grad();
        let input = leaf(x.clone());
        let projected = block.before_attention(input.clone(), &inputs.rope);
        let [q, k, v] = projected.clone().map(Tensor::inner);
        let window = block.self_attn.window();
        let (residual, attended) = (leaf(x), leaf(inputs.attention().attend(layer, window, q, k, v)));
        let output = block.after_attention(residual.clone(), attended.clone());
        Self { block, input, projected, residual, attended, output }
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
        collect(&self.block, &prefix(layer), trainable, &mut tape, gradients);

        let [q, k, v] = self.projected.clone().map(Tensor::inner);
        let slopes = inputs.attention().backward(self.block.self_attn.window(), q, k, v, d_attended);
        let [q, k, v] = &self.projected;
        let [d_q, d_k, d_v] = &slopes;
        let mut tape = pull([(q, d_q), (k, d_k), (v, d_v)]).backward();
        let d_input = self.input.grad_remove(&mut tape).expect(reached);
        collect(&self.block, &prefix(layer), trainable, &mut tape, gradients);
        d_residual + d_input
    }
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

/// Adds each token's gradient to its row of the embedding table.
fn embedding_backward(model: &CausalLm, ids: Tensor<1, Int>, d_x: Tensor<2>, gradients: &mut Gradients) {
    let table = model.embed_tokens.weight.val();
    let zeros = Tensor::<2>::zeros(table.dims(), (&table.device(), d_x.dtype()));
    gradients.add(EMBEDDING, zeros.select_assign(0, ids, d_x, IndexingUpdateOp::Add));
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
