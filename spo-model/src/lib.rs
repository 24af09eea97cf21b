//! Causal language models on [burn](https://burn.dev): strict loading of Hugging Face checkpoints,
//! a packed, prefix-shared forward pass that returns hidden states, adapters, generation with a
//! key-value cache, and export back to a Hugging Face directory.
//!
//! The model never builds `[batch, seq, vocab]` logits. [`CausalLm::hidden`] returns the hidden
//! states at the positions that predict an answer token, and the chunked head of `spo-core` turns
//! them into log-probabilities.
//!
//! ```
//! use spo_data::{Group, PackedBatch};
//! use spo_model::{CausalLm, ModelSpec, device};
//!
//! let spec = ModelSpec::from_json(r#"{
//!     "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
//!     "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
//!     "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true
//! }"#)?;
//! let model = CausalLm::random(&spec, 7, &device::cpu());
//! let batch = PackedBatch::new(&[Group { prompt: &[1, 5, 6], answers: vec![&[7, 8, 2], &[9, 2]] }]);
//! let logps = model.token_logps(&batch, &Default::default());
//! assert_eq!(logps.len(), 5);
//! assert!(logps.iter().all(|logp| *logp < 0.0));
//! # Ok::<(), spo_model::ModelError>(())
//! ```

pub mod causal_lm;
pub mod decoder;
pub mod device;
pub mod encoder;
pub mod error;
pub mod export;
pub mod family;
pub mod flops;
pub mod generate;
mod gguf;
pub mod layer_inputs;
pub mod layout;
pub mod load;
pub mod lora;
pub mod memory;
pub mod merge;
mod open;
pub mod parameters;
pub mod quant;
pub mod reward;
pub mod score;
pub mod score_head;
pub mod spec;
pub mod steering;
pub mod storage;

pub use causal_lm::CausalLm;
pub use error::ModelError;
pub use spec::ModelSpec;
