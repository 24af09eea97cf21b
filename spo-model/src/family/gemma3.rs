//! Gemma 3, text only: norms of queries and keys, five windowed blocks to one without, each kind
//! with a rotary embedding of its own.

use super::rope::RopeDefaults;
use super::{Config, Family, gemma2::gemma2_like};
use crate::spec::QkNorm;
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "gemma3_text", about: "Gemma 3, text", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = ModelSpec { qk_norm: QkNorm::PerHead, ..gemma2_like(config, "gemma3_text", (None, None))? };
    let pattern =
        if config.has("sliding_window_pattern") { "sliding_window_pattern" } else { "_sliding_window_pattern" };
    let (window, every) = (config.count_or("sliding_window", 4096)?, config.count_or(pattern, 6)?);
    config.windows(&mut spec, window, |index| !(index + 1).is_multiple_of(every))?;
    let theta = config.number_or("rope_theta", 1_000_000.0)?;
    let window_theta = Some(config.number_or("rope_local_base_freq", 10_000.0)?);
    config.rope(&mut spec, RopeDefaults { theta, window_theta, partial: 1.0 })?;
    Ok(spec)
}
