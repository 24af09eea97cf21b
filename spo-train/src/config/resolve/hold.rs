//! `hold` of a round: bounds in place of λ.

use serde_json::{Map, Value};

use super::layers::{Found, Layers};
use super::rounds::{Arm, Finished};
use super::sections::from_table;
use super::{Resolver, wrong};
use crate::config::defaults;
use crate::config::document::Content;
use crate::config::objective;
use crate::config::plan::{Bound, HeldPlan, HoldPlan};
use crate::config::validate::join;
use crate::error::ConfigError;

/// Keys of `hold` that are no dimension.
const SETTINGS: [&str; 5] = ["every", "spend", "rate", "gain", "max-lambda"];

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
        let bounds: Map<String, Value> = names
            .iter()
            .map(|name| {
                let held = self.bound(&found, name, finished)?;
                Ok(((*name).clone(), serde_json::to_value(held).expect("a bound is plain data")))
            })
            .collect::<Result<_, ConfigError>>()?;
        let prefix = join(&arm.prefix(), "hold");
        let layers = Layers::default().under(&found.key, Some(found.node), &[]);
        let mut values = self.settle(&prefix, defaults::table(&defaults::hold()), &SETTINGS, &layers);
        for name in names {
            self.note(&join(&prefix, name), found.node.get(name).expect("it was listed"));
            if bounds[name].get("scale").is_some() {
                self.compute(join(&prefix, &join(name, "scale")), format!("the round of {name}"));
            }
        }
        values.extend(bounds);
        Ok(Some(from_table(values)))
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
