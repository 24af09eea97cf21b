//! `[[rounds]]` and their arms.

use serde_json::{Map, Value};

use super::layers::Layers;
use super::mixing::unreplayable;
use super::online::part;
use super::score::{NO_SCORER, made_fault};
use super::stopping::Target;
use super::{DimensionRows, Facts, Resolver};
use crate::config::document::{Content, Document, Node};
use crate::config::objective;
use crate::config::plan::{ArmPlan, DataShape, RoundPlan, SteeringPlan};
use crate::config::spec::Slopes;
use crate::config::validate::join;
use crate::error::ConfigError;

/// Name of the arm that is carried on.
const MAIN: &str = "main";

/// Keys that are no options of an objective, and looked up by themselves.
pub(super) const FIELDS: &[&str] = OF_A_ROUND.split_at(1).1;

/// Keys that a control does not take from its round, `lambda` only beside bounds of its own.
const OF_A_ROUND: &[&str] = &[
    "lambda",
    "name",
    "objective",
    "controls",
    "gate",
    "hold",
    "replay",
    "combine",
    "cagrad-c",
    "online",
    "dimension-weights",
    "cumulative",
];

/// What later rounds must know of a finished one.
pub(super) struct Finished {
    /// Index of the round in the run file, of which this may be a part.
    pub round: usize,
    pub dimension: String,
    /// The dimensions that it weighs, or its only one.
    pub dimensions: Vec<String>,
    pub objective: String,
    /// Scale of its implicit reward: `alpha` or `beta`, if the objective has one.
    pub scale: Option<f64>,
    pub lambda: Vec<f64>,
    /// Why its pairs cannot be replayed, if they cannot.
    pub unreplayable: Option<&'static str>,
}

/// One arm while it is resolved.
pub(super) struct Arm<'a> {
    /// Dotted key of its table in the run file.
    pub key: String,
    pub node: &'a Node,
    /// Dotted key of its round in the plan.
    planned: String,
    /// Its number in the round; the main arm is 0.
    pub number: usize,
    /// Index of its round in the run file.
    pub index: usize,
    /// Whether its round samples anew on the way.
    pub refreshes: bool,
    pub objective: String,
    /// Tables its options come from.
    pub options: Layers<'a>,
}

impl Arm<'_> {
    /// Where its origins go in the plan.
    pub fn prefix(&self) -> String {
        format!("{}.arms.{}", self.planned, self.number)
    }
}

impl Resolver<'_> {
    pub(super) fn rounds(&mut self, steering: Option<&SteeringPlan>) -> Result<Vec<RoundPlan>, ConfigError> {
        let document = self.document;
        let mut finished = Vec::new();
        let mut rounds: Vec<RoundPlan> = Vec::new();
        let nodes = document.root.get("rounds").map_or(&[][..], Node::items);
        for (index, node) in nodes.iter().enumerate() {
            let (mut number, mut done) = (0, 0);
            loop {
                let whole = self.round((index, rounds.len()), node, &finished, steering)?;
                let total = whole.main().training.steps;
                let (plan, steps) = part(whole, number, done);
                if let Some(first) = rounds.iter().position(|round| round.name == plan.name) {
                    let place = node.get("name").unwrap_or(node);
                    return Err(ConfigError::DuplicateName {
                        at: document.place(&place.source),
                        name: plan.name,
                        other: format!("rounds.{first}"),
                    });
                }
                finished.push(Finished::new(index, rounds.len(), &plan));
                rounds.push(plan);
                (number, done) = (number + 1, done + steps);
                if done >= total {
                    break;
                }
            }
        }
        self.check_reward_rounds(&rounds)?;
        self.check_steering(steering, &rounds)?;
        self.check_front(&rounds)?;
        Ok(rounds)
    }

    /// The dimensions of a round, all of which the training data have.
    pub(super) fn round_dimensions(&self, node: &Node, key: &str) -> Result<Vec<String>, ConfigError> {
        match &node.content {
            Content::Array(items) => {
                let of = |(index, item)| checked_dimension(self.document, self.facts, item, &format!("{key}.{index}"));
                items.iter().enumerate().map(of).collect()
            }
            _ => Ok(vec![checked_dimension(self.document, self.facts, node, key)?]),
        }
    }

    fn takes_ties(&self, name: &str, options: &Map<String, Value>) -> bool {
        let registry = self.objectives();
        let built = objective::gives_rewards(registry, name).then(|| registry.build_reward(name, options));
        built.is_some_and(|built| built.is_ok_and(|objective| objective.takes_ties()))
    }

    /// The round at `index` of the run file, whose place in the plan is `planned`.
    fn round(
        &mut self,
        (index, planned): (usize, usize),
        node: &Node,
        finished: &[Finished],
        steering: Option<&SteeringPlan>,
    ) -> Result<RoundPlan, ConfigError> {
        let document = self.document;
        let (key, planned) = (format!("rounds.{index}"), format!("rounds.{planned}"));
        let dimension_node = node.get("dimension").expect("the schema requires a dimension");
        let written = node.get("objective").map(text);
        let cumulative = node.get("cumulative").is_some_and(|node| node.to_json() == true);
        let several = cumulative || matches!(dimension_node.content, Content::Array(_));
        let default = if index == 0 || several { "dpo" } else { "spo" };
        let objective = objective::canonical(self.objectives(), written.as_deref().unwrap_or(default));
        let scored = objective::is_score(self.objectives(), &objective);
        let online = self.online(&key, &planned, node, scored)?;
        // A scorer may know dimensions that no row has a label of.
        let dimensions = match &online {
            Some(_) => names(dimension_node),
            // That nobody scores is what is wrong then.
            None if scored => names(dimension_node),
            None => self.round_dimensions(dimension_node, &join(&key, "dimension"))?,
        };
        let dimensions = if cumulative { self.cumulated(&key, node, dimensions, finished)? } else { dimensions };
        let (dimension, front) = (dimensions.join(" + "), if several { dimensions } else { vec![] });
        self.note(&join(&planned, "dimension"), dimension_node);
        let name = self.round_name(index, &key, &planned, node, &dimension)?;
        let main = Arm {
            objective,
            options: Layers::default().under(&key, Some(node), &[]),
            planned,
            number: 0,
            index,
            refreshes: online.as_ref().is_some_and(|(online, _)| online.refresh > 0),
            key: key.clone(),
            node,
        };
        let (online, rows) = match online {
            Some((online, rows)) => (Some(online), rows),
            None if several => (None, self.facts.rows_of(&front)),
            None => (None, self.facts.rows(&dimension)),
        };
        let rows = match steering.and_then(|steering| self.pairs_of_users(steering)) {
            Some(pairs) => DimensionRows { pairs, ..rows },
            None => rows,
        };
        let rows = (dimension.as_str(), rows, several && !self.conditional());
        let mut arms = vec![self.arm(MAIN.to_owned(), &main, None, rows, finished)?];
        let controls = node.get("controls").map_or(&[][..], Node::items);
        for (index, control_node) in controls.iter().enumerate() {
            let (name, control) = self.control(index, control_node, &main, &arms)?;
            arms.push(self.arm(name, &control, Some(&main), rows, finished)?);
        }
        if let (Some(_), Some((message, hint))) = (&online, made_fault(&arms, scored)) {
            return Err(ConfigError::Refused {
                at: document.place(&node.source),
                key: join(&key, "online"),
                message,
                hint: Some(hint.to_owned()),
            });
        }
        if let Some((index, message)) = degree_fault(&arms, online.is_some(), !front.is_empty()) {
            let control = index.checked_sub(1).and_then(|index| controls.get(index));
            return Err(ConfigError::Refused {
                at: document.place(&control.unwrap_or(node).source),
                key: join(&key, "degree-weight"),
                message: message.to_owned(),
                hint: Some("set `degree-weight = 0`".to_owned()),
            });
        }
        self.check_slopes(&key, node, &arms)?;
        self.check_replay((&key, node), &arms, (online.is_some(), several))?;
        let gate = self.gate(&key, node, arms[0].training.eval_every)?;
        let dimension_weights = self.dimension_weights(node, &key, &main.planned, &front)?;
        let round = RoundPlan { name, dimension, front, dimension_weights, arms, gate, online };
        self.check_weighing(&key, node, &round)?;
        Ok(round)
    }

    /// Slopes of log-probs need a loss on log-probs alone, a pair at a time.
    fn check_slopes(&self, key: &str, node: &Node, arms: &[ArmPlan]) -> Result<(), ConfigError> {
        let fits = |arm: &ArmPlan| {
            arm.data == DataShape::Pairs
                && arm.objectives.build(&arm.objective, &arm.options).is_ok_and(|objective| {
                    let needs = objective.needs();
                    !(needs.whole_batch || needs.sequence_kl || needs.on_policy)
                })
        };
        let slopes =
            |arm: &ArmPlan| arm.training.zeroth_order.is_some_and(|settings| settings.zo_slopes == Slopes::Pairs);
        let Some(arm) = arms.iter().find(|arm| slopes(arm) && !fits(arm)) else { return Ok(()) };
        Err(ConfigError::Refused {
            at: self.document.place(&node.source),
            key: join(key, "zo-slopes"),
            message: format!("`{}` is no loss on the log-probs of one pair at a time", arm.objective),
            hint: Some("set `zo-slopes = \"loss\"`".to_owned()),
        })
    }

    /// The written name of a round, or its number with its dimension.
    fn round_name(
        &mut self,
        index: usize,
        key: &str,
        planned: &str,
        node: &Node,
        dimension: &str,
    ) -> Result<String, ConfigError> {
        let (key, planned) = (join(key, "name"), join(planned, "name"));
        if let Some(name_node) = node.get("name") {
            self.note(&planned, name_node);
            let name = text(name_node);
            self.check_directory_name(&key, name_node, &name)?;
            return Ok(name);
        }
        self.compute(planned, "the round's number and dimension");
        let plain = |letter: char| if letter.is_alphanumeric() { letter } else { '-' };
        let dimension: String = dimension.replace(" + ", "-").chars().map(plain).collect();
        Ok(format!("round-{}-{dimension}", index + 1))
    }

    /// The control arm at `index` of the round whose own arm is `main`, with its name, which none of `arms` may have.
    fn control<'a>(
        &mut self,
        index: usize,
        node: &'a Node,
        main: &Arm<'a>,
        arms: &[ArmPlan],
    ) -> Result<(String, Arm<'a>), ConfigError> {
        let key = format!("{}.controls.{index}", main.key);
        let name_node = node.get("name").expect("the schema requires a name");
        let name = text(name_node);
        self.check_directory_name(&join(&key, "name"), name_node, &name)?;
        if let Some(first) = arms.iter().position(|arm| arm.name == name) {
            let other = |first: usize| format!("{}.controls.{first}", main.key);
            return Err(ConfigError::DuplicateName {
                at: self.document.place(&name_node.source),
                other: first.checked_sub(1).map_or_else(|| format!("{} itself", main.key), other),
                name,
            });
        }
        let (planned, number) = (main.planned.clone(), index + 1);
        self.note(&format!("{planned}.arms.{number}.name"), name_node);
        let own = Layers::default().under(&key, Some(node), &[]);
        let written = node.get("objective").map(text);
        let objective = objective::canonical(self.objectives(), written.as_ref().unwrap_or(&main.objective));
        let options = match objective == main.objective {
            // Bounds of its own take the place of the round's λ.
            true if node.get("hold").is_some() => own.under(&main.key, Some(main.node), OF_A_ROUND),
            true => own.under(&main.key, Some(main.node), FIELDS),
            false => own,
        };
        Ok((name, Arm { options, objective, key, node, planned, number, index: main.index, refreshes: main.refreshes }))
    }

    fn arm(
        &mut self,
        name: String,
        arm: &Arm<'_>,
        main: Option<&Arm<'_>>,
        (dimension, rows, weighs): (&str, DimensionRows, bool),
        finished: &[Finished],
    ) -> Result<ArmPlan, ConfigError> {
        let (document, prefix) = (self.document, arm.prefix());
        let objective_node = arm.node.get("objective").or_else(|| main?.node.get("objective"));
        if let Some(node) = objective_node {
            self.note(&join(&prefix, "objective"), node);
        }
        let hold = self.hold(arm, main, finished)?;
        let options = self.options(arm, hold.as_ref(), finished)?;
        let data = objective::shape(self.objectives(), &arm.objective, rows);
        let refused = |message, hint: Option<String>| ConfigError::Refused {
            at: document.place(&objective_node.unwrap_or(arm.node).source),
            key: arm.key.clone(),
            message,
            hint,
        };
        if rows.of(data) == 0 && data == DataShape::Prompts {
            return Err(refused(NO_SCORER.0.to_owned(), Some(NO_SCORER.1.to_owned())));
        }
        if rows.of(data) == 0 {
            let there: Vec<String> = [DataShape::Pairs, DataShape::Answers, DataShape::Lists]
                .into_iter()
                .filter(|shape| rows.of(*shape) > 0)
                .map(|shape| format!("{} {}", rows.of(shape), shape.words()))
                .collect();
            let message = format!(
                "`{}` learns from {}, and the training data have none along {dimension:?}; they have {}",
                arm.objective,
                data.words(),
                there.join(", ")
            );
            return Err(refused(message, Some(layouts(data).to_owned())));
        }
        let inputs = objective::inputs(self.objectives(), &arm.objective, &options, data, self.facts.model_bytes)
            .map_err(|error| refused(error.to_string(), error.hint()))?;
        self.compute(join(&prefix, "data"), "objective and data");
        self.compute(join(&prefix, "inputs"), "objective");
        let mut layers = Layers::default().under(&arm.key, Some(arm.node), &[]);
        if let Some(main) = main {
            layers = layers.under(&main.key, Some(main.node), &[]);
        }
        let layers = layers.under("training", document.root.get("training"), &[]);
        let ties = if self.takes_ties(&arm.objective, &options) { rows.ties } else { 0 };
        let replay = self.replay(arm, main, finished)?;
        let target = Target { dimension: Some(dimension), rows: rows.of(data) + ties, kind: data.words(), replay };
        let mut training = self.training(&prefix, &layers, &target)?;
        if let Some((message, hint)) = self.score_fault(data, &training) {
            return Err(refused(message.to_owned(), Some(hint.to_owned())));
        }
        self.check_shares(arm, main, &training)?;
        training.combine = self.combine(arm, main, weighs, &training)?;
        Ok(ArmPlan {
            name,
            objective: arm.objective.clone(),
            data,
            inputs,
            options,
            contexts: self.contexts(arm)?,
            meta_prompts: self.meta_use(arm)?,
            hold,
            training,
            objectives: self.objectives().clone(),
        })
    }
}

impl Finished {
    /// `before` rounds of the plan come before it.
    fn new(round_index: usize, before: usize, round: &RoundPlan) -> Self {
        let (main, options) = (round.main(), &round.main().options);
        let lambda = if objective::holds_earlier(&main.objectives, &main.objective) {
            let list = options.get("lambda").and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_f64).collect()
        } else {
            vec![0.0; before]
        };
        Self {
            round: round_index,
            dimension: round.dimension.clone(),
            dimensions: round.dimensions().to_vec(),
            objective: main.objective.clone(),
            scale: main.objectives.reward_scale(&main.objective, options),
            lambda,
            unreplayable: unreplayable(round),
        }
    }
}

/// The dimension a string names, if the training data has rows of it.
pub(super) fn checked_dimension(
    document: &Document,
    facts: &Facts,
    node: &Node,
    key: &str,
) -> Result<String, ConfigError> {
    let found = text(node);
    let known = facts.dimensions();
    if known.iter().any(|(name, _)| *name == found) {
        return Ok(found);
    }
    Err(ConfigError::UnknownDimension { at: document.place(&node.source), key: key.to_owned(), found, known })
}

/// The strings of a node that is one, or a list of them.
fn names(node: &Node) -> Vec<String> {
    match &node.content {
        Content::Array(items) => items.iter().map(text).collect(),
        _ => vec![text(node)],
    }
}

/// Layouts of rows that have this shape.
fn layouts(shape: DataShape) -> &'static str {
    match shape {
        DataShape::Pairs => "pairs have a chosen and a rejected answer: layouts `trl`, `prefs`, … (`spo list schemas`)",
        DataShape::Answers => "labelled answers: layout `kto`, rows with prompt, completion and label, or pairs",
        DataShape::Prompts => "prompts that a scorer judges the answers of: `[rounds.online]`",
        DataShape::Lists => "scored lists: layouts `scored-list`, `ultrafeedback`, … with a score for every answer",
    }
}

fn text(node: &Node) -> String {
    match &node.content {
        Content::String(text) => text.clone(),
        _ => unreachable!("the schema requires a string here"),
    }
}

/// The first arm whose loss takes preference degrees where that cannot be.
fn degree_fault(arms: &[ArmPlan], online: bool, several: bool) -> Option<(usize, &'static str)> {
    let takes =
        |arm: &ArmPlan| arm.options.get("degree-weight").and_then(Value::as_f64).is_some_and(|weight| weight > 0.0);
    arms.iter().enumerate().filter(|(_, arm)| takes(arm)).find_map(|(index, arm)| {
        if online {
            Some((index, "an online round makes its pairs on the way, and preference degrees are made of the data's"))
        } else if several {
            Some((
                index,
                "a round of several dimensions weighs losses on pairs, and preference degrees are not of them",
            ))
        } else if arm.training.optimizer.is_zeroth_order() {
            Some((index, "the head of preference degrees learns by gradients, and the optimizer has none"))
        } else {
            None
        }
    })
}
