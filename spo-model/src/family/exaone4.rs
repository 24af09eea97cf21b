//! EXAONE 4: norms on what attention and feed-forward block add and over each head's queries and keys; where some blocks
//! have a window, the others have no rotary embedding.

use super::{Config, Family};
use crate::layout::Layout;
use crate::spec::{NormPlacement, QkNorm};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "exaone4", about: "EXAONE 4, with blocks without RoPE", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = ModelSpec {
        norm_placement: NormPlacement::After,
        norm_eps: config.number_or("rms_norm_eps", 1e-5)?,
        qk_norm: QkNorm::PerHead,
        layout: &Layout::NORMS_BY_PLACE,
        ..config.llama_like("exaone4", None)?
    };
    if config.has("sliding_window") {
        let window = config.count("sliding_window")?;
        let every = full_attention_every(config)?;
        config.windows(&mut spec, window, |index| !(index + 1).is_multiple_of(every))?;
        for layer in &mut spec.layers {
            layer.rope = layer.rope.filter(|_| layer.attention.window.is_some());
        }
    }
    Ok(spec)
}

/// `sliding_window_pattern`: a number, or a letter for each of the blocks that repeat, `L` having a window.
fn full_attention_every(config: &Config) -> Result<usize, ModelError> {
    let Some(pattern) = config.get("sliding_window_pattern").and_then(|pattern| pattern.as_str()) else {
        return config.count_or("sliding_window_pattern", 4);
    };
    match pattern.strip_suffix('G') {
        Some(windows) if windows.chars().all(|kind| kind == 'L') => Ok(pattern.len()),
        _ => Err(config.error("sliding_window_pattern", pattern, "a whole number above 0, or letters as in LLLG")),
    }
}
