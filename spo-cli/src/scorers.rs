//! Scorers of the command line, and the models that they name.

use burn::tensor::Device;
use clap::Args;
use serde_json::{Map, Value, json};
use spo_data::{AnswerText, Message, PromptText, Record, Tokenizer};
use spo_model::CausalLm;
use spo_model::load::LoadOptions;
use spo_model::lora::load_adapter;
use spo_score::{Item, LoadedPolicy, Models, Opening, Registry, ScoreError, Scorer, ScorerSpec};
use std::path::Path;

use crate::error::CliError;
use crate::places::Place;

/// Who scores.
#[derive(Debug, Args)]
pub(crate) struct ScorerArguments {
    /// Who scores: KIND, KIND:ARGUMENT or an inline table, as `spo list scorers` shows; with DIMENSION= in front the score is
    /// that of a dimension. May be repeated: without dimensions the scores are added
    #[arg(long, value_name = "[DIMENSION=]SCORER", help_heading = "Scorer")]
    pub scorer: Vec<String>,
}

impl ScorerArguments {
    /// All of them as one.
    pub fn spec(&self) -> Result<ScorerSpec, CliError> {
        let parts: Vec<(Option<&str>, &str)> = self.scorer.iter().map(|text| dimension_of(text)).collect();
        if let [(None, only)] = parts.as_slice() {
            return Ok(only.parse()?);
        }
        let mut list = vec![];
        for (dimension, text) in parts {
            let spec: ScorerSpec = text.parse()?;
            let mut part = Map::from_iter([("scorer".to_string(), json!(spec))]);
            dimension.map(|name| part.insert("dimension".into(), name.into()));
            list.push(Value::Object(part));
        }
        let options = Map::from_iter([("parts".to_string(), list.into())]);
        Ok(ScorerSpec { kind: "weighted".into(), argument: None, options })
    }

    /// Opens them. Models that they name go to the device.
    pub fn open(&self, device: &Device) -> Result<Box<dyn Scorer>, CliError> {
        let models = Places { device };
        Ok(Registry::builtin().open(&self.spec()?, &Opening { models: &models, log: None, directory: None })?)
    }
}

/// `DIMENSION=SCORER`: the kind of a scorer ends at a colon or a brace, so an equals sign before is not its own.
fn dimension_of(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((name, rest)) if !name.contains([':', '{']) => (Some(name), rest),
        _ => (None, text),
    }
}

/// Models by what the command line calls them.
struct Places<'a> {
    device: &'a Device,
}

impl Models for Places<'_> {
    fn open(&self, name: &str) -> Result<LoadedPolicy, ScoreError> {
        load(name, self.device).map_err(|error| ScoreError::Model { name: name.into(), source: error.into() })
    }
}

fn load(name: &str, device: &Device) -> Result<LoadedPolicy, CliError> {
    let place = Place::named(Path::new(name), None, None)?;
    let mut model = CausalLm::open(&place.model, LoadOptions::default(), device)?;
    if let Some(adapter) = &place.adapter {
        (model, _) = load_adapter(model, adapter)?;
        if let Some(point) = &place.point {
            model = model.at_weights(point);
        }
    }
    Ok(LoadedPolicy { model, tokenizer: place.tokenizer()?, text: place.text.unwrap_or_default() })
}

/// The answers of a record, one item each.
pub(crate) fn items(record: &Record) -> Vec<Item> {
    let (mut text, mut ids) = (record.prompt.clone(), vec![]);
    if let PromptText::Ids(prompt) = &record.prompt {
        (text, ids) = (PromptText::default(), prompt.clone());
    }
    if let (Some(system), PromptText::Text(prompt)) = (&record.system, &text) {
        text = PromptText::Messages(vec![Message::new("system", system), Message::new("user", prompt)]);
    }
    let item = |answer: &AnswerText| {
        let (response, response_ids) = match answer {
            AnswerText::Text(text) => (text.clone(), vec![]),
            AnswerText::Messages(turns) => (turns.iter().map(Message::text).collect::<Vec<_>>().join("\n"), vec![]),
            AnswerText::Ids(ids) => (String::new(), ids.clone()),
        };
        let (id, prompt, prompt_ids) = (record.id.clone(), text.clone(), ids.clone());
        Item { id, prompt, response, prompt_ids, response_ids, dimension: None }
    };
    record.answers.iter().map(item).collect()
}

/// The text of an answer that a policy gave.
pub(crate) fn answer_text(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String, CliError> {
    Ok(tokenizer.decode(ids)?.trim().to_owned())
}

/// Scores as a JSON value: the one number, or numbers by dimension.
pub(crate) fn value(scores: Option<&spo_score::Scores>) -> Value {
    match scores {
        None => Value::Null,
        Some(scores) if scores.by_dimension.is_empty() => json!(scores.score),
        Some(scores) => {
            let mut table: Map<String, Value> =
                scores.by_dimension.iter().map(|(name, score)| (name.clone(), json!(score))).collect();
            scores.score.map(|score| table.insert("score".into(), json!(score)));
            Value::Object(table)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dimension_stands_before_the_kind() {
        assert_eq!(dimension_of("style=rules:ends=1"), (Some("style"), "rules:ends=1"));
        assert_eq!(dimension_of("rules:ends=1"), (None, "rules:ends=1"));
        assert_eq!(dimension_of("{ kind = \"rules\" }"), (None, "{ kind = \"rules\" }"));
        assert_eq!(dimension_of("style={ kind = \"rules\" }"), (Some("style"), "{ kind = \"rules\" }"));
    }
}
