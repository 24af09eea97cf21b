//! `[[rounds]]` and their arms.

use serde_json::Value;

use super::layers::Layers;
use super::stopping::Target;
use super::{Facts, Resolver};
use crate::config::document::{Content, Document, Node};
use crate::config::error::ConfigError;
use crate::config::objective;
use crate::config::plan::{ArmPlan, RoundPlan};
use crate::config::validate::join;

/// Name of the arm that is carried on.
const MAIN: &str = "main";

/// What later rounds must know of a finished one.
pub(super) struct Finished {
    pub dimension: String,
    pub objective: String,
    /// Scale of its implicit reward: `alpha` or `beta`, if the objective has one.
    pub scale: Option<f64>,
    pub lambda: Vec<f64>,
}

/// One arm while it is resolved.
pub(super) struct Arm<'a> {
    /// Dotted key of its table in the run file.
    pub key: String,
    pub node: &'a Node,
    /// Where its origins go in the plan.
    pub prefix: String,
    pub objective: String,
    /// Tables its options come from.
    pub options: Layers<'a>,
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

    fn round(&mut self, index: usize, node: &Node, finished: &[Finished]) -> Result<RoundPlan, ConfigError> {
        let document = self.document;
        let key = format!("rounds.{index}");
        let dimension_node = node.get("dimension").expect("the schema requires a dimension");
        let dimension = checked_dimension(document, self.facts, dimension_node, &join(&key, "dimension"))?;
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
                    if letter.is_alphanumeric() { letter } else { '-' }
                };
                let dimension: String = dimension.chars().map(plain).collect();
                format!("round-{}-{dimension}", index + 1)
            }
        };
        let written = node.get("objective").map(text);
        let default = if index == 0 { "dpo" } else { "spo" };
        let main = Arm {
            objective: objective::canonical(written.as_deref().unwrap_or(default)),
            options: Layers::default().under(&key, Some(node), &[]),
            prefix: format!("{key}.arms.0"),
            key: key.clone(),
            node,
        };
        let pairs = self.facts.pairs.get(&dimension).copied().unwrap_or(0);
        let target = Target { dimension: Some(&dimension), pairs };
        let mut arms = vec![self.arm(MAIN.to_owned(), &main, None, &target, finished)?];
        let controls = node.get("controls").map_or(&[][..], Node::items);
        for (index, control_node) in controls.iter().enumerate() {
            let control_key = format!("{key}.controls.{index}");
            let name_node = control_node.get("name").expect("the schema requires a name");
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
            let objective = objective::canonical(written.as_ref().unwrap_or(&main.objective));
            let control = Arm {
                options: if objective == main.objective {
                    own.under(&key, Some(node), &["name", "objective", "controls", "gate"])
                } else {
                    own
                },
                key: control_key,
                node: control_node,
                prefix,
                objective,
            };
            arms.push(self.arm(name, &control, Some(&main), &target, finished)?);
        }
        let gate = self.gate(&key, node, arms[0].training.eval_every)?;
        Ok(RoundPlan { name, dimension, arms, gate })
    }

    fn arm(
        &mut self,
        name: String,
        arm: &Arm<'_>,
        main: Option<&Arm<'_>>,
        target: &Target,
        finished: &[Finished],
    ) -> Result<ArmPlan, ConfigError> {
        let document = self.document;
        let objective_node = arm.node.get("objective").or_else(|| main?.node.get("objective"));
        if let Some(node) = objective_node {
            self.note(&join(&arm.prefix, "objective"), node);
        }
        let options = self.options(arm, finished)?;
        let mut layers = Layers::default().under(&arm.key, Some(arm.node), &[]);
        if let Some(main) = main {
            layers = layers.under(&main.key, Some(main.node), &[]);
        }
        let layers = layers.under("training", document.root.get("training"), &[]);
        let training = self.training(&arm.prefix, &layers, target)?;
        Ok(ArmPlan { name, objective: arm.objective.clone(), options, training })
    }
}

impl Finished {
    fn new(index: usize, round: &RoundPlan) -> Self {
        let options = &round.main().options;
        let number = |key: &str| options.get(key).and_then(Value::as_f64);
        let lambda = if objective::holds_earlier(&round.main().objective) {
            let list = options.get("lambda").and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_f64).collect()
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
