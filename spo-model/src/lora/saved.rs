//! Modules that are trained in full beside the adapters: PEFT's `modules_to_save`.

use crate::{ModelError, ModelSpec};

/// Names of the modules that can be trained in full.
const NAMES: [&str; 9] = [
    "embed_tokens",
    "lm_head",
    "norm",
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "q_norm",
    "k_norm",
];

/// A set of module names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SavedModules(u16);

impl SavedModules {
    /// The modules of these names, as a model of this spec has them.
    ///
    /// # Errors
    /// A name that no such module has, or one of two modules that share their weight.
    pub fn new(names: &[String], spec: &ModelSpec) -> Result<Self, ModelError> {
        let refuse = |reason: String| ModelError::Adapter { file: "lora.modules-to-save".into(), reason };
        let mut set = Self::default();
        for name in names {
            let Some(index) = NAMES.iter().position(|known| known == name) else {
                return Err(refuse(format!("no module is called `{name}`; there are {}", NAMES.join(", "))));
            };
            if spec.tied && (name == "embed_tokens" || name == "lm_head") {
                return Err(refuse(format!(
                    "`{name}`: the head of this model shares the embedding's weight, and a copy of one would part them"
                )));
            }
            set.0 |= 1 << index;
        }
        Ok(set)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the parameter at a module path such as `layers.0.input_layernorm.weight` is of one of
    /// the modules.
    pub fn contains(self, path: &str) -> bool {
        let module = path.rsplit('.').nth(1).unwrap_or_default();
        NAMES.iter().position(|name| *name == module).is_some_and(|index| self.0 & (1 << index) != 0)
    }

    /// With the module of the parameter at this path; `None` if it is not one that can be trained in
    /// full.
    pub(super) fn with(self, path: &str) -> Option<Self> {
        let module = path.rsplit('.').nth(1)?;
        let index = NAMES.iter().position(|name| *name == module)?;
        Some(Self(self.0 | 1 << index))
    }

    /// The names.
    pub fn names(self) -> Vec<String> {
        let chosen = NAMES.iter().enumerate().filter(|(index, _)| self.0 & (1 << index) != 0);
        chosen.map(|(_, name)| name.to_string()).collect()
    }
}
