//! What a decoder looks like, as data: the quirks of a family live here, not in copies of code.

use crate::{ModelError, family};
use std::path::Path;

/// The shape and the quirks of a causal language model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Name of the family, as in `model_type`.
    pub family: &'static str,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides [`heads`](Self::heads).
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    /// ε of the RMS norms.
    pub norm_eps: f64,
    /// The head shares the embedding's weight.
    pub tied: bool,
    /// Query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// The attention's output projection has a bias.
    pub output_bias: bool,
    /// The feed-forward projections have a bias.
    pub mlp_bias: bool,
    /// Queries and keys are RMS-normed per head before the rotary embedding.
    pub qk_norm: bool,
    /// Rotary embedding.
    pub rope: Rope,
    /// One entry per decoder block.
    pub layers: Vec<LayerSpec>,
    /// Token ids that end a response, from `config.json` (`generation_config.json` may add more).
    pub eos: Vec<u32>,
}

/// What may differ between the blocks of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Attention sees this many most recent positions, itself included; `None` sees all.
    pub window: Option<usize>,
}

/// Rotary position embedding in the rotate-half layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How the frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
}

/// Stretching of rotary frequencies.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, those between blended.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low` are low frequencies.
        low: f64,
        /// Wavelengths below `original_context / high` are high frequencies.
        high: f64,
        /// Context of the pre-training.
        original_context: f64,
    },
}

impl ModelSpec {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// A missing directory or file, unusable JSON, an unknown or refused `model_type`, a missing
    /// or inconsistent key.
    pub fn from_dir(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        if !path.exists() {
            return Err(ModelError::MissingFile { dir: dir.into(), file: "config.json".into() });
        }
        let text = std::fs::read_to_string(&path).map_err(|e| ModelError::io(&path, e))?;
        family::parse(&path.display().to_string(), &text)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir).
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        family::parse("config.json", text)
    }

    /// Parameters of the model, tied ones counted once.
    pub fn parameters(&self) -> usize {
        let (h, q, kv) = (self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let bias = |on: bool, n: usize| if on { n } else { 0 };
        let attention = h * (q + 2 * kv)
            + q * h
            + bias(self.qkv_bias, q + 2 * kv)
            + bias(self.output_bias, h)
            + bias(self.qk_norm, 2 * self.head_dim);
        let mlp = 3 * h * self.intermediate_size + bias(self.mlp_bias, 2 * self.intermediate_size + h);
        let embeddings = self.vocab_size * h * if self.tied { 1 } else { 2 };
        embeddings + self.layers.len() * (attention + mlp + 2 * h) + h
    }
}

impl Rope {
    /// Inverse frequencies of a head of `dim` channels, `[dim / 2]`.
    pub fn inverse_frequencies(&self, dim: usize) -> Vec<f32> {
        let base = (0..dim / 2).map(|i| 1.0 / self.theta.powf(2.0 * i as f64 / dim as f64));
        base.map(|frequency| self.scale(frequency) as f32).collect()
    }

    fn scale(&self, frequency: f64) -> f64 {
        match self.scaling {
            RopeScaling::Default => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                if wavelength < original_context / high {
                    frequency
                } else if wavelength > original_context / low {
                    frequency / factor
                } else {
                    let smooth = (original_context / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}
