//! Gemma 2: bounded scores and logits, windows in every second block, norms around each part.

use super::{Config, Family, gemma::gemma_like};
use crate::layout::Layout;
use crate::spec::NormPlacement;
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "gemma2", about: "Gemma 2, with soft-caps and alternating windows", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = gemma2_like(config, "gemma2", (Some(50.0), Some(30.0)))?;
    let window = config.count_or("sliding_window", 4096)?;
    config.windows(&mut spec, window, |index| index.is_multiple_of(2))?;
    Ok(spec)
}

/// What Gemma 2 and 3 share; `caps` of scores and logits where the configuration has none.
pub fn gemma2_like(
    config: &Config,
    family: &'static str,
    caps: (Option<f64>, Option<f64>),
) -> Result<ModelSpec, ModelError> {
    let mut spec = ModelSpec {
        norm_placement: NormPlacement::Around,
        logit_softcap: config.optional_number("final_logit_softcapping", caps.1)?,
        layout: &Layout::NORMS_BY_PLACE,
        ..gemma_like(config, family, "hidden_activation")?
    };
    let (scale, softcap) = (
        config.number_or("query_pre_attn_scalar", 256.0)?.powf(-0.5),
        config.optional_number("attn_logit_softcapping", caps.0)?,
    );
    for layer in &mut spec.layers {
        (layer.attention.scale, layer.attention.softcap) = (scale, softcap);
    }
    Ok(spec)
}
