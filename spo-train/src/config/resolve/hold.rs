//! `hold` of a round: bounds in place of λ.

use serde_json::{Map, Value};

use super::layers::{Found, Layers};
use super::rounds::{Arm, Finished};
use super::sections::from_table;
use super::{Resolver, wrong};
use crate::config::defaults;
use crate::config::document::{Content, Node};
use crate::config::objective;
use crate::config::plan::{Bound, HeldPlan, HoldPlan};
use crate::config::spec::LoraCondition;
use crate::config::validate::join;
use crate::error::ConfigError;

/// Keys of `hold` that are no dimension.
const SETTINGS: &[&str] = &[
    "every",
    "spend",
    "rate",
    "gain",
    "max-lambda",
    "on",
    "sample-prompts",
    "samples",
    "max-new-tokens",
    "temperature",
];
/// Those of them that say how the policy is sampled.
const OF_SAMPLES: &[&str] = SETTINGS.split_at(6).1;

impl Resolver<'_> {
    /// The bounds that an arm holds. A control has those of its round, unless it has its own, or a `lambda`, or another
    /// objective.
    pub(super) fn hold(
        &mut self,
        arm: &Arm<'_>,
        main: Option<&Arm<'_>>,
        finished: &[Finished],
    ) -> Result<Option<HoldPlan>, ConfigError> {
        let Some(found) = self.written_hold(arm, main) else { return Ok(None) };
        let refused = |message: String, hint: Option<&str>| ConfigError::Refused {
            at: self.document.place(&found.node.source),
            key: found.key.clone(),
            message,
            hint: hint.map(str::to_owned),
        };
        if !objective::holds_earlier(self.objectives(), &arm.objective) {
            let message = format!("`{}` has no λ to find", arm.objective);
            return Err(refused(message, Some("`objective = \"spo\"`, the default of later rounds")));
        }
        if arm.refreshes {
            let message = "a round that samples anew (`online.refresh`) falls into parts, each with a policy before it";
            return Err(refused(message.into(), Some("leave `refresh` out, or give `lambda`")));
        }
        let mut earlier: Vec<&str> = vec![];
        for name in finished.iter().flat_map(|round| &round.dimensions) {
            if !earlier.contains(&name.as_str()) {
                earlier.push(name);
            }
        }
        let names: Vec<&String> =
            found.node.table().into_iter().flatten().map(|(name, _)| name).filter(|name| !is_setting(name)).collect();
        if let Some(name) = names.iter().find(|name| !earlier.contains(&name.as_str())) {
            let known = if earlier.is_empty() { "there is no earlier round".into() } else { earlier.join(", ") };
            let node = found.node.get(name).unwrap_or(found.node);
            return Err(ConfigError::Refused {
                at: self.document.place(&node.source),
                key: join(&found.key, name),
                message: format!("{name:?} is no dimension of an earlier round, and only those can be held ({known})"),
                hint: None,
            });
        }
        if names.is_empty() {
            let expected = "a bound, such as `hold = { honesty = { accuracy = \"-0.02\" } }`";
            return Err(wrong(self.document, found.node, &found.key, expected.to_owned()));
        }
        let on_samples = found.node.get("on").is_some_and(|node| node.to_json() == "samples");
        match on_samples {
            true => self.check_sampled(&found, &names, finished)?,
            false => self.check_unsampled(&found)?,
        }
        let bounds: Map<String, Value> = names
            .iter()
            .map(|name| {
                let held = self.bound(&found, name, finished)?;
                Ok(((*name).clone(), serde_json::to_value(held).expect("a bound is plain data")))
            })
            .collect::<Result<_, ConfigError>>()?;
        let prefix = join(&arm.prefix(), "hold");
        let layers = Layers::default().under(&found.key, Some(found.node), &[]);
        let mut values = self.settle(&prefix, defaults::table(&defaults::hold()), SETTINGS, &layers);
        values.retain(|name, _| on_samples || !OF_SAMPLES.contains(&name.as_str()));
        for name in names {
            self.note(&join(&prefix, name), found.node.get(name).expect("it was listed"));
            if bounds[name].get("scale").is_some() {
                self.compute(join(&prefix, &join(name, "scale")), format!("the round of {name}"));
            }
        }
        values.extend(bounds);
        Ok(Some(from_table(values)))
    }

    /// Bounds on pairs sample nothing.
    fn check_unsampled(&self, found: &Found) -> Result<(), ConfigError> {
        let given = OF_SAMPLES.iter().find_map(|name| Some((name, found.node.get(name)?)));
        given.map_or(Ok(()), |(name, node)| {
            let message = "bounds on pairs sample nothing".to_owned();
            Err(self.no_hold(node, join(&found.key, name), message, "add `on = \"samples\"`, or leave it out"))
        })
    }

    /// Bounds on samples are changes of a reward that is one dimension's, of a policy that is one for everybody.
    fn check_sampled(&self, found: &Found, names: &[&String], finished: &[Finished]) -> Result<(), ConfigError> {
        let condition = self.sections.lora.as_ref().and_then(|lora| lora.condition).unwrap_or_default();
        if self.sections.steering.is_some() || condition != LoraCondition::None {
            let node = found.node.get("on").unwrap_or(found.node);
            let message =
                "the policy is one for many users or weights, and what it writes for each is another".to_owned();
            return Err(self.no_hold(node, join(&found.key, "on"), message, "`on = \"pairs\"`"));
        }
        for name in names {
            let (node, key) = (found.node.get(name).unwrap_or(found.node), join(&found.key, name));
            if let Some(measure) = ["accuracy", "margin"].into_iter().find(|measure| node.get(measure).is_some()) {
                let message = format!("answers that the policy writes have no labels, and so no {measure}");
                return Err(self.no_hold(
                    node,
                    join(&key, measure),
                    message,
                    "`reward = \"-0.5\"`, or `on = \"pairs\"`",
                ));
            }
            let absolute =
                |node: &&Node| matches!(&node.content, Content::String(text) if text.trim().starts_with(">="));
            if let Some(node) = node.get("reward").filter(absolute) {
                let message = "the reward of an answer is known up to a constant of its prompt: only a change of it says \
                               something";
                let hint = "`reward = \"-0.5\"` gives up half a nat";
                return Err(self.no_hold(node, join(&key, "reward"), message.to_owned(), hint));
            }
            let several = |round: &&Finished| round.dimensions.len() > 1 && round.dimensions.contains(name);
            if let Some(round) = finished.iter().find(several) {
                let message = format!("its reward was learnt together with others, as that of {:?}", round.dimension);
                return Err(self.no_hold(node, key, message, "`on = \"pairs\"` measures the dimension by its labels"));
            }
        }
        Ok(())
    }

    fn no_hold(&self, node: &Node, key: String, message: String, hint: &str) -> ConfigError {
        ConfigError::Refused { at: self.document.place(&node.source), key, message, hint: Some(hint.to_owned()) }
    }

    /// Where an arm's bounds are written.
    fn written_hold<'n>(&self, arm: &Arm<'n>, main: Option<&Arm<'n>>) -> Option<Found<'n>> {
        let of = |arm: &Arm<'n>| Some(Found { node: arm.node.get("hold")?, key: join(&arm.key, "hold") });
        let inherits = |main: &&Arm<'n>| arm.node.get("lambda").is_none() && main.objective == arm.objective;
        of(arm).or_else(|| of(main.filter(inherits)?))
    }

    /// The bound of one dimension.
    fn bound(&self, found: &Found, dimension: &str, finished: &[Finished]) -> Result<HeldPlan, ConfigError> {
        let (node, key) = (found.node.get(dimension).expect("it was listed"), join(&found.key, dimension));
        let table = node.table();
        let [(measure, entry)] = table.into_iter().flatten().collect::<Vec<_>>()[..] else {
            let expected = "one of accuracy, margin and reward: a dimension has one λ, and so one bound";
            return Err(wrong(self.document, node, &key, expected.to_owned()));
        };
        let parsed = match &entry.node.content {
            Content::String(text) => Bound::parse(text),
            _ => None,
        };
        let bound = parsed
            .ok_or_else(|| wrong(self.document, &entry.node, &join(&key, measure), Bound::EXPECTED.to_owned()))?;
        if measure == "accuracy" && !(-1.0..=1.0).contains(&bound.floor(0.0)) {
            let expected = "a share from 0 to 1: two points are 0.02";
            return Err(wrong(self.document, &entry.node, &join(&key, measure), expected.to_owned()));
        }
        let of = |round: &&Finished| round.dimensions.iter().any(|name| name == dimension);
        let scale = finished.iter().rev().find(of).and_then(|round| round.scale);
        Ok(match measure.as_str() {
            "accuracy" => HeldPlan::Accuracy { accuracy: bound },
            "margin" => HeldPlan::Margin { margin: bound },
            // Without a scale the round could not be held at all, which is refused with the options.
            _ => HeldPlan::Reward { reward: bound, scale: scale.unwrap_or(1.0) },
        })
    }
}

fn is_setting(name: &str) -> bool {
    SETTINGS.contains(&name)
}
