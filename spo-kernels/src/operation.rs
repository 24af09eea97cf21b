//! Operations of the decoder with a kernel of their own on the CPU, forward and backward, each a single node of the
//! tape. They take f32 tensors of the CPU; the function that calls one has the same operation in burn's terms for all
//! others, which is also the kernel's reference in the tests.

mod bias;
mod glu;
mod linear;
mod pull;
mod rms_norm;
mod rope;
#[cfg(test)]
mod tests;

pub(crate) use bias::add_bias;
pub(crate) use glu::{Gate, glu};
pub(crate) use linear::linear;
pub(crate) use pull::pull;
pub(crate) use rms_norm::rms_norm;
pub(crate) use rope::{Angles, rotate};

use crate::device::on_cpu;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Flex};
use burn::tensor::{DType, Shape, Tensor};
use spo_core::cpu::Values;
use std::fmt::Debug;

/// An operation on `N` tensors and its derivative.
pub(crate) trait Kernel<const N: usize>: Clone + Debug + Send + 'static {
    /// The inputs that the derivative reads, where those marked in `wanted` have one.
    fn kept(&self, wanted: [bool; N]) -> [bool; N];

    /// The output.
    fn value(&self, inputs: [&FlexTensor; N]) -> FlexTensor;

    /// The gradients of the inputs that have one, for a gradient of the output; `kept` has the inputs that were asked for.
    fn gradients(&self, kept: [Option<Values>; N], d_output: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

type Taped = FloatTensor<Autodiff<Flex>>;

/// A tensor that a kernel can take.
pub(crate) enum Operand {
    Plain(FlexTensor),
    Taped(Taped),
}

impl Operand {
    /// `None` for a tensor of another device or type.
    pub fn of<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        if x.dtype() != DType::F32 || !on_cpu(&x.device()) {
            return None;
        }
        let known = "the device was just asked";
        Some(match x.is_autodiff() {
            true => Self::Taped(x.clone().try_into_primitive::<Autodiff<Flex>>().expect(known)),
            false => Self::Plain(x.clone().try_into_primitive::<Flex>().expect(known)),
        })
    }
}

/// Runs a kernel, on the tape if one of its operands is.
pub(crate) fn apply<const N: usize, const D: usize>(kernel: impl Kernel<N>, operands: [Operand; N]) -> Tensor<D> {
    if operands.iter().all(|operand| matches!(operand, Operand::Plain(_))) {
        let inputs = operands.each_ref().map(|operand| match operand {
            Operand::Plain(tensor) => tensor,
            Operand::Taped(tensor) => tensor.primitive(),
        });
        return Tensor::from_primitive::<Flex>(kernel.value(inputs));
    }
    let operands = operands.map(|operand| match operand {
        Operand::Plain(tensor) => <Autodiff<Flex> as AutodiffBackend>::from_inner(tensor),
        Operand::Taped(tensor) => tensor,
    });
    let output = kernel.value(operands.each_ref().map(Taped::primitive));
    let step = Step(kernel.clone());
    let prepared = step.prepare::<NoCheckpointing>(operands.each_ref().map(Taped::node)).compute_bound();
    let output = match prepared.stateful() {
        OpsKind::Tracked(prepared) => {
            let kept = kernel.kept(operands.each_ref().map(Taped::is_tracked));
            let mut index = 0;
            let state = operands.map(|operand| {
                index += 1;
                kept[index - 1].then(|| operand.into_primitive())
            });
            prepared.finish(state, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

#[derive(Debug)]
struct Step<K>(K);

impl<K: Kernel<N>, const N: usize> Backward<Flex, N> for Step<K> {
    type State = [Option<FlexTensor>; N];

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let d_output = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let kept = ops.state.map(|input| input.map(Values::from));
        let of_inputs = self.0.gradients(kept, d_output, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(of_inputs) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// A tensor of the CPU backend that takes over `values`.
fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    Values::new(values, shape).into_flex()
}

/// Rows and width of a tensor whose last dimension is `width`.
fn rows_of(shape: &Shape) -> (usize, usize) {
    let width = shape.as_slice().last().copied().unwrap_or(1);
    (shape.num_elements() / width.max(1), width)
}
