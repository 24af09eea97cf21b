//! A server that scores, in the two dialects that trainers speak.

use std::net::IpAddr;
use std::time::Duration;

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};
use spo_data::Message;
use ureq::http::Uri;

use super::answer::shortened;
use crate::entry::{Entry, OpenError, decoded};
use crate::{Item, ScoreError, Scorer, Scores, Watch};

pub(crate) const ENTRY: Entry = Entry {
    name: "http",
    summary: "a reward server: OpenRLHF's POST {query, prompts, labels} or LLaMA-Factory's POST {model, messages}",
    example: "http:http://127.0.0.1:5000/get_reward",
    options: || schema_for!(Options),
    argument: Some("url"),
    check: |options| {
        let options: Options = decoded(options)?;
        let uri: Uri = options.url.parse().map_err(|error| OpenError::Options(format!("{}: {error}", options.url)))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        if uri.scheme_str() != Some("http") || host.is_empty() {
            return Err(OpenError::Options(format!(
                "{} is not an address of the form http://host:port/path",
                options.url
            )));
        }
        if !loopback && !options.remote {
            return Err(OpenError::Options(format!(
                "{host} is another machine; prompts and answers would leave this one: set remote = true if they may"
            )));
        }
        if !(options.timeout.is_finite() && options.timeout > 0.0) || options.batch == 0 || options.tries == 0 {
            return Err(OpenError::Options("timeout, batch and tries must be above 0".into()));
        }
        Ok(())
    },
    open: |options, _, _| {
        let options: Options = decoded(options)?;
        let timeout = Some(Duration::from_secs_f64(options.timeout));
        let agent = ureq::Agent::config_builder().timeout_global(timeout).proxy(None).build().into();
        Ok(Box::new(Server { options, agent }))
    },
};

/// Options of `http`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// Where to post to; http only.
    url: String,
    /// What the server speaks: `openrlhf` or `llama-factory`.
    #[serde(default)]
    dialect: Dialect,
    /// Whether the server may be another machine.
    #[serde(default)]
    remote: bool,
    /// Seconds that one request may take.
    #[serde(default = "timeout")]
    timeout: f64,
    /// How often a request is tried, a second apart.
    #[serde(default = "tries")]
    tries: usize,
    /// Answers in one request.
    #[serde(default = "batch")]
    batch: usize,
}

/// What a server speaks.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Dialect {
    /// `{"query": [prompt + answer], "prompts": […], "labels": […]}` gives `{"rewards": […]}`; labels are dimensions.
    #[default]
    #[serde(rename = "openrlhf")]
    OpenRlhf,
    /// `{"model": "model", "messages": [prompt + answer]}` gives `{"scores": […]}`.
    LlamaFactory,
}

fn timeout() -> f64 {
    180.0
}

fn tries() -> usize {
    5
}

fn batch() -> usize {
    32
}

struct Server {
    options: Options,
    agent: ureq::Agent,
}

/// Prompt and answer as one text.
fn whole(item: &Item) -> String {
    let before = match &item.prompt {
        spo_data::PromptText::Messages(turns) => turns.iter().map(Message::text).collect::<Vec<_>>().join("\n"),
        _ => item.prompt_text(),
    };
    before + &item.response
}

impl Server {
    fn body(&self, items: &[Item]) -> Value {
        let texts: Vec<String> = items.iter().map(whole).collect();
        match self.options.dialect {
            Dialect::OpenRlhf => json!({
                "query": texts,
                "prompts": items.iter().map(Item::prompt_text).collect::<Vec<_>>(),
                "labels": items.iter().map(|item| item.dimension.clone().unwrap_or_default()).collect::<Vec<_>>(),
            }),
            Dialect::LlamaFactory => json!({ "model": "model", "messages": texts }),
        }
    }

    /// Posts until there is an answer, or tries no more.
    fn post(&self, body: &Value, go_on: &mut dyn FnMut() -> bool) -> Result<String, ScoreError> {
        let mut fault = String::new();
        for attempt in 0..self.options.tries {
            if attempt > 0 {
                std::thread::sleep(Duration::from_secs(1));
            }
            if !go_on() {
                return Err(ScoreError::Interrupted);
            }
            let sent =
                self.agent.post(&self.options.url).header("content-type", "application/json").send(body.to_string());
            match sent.and_then(|mut response| response.body_mut().read_to_string()) {
                Ok(text) => return Ok(text),
                Err(error) => fault = error.to_string(),
            }
        }
        Err(ScoreError::Failed {
            scorer: self.options.url.clone(),
            reason: format!("failed {} times, last: {fault}", self.options.tries),
            hint: Some("is the server up, and does it speak this dialect?".into()),
        })
    }

    fn read(&self, text: &str, items: &[Item]) -> Result<Vec<Option<Scores>>, ScoreError> {
        let key = match self.options.dialect {
            Dialect::OpenRlhf => "rewards",
            Dialect::LlamaFactory => "scores",
        };
        let garbage = |found: String| ScoreError::Garbage {
            scorer: self.options.url.clone(),
            found,
            expected: format!("{{\"{key}\": […]}} with {} numbers or nulls", items.len()),
        };
        let value: Value =
            serde_json::from_str(text).map_err(|error| garbage(format!("`{}` ({error})", shortened(text))))?;
        let list = value.get(key).and_then(Value::as_array).ok_or_else(|| garbage(format!("`{}`", shortened(text))))?;
        if list.len() != items.len() {
            return Err(garbage(format!("{} of them", list.len())));
        }
        let one = |value: &Value| match value {
            Value::Null => Ok(None),
            // Some servers give a list of one.
            Value::Array(inner) if inner.len() == 1 => number(&inner[0]),
            other => number(other),
        };
        let number = |value: &Value| one(value).map_err(|found| garbage(format!("{found} in `{key}`")));
        list.iter().map(number).collect()
    }
}

fn number(value: &Value) -> Result<Option<Scores>, String> {
    value.as_f64().map(|score| Some(Scores::one(score))).ok_or_else(|| value.to_string())
}

impl Scorer for Server {
    fn score(&mut self, items: &[Item], watch: Watch) -> Result<Vec<Option<Scores>>, ScoreError> {
        items.iter().try_for_each(|item| item.require_text(&self.options.url))?;
        let mut scores = vec![];
        for part in items.chunks(self.options.batch) {
            let done = scores.len();
            let text = self.post(&self.body(part), &mut || watch(done))?;
            scores.extend(self.read(&text, part)?);
            if !watch(scores.len()) {
                return Err(ScoreError::Interrupted);
            }
        }
        Ok(scores)
    }
}
