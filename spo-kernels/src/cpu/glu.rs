//! Gated linear units (Shazeer 2020, arXiv 2002.05202): `act(gate) · up`.

use super::{Kernel, Operand, apply, rows_of, tensor};
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use spo_core::cpu::vector::sigmoid;
use spo_core::cpu::{Values, rows};

/// The function of the gate.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gate {
    /// `x σ(x)`
    Silu,
}

/// Two tensors of one shape → a third of it.
pub(crate) fn glu(gate: &Tensor<2>, up: &Tensor<2>, function: Gate) -> Option<Tensor<2>> {
    Some(apply(Glu(function), [Operand::of(gate)?, Operand::of(up)?]))
}

#[derive(Debug, Clone, Copy)]
struct Glu(Gate);

/// Value and slope.
#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, s * (1.0 + x * (1.0 - s)))
}

#[inline(always)]
fn value(gate: &[f32], up: &[f32], out: &mut [f32], function: impl Fn(f32) -> (f32, f32)) {
    out.iter_mut().zip(gate).zip(up).for_each(|((out, gate), up)| *out = function(*gate).0 * up);
}

#[inline(always)]
fn slopes(
    gate: &[f32],
    up: &[f32],
    d_y: &[f32],
    [d_gate, d_up]: [&mut [f32]; 2],
    function: impl Fn(f32) -> (f32, f32),
) {
    let outputs = d_gate.iter_mut().zip(d_up);
    for ((d_gate, d_up), ((gate, up), d_y)) in outputs.zip(gate.iter().zip(up).zip(d_y)) {
        let (value, slope) = function(*gate);
        (*d_gate, *d_up) = (d_y * up * slope, d_y * value);
    }
}

impl Kernel<2> for Glu {
    fn kept(&self, _: [bool; 2]) -> [bool; 2] {
        [true; 2]
    }

    fn value(&self, [gate, up]: [&FlexTensor; 2]) -> FlexTensor {
        let shape = gate.layout().shape().clone();
        let (count, width) = rows_of(&shape);
        let (gate, up) = (Values::from(gate.clone()), Values::from(up.clone()));
        let out = rows::build(count, width, |first, out| {
            let part = first * width..first * width + out.len();
            let (gate, up) = (&gate[part.clone()], &up[part]);
            pulp::Arch::new().dispatch(|| match self.0 {
                Gate::Silu => value(gate, up, out, silu),
            });
        });
        tensor(out, shape)
    }

    fn gradients(&self, [gate, up]: [Option<Values>; 2], d_y: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let shape = d_y.layout().shape().clone();
        let (count, width) = rows_of(&shape);
        let (Some(gate), Some(up)) = (gate, up) else { unreachable!("`kept` asks for both") };
        let d_y = Values::from(d_y);
        let outputs = rows::build_many(count, [width; 2], |first, outputs| {
            let part = first * width..first * width + outputs[0].len();
            let (gate, up, d_y) = (&gate[part.clone()], &up[part.clone()], &d_y[part]);
            pulp::Arch::new().dispatch(|| match self.0 {
                Gate::Silu => slopes(gate, up, d_y, outputs, silu),
            });
        });
        outputs.map(|values| Some(tensor(values, shape.clone())))
    }
}
