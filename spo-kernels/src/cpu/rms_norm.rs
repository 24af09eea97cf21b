//! See [`crate::rms_norm`]: a row at a time, with its statistics computed again in the backward pass.

use super::vector::{dot, widest};
use super::{Values, rows, rows_of, tensor};
use crate::Form;
use crate::rms_norm::RmsNorm;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

impl RmsNorm {
    /// `1 / √(mean(x²) + ε)`
    #[inline(always)]
    fn scale(self, x: &[f32]) -> f32 {
        1.0 / (dot(x, x) / x.len() as f32 + self.epsilon).sqrt()
    }
}

impl Form<Flex, 2> for RmsNorm {
    fn kept(&self, _: [bool; 2]) -> [bool; 2] {
        [true; 2]
    }

    fn value(&self, [x, weight]: [&FlexTensor; 2]) -> FlexTensor {
        let shape = x.layout().shape().clone();
        let (count, width) = rows_of(&shape);
        let (x, weight) = (Values::from(x.clone()), Values::from(weight.clone()));
        let out = rows::build(count, width, |first, out| {
            widest!({
                for (out, x) in out.chunks_exact_mut(width).zip(x[first * width..].chunks_exact(width)) {
                    let scale = self.scale(x);
                    out.iter_mut().zip(x).zip(&*weight).for_each(|((out, x), w)| *out = x * scale * (w + self.offset));
                }
            });
        });
        tensor(out, shape)
    }

    /// With `x̂ = s x` and `g = d_y · (w + offset)`: `d_x = s (g − x̂ mean(g x̂))`, `d_w = Σ d_y x̂`.
    fn gradients(
        &self,
        [x, weight]: [Option<FlexTensor>; 2],
        d_y: FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let shape = d_y.layout().shape().clone();
        let (count, width) = rows_of(&shape);
        let (Some(x), Some(weight)) = (x, weight) else { unreachable!("`kept` asks for both") };
        let [x, weight, d_y] = [x, weight, d_y].map(Values::from);
        let d_x = wanted[0].then(|| {
            let out = rows::build(count, width, |first, out| {
                widest!({
                    let (x, d_y) = (x[first * width..].chunks_exact(width), d_y[first * width..].chunks_exact(width));
                    for (out, (x, d_y)) in out.chunks_exact_mut(width).zip(x.zip(d_y)) {
                        let scale = self.scale(x);
                        out.iter_mut()
                            .zip(d_y)
                            .zip(&*weight)
                            .for_each(|((out, d_y), w)| *out = d_y * (w + self.offset));
                        let mean = dot(out, x) * scale * scale / width as f32;
                        out.iter_mut().zip(x).for_each(|(out, x)| *out = scale * (*out - x * mean));
                    }
                });
            });
            tensor(out, shape)
        });
        let d_weight = wanted[1].then(|| {
            let sums = rows::sum_rows(count, width, |rows, sums| {
                widest!({
                    let part = rows.start * width..rows.end * width;
                    for (x, d_y) in x[part.clone()].chunks_exact(width).zip(d_y[part].chunks_exact(width)) {
                        let scale = self.scale(x);
                        sums.iter_mut().zip(x).zip(d_y).for_each(|((sum, x), d_y)| *sum += d_y * x * scale);
                    }
                });
            });
            tensor(sums, [width])
        });
        [d_x, d_weight]
    }
}
