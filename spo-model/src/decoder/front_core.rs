//! What makes the adapter of one linear layer conditional.

use super::mixture::Mixture;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use spo_kernels::linear::linear;

/// What stands between the two factors of a conditional adapter: `M(w) = diag(W₁, Σₖ wₖ W₂,ₖ)`, so that
/// `ΔW(w) = s B M(w) A = s [B₁W₁A₁ + B₂(Σₖ wₖ W₂,ₖ)A₂]`. In a policy for many users the coefficients of a mixture are in the
/// place of `w`.
#[derive(Module, Debug)]
pub struct FrontCore {
    /// `W₁`, `[shared, shared]`
    pub shared: Param<Tensor<2>>,
    /// `W₂,ₖ` below each other, `[dimensions · rank, rank]`
    pub weighed: Param<Tensor<2>>,
    /// What z makes of the `W₂,ₖ`: one or, where the weights count, none. A list keeps layers without it small.
    pub mixture: Vec<Mixture>,
    /// `w`
    #[module(skip)]
    weights: Vec<f64>,
}

impl FrontCore {
    /// A core at equal weights.
    ///
    /// # Shapes
    /// - `shared`: `[shared, shared]`
    /// - `weighed`: `[dimensions · rank, rank]`
    pub fn new(shared: Tensor<2>, weighed: Tensor<2>) -> Self {
        let [rows, rank] = weighed.dims();
        let dimensions = rows / rank;
        let weights = equal(dimensions);
        Self { shared: Param::from_tensor(shared), weighed: Param::from_tensor(weighed), mixture: vec![], weights }
    }

    /// The weights that it acts with, `[dimensions]`.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// With other weights, `[dimensions]`.
    pub(crate) fn weigh(&mut self, weights: &[f64]) {
        debug_assert_eq!(weights.len(), self.weights.len());
        self.weights = weights.to_vec();
    }

    /// `[tokens, shared + rank]` → `[tokens, shared + rank]`: each row times `M(w)ᵀ`.
    pub fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        let [_, total] = x.dims();
        let shared = self.shared.val();
        let first = shared.dims()[0];
        let (one, two) = (x.clone().narrow(1, 0, first), x.narrow(1, first, total - first));
        let two = match self.mixture.first() {
            Some(mixture) => mixture.apply(two, self.weighed.val()),
            None => linear(two, self.mixed()),
        };
        Tensor::cat(vec![linear(one, shared), two], 1)
    }

    /// `Σₖ wₖ W₂,ₖ`, `[rank, rank]`; with a mixture for its first z.
    fn mixed(&self) -> Tensor<2> {
        let weighed = self.weighed.val();
        if let Some(mixture) = self.mixture.first() {
            return mixture.mixed(weighed);
        }
        let rank = weighed.dims()[1];
        let of = |(index, weight): (usize, &f64)| weighed.clone().narrow(0, index * rank, rank) * *weight;
        let parts = self.weights.iter().enumerate().map(of);
        parts.reduce(|sum, part| sum + part).expect("a front has dimensions")
    }

    /// `M(w) A` for `a`, `[shared + rank, in]`, in f32 or its own wider type.
    pub(crate) fn times(&self, a: Tensor<2>) -> Tensor<2> {
        let [total, inputs] = a.dims();
        let dtype = a.dtype();
        let (shared, mixed) = (self.shared.val().cast(dtype), self.mixed().cast(dtype));
        let first = shared.dims()[0];
        let top = shared.matmul(a.clone().slice([0..first, 0..inputs]));
        Tensor::cat(vec![top, mixed.matmul(a.slice([first..total, 0..inputs]))], 0)
    }
}

/// The same weight for each of so many dimensions.
pub fn equal(dimensions: usize) -> Vec<f64> {
    vec![1.0 / dimensions as f64; dimensions]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::Linear;
    use crate::decoder::adapter::LoraAdapter;
    use crate::decoder::check::{assert_gradients, flat, numbers};
    use crate::decoder::film::TokenZ;
    use crate::device;
    use burn::module::ParamId;
    use burn::tensor::{DType, TensorData};

    const WEIGHTS: [f64; 3] = [0.5, 0.2, 0.3];

    /// `Σ dᵢ · tanh(y)ᵢ` of a layer with a conditional adapter of ranks 2 + 3 and three dimensions, of its input, its
    /// factors and both parts of its core.
    fn value([x, a, b, shared, weighed]: [Tensor<2>; 5]) -> Tensor<1> {
        let mut linear = Linear::new(numbers([4, 6], 3.0), None);
        let mut lora = LoraAdapter::new(a, b, 1.7);
        let mut core = FrontCore::new(shared, weighed);
        core.weigh(&WEIGHTS);
        lora.core = Some(core);
        linear.lora = Some(lora);
        (linear.forward(x).tanh() * numbers([3, 4], 9.0)).sum()
    }

    /// The same of a core whose coefficients two z make, of which the tokens go by the second, the first and the second.
    fn steered_value([x, a, b, shared, weighed, map, bias, z]: [Tensor<2>; 8]) -> Tensor<1> {
        let mut linear = Linear::new(numbers([4, 6], 3.0), None);
        let mut lora = LoraAdapter::new(a, b, 1.7);
        let mut core = FrontCore::new(shared, weighed);
        // A parameter that is no leaf of the tape: the leaf has another shape.
        let bias = Param::initialized(ParamId::new(), bias.reshape([3]));
        core.mixture = vec![Mixture { weight: Param::from_tensor(map), bias, by: by(z) }];
        lora.core = Some(core);
        linear.lora = Some(lora);
        (linear.forward(x).tanh() * numbers([3, 4], 9.0)).sum()
    }

    fn by(z: Tensor<2>) -> TokenZ {
        let rows = Tensor::from_data(TensorData::new(vec![1, 0, 1], [3]), &device::cpu());
        TokenZ { z, rows: Some(rows) }
    }

    fn steered_inputs() -> [Tensor<2>; 8] {
        let [x, a, b, shared, weighed] = inputs();
        [x, a, b, shared, weighed, numbers([3, 2], 7.0), numbers([1, 3], 8.0), numbers([2, 2], 10.0)]
    }

    #[test]
    fn gradients_through_a_mixture_equal_finite_differences() {
        assert_gradients(&steered_inputs(), steered_value);
    }

    #[test]
    fn for_one_z_a_mixture_is_a_plain_adapter_and_each_token_goes_by_its_own() {
        let [x, a, b, shared, weighed, map, bias, z] = steered_inputs();
        let layer = |by: TokenZ| {
            let mut lora = LoraAdapter::new(a.clone(), b.clone(), 1.7);
            let mut core = FrontCore::new(shared.clone(), weighed.clone());
            core.mixture = vec![Mixture::new(map.clone(), bias.clone().reshape([3]), by)];
            lora.core = Some(core);
            lora
        };
        let base = |x: Tensor<2>| x.matmul(numbers([4, 6], 3.0).transpose());
        let together = layer(by(z.clone())).forward(x.clone(), &base);
        for (token, set) in [1, 0, 1].into_iter().enumerate() {
            let row = |x: &Tensor<2>, row: usize| x.clone().narrow(0, row, 1);
            let alone = layer(TokenZ { z: row(&z, set), rows: None });
            let plain = alone.clone().at_point().forward(row(&x, token), &base);
            let merged = row(&x, token).matmul(alone.merge(numbers([4, 6], 3.0)).cast(DType::F64).transpose());
            let own = alone.forward(row(&x, token), &base);
            for (found, within) in [(row(&together, token), 1e-12), (plain, 1e-12), (merged, 1e-6)] {
                let off = flat((found - own.clone()).abs()).into_iter().fold(0.0, f64::max);
                assert!(off < within, "{token}: {off}");
            }
        }
    }

    fn inputs() -> [Tensor<2>; 5] {
        let shapes = [[3, 6], [5, 6], [4, 5], [2, 2], [9, 3]];
        let mut seed = 0.0;
        shapes.map(|shape| {
            seed += 1.3;
            numbers(shape, seed)
        })
    }

    #[test]
    fn gradients_equal_finite_differences() {
        assert_gradients(&inputs(), value);
    }

    #[test]
    fn a_point_is_the_formula_and_the_conditioned_layer() {
        let [x, a, b, shared, weighed] = inputs();
        let mut lora = LoraAdapter::new(a.clone(), b.clone(), 1.7);
        let mut core = FrontCore::new(shared.clone(), weighed.clone());
        core.weigh(&WEIGHTS);
        lora.core = Some(core);
        let conditioned = lora.forward(x.clone(), &|x| x.matmul(numbers([4, 6], 3.0).transpose()));
        let plain = lora.at_point().forward(x.clone(), &|x| x.matmul(numbers([4, 6], 3.0).transpose()));
        // s [B₁W₁A₁ + B₂(Σ wₖW₂,ₖ)A₂], written out.
        let rows = |x: &Tensor<2>, from: usize, to: usize| x.clone().slice([from..to, 0..x.dims()[1]]);
        let columns = |x: &Tensor<2>, from: usize, to: usize| x.clone().slice([0..x.dims()[0], from..to]);
        let mixed = (0..3).map(|k| rows(&weighed, 3 * k, 3 * k + 3) * WEIGHTS[k]).reduce(|a, b| a + b).expect("three");
        let first = columns(&b, 0, 2).matmul(shared).matmul(rows(&a, 0, 2));
        let delta = (first + columns(&b, 2, 5).matmul(mixed).matmul(rows(&a, 2, 5))) * 1.7;
        let expected = x.matmul((numbers([4, 6], 3.0) + delta).transpose());
        for found in [conditioned, plain] {
            assert!(flat((found - expected.clone()).abs()).into_iter().all(|difference| difference < 1e-12));
        }
    }
}
