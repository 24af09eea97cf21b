//! Seed-OSS: Llama with biases on the query, key and value projections, and one of its own for the output.

use super::{Config, Family};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "seed_oss", about: "Seed-OSS", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    Ok(ModelSpec {
        qkv_bias: config.flag_or("attention_bias", true)?,
        output_bias: config.flag_or("attention_out_bias", false)?,
        mlp_bias: config.flag_or("mlp_bias", false)?,
        ..config.llama_like("seed_oss", None)?
    })
}
