//! Modules that are trained in full beside the adapters: PEFT's `modules_to_save`.

use super::targets::module_path;
use crate::spec::{NormPlacement, QkNorm};
use crate::{ModelError, ModelSpec};

/// Paths of the modules that can be trained in full; those of the blocks stand for all blocks.
const PATHS: [&str; 11] = [
    "embed_tokens",
    "embed_positions",
    "lm_head",
    "norm",
    "layers.0.input_layernorm",
    "layers.0.post_attention_layernorm",
    "layers.0.pre_feedforward_layernorm",
    "layers.0.post_feedforward_layernorm",
    "layers.0.self_attn.q_norm",
    "layers.0.self_attn.k_norm",
    SCORE,
];
/// The score head of a reward model.
const SCORE: &str = "score";

/// A set of module names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SavedModules(u16);

impl SavedModules {
    /// The modules that a model of this spec's checkpoint calls by these names.
    ///
    /// # Errors
    /// A name that no such module has, or one of two modules that share their weight.
    pub fn new(names: &[String], spec: &ModelSpec) -> Result<Self, ModelError> {
        let refuse = |reason: String| ModelError::Adapter { file: "lora.modules-to-save".into(), reason };
        let known: Vec<(usize, String)> = (0..PATHS.len())
            .filter(|index| exists(PATHS[*index], spec))
            .map(|index| (index, spec.layout.last_name(PATHS[index])))
            .collect();
        let mut set = Self::default();
        for name in names {
            let Some((index, _)) = known.iter().find(|(_, known)| known == name) else {
                let known: Vec<&str> = known.iter().map(|(_, name)| name.as_str()).collect();
                return Err(refuse(format!("no module is called `{name}`; there are {}", known.join(", "))));
            };
            if spec.tied && matches!(PATHS[*index], "embed_tokens" | "lm_head") {
                return Err(refuse(format!(
                    "`{name}`: the head of this model shares the embedding's weight, and a copy of one would part them"
                )));
            }
            set.0 |= 1 << index;
        }
        Ok(set)
    }

    /// With the score head of a reward model.
    #[must_use]
    pub fn with_score_head(self) -> Self {
        self.with("score.weight").expect("the score head is one of the modules")
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the parameter at a module path such as `layers.0.input_layernorm.weight` is of one of
    /// the modules.
    pub fn contains(self, path: &str) -> bool {
        place(path).is_some_and(|index| self.0 & (1 << index) != 0)
    }

    /// With the module of the parameter at this path; `None` if it is not one that can be trained in
    /// full.
    pub(super) fn with(self, path: &str) -> Option<Self> {
        Some(Self(self.0 | 1 << place(path)?))
    }

    /// The names under which PEFT finds these modules and no others: it takes every module whose path
    /// ends with one of them.
    pub(super) fn names(self, spec: &ModelSpec) -> Vec<String> {
        let all: Vec<(&str, String)> = PATHS
            .into_iter()
            .filter(|path| exists(path, spec))
            .map(|path| (path, spec.layout.last_name(path)))
            .collect();
        let chosen = PATHS.into_iter().enumerate().filter(|(index, _)| self.0 & (1 << index) != 0);
        let exact = |path: &'static str| {
            let name = spec.layout.last_name(path);
            let others = all.iter().filter(|(other, name_of_other)| *other != path && name_of_other.ends_with(&name));
            if others.count() > 0 { module_path(spec.layout, path) } else { name }
        };
        chosen.map(|(_, path)| exact(path)).collect()
    }
}

/// Whether a model of this spec has the module.
fn exists(path: &str, spec: &ModelSpec) -> bool {
    match path {
        "embed_positions" => spec.learned_positions,
        // Reward models always train it: nobody has to name it.
        SCORE => false,
        "layers.0.input_layernorm" => spec.norm_placement != NormPlacement::After,
        "layers.0.pre_feedforward_layernorm" => spec.norm_placement.before_and_after().0,
        "layers.0.post_attention_layernorm" | "layers.0.post_feedforward_layernorm" => {
            spec.norm_placement.before_and_after().1
        }
        "layers.0.self_attn.q_norm" | "layers.0.self_attn.k_norm" => spec.qk_norm != QkNorm::None,
        _ => true,
    }
}

/// Which of [`PATHS`] has the parameter at this path.
fn place(path: &str) -> Option<usize> {
    let module = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let (path, _) = path.rsplit_once('.')?;
    PATHS.iter().position(|known| module(known) == module(path))
}
