//! Batched generation with a key-value cache.
//!
//! On the CPU sequences run through kernels made for a few rows at a time; on other devices, and
//! for models that those kernels do not know, through the model's tensors. Which one it is is
//! decided when a [`Generator`] is made, and [`Generator::path`] tells.

mod batch;
mod cpu;
mod sample;
mod tensors;
mod text;

pub use sample::Sampling;
pub use text::TextStream;

use crate::CausalLm;
use crate::device::on_cpu;
use batch::Decoder;
use cpu::CpuDecoder;
use serde::{Deserialize, Serialize};
use std::fmt;
use tensors::TensorDecoder;

/// How to run a model for generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Most sequences that run together.
    pub batch: usize,
    /// The weights' form in memory on the CPU.
    pub weights: WeightFormat,
    /// Most tokens that 8-bit copies of the weights guess ahead on the CPU while one or two
    /// sequences run. The full weights check every one of them: guesses change the speed and the
    /// memory, never a token. 0 makes none.
    pub drafts: usize,
}

impl Default for DecodeOptions {
    /// 8 sequences, exact weights, 8 drafts.
    fn default() -> Self {
        Self { batch: 8, weights: WeightFormat::F32, drafts: 8 }
    }
}

/// Form of the weights during generation on the CPU. Sums are in f32, and with 8-bit weights in whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// As loaded: in f32, or in bf16 where that changes no value of a matrix.
    F32,
    /// Rounded to bf16: half the memory traffic of f32.
    Bf16,
    /// Rounded to 8 bits with a scale for every 32 weights: 9/32 of the memory traffic of f32. Inputs of products are rounded
    /// to 16 bits, with a scale for every 32 of them too.
    Q8,
}

/// When to stop and how to choose.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Seed of the draws; each prompt of a call draws from a stream of its own, whatever its batch.
    pub seed: u64,
    /// Stream of the first prompt of the call: goes on counting over several calls.
    pub first_stream: u64,
    /// Tokens that end a sequence; they are part of it. Empty: only the length ends it.
    pub stop: Vec<u32>,
}

/// What a watcher wants after a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// End this sequence.
    End,
    /// End all sequences at once; those not begun stay empty.
    Stop,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// At a stop token.
    Stop,
    /// At `max_new_tokens`.
    Length,
    /// At the end of the model's context, or the prompt was empty.
    Context,
    /// By the watcher.
    Watch,
}

/// The continuation of one prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The new tokens, a stop token included.
    pub ids: Vec<u32>,
    /// Why there are no more.
    pub ended: Ended,
}

/// Which way a generator computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// The CPU's own kernels, with so many bytes of weights.
    Kernels {
        /// Memory of the matrices when the generator was made, shared with the model or not.
        weight_bytes: usize,
    },
    /// The model's tensors on its device.
    Tensors {
        /// What the kernels lack for a model on the CPU; `None` on other devices.
        reason: Option<String>,
    },
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernels { weight_bytes } => write!(f, "CPU kernels, {} MB of weights", weight_bytes / 1_000_000),
            Self::Tensors { reason: None } => write!(f, "tensors"),
            Self::Tensors { reason: Some(reason) } => {
                write!(f, "tensors: the CPU kernels do not know this model ({reason})")
            }
        }
    }
}

/// A model made ready for generation.
#[derive(Debug)]
pub struct Generator {
    decoder: Box<dyn Decoder>,
    context: usize,
    path: Path,
}

impl Generator {
    /// Prepares a model. On the CPU the weights of a few tokens are read where they are. Before more are generated, copies
    /// that are read faster take their place; give the model away, so that its own can go then.
    pub fn new(model: CausalLm, options: &DecodeOptions) -> Self {
        let context = model.spec().context;
        let kernels = on_cpu(&model.device()).then(|| CpuDecoder::new(model.clone(), options));
        let (decoder, path): (Box<dyn Decoder>, Path) = match kernels {
            Some(Ok(decoder)) => {
                let path = Path::Kernels { weight_bytes: decoder.bytes() };
                (Box::new(decoder), path)
            }
            other => {
                let reason = other.and_then(Result::err);
                (Box::new(TensorDecoder::new(model, options.batch)), Path::Tensors { reason })
            }
        };
        Self { decoder, context, path }
    }

    /// A generator that uses the model's tensors whatever its device: what the kernels are
    /// compared with.
    pub fn on_tensors(model: CausalLm, batch: usize) -> Self {
        let context = model.spec().context;
        Self { decoder: Box::new(TensorDecoder::new(model, batch)), context, path: Path::Tensors { reason: None } }
    }

    /// The fewest neighbouring prompts whose continuations do not depend on which others are continued with them, where
    /// `batch` run together: kernels compute each sequence for itself, tensors those that start together.
    pub fn independent(&self, batch: usize) -> usize {
        if matches!(self.path, Path::Kernels { .. }) { 1 } else { batch.max(1) }
    }

    /// Which way this generator computes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what is kept of the sequence that ended last, so that the next prompt is computed from its first token on,
    /// however it begins. No token depends on it.
    pub fn forget(&mut self) {
        self.decoder.forget();
    }

    /// Continues each prompt. `watch` sees each new token with the index of its prompt, in the
    /// order of each sequence. A sequence ends at the model's context too; an empty prompt has no
    /// continuation.
    pub fn generate(
        &mut self,
        prompts: &[&[u32]],
        options: &GenerateOptions,
        watch: &mut dyn FnMut(usize, u32) -> Control,
    ) -> Vec<Generation> {
        self.decoder.expect(prompts.len(), options.max_new_tokens);
        batch::run(self.decoder.as_mut(), prompts, self.context, options, watch)
    }
}
