//! Typed reading of `config.json`.

use super::rope::RopeDefaults;
use crate::layout::Layout;
use crate::spec::{
    Activation, AttentionSpec, ExpertsSpec, LayerSpec, MlpKind, NormKind, NormPlacement, QkNorm, QkvLayout,
};
use crate::{ModelError, ModelSpec};
use serde_json::{Map, Value};

/// A parsed `config.json`.
#[derive(Debug)]
pub struct Config {
    pub(super) file: String,
    pub(super) map: Map<String, Value>,
}

impl Config {
    /// The text of a `config.json`; `file` stands for it in errors.
    ///
    /// # Errors
    /// Text that is not a JSON object.
    pub fn parse(file: &str, text: &str) -> Result<Self, ModelError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self { file: file.into(), map }),
            Ok(_) => Err(ModelError::Json { file: file.into(), reason: "not an object".into() }),
            Err(e) => Err(ModelError::Json { file: file.into(), reason: e.to_string() }),
        }
    }

    /// The error that `key` holds `found` instead of `expected`.
    pub fn error(&self, key: &str, found: &str, expected: &str) -> ModelError {
        ModelError::Config { file: self.file.clone(), key: key.into(), found: found.into(), expected: expected.into() }
    }

    /// Present and not null.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Present, be it null.
    pub fn names(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The value of a key, if it is present and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn required<T>(&self, key: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<T, ModelError> {
        let value = self.get(key).ok_or_else(|| self.error(key, "nothing", expected))?;
        read(value).ok_or_else(|| self.error(key, &value.to_string(), expected))
    }

    fn or<T>(
        &self,
        key: &str,
        default: T,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, ModelError> {
        if self.has(key) { self.required(key, expected, read) } else { Ok(default) }
    }

    /// A string.
    ///
    /// # Errors
    /// The key is absent, null or something else.
    pub fn string(&self, key: &str) -> Result<String, ModelError> {
        self.required(key, "a string", |v| v.as_str().map(String::from))
    }

    /// A whole number above 0.
    ///
    /// # Errors
    /// The key is absent, null or something else.
    pub fn count(&self, key: &str) -> Result<usize, ModelError> {
        self.required(key, COUNT, count)
    }

    /// A whole number above 0, or the default where there is none.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn count_or(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        self.or(key, default, COUNT, count)
    }

    /// A number.
    ///
    /// # Errors
    /// The key is absent, null or something else.
    pub fn number(&self, key: &str) -> Result<f64, ModelError> {
        self.required(key, "a number", Value::as_f64)
    }

    /// A list of this many numbers.
    ///
    /// # Errors
    /// The key is absent, null or something else.
    pub fn numbers(&self, key: &str, length: usize) -> Result<Vec<f64>, ModelError> {
        self.required(key, &format!("{length} numbers"), |value| {
            let numbers: Option<Vec<f64>> = value.as_array()?.iter().map(Value::as_f64).collect();
            numbers.filter(|numbers| numbers.len() == length)
        })
    }

    /// A number, or the default where there is none.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        self.or(key, default, "a number", Value::as_f64)
    }

    /// A number; the default where the key is absent, nothing where it is null.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn optional_number(&self, key: &str, default: Option<f64>) -> Result<Option<f64>, ModelError> {
        match self.map.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.number(key).map(Some),
        }
    }

    /// True or false, or the default where there is neither.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        self.or(key, default, "true or false", Value::as_bool)
    }

    /// `eos_token_id`: one id, a list of ids, or nothing.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn eos(&self) -> Result<Vec<u32>, ModelError> {
        self.or("eos_token_id", vec![], "a token id or a list of them", token_ids)
    }

    /// An activation by transformers' name of it.
    ///
    /// # Errors
    /// A name that is none of an activation.
    pub fn activation_or(&self, key: &str, default: Activation) -> Result<Activation, ModelError> {
        self.or(key, default, "silu, gelu, gelu_pytorch_tanh or xielu", |value| match value.as_str()? {
            "silu" | "swish" => Some(Activation::Silu),
            "gelu" | "gelu_python" => Some(Activation::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_python_tanh" => Some(Activation::GeluTanh),
            "xielu" => Some(Activation::Xielu),
            _ => None,
        })
    }

    /// Gives the blocks that `layer_types` calls sliding a window, or without that key those that
    /// `sliding` picks by index.
    ///
    /// # Errors
    /// `layer_types` is not one of the two for each block.
    pub fn windows(
        &self,
        spec: &mut ModelSpec,
        window: usize,
        sliding: impl Fn(usize) -> bool,
    ) -> Result<(), ModelError> {
        const TYPES: &str = "sliding_attention or full_attention for each block";
        let types = self.or("layer_types", vec![], TYPES, |value| {
            value
                .as_array()?
                .iter()
                .map(|kind| match kind.as_str()? {
                    "sliding_attention" => Some(true),
                    "full_attention" => Some(false),
                    _ => None,
                })
                .collect()
        })?;
        if !types.is_empty() && types.len() != spec.layers.len() {
            return Err(self.error("layer_types", &format!("{} entries", types.len()), TYPES));
        }
        for (index, layer) in spec.layers.iter_mut().enumerate() {
            let slides = types.get(index).copied().unwrap_or_else(|| sliding(index));
            layer.attention.window = slides.then_some(window);
        }
        Ok(())
    }

    /// The model with `sliding_window` in all blocks, where there is one.
    ///
    /// # Errors
    /// As [`windows`](Self::windows).
    pub fn windowed(&self, mut spec: ModelSpec) -> Result<ModelSpec, ModelError> {
        if self.has("sliding_window") {
            let window = self.count("sliding_window")?;
            self.windows(&mut spec, window, |_| true)?;
        }
        Ok(spec)
    }

    /// Experts of gated blocks without biases, whose weights sum to 1: the key `count` of them, of this width inside.
    ///
    /// # Errors
    /// A key is missing or holds something else, or a token goes through more experts than there are.
    pub fn experts(&self, count: &str, intermediate_size: usize) -> Result<ExpertsSpec, ModelError> {
        let (count, active) = (self.count(count)?, self.count("num_experts_per_tok")?);
        if active > count {
            let expected = format!("at most the {count} experts");
            return Err(self.error("num_experts_per_tok", &active.to_string(), &expected));
        }
        let mlp = MlpKind::Gated;
        Ok(ExpertsSpec { count, active, intermediate_size, mlp, bias: false, renormalised: true, shared: None })
    }

    /// A list of indices below `count`.
    ///
    /// # Errors
    /// The key is absent, null or something else.
    pub fn indices(&self, key: &str, count: usize) -> Result<Vec<usize>, ModelError> {
        self.required(key, &format!("a list of whole numbers below {count}"), |value| {
            let index = |value: &Value| value.as_u64().map(|index| index as usize).filter(|index| *index < count);
            value.as_array()?.iter().map(index).collect()
        })
    }

    /// The part that Llama and its relatives share; a family file changes what differs. `head_dim` is
    /// the width of a head where `config.json` has none; `None`: the hidden size shared among the heads.
    ///
    /// # Errors
    /// Keys that are missing or hold something else, a rotary embedding that is not known.
    pub fn llama_like(&self, family: &'static str, head_dim: Option<usize>) -> Result<ModelSpec, ModelError> {
        let (hidden_size, heads) = (self.count("hidden_size")?, self.count("num_attention_heads")?);
        let head_dim = self.count_or("head_dim", head_dim.unwrap_or(hidden_size / heads))?;
        let mut spec = ModelSpec {
            family,
            vocab_size: self.count("vocab_size")?,
            hidden_size,
            intermediate_size: self.count("intermediate_size")?,
            heads,
            kv_heads: self.count_or("num_key_value_heads", heads)?,
            head_dim,
            context: self.count_or("max_position_embeddings", 2048)?,
            norm: NormKind::Rms,
            norm_placement: NormPlacement::Before,
            parallel: false,
            norm_eps: self.number_or("rms_norm_eps", 1e-6)?,
            tied: self.flag_or("tie_word_embeddings", false)?,
            qkv: QkvLayout::Separate,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: QkNorm::None,
            mlp: MlpKind::Gated,
            activation: self.activation_or("hidden_act", Activation::Silu)?,
            embedding_scale: None,
            learned_positions: false,
            logit_softcap: None,
            logit_scale: 1.0,
            residual_scale: 1.0,
            sinks: false,
            layer_inputs: None,
            layer_scalars: false,
            experts: None,
            ropes: vec![],
            layers: vec![
                LayerSpec { attention: AttentionSpec::plain(head_dim), rope: None, experts: false };
                self.count("num_hidden_layers")?
            ],
            layout: &Layout::LLAMA,
            eos: self.eos()?,
        };
        let (theta, partial) = (self.number_or("rope_theta", 10_000.0)?, self.number_or("partial_rotary_factor", 1.0)?);
        self.rope(&mut spec, RopeDefaults { theta, window_theta: None, partial })?;
        Ok(spec)
    }
}

const COUNT: &str = "a whole number above 0";

fn count(value: &Value) -> Option<usize> {
    value.as_u64().filter(|n| (1..=1 << 32).contains(n)).map(|n| n as usize)
}

/// One token id or a list of them.
pub fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    }
}
