//! `[[rounds]]` and their arms.

use serde_json::{Map, Value, json};
use spo_core::CoreError;

use super::layers::Layers;
use super::{Facts, Resolver};
use crate::config::document::{Content, Document, Node};
use crate::config::error::ConfigError;
use crate::config::objective;
use crate::config::plan::{ArmPlan, RoundPlan};
use crate::config::schema::checked_schema;
use crate::config::validate::join;

/// Name of the arm that is carried on.
const MAIN: &str = "main";

/// What later rounds must know of a finished one.
struct Finished {
    dimension: String,
    objective: String,
    /// Scale of its implicit reward: `alpha` or `beta`, if the objective has one.
    scale: Option<f64>,
    lambda: Vec<f64>,
}

/// One arm while it is resolved.
struct Arm<'a> {
    /// Dotted key of its table in the run file.
    key: String,
    node: &'a Node,
    /// Where its origins go in the plan.
    prefix: String,
    objective: String,
    /// Tables its options come from.
    options: Layers<'a>,
}

impl Resolver<'_> {
    pub(super) fn rounds(&mut self) -> Result<Vec<RoundPlan>, ConfigError> {
        let document = self.document;
        let mut finished = Vec::new();
        let mut rounds: Vec<RoundPlan> = Vec::new();
        let nodes = document.root.get("rounds").map_or(&[][..], Node::items);
        for (index, node) in nodes.iter().enumerate() {
            let plan = self.round(index, node, &finished)?;
            if let Some(first) = rounds.iter().position(|round| round.name == plan.name) {
                let place = node.get("name").unwrap_or(node);
                return Err(ConfigError::DuplicateName {
                    at: document.place(&place.source),
                    name: plan.name,
                    other: format!("rounds.{first}"),
                });
            }
            finished.push(Finished::new(index, &plan));
            rounds.push(plan);
        }
        Ok(rounds)
    }

    fn round(
        &mut self,
        index: usize,
        node: &Node,
        finished: &[Finished],
    ) -> Result<RoundPlan, ConfigError> {
        let document = self.document;
        let key = format!("rounds.{index}");
        let dimension_node = node
            .get("dimension")
            .expect("the schema requires a dimension");
        let dimension = checked_dimension(
            document,
            self.facts,
            dimension_node,
            &join(&key, "dimension"),
        )?;
        self.note(&join(&key, "dimension"), dimension_node);
        let name = match node.get("name") {
            Some(name_node) => {
                self.note(&join(&key, "name"), name_node);
                let name = text(name_node);
                self.check_directory_name(&join(&key, "name"), name_node, &name)?;
                name
            }
            None => {
                self.compute(join(&key, "name"), "the round's number and dimension");
                let plain = |letter: char| {
                    if letter.is_alphanumeric() {
                        letter
                    } else {
                        '-'
                    }
                };
                let dimension: String = dimension.chars().map(plain).collect();
                format!("round-{}-{dimension}", index + 1)
            }
        };
        let written = node.get("objective").map(text);
        let default = if index == 0 { "dpo" } else { "spo" };
        let main = Arm {
            objective: written.unwrap_or_else(|| default.to_owned()),
            options: Layers::default().under(&key, Some(node), &[]),
            prefix: format!("{key}.arms.0"),
            key: key.clone(),
            node,
        };
        let pairs = self.facts.pairs.get(&dimension).copied().unwrap_or(0);
        let mut arms = vec![self.arm(MAIN.to_owned(), &main, None, pairs, finished)?];
        let controls = node.get("controls").map_or(&[][..], Node::items);
        for (index, control_node) in controls.iter().enumerate() {
            let control_key = format!("{key}.controls.{index}");
            let name_node = control_node
                .get("name")
                .expect("the schema requires a name");
            let name = text(name_node);
            self.check_directory_name(&join(&control_key, "name"), name_node, &name)?;
            if let Some(first) = arms.iter().position(|arm| arm.name == name) {
                let controls = first.checked_sub(1);
                let other = |first: usize| format!("{key}.controls.{first}");
                return Err(ConfigError::DuplicateName {
                    at: document.place(&name_node.source),
                    other: controls.map_or_else(|| format!("{key} itself"), other),
                    name,
                });
            }
            let prefix = format!("{key}.arms.{}", index + 1);
            self.note(&join(&prefix, "name"), name_node);
            let own = Layers::default().under(&control_key, Some(control_node), &[]);
            let written = control_node.get("objective").map(text);
            let objective = written.unwrap_or_else(|| main.objective.clone());
            let control = Arm {
                options: if objective == main.objective {
                    own.under(&key, Some(node), &["name", "objective", "controls"])
                } else {
                    own
                },
                key: control_key,
                node: control_node,
                prefix,
                objective,
            };
            arms.push(self.arm(name, &control, Some(&main), pairs, finished)?);
        }
        Ok(RoundPlan {
            name,
            dimension,
            arms,
        })
    }

    fn arm(
        &mut self,
        name: String,
        arm: &Arm<'_>,
        main: Option<&Arm<'_>>,
        pairs: usize,
        finished: &[Finished],
    ) -> Result<ArmPlan, ConfigError> {
        let document = self.document;
        let objective_node = arm
            .node
            .get("objective")
            .or_else(|| main?.node.get("objective"));
        if let Some(node) = objective_node {
            self.note(&join(&arm.prefix, "objective"), node);
        }
        let options = self.options(arm, finished)?;
        let mut layers = Layers::default().under(&arm.key, Some(arm.node), &[]);
        if let Some(main) = main {
            layers = layers.under(&main.key, Some(main.node), &[]);
        }
        let layers = layers.under("training", document.root.get("training"), &[]);
        let training = self.training(&arm.prefix, &layers, pairs, false)?;
        Ok(ArmPlan {
            name,
            objective: arm.objective.clone(),
            options,
            training,
        })
    }

    /// All options of an arm's objective.
    fn options(
        &mut self,
        arm: &Arm<'_>,
        finished: &[Finished],
    ) -> Result<Map<String, Value>, ConfigError> {
        self.refuse_foreign_options(arm)?;
        let prefix = join(&arm.prefix, "options");
        let keys: Vec<&str> = objective::options(&arm.objective)
            .map(|option| option.key)
            .collect();
        let mut given = self.settle(&prefix, Map::new(), &keys, &arm.options);
        if objective::holds_earlier(&arm.objective) {
            let lambda = self.lambda(arm, finished, given.get("lambda"))?;
            given.insert("lambda".to_owned(), json!(lambda));
            given.insert("earlier".to_owned(), self.earlier(arm, finished)?);
            let written = arm.options.find("lambda");
            let key = join(&prefix, "lambda");
            // A table's values were noted one by one; the plan has one list.
            self.origins
                .retain(|known, _| !known.starts_with(&format!("{key}.")));
            if let Some(found) = written {
                let origin = self.document.origin(&found.node.source);
                self.origins.insert(key, origin);
            }
            for index in 0..finished.len() {
                for name in ["alpha", "lambda"] {
                    self.compute(
                        format!("{prefix}.earlier.{index}.{name}"),
                        format!("rounds.{index}"),
                    );
                }
            }
        }
        objective::complete(&arm.objective, &given).map_err(|error| self.refused(arm, &error))
    }

    /// An option that only another objective has is a mistake, not something to ignore.
    fn refuse_foreign_options(&self, arm: &Arm<'_>) -> Result<(), ConfigError> {
        let properties = |key: &str| checked_schema()["properties"][key].clone();
        let training = properties("training")["properties"].clone();
        let fields = ["dimension", "name", "objective", "controls"];
        let known: Vec<String> = objective::options(&arm.objective)
            .map(|option| option.key.to_owned())
            .collect();
        for (name, entry, section) in arm.options.keys() {
            if fields.contains(&name.as_str())
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

    /// λ per earlier round, oldest first.
    fn lambda(
        &self,
        arm: &Arm<'_>,
        finished: &[Finished],
        given: Option<&Value>,
    ) -> Result<Vec<f64>, ConfigError> {
        let default = objective::options(&arm.objective)
            .find(|option| option.key == "lambda")
            .map_or(Value::Null, |option| option.default_value());
        let table = match given.unwrap_or(&default) {
            Value::Object(table) => table,
            number => return Ok(vec![number.as_f64().unwrap_or(1.0); finished.len()]),
        };
        let mut earlier: Vec<String> = Vec::new();
        for round in finished {
            if !earlier.contains(&round.dimension) {
                earlier.push(round.dimension.clone());
            }
        }
        let found = arm.options.find("lambda").expect("a table was written");
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
        let weight = |round: &Finished| table[&round.dimension].as_f64().unwrap_or(0.0);
        Ok(finished.iter().map(weight).collect())
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
            })?;
            earlier.push(json!({ "alpha": alpha, "lambda": round.lambda }));
        }
        Ok(Value::Array(earlier))
    }

    fn refused(&self, arm: &Arm<'_>, error: &CoreError) -> ConfigError {
        if let CoreError::InvalidOption { key, expected, .. } = error
            && let Some(found) = arm.options.find(key)
        {
            return super::wrong(self.document, found.node, &found.key, expected.clone());
        }
        ConfigError::Refused {
            at: self.document.place(&arm.node.source),
            key: arm.key.clone(),
            message: error.to_string(),
        }
    }
}

impl Finished {
    fn new(index: usize, round: &RoundPlan) -> Self {
        let options = &round.main().options;
        let number = |key: &str| options.get(key).and_then(Value::as_f64);
        let lambda = if objective::holds_earlier(&round.main().objective) {
            let list = options.get("lambda").and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .filter_map(Value::as_f64)
                .collect()
        } else {
            vec![0.0; index]
        };
        Self {
            dimension: round.dimension.clone(),
            objective: round.main().objective.clone(),
            scale: number("alpha").or_else(|| number("beta")),
            lambda,
        }
    }
}

/// The dimension a string names, if the training data has pairs of it.
pub(super) fn checked_dimension(
    document: &Document,
    facts: &Facts,
    node: &Node,
    key: &str,
) -> Result<String, ConfigError> {
    let found = text(node);
    if facts.pairs.get(&found).is_some_and(|pairs| *pairs > 0) {
        return Ok(found);
    }
    let known = facts.pairs.iter().filter(|(_, pairs)| **pairs > 0);
    Err(ConfigError::UnknownDimension {
        at: document.place(&node.source),
        key: key.to_owned(),
        found,
        known: known.map(|(name, pairs)| (name.clone(), *pairs)).collect(),
    })
}

fn text(node: &Node) -> String {
    match &node.content {
        Content::String(text) => text.clone(),
        _ => unreachable!("the schema requires a string here"),
    }
}
