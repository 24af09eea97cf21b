//! Qwen 2 and 2.5: Llama with biases on the query, key and value projections.

use super::{Config, Family};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "qwen2", about: "Qwen 2 and 2.5", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = ModelSpec { qkv_bias: true, ..config.llama_like("qwen2")? };
    config.sliding_window(&mut spec)?;
    Ok(spec)
}
