//! Low-rank adapters on the activation path: the frozen weight never gets a gradient, and no
//! weight-shaped product is ever built.
//!
//! A layer may carry two: the one that is trained, and below it a frozen one, which an earlier round
//! left behind.

mod attach;
pub mod front;
mod peft;
mod project;
mod saved;
mod targets;

pub use crate::decoder::adapter::LoraAdapter;
pub use crate::decoder::dropout::{Dropout, mix};
pub use front::{Condition, FrontSpec, Weights};
pub use peft::{
    load_adapter, load_adapter_as, load_adapter_for, merge_adapter, merge_adapter_at, merge_adapter_for, save_adapter,
};
pub use project::Complement;
pub use saved::SavedModules;
pub use targets::Targets;

use crate::decoder::Linear;
use crate::spec::{MlpKind, QkvLayout};
use crate::{CausalLm, ModelError, ModelSpec};

/// Shape and targets of the adapters of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraSpec {
    /// Rank of the update; of a conditional one that of the part that the weights change.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Scale `alpha / √rank` (rsLoRA, arXiv 2312.03732) instead of `alpha / rank`.
    pub rslora: bool,
    /// With a magnitude per output: DoRA.
    pub dora: bool,
    /// Share of an adapter's inputs that is dropped while it is trained.
    pub dropout: f64,
    /// The projections to adapt, by the names that the checkpoint has for them.
    pub targets: Targets,
    /// Modules that are trained in full beside them.
    pub saved: SavedModules,
    /// What the update is conditioned on, if it is.
    pub front: Option<FrontSpec>,
}

impl LoraSpec {
    /// Plain adapters of this rank and `alpha` on every projection.
    pub fn new(rank: usize, alpha: f64) -> Self {
        let (targets, saved) = (Targets::AllLinear, SavedModules::default());
        Self { rank, alpha, rslora: false, dora: false, dropout: 0.0, targets, saved, front: None }
    }

    /// The factor `s`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        if self.rslora { self.alpha / rank.sqrt() } else { self.alpha / rank }
    }

    /// The same scale at another rank.
    fn with_rank(&self, rank: usize) -> Self {
        let ratio = rank as f64 / self.rank as f64;
        let alpha = self.alpha * if self.rslora { ratio.sqrt() } else { ratio };
        Self { rank, alpha, ..self.clone() }
    }

    /// Rank of the whole update: that of the parts of a conditional one together.
    pub fn total_rank(&self) -> usize {
        self.front.as_ref().map_or(self.rank, |front| front.total_rank(self.rank))
    }

    /// Numbers that make a core's coefficients of z, of `width` numbers, in all layers of a model of this spec.
    ///
    /// # Errors
    /// A target that the model does not have.
    pub fn mixture_elements(&self, spec: &ModelSpec, width: usize) -> Result<usize, ModelError> {
        match self.front.as_ref().map(|front| &front.condition) {
            Some(Condition::Contexts(matrices)) => Ok(self.targets.select(spec)?.len() * matrices * (width + 1)),
            _ => Ok(0),
        }
    }

    /// That of the plain adapter which a conditional one is at any weights: of the same scale.
    pub fn at_point(&self) -> Self {
        let (rank, scale) = (self.total_rank(), self.scale());
        match &self.front {
            Some(_) => Self { rank, alpha: scale * rank as f64, rslora: false, front: None, ..self.clone() },
            None => self.clone(),
        }
    }

    /// Checks names and numbers against a model's shape.
    ///
    /// # Errors
    /// A rank of 0, a dropout outside `[0, 1)`, a target that no projection is called by.
    pub fn check(&self, spec: &ModelSpec) -> Result<(), ModelError> {
        let refuse = |reason: String| Err(ModelError::Adapter { file: "lora".into(), reason });
        if self.rank == 0 {
            return refuse("rank: found 0, expected at least 1".into());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(format!("dropout: found {}, expected a number of at least 0 and below 1", self.dropout));
        }
        if let Some(front) = &self.front {
            front.check().map_or(Ok(()), refuse)?;
            if self.dora || !self.saved.is_empty() {
                return refuse("a conditional adapter takes neither `dora` nor `modules-to-save`".into());
            }
        }
        self.targets.select(spec).map(|_| ())
    }
}

/// The module paths of the linear layers that a model of this spec has in its decoder blocks, such
/// as `layers.0.self_attn.q_proj`, in the order of [`projections`].
pub fn projection_names(spec: &ModelSpec) -> Vec<String> {
    let attention: &[&str] = match spec.qkv {
        QkvLayout::Separate => &["q_proj", "k_proj", "v_proj", "o_proj"],
        QkvLayout::Stacked | QkvLayout::PerHead => &["qkv_proj", "o_proj"],
    };
    let of_mlp = |module: String, kind: MlpKind| {
        kind.projections().iter().map(move |name| format!("{module}.{name}")).collect::<Vec<_>>()
    };
    let feed_forward = |layer: usize| match spec.experts.as_ref().filter(|_| spec.layers[layer].experts) {
        None => of_mlp("mlp".into(), spec.mlp),
        Some(experts) => {
            let each = (0..experts.count).flat_map(|expert| of_mlp(format!("moe.experts.{expert}"), experts.mlp));
            let shared = experts.shared.map(|_| of_mlp("moe.shared_expert".into(), MlpKind::Gated));
            each.chain(shared.into_iter().flatten()).collect()
        }
    };
    let own: &[&str] = if spec.layer_inputs.is_some() { &["layer_input.gate", "layer_input.projection"] } else { &[] };
    let of_layer = |layer| {
        let attention = attention.iter().map(|name| format!("self_attn.{name}"));
        let own = own.iter().map(|name| name.to_string());
        let all = attention.chain(feed_forward(layer)).chain(own).collect::<Vec<_>>();
        all.into_iter().map(move |module| format!("layers.{layer}.{module}"))
    };
    (0..spec.layers.len()).flat_map(of_layer).collect()
}

/// Every linear layer of the decoder blocks with its module path.
pub fn projections(model: &mut CausalLm) -> Vec<(String, &mut Linear)> {
    let mut all = vec![];
    for (index, block) in model.layers.iter_mut().enumerate() {
        all.extend(block.linears_mut().map(|(name, linear)| (format!("layers.{index}.{name}"), linear)));
    }
    all
}

/// Whether a module path belongs to the adapter that is trained.
pub fn is_adapter(path: &str) -> bool {
    let ends = [".lora.a", ".lora.b", ".lora.magnitude", ".lora.core.shared", ".lora.core.weighed"];
    ends.iter().any(|end| path.ends_with(end))
}
