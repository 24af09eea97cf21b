//! `[rounds.gate]`.

use super::layers::Found;
use super::{Resolver, wrong};
use crate::config::document::{Content, Node};
use crate::config::plan::{Condition, GateConditions, GatePlan};
use crate::config::spec::{GateSpec, OnMiss};
use crate::config::validate::join;
use crate::error::ConfigError;

impl Resolver<'_> {
    pub(super) fn gate(&mut self, round: &str, node: &Node, eval_every: u64) -> Result<Option<GatePlan>, ConfigError> {
        let Some(node) = node.get("gate") else { return Ok(None) };
        let key = join(round, "gate");
        self.note(&key, node);
        let spec: GateSpec =
            serde_json::from_value(node.to_json()).expect("the schema admits only what the type takes");
        let found = Found { node, key };
        for dimension in spec.dimensions.keys() {
            self.check_round_dimension(&found, "", dimension)?;
        }
        let condition = |dimension: &str, metric: &str| -> Result<Option<Condition>, ConfigError> {
            let Some(node) = node.get(dimension).and_then(|table| table.get(metric)) else { return Ok(None) };
            let parsed = match &node.content {
                Content::String(text) => Condition::parse(text),
                _ => None,
            };
            let refused = || {
                let key = join(&found.key, &join(dimension, metric));
                wrong(self.document, node, &key, Condition::EXPECTED.to_owned())
            };
            parsed.map(Some).ok_or_else(refused)
        };
        let conditions = |dimension: &String| {
            let of = |metric| condition(dimension, metric);
            Ok((dimension.clone(), GateConditions { accuracy: of("accuracy")?, margin: of("margin")? }))
        };
        let dimensions = spec.dimensions.keys().map(conditions).collect::<Result<_, ConfigError>>()?;
        let on_miss = spec.on_miss.unwrap_or(OnMiss::Stop);
        let rolls_back = node.get("on-miss").filter(|_| on_miss == OnMiss::RollBack).map(|node| (node, "on-miss"));
        let looks = rolls_back.or(node.get("admit-after").map(|node| (node, "admit-after")));
        if let Some((node, name)) = looks.filter(|_| eval_every == 0) {
            return Err(self.needs_looks(&Found { node, key: join(&found.key, name) }));
        }
        let GateSpec { admit_after, max_forgetting, .. } = spec;
        Ok(Some(GatePlan { on_miss, admit_after, max_forgetting, dimensions }))
    }
}
