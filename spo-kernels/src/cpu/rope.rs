//! See [`crate::rope`]: one pass, turning back in the backward pass.

use super::{Values, rows, tensor};
use crate::Form;
use crate::cpu::vector::widest;
use crate::rope::Rotate;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

impl Rotate<(Values, Values)> {
    /// Turns by the angles, or back.
    fn turn(&self, x: FlexTensor, back: bool) -> FlexTensor {
        let shape = x.layout().shape().clone();
        let (x, width, turned) = (Values::from(x), self.heads * self.dim, self.turned);
        let out = rows::build(shape[0], width, |first, out| {
            widest!({
                let tokens = out.chunks_exact_mut(width).zip(x[first * width..].chunks_exact(width));
                for (token, (out, x)) in tokens.enumerate() {
                    let row = (first + token) * turned..(first + token + 1) * turned;
                    let (cos, sin) = (&self.angles.0[row.clone()], &self.angles.1[row]);
                    for (out, x) in out.chunks_exact_mut(self.dim).zip(x.chunks_exact(self.dim)) {
                        turn_head(x, cos, sin, back, out);
                    }
                }
            });
        });
        tensor(out, shape)
    }
}

/// `(a, b) → (a cos − b sin, b cos + a sin)` for the halves of the channels that turn.
#[inline(always)]
fn turn_head(x: &[f32], cos: &[f32], sin: &[f32], back: bool, out: &mut [f32]) {
    let half = cos.len() / 2;
    let (a, b) = (&x[..half], &x[half..2 * half]);
    let (first, rest) = out.split_at_mut(half);
    let (second, rest) = rest.split_at_mut(half);
    let (cos, sin) = (&cos[..half], &sin[..half]);
    let sign = if back { -1.0 } else { 1.0 };
    for index in 0..half {
        let sin = sign * sin[index];
        first[index] = a[index] * cos[index] - b[index] * sin;
        second[index] = b[index] * cos[index] + a[index] * sin;
    }
    rest.copy_from_slice(&x[2 * half..]);
}

impl Form<Flex, 1> for Rotate<(Values, Values)> {
    fn kept(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn value(&self, [x]: [&FlexTensor; 1]) -> FlexTensor {
        self.turn(x.clone(), false)
    }

    fn gradients(&self, _: [Option<FlexTensor>; 1], d_y: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.turn(d_y, true))]
    }
}
