//! Rotary embeddings from `config.json`: `rope_theta` with `rope_scaling`, transformers 5's
//! `rope_parameters`, and its form with an entry per layer type.

use super::Config;
use crate::spec::{QueryGrowth, Rope, RopeScaling};
use crate::{ModelError, ModelSpec};
use serde_json::Value;

/// What holds where `rope_parameters` says nothing.
#[derive(Debug, Clone, Copy)]
pub struct RopeDefaults {
    /// Base of the frequencies.
    pub theta: f64,
    /// The base in blocks with a window, where it differs.
    pub window_theta: Option<f64>,
    /// The share of a head's channels that is rotated.
    pub partial: f64,
}

impl Config {
    /// Gives the blocks of a spec their rotary embeddings.
    ///
    /// # Errors
    /// A scaling that is not known, or lacks a key.
    pub fn rope(&self, spec: &mut ModelSpec, defaults: RopeDefaults) -> Result<(), ModelError> {
        let key = if self.has("rope_parameters") { "rope_parameters" } else { "rope_scaling" };
        let parameters = self.object(key)?;
        let window_theta = defaults.window_theta.unwrap_or(defaults.theta);
        let mut ropes = vec![];
        if parameters.holds_objects() {
            // The table of each kind of block that the model has, blocks without a window first.
            for (kind, windowed, theta) in
                [("full_attention", false, defaults.theta), ("sliding_attention", true, window_theta)]
            {
                if spec.layers.iter().any(|layer| layer.attention.window.is_some() == windowed) {
                    ropes.push(self.one_rope(&parameters.object(kind)?, theta, defaults.partial, spec)?);
                }
            }
        } else {
            ropes.push(self.one_rope(&parameters, defaults.theta, defaults.partial, spec)?);
            if let Some(theta) = defaults.window_theta {
                ropes.push(Rope { theta, scaling: RopeScaling::Default, ..ropes[0].clone() });
            }
        }
        for layer in &mut spec.layers {
            layer.rope = Some(if layer.attention.window.is_some() { ropes.len() - 1 } else { 0 });
        }
        spec.ropes = ropes;
        Ok(())
    }

    fn one_rope(&self, of: &Config, theta: f64, partial: f64, spec: &mut ModelSpec) -> Result<Rope, ModelError> {
        let theta = of.number_or("rope_theta", theta)?;
        let turned = spec.head_dim as f64 * of.number_or("partial_rotary_factor", partial)?;
        if of.get("rope_type").is_some_and(|kind| kind == "proportional") {
            let factor = of.number_or("factor", 1.0)?;
            let scaling = RopeScaling::Proportional { turned: (turned / 2.0) as usize, factor };
            return Ok(Rope { theta, dim: spec.head_dim, scaling, pairs: false, growth: None });
        }
        let dim = turned as usize;
        if dim == 0 || !dim.is_multiple_of(2) || dim > spec.head_dim {
            let found = format!("{dim} rotated channels of a head of {}", spec.head_dim);
            return Err(self.error("partial_rotary_factor", &found, "an even number, at most the whole head"));
        }
        let growth = match of.has("llama_4_scaling_beta") {
            true => Some(QueryGrowth {
                beta: of.number("llama_4_scaling_beta")?,
                context: of.number("original_max_position_embeddings")?,
            }),
            false => None,
        };
        Ok(Rope { theta, dim, scaling: self.rope_scaling(of, dim, spec)?, pairs: false, growth })
    }

    fn rope_scaling(&self, of: &Config, dim: usize, spec: &mut ModelSpec) -> Result<RopeScaling, ModelError> {
        let key = if of.has("rope_type") { "rope_type" } else { "type" };
        let kind = if of.has(key) { of.string(key)? } else { "default".into() };
        // Phi 3 keeps it at the top, and that is what counts.
        let outer = if self.has("original_max_position_embeddings") { self } else { of };
        let original_context = outer.number_or("original_max_position_embeddings", spec.context as f64)?;
        match kind.as_str() {
            // Dynamic scaling begins where the context ends, and longer rows are refused.
            "default" | "dynamic" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: of.number("factor")? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: of.number("factor")?,
                low: of.number("low_freq_factor")?,
                high: of.number("high_freq_factor")?,
                original_context,
            }),
            "yarn" => {
                let factor = of.number_or("factor", spec.context as f64 / original_context)?;
                Ok(RopeScaling::Yarn {
                    factor,
                    fast: of.number_or("beta_fast", 32.0)?,
                    slow: of.number_or("beta_slow", 1.0)?,
                    truncate: of.flag_or("truncate", true)?,
                    original_context,
                    attention_factor: of.number_or("attention_factor", yarn_attention(of, factor)?)?,
                })
            }
            "longrope" | "su" => {
                let factor = of.number_or("factor", spec.context as f64 / original_context)?;
                let attention = if factor > 1.0 { (1.0 + factor.ln() / original_context.ln()).sqrt() } else { 1.0 };
                // A longer row would change the frequencies of all its tokens: such rows are refused.
                let long_context = spec.context;
                spec.context = spec.context.min(original_context as usize);
                Ok(RopeScaling::LongRope {
                    factors: of.numbers("short_factor", dim / 2)?,
                    long_factors: of.numbers("long_factor", dim / 2)?,
                    original_context,
                    long_context,
                    attention_factor: of.number_or("attention_factor", attention)?,
                })
            }
            other => Err(of.error(key, other, "default, linear, dynamic, yarn, llama3, longrope or proportional")),
        }
    }

    /// A number of `rope_parameters` or `rope_scaling`, if it is there.
    ///
    /// # Errors
    /// It is something else than a number.
    pub fn rope_number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        let of = if self.has("rope_parameters") { "rope_parameters" } else { "rope_scaling" };
        self.object(of)?.optional_number(key, None)
    }

    /// The object under a key; empty where there is none.
    fn object(&self, key: &str) -> Result<Config, ModelError> {
        let map = match self.get(key) {
            None => Default::default(),
            Some(Value::Object(map)) => map.clone(),
            Some(other) => return Err(self.error(key, &other.to_string(), "an object")),
        };
        Ok(Config { file: format!("{}: {key}", self.file), map })
    }

    fn holds_objects(&self) -> bool {
        self.map.values().any(Value::is_object)
    }
}

/// YaRN's factor on cosines and sines, where none is given.
fn yarn_attention(of: &Config, factor: f64) -> Result<f64, ModelError> {
    let scale = |weight: f64| if factor > 1.0 { 0.1 * weight * factor.ln() + 1.0 } else { 1.0 };
    let (weight, all) = (of.number_or("mscale", 0.0)?, of.number_or("mscale_all_dim", 0.0)?);
    Ok(if weight != 0.0 && all != 0.0 { scale(weight) / scale(all) } else { scale(1.0) })
}
