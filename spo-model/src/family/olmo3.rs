//! OLMo 3: OLMo 2 with windows in three of four blocks; a scaling of the rotary embedding is for the others alone.

use super::rope::RopeDefaults;
use super::{Config, Family, olmo2::olmo2_like};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "olmo3", about: "OLMo 3", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = olmo2_like(config, "olmo3")?;
    let window = config.count_or("sliding_window", 4096)?;
    config.windows(&mut spec, window, |index| !(index + 1).is_multiple_of(4))?;
    let theta = config.number_or("rope_theta", 500_000.0)?;
    config.rope(&mut spec, RopeDefaults { theta, window_theta: Some(theta), partial: 1.0 })?;
    Ok(spec)
}
