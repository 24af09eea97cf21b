//! The adapter of one linear layer.

use super::dropout::Dropout;
use super::front_core::FrontCore;
use crate::storage::Storage;
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use spo_kernels::linear::linear;

/// LoRA, `x Wᵀ + s · (x Aᵀ) Bᵀ` (Hu et al. 2021, arXiv 2106.09685), or with a magnitude DoRA (Liu et
/// al. 2024, arXiv 2402.09353): the rows of `W + s·BA` are scaled to the lengths in `magnitude`. Their
/// own lengths count as constants when it is differentiated (section 4.3), as in PEFT.
#[derive(Module, Debug)]
pub struct LoraAdapter {
    /// `[rank, in]`
    pub a: Param<Tensor<2>>,
    /// `[out, rank]`
    pub b: Param<Tensor<2>>,
    /// `[out]`; of DoRA only.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// What stands between the factors; of a conditional adapter only.
    pub core: Option<FrontCore>,
    /// Squared lengths of the rows of `W`, f32 `[out]`; of DoRA only.
    row_squares: Option<Tensor<1>>,
    #[module(skip)]
    scale: f64,
    #[module(skip)]
    pub(crate) dropout: Option<Dropout>,
}

impl LoraAdapter {
    /// A plain adapter of `a`, `[rank, in]`, and `b`, `[out, rank]`, with the factor `scale`.
    pub fn new(a: Tensor<2>, b: Tensor<2>, scale: f64) -> Self {
        let (a, b) = (Param::from_tensor(a), Param::from_tensor(b));
        Self { a, b, magnitude: None, core: None, row_squares: None, scale, dropout: None }
    }

    /// For these rows of a batch alone: what dropout drops and whose z counts is told by token.
    pub(crate) fn on_rows(&mut self, rows: &[usize]) {
        self.dropout = self.dropout.take().map(|dropout| dropout.of_rows(rows));
        if let Some(mixture) = self.core.as_mut().and_then(|core| core.mixture.first_mut()) {
            mixture.by = mixture.by.on_rows(rows);
        }
    }

    /// With a magnitude, `[out]`; `None` starts from the lengths of the rows of `weight`, `[out, in]`.
    pub(crate) fn with_magnitude(mut self, magnitude: Option<Tensor<1>>, weight: Tensor<2>) -> Self {
        let squares = row_squares(weight);
        let dtype = self.b.val().dtype();
        let magnitude = magnitude.unwrap_or_else(|| squares.clone().sqrt().cast(dtype));
        self.magnitude = Some(Param::from_tensor(magnitude));
        self.row_squares = Some(squares);
        self
    }

    /// The factor `s`.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The rank.
    pub fn rank(&self) -> usize {
        self.a.val().dims()[0]
    }

    /// `[tokens, in]` → `[tokens, out]`; `base` multiplies rows by `Wᵀ`.
    pub fn forward(&self, x: Tensor<2>, base: &dyn Fn(Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let dropped = self.dropout.as_ref().and_then(|dropout| dropout.apply(x.clone()));
        let seen = dropped.clone().unwrap_or_else(|| x.clone());
        let inner = linear(seen, self.a.val());
        let inner = self.core.as_ref().map_or_else(|| inner.clone(), |core| core.apply(inner.clone()));
        let update = linear(inner * self.scale, self.b.val());
        let y = base(x);
        let Some(magnitude) = &self.magnitude else { return y + update };
        let lengths = self.row_lengths(base).cast(y.dtype());
        let factor = (magnitude.val() / lengths).unsqueeze::<2>();
        match dropped {
            None => (y + update) * factor,
            // As in PEFT: what the base itself gives is not dropped, its rescaling is.
            Some(dropped) => y + base(dropped) * (factor.clone() - 1.0) + update * factor,
        }
    }

    /// Lengths of the rows of `W + s·BA`, f32 `[out]`, without a tape and without a weight-shaped
    /// product: `‖w‖² + 2s·w·ba + s²·‖ba‖²`.
    fn row_lengths(&self, base: &dyn Fn(Tensor<2>) -> Tensor<2>) -> Tensor<1> {
        let squares = self.row_squares.clone().expect("a magnitude comes with the rows' squares");
        let (a, b) = (self.a.val().inner(), wide(self.b.val().inner()));
        let wa = wide(base(a.clone())).transpose();
        let a = wide(a);
        let gram = a.clone().matmul(a.transpose());
        let row_sums = |x: Tensor<2>| x.sum_dim(1).squeeze_dim::<1>(1);
        let mixed = row_sums(wa * b.clone()) * (2.0 * self.scale);
        let own = row_sums(b.clone().matmul(gram) * b) * (self.scale * self.scale);
        (squares + mixed + own).clamp_min(0.0).sqrt()
    }

    /// The weight `[out, in]` with this adapter folded in, f32.
    pub fn merge(&self, weight: Tensor<2>) -> Tensor<2> {
        let plain = self.clone().at_point();
        let delta = wide(plain.b.val()).matmul(wide(plain.a.val())) * self.scale;
        let merged = wide(weight) + delta;
        let Some(magnitude) = &self.magnitude else { return merged };
        let lengths = row_squares(merged.clone()).sqrt();
        merged * (magnitude.val().cast(Storage::F32.dtype()) / lengths).unsqueeze_dim::<2>(1)
    }

    /// The plain adapter that a conditional one is at its weights, of the sum of its ranks: the core goes into `A`, in
    /// f32 at least.
    pub(crate) fn at_point(mut self) -> Self {
        if let Some(core) = self.core.take() {
            let a = self.a.val();
            let a = if a.dtype() == DType::F64 { a } else { wide(a) };
            self.a = Param::from_tensor(core.times(a));
        }
        self
    }

    /// One adapter that adds what `self` and `other` add. Both are plain and have the same scale.
    pub(crate) fn joined(self, other: Self) -> Self {
        let cat = |first: Tensor<2>, second: Tensor<2>, dim| Tensor::cat(vec![first, second], dim);
        let mut joined =
            Self::new(cat(self.a.val(), other.a.val(), 0), cat(self.b.val(), other.b.val(), 1), self.scale);
        joined.dropout = other.dropout;
        joined
    }
}

fn wide(x: Tensor<2>) -> Tensor<2> {
    x.cast(Storage::F32.dtype())
}

fn row_squares(weight: Tensor<2>) -> Tensor<1> {
    wide(weight).square().sum_dim(1).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::Linear;
    use crate::decoder::check::{assert_gradients, flat, numbers};
    use std::sync::Arc;

    fn layer(a: Tensor<2>, b: Tensor<2>) -> Linear {
        let mut linear = Linear::new(numbers([4, 6], 3.0), None);
        let mut lora = LoraAdapter::new(a, b, 1.7);
        lora.dropout = Some(Dropout::new(0.3, "layer").with_keys(Arc::from([1, 2, 3])));
        (linear.lora, linear.frozen) =
            (Some(lora), Some(LoraAdapter::new(numbers([1, 6], 5.0), numbers([4, 1], 6.0), 0.4)));
        linear
    }

    /// `Σ dᵢ · tanh(y)ᵢ` of the layer with a dropout and a frozen adapter below.
    fn value(x: Tensor<2>, a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
        let y = layer(a, b).forward(x).tanh();
        (y.clone() * numbers([3, 4], 9.0)).sum()
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let at = [numbers([3, 6], 0.0), numbers([2, 6], 1.0), numbers([4, 2], 2.0)];
        assert_gradients(&at, |[x, a, b]| value(x, a, b));
    }

    #[test]
    fn row_lengths_are_those_of_the_merged_weight() {
        let weight = numbers([4, 6], 3.0).cast(DType::F32);
        let (a, b) = (numbers([2, 6], 1.0).cast(DType::F32), numbers([4, 2], 2.0).cast(DType::F32));
        let lora = LoraAdapter::new(a, b, 1.7).with_magnitude(None, weight.clone());
        let found = lora.row_lengths(&|x| x.matmul(weight.clone().transpose()));
        let plain = LoraAdapter { magnitude: None, ..lora.clone() };
        let expected = row_squares(plain.merge(weight)).sqrt();
        assert!(flat((found - expected).abs().unsqueeze()).into_iter().all(|difference| difference < 1e-5));
    }
}
