//! From prompt and answer text to the text that is tokenised: chat template or plain.

use serde_json::{Map, Value};

use crate::DataError;
use crate::record::{AnswerText, Message, PromptText, Record};
use crate::spec::{TemplateKind, TextSpec};
use crate::tokenize::{ChatTemplate, RenderOptions, Tokenizer};

/// The layout that a spec resolves to with a tokenizer.
pub(crate) enum Layout<'a> {
    Chat(&'a ChatTemplate),
    Plain,
}

/// A prompt and each prompt + answer as text, with how to encode them.
pub(crate) struct Laid {
    pub(crate) prompt: String,
    pub(crate) full: Vec<String>,
}

impl<'a> Layout<'a> {
    /// The layout of conversations with or without tools.
    pub(crate) fn resolve(spec: &TextSpec, tokenizer: &'a Tokenizer, tools: bool) -> Result<Self, DataError> {
        if spec.template == TemplateKind::Plain || (spec.template == TemplateKind::Auto && spec.has_format()) {
            return Ok(Self::Plain);
        }
        match (spec.template, tokenizer.template_for(tools)?) {
            (_, Some(template)) => Ok(Self::Chat(template)),
            (TemplateKind::Chat, None) => Err(DataError::NoTemplate),
            (_, None) => Ok(Self::Plain),
        }
    }

    /// Whether the tokenizer adds its own special tokens: a template has written them already.
    pub(crate) fn add_special(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Text of a prompt alone; `None` for token ids.
    pub(crate) fn prompt(
        &self,
        spec: &TextSpec,
        system: Option<&str>,
        prompt: &PromptText,
        tools: Option<&Value>,
        variables: &Map<String, Value>,
    ) -> Result<Option<String>, DataError> {
        let system = system.or(spec.system.as_deref());
        match self {
            Self::Chat(template) => {
                let Some(messages) = conversation(system, prompt) else {
                    return Ok(None);
                };
                let options = RenderOptions { add_generation_prompt: true, tools, variables: Some(variables) };
                template.render(&messages, &options).map(Some)
            }
            Self::Plain => Ok(plain_prompt(spec, system, prompt)),
        }
    }

    /// Text of a record; `None` when prompt and answers are not all text.
    pub(crate) fn record(&self, spec: &TextSpec, record: &Record) -> Result<Option<Laid>, DataError> {
        let tools = record.tools.as_ref();
        let system = record.system.as_deref();
        let Some(prompt) = self.prompt(spec, system, &record.prompt, tools, &record.variables)? else {
            return Ok(None);
        };
        let mut full = Vec::with_capacity(record.answers.len());
        for answer in &record.answers {
            let text = match self {
                Self::Chat(template) => {
                    let system = system.or(spec.system.as_deref());
                    let (Some(mut messages), Some(turns)) =
                        (conversation(system, &record.prompt), answer_turns(answer))
                    else {
                        return Ok(None);
                    };
                    messages.extend(turns);
                    let options = RenderOptions { tools, variables: Some(&record.variables), ..Default::default() };
                    template.render(&messages, &options)?
                }
                Self::Plain => match plain_answer(spec, &record.prompt, answer) {
                    Some(text) => format!("{prompt}{text}"),
                    None => return Ok(None),
                },
            };
            full.push(text);
        }
        Ok(Some(Laid { prompt, full }))
    }
}

fn conversation(system: Option<&str>, prompt: &PromptText) -> Option<Vec<Message>> {
    let mut messages = match prompt {
        PromptText::Text(text) => vec![Message::new("user", text)],
        PromptText::Messages(messages) => messages.clone(),
        PromptText::Ids(_) => return None,
    };
    let has_system = messages.iter().any(|message| message.role == "system");
    if let (Some(system), false) = (system, has_system) {
        messages.insert(0, Message::new("system", system));
    }
    Some(messages)
}

fn answer_turns(answer: &AnswerText) -> Option<Vec<Message>> {
    match answer {
        AnswerText::Text(text) => Some(vec![Message::new("assistant", text)]),
        AnswerText::Messages(messages) => Some(messages.clone()),
        AnswerText::Ids(_) => None,
    }
}

fn plain_prompt(spec: &TextSpec, default: Option<&str>, prompt: &PromptText) -> Option<String> {
    let apply = |text: &str| match &spec.prompt_format {
        Some(format) => format.replace("{prompt}", text),
        None => text.to_string(),
    };
    let (system, text) = match prompt {
        PromptText::Text(text) => (None, apply(text)),
        PromptText::Messages(messages) => {
            let (system, turns): (Vec<&Message>, Vec<&Message>) =
                messages.iter().partition(|message| message.role == "system");
            let text = match (turns.as_slice(), &spec.prompt_format) {
                ([only], Some(_)) if only.role == "user" => apply(&only.text()),
                (turns, Some(_)) => apply(&transcript(turns)),
                (turns, None) => transcript(turns) + "\n\nAssistant:",
            };
            (system.first().map(|message| message.text()), text)
        }
        PromptText::Ids(_) => return None,
    };
    Some(match system.or_else(|| default.map(str::to_string)) {
        Some(system) => format!("{system}\n\n{text}"),
        None => text,
    })
}

fn plain_answer(spec: &TextSpec, prompt: &PromptText, answer: &AnswerText) -> Option<String> {
    let text = match answer {
        AnswerText::Text(text) => text.clone(),
        AnswerText::Messages(messages) => match messages.as_slice() {
            [] => String::new(),
            // Turns after the first keep their speaker's name.
            [first, rest @ ..] => first.text() + &transcript(&rest.iter().collect::<Vec<_>>()),
        },
        AnswerText::Ids(_) => return None,
    };
    Some(match (&spec.response_format, prompt) {
        (Some(format), _) => format.replace("{response}", &text),
        // A transcript has a space after the speaker's name.
        (None, PromptText::Messages(_)) if spec.prompt_format.is_none() => format!(" {text}"),
        (None, _) => text,
    })
}

/// Turns in the form of Anthropic's HH data.
fn transcript(turns: &[&Message]) -> String {
    turns
        .iter()
        .map(|turn| {
            let speaker = match turn.role.as_str() {
                "user" => "Human",
                "assistant" => "Assistant",
                other => other,
            };
            format!("\n\n{speaker}: {}", turn.text())
        })
        .collect()
}
