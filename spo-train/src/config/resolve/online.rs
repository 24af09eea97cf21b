//! `[rounds.online]`: its values, and the parts that a round falls into where it samples anew.

use serde_json::{Map, Value};
use spo_score::{ScoreError, ScorerSpec};

use super::layers::Layers;
use super::sections::from_table;
use super::{DimensionRows, Resolver};
use crate::config::defaults;
use crate::config::document::Node;
use crate::config::plan::{OnlinePlan, RoundPlan};
use crate::config::schema::checked_schema;
use crate::config::validate::join;
use crate::error::ConfigError;

/// Keys that say how pairs are made.
const OF_PAIRS: &[&str] = &["prompts-at-once", "include-data", "unfinished", "pair", "min-gap", "refresh"];

impl Resolver<'_> {
    /// The online settings of a round, with the number of prompts that are there; `prefix` is the round in the plan. With
    /// the objective `score` its answers are the round's loss, and no pairs are made of them.
    pub(super) fn online(
        &mut self,
        key: &str,
        prefix: &str,
        node: &Node,
        scored: bool,
    ) -> Result<Option<(OnlinePlan, DimensionRows)>, ConfigError> {
        let Some(section) = node.get("online") else { return Ok(None) };
        let (key, prefix) = (join(key, "online"), join(prefix, "online"));
        let properties = &checked_schema()["properties"]["rounds"]["items"]["properties"]["online"]["properties"];
        let keys: Vec<&str> = properties.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let layers = Layers::default().under(&key, Some(section), &[]);
        let defaults = if scored { defaults::scored() } else { defaults::online() };
        let values = self.settle(&prefix, defaults::table(&defaults), &keys, &layers);
        let scorer = section.get("scorer").ok_or_else(|| ConfigError::MissingKey {
            at: self.document.place(&section.source),
            key: "scorer".into(),
            section: format!("`{key}`"),
        })?;
        self.check_scorer(&join(&key, "scorer"), scorer)?;
        let plan: OnlinePlan = from_table(values);
        let refused = |name: &str, message: String| ConfigError::Refused {
            at: self.document.place(&section.get(name).unwrap_or(section).source),
            key: join(&key, name),
            message,
            hint: None,
        };
        if let Some(name) = OF_PAIRS.iter().find(|name| scored && section.get(name).is_some()) {
            return Err(refused(name, "it is about making pairs, and `score` makes none of its answers".into()));
        }
        if plan.temperature == 0.0 && plan.samples > 1 {
            let message = format!("at temperature 0 the {} answers to a prompt are all the same", plan.samples);
            return Err(refused("samples", message));
        }
        if plan.samples < 2 && !plan.include_data && !scored {
            return Err(refused("samples", "one answer makes no pair, and include-data is false".into()));
        }
        let there = match &plan.prompts {
            None => self.facts.prompts,
            Some(path) => spo_data::read_prompts(path).map_err(|error| refused("prompts", error.to_string()))?.len(),
        };
        let prompts = if plan.prompts_at_once == 0 { there } else { there.min(plan.prompts_at_once) };
        if prompts == 0 {
            return Err(refused("prompts", "there are no prompts to answer".into()));
        }
        Ok(Some((plan, DimensionRows { pairs: prompts, prompts, ..DimensionRows::default() })))
    }

    /// A scorer must be of a known kind, with options that it has.
    pub(super) fn check_scorer(&self, key: &str, node: &Node) -> Result<(), ConfigError> {
        let refused = |error: ScoreError| ConfigError::Refused {
            at: self.document.place(&node.source),
            key: key.to_owned(),
            message: error.to_string(),
            hint: error.hint(),
        };
        let spec: ScorerSpec = match node.to_json() {
            Value::String(text) => text.parse().map_err(refused)?,
            table => serde_json::from_value(table).map_err(|error| ConfigError::Refused {
                at: self.document.place(&node.source),
                key: key.to_owned(),
                message: error.to_string(),
                hint: None,
            })?,
        };
        self.registries.scorers.check(&spec).map_err(refused)
    }
}

/// One part of a round that samples anew every so many steps; `done` are the steps of the parts before.
pub(super) fn part(mut round: RoundPlan, number: usize, done: u64) -> (RoundPlan, u64) {
    let total = round.main().training.steps;
    let refresh = round.online.as_ref().map_or(0, |online| online.refresh);
    if refresh == 0 || refresh >= total {
        return (round, total);
    }
    let steps = refresh.min(total - done);
    round.name = format!("{}-{}", round.name, number + 1);
    if let Some(online) = &mut round.online {
        online.part = number;
    }
    for arm in &mut round.arms {
        arm.training.steps = steps;
        arm.training.epochs = None;
        arm.training.warmup_steps = arm.training.warmup_steps.min(steps);
    }
    (round, steps)
}
