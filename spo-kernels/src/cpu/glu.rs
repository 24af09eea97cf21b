//! See [`crate::glu`]: one pass over all rows.

use super::vector::{sigmoid, widest};
use super::{Values, rows, rows_of, tensor};
use crate::Form;
use crate::glu::Glu;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

/// Value and derivative.
#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, s * (1.0 + x * (1.0 - s)))
}

#[inline(always)]
fn value(gate: &[f32], up: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(gate).zip(up).for_each(|((out, gate), up)| *out = silu(*gate).0 * up);
}

#[inline(always)]
fn gradients(gate: &[f32], up: &[f32], d_y: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
    let outputs = d_gate.iter_mut().zip(d_up);
    for ((d_gate, d_up), ((gate, up), d_y)) in outputs.zip(gate.iter().zip(up).zip(d_y)) {
        let (value, derivative) = silu(*gate);
        (*d_gate, *d_up) = (d_y * up * derivative, d_y * value);
    }
}

impl Form<Flex, 2> for Glu {
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
            widest!(value(gate, up, out));
        });
        tensor(out, shape)
    }

    fn gradients(&self, [gate, up]: [Option<FlexTensor>; 2], d_y: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let shape = d_y.layout().shape().clone();
        let (count, width) = rows_of(&shape);
        let (Some(gate), Some(up)) = (gate, up) else { unreachable!("`kept` asks for both") };
        let [gate, up, d_y] = [gate, up, d_y].map(Values::from);
        let outputs = rows::build_many(count, [width; 2], |first, [d_gate, d_up]| {
            let part = first * width..first * width + d_gate.len();
            let (gate, up, d_y) = (&gate[part.clone()], &up[part.clone()], &d_y[part]);
            widest!(gradients(gate, up, d_y, d_gate, d_up));
        });
        outputs.map(|values| Some(tensor(values, shape.clone())))
    }
}
