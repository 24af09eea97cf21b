//! A decoder block's tape.

use super::lifted::{collect, lift};
use super::steering::STEERED_BY;
use crate::step::gradients::{Gradients, Trainable};
use burn::tensor::{DType, Gradients as TapeGradients, Int, Tensor};
use spo_kernels::embedding::add_rows;
use spo_model::decoder::{Attend, Block, PackedInputs, pull};

/// A block that has run forward with two tapes, before and after the attention, whose own
/// derivative is in closed form: no score matrix is stored.
pub(super) struct BlockTape {
    block: Block,
    pub input: Tensor<2>,
    /// Queries, keys and values, on the first tape.
    projected: [Tensor<3>; 3],
    /// The block's own input.
    own: Option<Tensor<2>>,
    /// The input once more and the attention's result, where the second tape starts.
    residual: Tensor<2>,
    attended: Tensor<2>,
    pub output: Tensor<2>,
    /// The scores of a mixture's router, on the second tape.
    pub scores: Option<Tensor<2>>,
    /// The rows of both that the second tape has, in the last block: those that are scored.
    rows: Option<Tensor<1, Int>>,
}

impl BlockTape {
    /// Runs the block forward, in the last block from the attention on for `rows` alone. If its own input is a leaf, the
    /// backward pass gives its gradient.
    pub fn record(
        block: &Block,
        layer: usize,
        (x, own): (Tensor<2>, Option<Tensor<2>>),
        inputs: &PackedInputs,
        rows: Option<Tensor<1, Int>>,
        trainable: Trainable,
    ) -> Self {
        let mut block = lift(block.clone(), &prefix(layer), trainable);
        let leaf = |x: Tensor<2>| x.autodiff().require_grad();
        // Of its own in each place: the two tapes are differentiated one after the other.
        block.conditions_mut().for_each(|by| by.z = leaf(by.z.clone()));
        let input = leaf(x.clone());
        let projected = block.before_attention(input.clone(), &inputs.rope);
        let [q, k, v] = projected.clone().map(Tensor::inner);
        let attended = inputs.attention().attend(
            layer,
            block.self_attn.spec(),
            [q, k, v],
            block.self_attn.sink_scores().map(Tensor::inner),
        );
        let [residual, attended] = [x, attended].map(|x| match &rows {
            Some(rows) => leaf(x.select(0, rows.clone())),
            None => leaf(x),
        });
        let (of_rows, own_of_rows) = match &rows {
            Some(rows) => (&block.of_rows(rows), own.clone().map(|own| own.select(0, rows.clone()))),
            None => (&block, own.clone()),
        };
        let (output, scores) = of_rows.after_attention_scored(residual.clone(), attended.clone(), own_of_rows);
        Self { block, input, projected, own, residual, attended, output, scores, rows }
    }

    /// Adds the block's gradients and returns that of its input, `[tokens, hidden]`, and that of its own input
    /// `[tokens, width]`, if that is a leaf; `d_scores` is that of the router's scores,
    /// where the loss looks at them.
    pub fn backward(
        mut self,
        layer: usize,
        (d_output, d_scores): (Tensor<2>, Option<Tensor<2>>),
        inputs: &PackedInputs,
        trainable: Trainable,
        gradients: &mut Gradients,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let reached = "the block's output depends on it";
        let mut tape = match (&self.scores, &d_scores) {
            (Some(scores), Some(d_scores)) => {
                (pull([(&self.output, &d_output)]) + pull([(scores, d_scores)])).backward()
            }
            _ => pull([(&self.output, &d_output)]).backward(),
        };
        let d_residual = self.residual.grad_remove(&mut tape).expect(reached);
        let d_attended = self.attended.grad_remove(&mut tape).expect(reached);
        let leaf = self.own.as_ref().filter(|own| own.is_autodiff());
        let d_own = leaf.map(|own| own.grad_remove(&mut tape).expect(reached));
        let tokens = self.input.dims()[0];
        let [d_residual, d_attended] = [d_residual, d_attended].map(|gradient| match &self.rows {
            Some(_) => spread(gradient, &inputs.on_host.score_rows, tokens),
            None => gradient,
        });
        collect(&self.block, &prefix(layer), trainable, &mut tape, gradients);
        collect_z(&mut self.block, &mut tape, gradients);

        let [q, k, v] = self.projected.clone().map(Tensor::inner);
        let (spec, sinks) = (self.block.self_attn.spec(), self.block.self_attn.sink_scores().map(Tensor::inner));
        let attention = inputs.attention().with_sinks(sinks.clone());
        let path = format!("{}self_attn.sinks", prefix(layer));
        if sinks.is_some() && trainable.contains(&path) {
            let qkv = [q.clone(), k.clone(), v.clone()];
            gradients.add(&path, attention.sinks_gradient(spec, qkv, d_attended.clone()));
        }
        let d_projected = attention.backward(spec, q, k, v, d_attended);
        let [q, k, v] = &self.projected;
        let [d_q, d_k, d_v] = &d_projected;
        let mut tape = pull([(q, d_q), (k, d_k), (v, d_v)]).backward();
        let d_input = self.input.grad_remove(&mut tape).expect(reached);
        collect(&self.block, &prefix(layer), trainable, &mut tape, gradients);
        collect_z(&mut self.block, &mut tape, gradients);
        (d_residual + d_input, d_own)
    }
}

/// Adds the gradient of z wherever a tape has one.
fn collect_z(block: &mut Block, tape: &mut TapeGradients, gradients: &mut Gradients) {
    for by in block.conditions_mut() {
        if let Some(d_z) = by.z.grad_remove(tape) {
            gradients.add(STEERED_BY, d_z);
        }
    }
}

/// Rows added up at their tokens: `[rows, width]` → `[tokens, width]`, summed in f32 at least.
pub(super) fn spread(x: Tensor<2>, rows: &[i32], tokens: usize) -> Tensor<2> {
    let ([_, width], stored) = (x.dims(), x.dtype());
    let wide = if stored == DType::F64 { DType::F64 } else { DType::F32 };
    let zeros = Tensor::<1>::zeros([tokens * width], (&x.device(), wide));
    add_rows(zeros, rows, x).reshape([tokens, width]).cast(stored)
}

fn prefix(layer: usize) -> String {
    format!("layers.{layer}.")
}
