//! What a run file's data are read as.

use spo_data::meta::{MetaLayout, MetaPrompts, MetaRows};
use spo_data::{DataSpec, Part};

use super::defaults;
use super::spec::{DataEntry, MetaUse, RunSpec, Split};

impl RunSpec {
    /// The sources of a split, or of both as they stand in the file. Of a directory whose files name their split an entry reads
    /// the files of its own; `system` is the message of prompts that have none.
    pub(crate) fn sources(&self, split: Option<Split>, system: Option<&str>) -> Vec<DataSpec> {
        let entries = &self.sections().data;
        let asked = MetaPrompts::merged(entries.iter().filter_map(|entry| entry.source.meta_prompts.as_ref()));
        let source = |entry: &DataEntry| {
            let (part, meta) = match entry.split {
                Split::Train => (Part::Train, entry.source.meta_prompts.clone()),
                Split::Test => (Part::Test, asked.clone()),
            };
            let layout = || self.meta_layout(entry.split, system);
            let meta_prompts = meta.map(|meta| MetaPrompts { layout: layout(), ..meta }.settled());
            DataSpec { part, meta_prompts, ..entry.source.clone() }
        };
        entries.iter().filter(|entry| split.is_none_or(|split| entry.split == split)).map(source).collect()
    }

    /// What rows with meta-prompts are made for: of a training row what rounds and their controls learn from.
    fn meta_layout(&self, split: Split, system: Option<&str>) -> MetaLayout {
        let controls = self.sections().rounds.iter().flat_map(|round| round.controls.iter().flatten());
        let used: Vec<MetaUse> = controls.filter_map(|control| control.meta_prompts).collect();
        let (shuffled, nothing) = (used.contains(&MetaUse::Shuffled), used.contains(&MetaUse::None));
        let rows = match split {
            Split::Train => MetaRows::Trained { shuffled, nothing },
            Split::Test => MetaRows::HeldOut,
        };
        let seed = self.sections().seed.unwrap_or(defaults::SEED);
        MetaLayout { seed, system: system.map(str::to_owned), rows }
    }
}
