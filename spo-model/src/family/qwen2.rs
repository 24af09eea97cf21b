//! Qwen 2 and 2.5: Llama with biases on the query, key and value projections.

use super::{Config, Family};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "qwen2", about: "Qwen 2 and 2.5", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = ModelSpec { qkv_bias: true, ..config.llama_like("qwen2", None)? };
    qwen_windows(config, &mut spec)?;
    Ok(spec)
}

/// Qwen's windows: only if `use_sliding_window`, and then in blocks from `max_window_layers` on.
pub fn qwen_windows(config: &Config, spec: &mut ModelSpec) -> Result<(), ModelError> {
    if config.flag_or("use_sliding_window", false)? && config.has("sliding_window") {
        let from = config.number_or("max_window_layers", 28.0)? as usize;
        let window = config.count("sliding_window")?;
        config.windows(spec, window, |index| index >= from)?;
    }
    Ok(())
}
