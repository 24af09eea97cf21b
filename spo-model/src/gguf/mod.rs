//! What a model is called in GGUF files: one description per family, for writing and for reading.

pub mod architecture;
pub mod keys;
pub mod order;
pub mod tensors;
