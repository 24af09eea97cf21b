//! Low-rank adapters on the activation path (Hu et al. 2021, arXiv 2106.09685): the frozen weight
//! never gets a gradient, and no weight-shaped product is ever built.

mod peft;

pub use peft::{load_adapter, save_adapter};

use crate::decoder::Linear;
use crate::decoder::linear::product;
use crate::load::Storage;
use crate::{CausalLm, ModelError};
use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The adapter of one linear layer: `s · (x Aᵀ) Bᵀ`.
#[derive(Module, Debug)]
pub struct LoraAdapter {
    /// `[rank, in]`
    pub a: Param<Tensor<2>>,
    /// `[out, rank]`
    pub b: Param<Tensor<2>>,
    #[module(skip)]
    scale: f64,
}

impl LoraAdapter {
    /// `[tokens, in]` → `[tokens, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        product(product(x, self.a.val()) * self.scale, self.b.val())
    }

    /// `s · B A`, `[out, in]`: what merging adds to the weight.
    pub fn delta(&self) -> Tensor<2> {
        self.b.val().matmul(self.a.val()) * self.scale
    }
}

/// Shape and targets of the adapters of a model.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LoraSpec {
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Scale `alpha / √rank` (rsLoRA, arXiv 2312.03732) instead of `alpha / rank`.
    pub rslora: bool,
    /// Names of the projections to adapt, as the checkpoint calls them, such as `q_proj` or
    /// `c_attn`; empty means all of the decoder's.
    pub targets: Vec<String>,
}

impl LoraSpec {
    /// The factor `s`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        if self.rslora { self.alpha / rank.sqrt() } else { self.alpha / rank }
    }

    fn selects(&self, name: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| target == name)
    }
}

/// Every linear layer of the decoder blocks with its module path, such as
/// `layers.0.self_attn.q_proj`.
pub fn projections(model: &mut CausalLm) -> Vec<(String, &mut Linear)> {
    let mut all = vec![];
    for (index, block) in model.layers.iter_mut().enumerate() {
        let path = |module: &str, name: &str| format!("layers.{index}.{module}.{name}");
        all.extend(block.self_attn.linears_mut().map(|(name, linear)| (path("self_attn", name), linear)));
        all.extend(block.mlp.linears_mut().map(|(name, linear)| (path("mlp", name), linear)));
    }
    all
}

/// Whether a module path belongs to an adapter.
pub fn is_adapter(path: &str) -> bool {
    path.ends_with(".lora.a") || path.ends_with(".lora.b")
}

impl CausalLm {
    /// Attaches fresh adapters: A from U(−1/√in, 1/√in) as in PEFT, B at 0, so that the model is
    /// unchanged. They are stored in the base's type.
    ///
    /// # Errors
    /// A target that no projection is called by, or a rank of 0.
    pub fn with_lora(mut self, spec: &LoraSpec, seed: u64) -> Result<Self, ModelError> {
        let refuse = |reason: String| ModelError::Adapter { file: "lora".into(), reason };
        let layout = self.spec().layout;
        let mut names: Vec<String> = projections(&mut self).iter().map(|(path, _)| layout.last_name(path)).collect();
        names.sort_unstable();
        names.dedup();
        if let Some(target) = spec.targets.iter().find(|target| !names.contains(target)) {
            return Err(refuse(format!("no projection is called `{target}`; there are {}", names.join(", "))));
        }
        if spec.rank == 0 {
            return Err(refuse("rank: found 0, expected at least 1".into()));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (device, dtype) = (self.device(), self.dtype());
        for (path, linear) in projections(&mut self) {
            if !spec.selects(&layout.last_name(&path)) {
                continue;
            }
            let [out, inputs] = linear.weight.val().dims();
            let bound = (inputs as f32).sqrt().recip();
            let values: Vec<f32> = (0..spec.rank * inputs).map(|_| rng.random_range(-bound..bound)).collect();
            let a = Tensor::<2>::from_data(TensorData::new(values, [spec.rank, inputs]), &device).cast(dtype);
            let b = Tensor::zeros([out, spec.rank], (&device, dtype));
            linear.lora = Some(LoraAdapter { a: Param::from_tensor(a), b: Param::from_tensor(b), scale: spec.scale() });
        }
        Ok(self)
    }

    /// Whether any layer has an adapter.
    pub fn has_lora(&self) -> bool {
        crate::parameters::count(self, is_adapter) > 0
    }

    /// The model with its adapters folded into the weights, added in f32 and rounded once to the
    /// storage type.
    pub fn merged(mut self) -> Self {
        for (_, linear) in projections(&mut self) {
            if let Some(lora) = linear.lora.take() {
                let wide = |tensor: Tensor<2>| tensor.cast(Storage::F32.dtype());
                let delta = LoraAdapter { a: lora.a.map(wide), b: lora.b.map(wide), scale: lora.scale }.delta();
                linear.weight = linear.weight.clone().map(|weight| {
                    let dtype = weight.dtype();
                    (wide(weight) + delta).cast(dtype)
                });
            }
        }
        self
    }

    /// The model without its adapters.
    pub fn without_lora(mut self) -> Self {
        projections(&mut self).into_iter().for_each(|(_, linear)| linear.lora = None);
        self
    }
}

fn last_name(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
