//! The options of an arm's objective, the coefficients of earlier rounds included.

use serde_json::{Map, Value, json};
use spo_core::CoreError;

use super::layers::Found;
use super::rounds::{Arm, FIELDS, Finished};
use super::{Resolver, wrong};
use crate::config::document::Node;
use crate::config::objective;
use crate::config::plan::HoldPlan;
use crate::config::schema::checked_schema;
use crate::config::validate::join;
use crate::error::ConfigError;

impl Resolver<'_> {
    /// All options of an arm's objective.
    pub(super) fn options(
        &mut self,
        arm: &Arm<'_>,
        hold: Option<&HoldPlan>,
        finished: &[Finished],
    ) -> Result<Map<String, Value>, ConfigError> {
        self.refuse_foreign_options(arm)?;
        let prefix = join(&arm.prefix(), "options");
        let keys: Vec<&str> = objective::options(self.objectives(), &arm.objective).map(|option| option.key).collect();
        let mut given = self.settle(&prefix, Map::new(), &keys, &arm.options);
        if objective::holds_earlier(self.objectives(), &arm.objective) {
            let lambda = self.lambda(arm, hold, finished, given.get("lambda"))?;
            given.insert("lambda".to_owned(), json!(lambda));
            given.insert("earlier".to_owned(), self.earlier(arm, finished)?);
            let written = arm.options.find("lambda");
            let key = join(&prefix, "lambda");
            // A table's values were noted one by one; the plan has one list.
            self.origins.retain(|known, _| !known.starts_with(&format!("{key}.")));
            if let Some(found) = written {
                let origin = self.document.origin(&found.node.source);
                self.origins.insert(key, origin);
            } else if hold.is_some() {
                self.compute(key, "hold, which finds it in training");
            }
            for index in 0..finished.len() {
                for name in ["alpha", "lambda"] {
                    self.compute(format!("{prefix}.earlier.{index}.{name}"), format!("rounds.{index}"));
                }
            }
        }
        objective::complete(self.objectives(), &arm.objective, &given)
            .map_err(|error| self.refused(arm, &given, &error))
    }

    /// An option that only another objective has is a mistake, not something to ignore.
    fn refuse_foreign_options(&self, arm: &Arm<'_>) -> Result<(), ConfigError> {
        let properties = |key: &str| checked_schema()["properties"][key].clone();
        let training = properties("training")["properties"].clone();
        let known: Vec<String> =
            objective::options(self.objectives(), &arm.objective).map(|option| option.key.to_owned()).collect();
        for (name, entry, section) in arm.options.keys() {
            if ["dimension", "meta-prompts", "contexts"].contains(&name.as_str())
                || FIELDS.contains(&name.as_str())
                || training.get(name).is_some()
                || known.contains(name)
            {
                continue;
            }
            return Err(ConfigError::ForeignOption {
                at: self.document.place(&entry.key),
                key: join(&section, name),
                objective: arm.objective.clone(),
                known,
            });
        }
        Ok(())
    }

    /// λ per earlier round, oldest first; 0 of those whose λ is found in training.
    fn lambda(
        &self,
        arm: &Arm<'_>,
        hold: Option<&HoldPlan>,
        finished: &[Finished],
        given: Option<&Value>,
    ) -> Result<Vec<f64>, ConfigError> {
        let held = |dimension: &String| hold.is_some_and(|hold| hold.dimensions.contains_key(dimension));
        // The reward of a round that weighs several is of all of them: a bound on one is held by it.
        let bounded = |round: &Finished| round.dimensions.iter().any(held);
        let default = objective::options(self.objectives(), &arm.objective)
            .find(|option| option.key == "lambda")
            .map_or(Value::Null, |option| option.default_value());
        // A round that samples anew holds other rounds, not what it has learnt itself so far.
        let own = |round: &Finished| round.round == arm.index;
        let table = match given.unwrap_or(&default) {
            Value::Object(table) => table,
            number => {
                if let Some(found) = arm.options.find("lambda").filter(|_| hold.is_some()) {
                    return Err(self.both_held(arm, &found));
                }
                let number = number.as_f64().unwrap_or(1.0);
                let none = |round: &Finished| own(round) || bounded(round);
                return Ok(finished.iter().map(|round| if none(round) { 0.0 } else { number }).collect());
            }
        };
        let mut earlier: Vec<String> = Vec::new();
        for round in finished.iter().filter(|round| !own(round) && !bounded(round)) {
            if !earlier.contains(&round.dimension) {
                earlier.push(round.dimension.clone());
            }
        }
        let found = arm.options.find("lambda").expect("a table was written");
        if table.keys().any(held) {
            return Err(self.both_held(arm, &found));
        }
        let fault = |node: &Node, problem: String| ConfigError::Lambda {
            at: self.document.place(&node.source),
            key: found.key.clone(),
            earlier: earlier.clone(),
            problem,
        };
        if let Some(name) = table.keys().find(|name| !earlier.contains(name)) {
            let node = found.node.get(name).unwrap_or(found.node);
            return Err(fault(node, format!("but {name:?} is not one")));
        }
        if let Some(name) = earlier.iter().find(|name| !table.contains_key(*name)) {
            return Err(fault(found.node, format!("but {name:?} has none")));
        }
        let weight = |round: &Finished| match own(round) || bounded(round) {
            true => 0.0,
            false => table[&round.dimension].as_f64().unwrap_or(0.0),
        };
        Ok(finished.iter().map(weight).collect())
    }

    /// A dimension has a λ or a bound.
    fn both_held(&self, arm: &Arm<'_>, lambda: &Found) -> ConfigError {
        let (at, key) = (self.document.place(&lambda.node.source), lambda.key.clone());
        ConfigError::Exclusive { at, key, other: join(&arm.key, "hold") }
    }

    /// `alpha` and `lambda` of each earlier round, as the objective takes them.
    fn earlier(&self, arm: &Arm<'_>, finished: &[Finished]) -> Result<Value, ConfigError> {
        let mut earlier = Vec::new();
        for (index, round) in finished.iter().enumerate() {
            let alpha = round.scale.ok_or_else(|| ConfigError::Refused {
                at: self.document.place(&arm.node.source),
                key: arm.key.clone(),
                message: format!(
                    "`{}` cannot hold rounds.{index}: its objective `{}` has neither alpha nor beta, so it defines no reward",
                    arm.objective, round.objective
                ),
                hint: Some("give that round another objective, or this one `objective = \"dpo\"`".to_owned()),
            })?;
            earlier.push(json!({ "alpha": alpha, "lambda": round.lambda }));
        }
        Ok(Value::Array(earlier))
    }

    /// Points at the option that is to blame: the one named, or the one without which the rest is accepted.
    fn refused(&self, arm: &Arm<'_>, given: &Map<String, Value>, error: &CoreError) -> ConfigError {
        if let CoreError::InvalidOption { key, expected, .. } = error
            && let Some(found) = arm.options.find(key)
        {
            return wrong(self.document, found.node, &found.key, expected.clone());
        }
        let message = match error {
            CoreError::InvalidOption { found, .. } => found.clone(),
            other => other.to_string(),
        };
        let culprit = given.keys().find(|key| {
            let mut rest = given.clone();
            rest.remove(*key);
            objective::complete(self.objectives(), &arm.objective, &rest).is_ok()
        });
        let (node, key) = match culprit.and_then(|key| arm.options.find(key)) {
            Some(found) => (found.node, found.key),
            None => (arm.node.get("objective").unwrap_or(arm.node), join(&arm.key, "objective")),
        };
        ConfigError::Refused { at: self.document.place(&node.source), key, message, hint: error.hint() }
    }
}
