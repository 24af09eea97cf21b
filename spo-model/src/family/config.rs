//! Typed reading of `config.json`, in its old form (`rope_theta` at the top) and in that of
//! transformers 5 (`rope_parameters`).

use crate::spec::{LayerSpec, Rope, RopeScaling};
use crate::{ModelError, ModelSpec};
use serde_json::{Map, Value};

/// A parsed `config.json`.
pub struct Config {
    file: String,
    map: Map<String, Value>,
}

impl Config {
    pub fn parse(file: &str, text: &str) -> Result<Self, ModelError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self { file: file.into(), map }),
            Ok(_) => Err(ModelError::Json { file: file.into(), reason: "not an object".into() }),
            Err(e) => Err(ModelError::Json { file: file.into(), reason: e.to_string() }),
        }
    }

    pub fn error(&self, key: &str, found: &str, expected: &str) -> ModelError {
        ModelError::Config { file: self.file.clone(), key: key.into(), found: found.into(), expected: expected.into() }
    }

    /// Present and not null.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<&Value> {
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

    pub fn string(&self, key: &str) -> Result<String, ModelError> {
        self.required(key, "a string", |v| v.as_str().map(String::from))
    }

    pub fn count(&self, key: &str) -> Result<usize, ModelError> {
        self.required(key, COUNT, count)
    }

    pub fn count_or(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        self.or(key, default, COUNT, count)
    }

    pub fn number_or(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        self.or(key, default, "a number", Value::as_f64)
    }

    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        self.or(key, default, "true or false", Value::as_bool)
    }

    /// `eos_token_id`: one id, a list of ids, or nothing.
    pub fn eos(&self) -> Result<Vec<u32>, ModelError> {
        self.or("eos_token_id", vec![], "a token id or a list of them", token_ids)
    }

    /// Refuses an activation other than SiLU.
    pub fn require_silu(&self) -> Result<(), ModelError> {
        match self.or("hidden_act", "silu".into(), "silu", |v| v.as_str().map(String::from))?.as_str() {
            "silu" | "swish" => Ok(()),
            other => Err(self.error("hidden_act", other, "silu")),
        }
    }

    /// Qwen's window: used when `use_sliding_window`, in blocks from `max_window_layers` on, or
    /// where `layer_types` says so.
    pub fn sliding_window(&self, spec: &mut ModelSpec) -> Result<(), ModelError> {
        if !self.flag_or("use_sliding_window", false)? || !self.has("sliding_window") {
            return Ok(());
        }
        let window = Some(self.count("sliding_window")?);
        let from = self.or("max_window_layers", 28, "a whole number", Value::as_u64)? as usize;
        let types = self.or("layer_types", vec![], "a list of strings", |value| {
            value.as_array()?.iter().map(|kind| kind.as_str().map(String::from)).collect()
        })?;
        for (index, layer) in spec.layers.iter_mut().enumerate() {
            let sliding = match types.get(index) {
                Some(kind) => kind == "sliding_attention",
                None => index >= from,
            };
            layer.window = window.filter(|_| sliding);
        }
        Ok(())
    }

    /// Rotary embedding from `rope_parameters`, or from `rope_theta` with `rope_scaling`.
    pub fn rope(&self, default_theta: f64) -> Result<Rope, ModelError> {
        let outer_theta = self.number_or("rope_theta", default_theta)?;
        let key = if self.has("rope_parameters") { "rope_parameters" } else { "rope_scaling" };
        let Some(value) = self.get(key) else {
            return Ok(Rope { theta: outer_theta, scaling: RopeScaling::Default });
        };
        let Value::Object(map) = value else {
            return Err(self.error(key, &value.to_string(), "an object"));
        };
        let inner = Config { file: format!("{}: {key}", self.file), map: map.clone() };
        Ok(Rope { theta: inner.number_or("rope_theta", outer_theta)?, scaling: inner.rope_scaling()? })
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ModelError> {
        let key = if self.has("rope_type") { "rope_type" } else { "type" };
        let number = |key: &str| self.required(key, "a number", Value::as_f64);
        match self.or(key, "default".into(), "a string", |v| v.as_str().map(String::from))?.as_str() {
            "default" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: number("factor")? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original_context: number("original_max_position_embeddings")?,
            }),
            other => Err(self.error(key, other, "default, linear or llama3")),
        }
    }

    /// The part that Llama and its relatives share; a family file changes what differs.
    pub fn llama_like(&self, family: &'static str) -> Result<ModelSpec, ModelError> {
        self.require_silu()?;
        let (hidden_size, heads) = (self.count("hidden_size")?, self.count("num_attention_heads")?);
        Ok(ModelSpec {
            family,
            vocab_size: self.count("vocab_size")?,
            hidden_size,
            intermediate_size: self.count("intermediate_size")?,
            heads,
            kv_heads: self.count_or("num_key_value_heads", heads)?,
            head_dim: self.count_or("head_dim", hidden_size / heads)?,
            context: self.count_or("max_position_embeddings", 2048)?,
            norm_eps: self.number_or("rms_norm_eps", 1e-6)?,
            tied: self.flag_or("tie_word_embeddings", false)?,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            rope: self.rope(10_000.0)?,
            layers: vec![LayerSpec { window: None }; self.count("num_hidden_layers")?],
            eos: self.eos()?,
        })
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
