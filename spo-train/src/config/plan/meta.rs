//! Meta-prompts in a plan.

use spo_data::meta::MetaPrompts;

use super::{ArmPlan, RunPlan};

impl RunPlan {
    /// The meta-prompts of all training data together, as held-out rows are asked with them; `None` where the data have none.
    pub fn meta_prompts(&self) -> Option<MetaPrompts> {
        MetaPrompts::merged(self.data.iter().filter_map(|entry| entry.source.meta_prompts.as_ref()))
    }
}

impl ArmPlan {
    /// The dimension of the rows that it learns from, in a round of this one.
    pub fn learns<'a>(&self, dimension: &'a str) -> &'a str {
        if self.meta_prompts.is_own() { dimension } else { self.meta_prompts.dimension() }
    }
}
