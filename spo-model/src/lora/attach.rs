//! Adapters of a whole model: attaching, stacking, merging, taking off.

use super::front::{FrontCore, equal};
use super::{Dropout, LoraAdapter, LoraSpec, is_adapter, projections};
use crate::decoder::Linear;
use crate::parameters::count;
use crate::{CausalLm, ModelError};
use burn::module::Param;
use burn::tensor::{DType, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl CausalLm {
    /// Attaches fresh adapters: A, and the matrices of a core, from U(−1/√in, 1/√in) as in PEFT, B at 0, magnitudes at the
    /// lengths of the weight's rows, so that the model is unchanged. They are stored in the base's type.
    ///
    /// # Errors
    /// What [`LoraSpec::check`] refuses.
    pub fn with_lora(mut self, spec: &LoraSpec, seed: u64) -> Result<Self, ModelError> {
        spec.check(self.spec())?;
        let selected = BTreeSet::from_iter(spec.targets.select(self.spec())?);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (device, dtype) = (self.device(), self.dtype());
        for (path, linear) in projections(&mut self).into_iter().filter(|(path, _)| selected.contains(path)) {
            let [out, inputs] = linear.dims();
            let rank = spec.total_rank();
            let mut fresh = |rows: usize, inputs: usize| {
                let bound = (inputs as f32).sqrt().recip();
                let values: Vec<f32> = (0..rows * inputs).map(|_| rng.random_range(-bound..bound)).collect();
                Tensor::<2>::from_data(TensorData::new(values, [rows, inputs]), &device).cast(dtype)
            };
            let mut lora =
                LoraAdapter::new(fresh(rank, inputs), Tensor::zeros([out, rank], (&device, dtype)), spec.scale());
            lora.core = spec.front.as_ref().map(|front| {
                let (shared, rank) = (front.shared_rank, spec.rank);
                FrontCore::new(fresh(shared, shared), fresh(front.matrices() * rank, rank))
            });
            linear.attach(&path, spec, lora, None);
        }
        Ok(self)
    }

    /// Conditional adapters at these weights, one for each dimension; they keep their parameters. Other adapters stay as
    /// they are.
    pub fn with_weights(mut self, weights: &[f64]) -> Self {
        let linears = projections(&mut self).into_iter().map(|(_, linear)| linear);
        linears.filter_map(|linear| linear.lora.as_mut()?.core.as_mut()).for_each(|core| core.weigh(weights));
        self
    }

    /// The weights that conditional adapters act with, where there are any that go by weights.
    pub fn weights(&self) -> Option<Vec<f64>> {
        let mut model = self.clone();
        let mut linears = projections(&mut model).into_iter();
        let core = |linear: &mut Linear| linear.lora.as_ref()?.core.clone().filter(|core| core.mixture.is_empty());
        linears.find_map(|(_, linear)| Some(core(linear)?.weights().to_vec()))
    }

    /// Conditional adapters as they are when nobody says how to weigh: at equal weights.
    pub fn at_equal_weights(self) -> Self {
        match self.weights() {
            Some(weights) => self.with_weights(&equal(weights.len())),
            None => self,
        }
    }

    /// The model at one point of its front: its conditional adapters are plain ones with the same effect.
    pub fn at_weights(self, weights: &[f64]) -> Self {
        self.with_weights(weights).with_plain_adapters()
    }

    /// The model as it is for the user that it is steered by, with plain adapters of the same effect and nothing that steers;
    /// `None` where films scale and shift its blocks' outputs, which no adapter does.
    pub fn settled(mut self) -> Option<Self> {
        self.steering = None;
        let films = self.layers.iter().any(|block| block.film.is_some());
        (!films).then(|| self.with_plain_adapters())
    }

    fn with_plain_adapters(mut self) -> Self {
        for (_, linear) in projections(&mut self) {
            linear.lora = linear.lora.take().map(|lora| {
                let dtype = lora.b.val().dtype();
                let mut plain = lora.at_point();
                plain.a = plain.a.map(|a| a.cast(dtype));
                plain
            });
        }
        self
    }

    /// Freezes the adapters, on top of those frozen before, and attaches fresh ones.
    ///
    /// # Errors
    /// The adapters are DoRA, whose updates do not add up; or as [`with_lora`](Self::with_lora).
    pub fn stacked(mut self, spec: &LoraSpec, seed: u64) -> Result<Self, ModelError> {
        if spec.dora {
            let reason = "DoRA adapters do not add up, so they cannot be stacked".into();
            return Err(ModelError::Adapter { file: "lora".into(), reason });
        }
        for (_, linear) in projections(&mut self) {
            linear.frozen = join(linear.frozen.take(), linear.lora.take());
        }
        self.with_lora(spec, seed)
    }

    /// The model with the frozen and the trained adapter of each layer as one: of the sum of their
    /// ranks, with the same effect.
    pub fn joined(mut self) -> Self {
        for (_, linear) in projections(&mut self) {
            linear.lora = join(linear.frozen.take(), linear.lora.take());
        }
        self
    }

    /// The model with dropout switched on for a batch whose tokens have these keys.
    pub fn with_dropout(mut self, keys: &Arc<[u64]>) -> Self {
        for (_, linear) in projections(&mut self) {
            if let Some(lora) = &mut linear.lora {
                lora.dropout = lora.dropout.take().map(|dropout| dropout.with_keys(keys.clone()));
            }
        }
        self
    }

    /// Whether any adapter drops inputs while it is trained.
    pub fn has_dropout(&self) -> bool {
        let mut model = self.clone();
        projections(&mut model)
            .iter()
            .any(|(_, linear)| linear.lora.as_ref().is_some_and(|lora| lora.dropout.is_some()))
    }

    /// Whether any weight is in blocks: quantised, or as its file has it.
    pub fn is_quantised(&self) -> bool {
        projections(&mut self.clone()).iter().any(|(_, linear)| linear.weight.is_none())
    }

    /// Whether any layer has an adapter.
    pub fn has_lora(&self) -> bool {
        count(self, |path| is_adapter(path) || path.contains(".frozen.")) > 0
    }

    /// The model with its adapters folded into the weights, added in f32 and rounded once to the
    /// storage type. Quantised weights become dense.
    pub fn merged(mut self) -> Self {
        let of_model = self.dtype();
        projections(&mut self).into_iter().for_each(|(_, linear)| linear.merge(of_model));
        self
    }

    /// The projections' weights by path, each with its adapters still apart, and what is left of the model: so each can be
    /// merged and made dense when its turn comes.
    pub(crate) fn without_projections(mut self) -> (Self, BTreeMap<String, Linear>) {
        let taken = projections(&mut self).into_iter().map(|(path, linear)| (path, linear.take())).collect();
        (self, taken)
    }

    /// The model without its adapters.
    pub fn without_lora(mut self) -> Self {
        projections(&mut self).into_iter().for_each(|(_, linear)| (linear.frozen, linear.lora) = (None, None));
        self.layers.iter_mut().for_each(|block| block.film = None);
        self.steering = None;
        self
    }
}

impl Linear {
    /// Puts an adapter on this layer, with what the spec adds to it.
    pub(super) fn attach(&mut self, path: &str, spec: &LoraSpec, lora: LoraAdapter, magnitude: Option<Tensor<1>>) {
        let mut lora = if spec.dora { lora.with_magnitude(magnitude, self.dense()) } else { lora };
        lora.dropout = (spec.dropout > 0.0).then(|| Dropout::new(spec.dropout, path));
        self.lora = Some(lora);
    }

    /// Folds the adapters into the weight, which is dense then, in its own type or in this one.
    fn merge(&mut self, of_blocks: DType) {
        let dtype = self.weight.as_ref().map_or(of_blocks, |weight| weight.val().dtype());
        let adapters: Vec<LoraAdapter> = [self.frozen.take(), self.lora.take()].into_iter().flatten().collect();
        if !adapters.is_empty() {
            let merged = adapters.iter().fold(self.dense(), |weight, adapter| adapter.merge(weight));
            self.set_dense(merged.cast(dtype));
        }
    }

    /// The weight and its adapters, with nothing left of them here.
    fn take(&mut self) -> Self {
        let (weight, blocks, kept) = (self.weight.take(), self.blocks.take(), self.kept.take());
        Self { weight, blocks, kept, bias: None, frozen: self.frozen.take(), lora: self.lora.take() }
    }

    /// `[out, in]` with the adapters folded in, in its own type or, of a weight in blocks, in this one.
    pub(crate) fn merged_weight(mut self, of_blocks: DType) -> Tensor<2> {
        self.merge(of_blocks);
        self.dense()
    }

    fn set_dense(&mut self, weight: Tensor<2>) {
        (self.weight, self.blocks, self.kept) = (Some(Param::from_tensor(weight)), None, None);
    }
}

fn join(below: Option<LoraAdapter>, above: Option<LoraAdapter>) -> Option<LoraAdapter> {
    match (below, above) {
        (Some(below), Some(above)) => Some(below.joined(above)),
        (below, above) => below.or(above),
    }
}
