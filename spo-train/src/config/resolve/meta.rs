//! `[[data]] meta-prompts`: what follows of it, and what a run with it must have and may not have.

use super::Resolver;
use super::rounds::Arm;
use crate::config::document::Node;
use crate::config::spec::{DataEntry, LoraCondition, MetaUse, RunSections, RunSpec, Split};
use crate::config::validate::join;
use crate::error::ConfigError;

/// What is at fault: its key, what is wrong, what to do about it.
type Fault = (String, String, &'static str);

impl Resolver<'_> {
    /// The data, with what follows of their meta-prompts filled in.
    pub(super) fn data(&mut self) -> Vec<DataEntry> {
        let mut data = self.sections.data.clone();
        for (index, entry) in data.iter_mut().enumerate() {
            let Some(meta) = entry.source.meta_prompts.take() else { continue };
            if meta.priority.is_empty() {
                self.compute(format!("data.{index}.meta-prompts.priority"), "texts, by their dimensions' names");
            }
            entry.source.meta_prompts = Some(meta.settled());
        }
        data
    }

    /// What stands before the prompts that an arm learns from.
    pub(super) fn meta_use(&mut self, arm: &Arm<'_>) -> Result<MetaUse, ConfigError> {
        let Some(node) = arm.node.get("meta-prompts") else { return Ok(MetaUse::Own) };
        if self.sections.data.iter().all(|entry| entry.source.meta_prompts.is_none()) {
            return Err(ConfigError::Refused {
                at: self.document.place(&node.source),
                key: join(&arm.key, "meta-prompts"),
                message: "the data have no meta-prompts that it could learn from otherwise".to_owned(),
                hint: Some("leave it out, or write `meta-prompts` beside the training data's path".to_owned()),
            });
        }
        self.note(&join(&arm.prefix(), "meta-prompts"), node);
        Ok(serde_json::from_value(node.to_json()).expect("the schema admits only its names"))
    }
}

impl RunSpec {
    /// Refuses meta-prompts that make no sense, or beside which the run has or lacks something: before any row is read.
    ///
    /// # Errors
    /// The first fault, at its place.
    pub(crate) fn check_meta_prompts(&self) -> Result<(), ConfigError> {
        let Some((key, message, hint)) = fault(self.sections()) else { return Ok(()) };
        let at = self.document.place(&nearest(&self.document.root, &key).source);
        Err(ConfigError::Refused { at, key, message, hint: Some(hint.to_owned()) })
    }
}

fn fault(sections: &RunSections) -> Option<Fault> {
    let data = &sections.data;
    let key = |index: usize, key: &str| join(&format!("data.{index}"), key);
    let found = |key: String, message: &str, hint| Some((key, message.to_owned(), hint));
    let with = |entry: &&DataEntry| entry.source.meta_prompts.is_some();
    let first = data.iter().position(|entry| with(&entry))?;
    let place = data[first].source.meta_prompts.as_ref()?.place;
    for (index, entry) in data.iter().enumerate() {
        match (&entry.source.meta_prompts, entry.split) {
            (Some(_), Split::Test) => {
                let message = "held-out rows are asked with the texts that stand beside the training data";
                let hint = "write texts that are never trained there too, in `meta-prompts.held-out`";
                return found(key(index, "meta-prompts"), message, hint);
            }
            (None, Split::Train) => {
                let message = format!("it has no meta-prompts, and data.{first} has");
                let hint = "give all training data meta-prompts: a round learns what is asked for";
                return found(key(index, "path"), &message, hint);
            }
            (None, Split::Test) => {}
            (Some(meta), Split::Train) => {
                if let Err(wrong) = meta.check() {
                    return found(key(index, &format!("meta-prompts.{}", wrong.key)), &wrong.message, wrong.hint);
                }
                if meta.place != place {
                    let message = format!("meta-prompts of data.{first} stand elsewhere");
                    return found(key(index, "meta-prompts.place"), &message, "one place for all data");
                }
            }
        }
    }
    if data.iter().all(|entry| entry.split == Split::Train) {
        let message = "held-out rows are asked in every way, and the run has no data of their own for it";
        return found(key(first, "meta-prompts"), message, "add data with `split = \"test\"`");
    }
    if sections.steering.is_some() {
        let message = "a policy is told by texts or by labelled pairs whom it answers, not both";
        return found("steering".into(), message, "take [steering] or `meta-prompts` out");
    }
    if sections.lora.as_ref().is_some_and(|lora| lora.condition == Some(LoraCondition::Weights)) {
        let message = "a policy is told by texts or by weights what counts, not both";
        return found("lora.condition".into(), message, "take `condition` or `meta-prompts` out");
    }
    let online = sections.rounds.iter().position(|round| round.online.is_some())?;
    let message = "an online round answers the data's prompts for one scorer, whatever they ask for";
    found(format!("rounds.{online}.online"), message, "take `online` or `meta-prompts` out")
}

/// The node of a dotted key, or the nearest above it.
fn nearest<'a>(root: &'a Node, key: &str) -> &'a Node {
    let mut node = root;
    for name in key.split('.') {
        let item = name.parse().ok().and_then(|index: usize| node.items().get(index));
        node = item.or_else(|| node.get(name)).unwrap_or(node);
    }
    node
}
