//! The seam between an operation and its forms: what runs where, and how a form becomes a node of the tape.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend};
use burn::tensor::{DType, Device, Tensor};
use std::fmt::Debug;

/// A backend on which operations of this crate have forms.
pub trait Home: Backend {
    /// Whether forms take tensors of this type on this device, which may be one of another backend.
    fn takes(dtype: DType, device: &Device) -> bool;

    /// The backend's own tensor, of one that is on no tape; `None` for a tensor of another backend.
    fn plain<const D: usize>(x: Tensor<D>) -> Option<FloatTensor<Self>>;

    /// The same of a tensor on a tape.
    fn taped<const D: usize>(x: Tensor<D>) -> Option<FloatTensor<Autodiff<Self>>>;

    /// Back from [`plain`](Self::plain).
    fn from_plain<const D: usize>(x: FloatTensor<Self>) -> Tensor<D>;

    /// Back from [`taped`](Self::taped).
    fn from_taped<const D: usize>(x: FloatTensor<Autodiff<Self>>) -> Tensor<D>;
}

/// The form of an operation on `N` tensors, and of its derivative, on one backend.
pub trait Form<B: Home, const N: usize>: Clone + Debug + Send + 'static {
    /// The inputs that the derivative reads, where those marked in `wanted` have one.
    fn kept(&self, wanted: [bool; N]) -> [bool; N];

    /// The output.
    fn value(&self, inputs: [&FloatTensor<B>; N]) -> FloatTensor<B>;

    /// The gradients of the inputs that have one, for a gradient of the output; `kept` has the inputs that were asked for.
    fn gradients(
        &self,
        kept: [Option<FloatTensor<B>>; N],
        d_output: FloatTensor<B>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N];
}

/// A tensor that the forms of a backend can take.
#[derive(Debug)]
pub enum Operand<B: Home> {
    /// On no tape.
    Plain(FloatTensor<B>),
    /// On a tape.
    Taped(FloatTensor<Autodiff<B>>),
}

/// A tensor as the forms of a backend see it; `None` where they do not take it.
pub fn operand<B: Home, const D: usize>(x: &Tensor<D>) -> Option<Operand<B>> {
    if !B::takes(x.dtype(), &x.device()) {
        return None;
    }
    match x.is_autodiff() {
        true => B::taped(x.clone()).map(Operand::Taped),
        false => B::plain(x.clone()).map(Operand::Plain),
    }
}

/// Runs a form, as a node of the tape if one of its operands is on it; `None` where one of them is not taken.
pub fn run<B: Home, const N: usize, const D: usize>(
    form: impl Form<B, N>,
    operands: [Option<Operand<B>>; N],
) -> Option<Tensor<D>> {
    if operands.iter().any(Option::is_none) {
        return None;
    }
    let operands = operands.map(|operand| operand.expect("just checked"));
    if operands.iter().all(|operand| matches!(operand, Operand::Plain(_))) {
        let inputs = operands.each_ref().map(|operand| match operand {
            Operand::Plain(tensor) => tensor,
            Operand::Taped(tensor) => tensor.primitive(),
        });
        return Some(B::from_plain(form.value(inputs)));
    }
    let operands = operands.map(|operand| match operand {
        Operand::Plain(tensor) => <Autodiff<B> as AutodiffBackend>::from_inner(tensor),
        Operand::Taped(tensor) => tensor,
    });
    let output = form.value(operands.each_ref().map(|operand| operand.primitive()));
    let nodes = operands.each_ref().map(|operand| operand.node());
    let step = Step(form.clone());
    let prepared = Backward::<B, N>::prepare::<NoCheckpointing>(step, nodes).compute_bound();
    let output = match prepared.stateful() {
        OpsKind::Tracked(prepared) => {
            let kept = form.kept(operands.each_ref().map(|operand| operand.is_tracked()));
            let mut index = 0;
            let state = operands.map(|operand| {
                index += 1;
                kept[index - 1].then(|| operand.into_primitive())
            });
            prepared.finish(state, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Some(B::from_taped(output))
}

#[derive(Debug)]
struct Step<F>(F);

impl<B: Home, F: Form<B, N>, const N: usize> Backward<B, N> for Step<F> {
    type State = [Option<FloatTensor<B>>; N];

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let d_output = gradients.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let of_inputs = self.0.gradients(ops.state, d_output, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(of_inputs) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}
