//! What a run file's data are read as.

use spo_data::meta::{MetaLayout, MetaPrompts, MetaRows};
use spo_data::{DataError, DataSpec, Part};

use super::document::Node;
use super::spec::{DataEntry, MetaUse, RunSpec, Split};
use super::{ConfigError, defaults};
use crate::TrainError;

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

    /// An error of reading the sources; that a file is not there is said with its place in the run file.
    pub(crate) fn placed(&self, error: DataError) -> TrainError {
        let DataError::NoFile { pattern } = &error else { return error.into() };
        let data = self.document.root.get("data").map_or(&[][..], Node::items);
        let of_entry = |(index, entry): (usize, &Node)| {
            let path = entry.get("path").filter(|path| path.is(pattern))?;
            Some((format!("data.{index}.path"), self.document.place(&path.source)))
        };
        let Some((key, at)) = data.iter().enumerate().find_map(of_entry) else { return error.into() };
        let (found, expected) = (format!("{pattern:?}"), "a path that names files".to_owned());
        ConfigError::WrongValue { at, key, found, expected, hint: error.hint() }.into()
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
