//! Phi 3 and 3.5: Llama with stacked projections and, for long contexts, LongRoPE.

use super::{Config, Family};
use crate::spec::{MlpKind, QkvLayout};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family =
    Family { name: "phi3", about: "Phi 3, 3.5 and 4; LongRoPE within the original context", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = ModelSpec { qkv: QkvLayout::Stacked, mlp: MlpKind::GatedFused, ..config.llama_like("phi3", None)? };
    if config.has("sliding_window") {
        let window = config.count("sliding_window")?;
        config.windows(&mut spec, window, |_| true)?;
    }
    Ok(spec)
}
