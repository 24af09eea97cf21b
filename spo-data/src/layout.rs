//! From prompt and answer text to the text that is tokenised: chat template or plain.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::DataError;
use crate::record::{AnswerText, Message, PromptText, Record};
use crate::spec::{EmptyThink, TemplateKind, TextSpec, ToolArguments};
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
    /// Whether some answers, and not all, begin with an empty think block.
    pub(crate) think_of_some: bool,
}

impl<'a> Layout<'a> {
    /// The layout of conversations with or without tools.
    pub(crate) fn resolve(spec: &TextSpec, tokenizer: &'a Tokenizer, tools: bool) -> Result<Self, DataError> {
        let plain = spec.template == TemplateKind::Plain || (spec.template == TemplateKind::Auto && spec.has_format());
        if plain && spec.template_kwargs.is_empty() {
            return Ok(Self::Plain);
        }
        if plain {
            let value = spec.template_kwargs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let expected = "none, as plain text has no variables";
            return Err(DataError::BadSetting { key: "template-kwargs", value, expected });
        }
        let layout = match (spec.template, tokenizer.template_for(tools)?) {
            (_, Some(template)) => Self::Chat(template),
            (TemplateKind::Chat, None) => return Err(DataError::NoTemplate),
            (_, None) => Self::Plain,
        };
        match spec.template_kwargs.keys().find(|name| !layout.mentions(name)) {
            Some(name) => {
                let expected = "names that the chat template mentions";
                Err(DataError::BadSetting { key: "template-kwargs", value: name.clone(), expected })
            }
            None => Ok(layout),
        }
    }

    /// Whether a chat template mentions a variable or a field.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        match self {
            Self::Chat(template) => template.source().contains(name),
            Self::Plain => false,
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
                let Some(messages) = conversation(spec, system, prompt) else {
                    return Ok(None);
                };
                let variables = variables_of(spec, variables);
                let options = RenderOptions { add_generation_prompt: true, tools, variables: Some(&*variables) };
                render(template, &messages, &options).map(Some)
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
                        (conversation(spec, system, &record.prompt), answer_turns(spec, answer))
                    else {
                        return Ok(None);
                    };
                    messages.extend(turns);
                    let variables = variables_of(spec, &record.variables);
                    let options = RenderOptions { tools, variables: Some(&*variables), ..Default::default() };
                    render(template, &messages, &options)?
                }
                Self::Plain => match plain_answer(spec, &record.prompt, answer) {
                    Some(text) => format!("{prompt}{text}"),
                    None => return Ok(None),
                },
            };
            full.push(text);
        }
        let mut laid = Laid { prompt, full, think_of_some: false };
        if spec.empty_think == EmptyThink::Ignore {
            laid.skip_empty_think();
        }
        Ok(Some(laid))
    }
}

impl Laid {
    /// Moves an empty think block that all answers begin with into the prompt.
    fn skip_empty_think(&mut self) {
        let block = |text: &String| text.strip_prefix(&self.prompt).map_or("", empty_think).to_owned();
        let blocks: Vec<String> = self.full.iter().map(block).collect();
        match blocks.split_first() {
            Some((first, rest)) if rest.iter().all(|block| block == first) => self.prompt += first,
            _ => self.think_of_some = true,
        }
    }
}

/// The empty think block that a text begins with, and the blanks behind it; nothing where there is none.
fn empty_think(text: &str) -> &str {
    let behind = text.trim_start().strip_prefix("<think>").map(str::trim_start);
    let behind = behind.and_then(|rest| rest.strip_prefix("</think>")).map(str::trim_start);
    behind.map_or("", |rest| &text[..text.len() - rest.len()])
}

/// The variables of a row over those of all texts.
fn variables_of<'v>(spec: &'v TextSpec, own: &'v Map<String, Value>) -> Cow<'v, Map<String, Value>> {
    if spec.template_kwargs.is_empty() {
        return Cow::Borrowed(own);
    }
    let mut all = spec.template_kwargs.clone();
    all.extend(own.clone());
    Cow::Owned(all)
}

/// Renders a conversation. Content that is a list of text parts is one text where the template does not know lists: it would
/// print them as Python does, or leave them out.
fn render(template: &ChatTemplate, messages: &[Message], options: &RenderOptions) -> Result<String, DataError> {
    let whole = template.render(messages, options);
    let lists = || messages.iter().filter(|message| message.content.is_array());
    let known = |text: &String| {
        lists().all(|message| {
            let parts = message.content.as_array().into_iter().flatten();
            let mut texts = parts.filter_map(|part| part.get("text")?.as_str()).map(str::trim);
            texts.all(|part| text.contains(part)) && !["{'type':", "{'text':"].iter().any(|sign| text.contains(sign))
        })
    };
    if lists().next().is_none() || whole.as_ref().is_ok_and(known) {
        return whole;
    }
    let mut joined = messages.to_vec();
    for message in joined.iter_mut().filter(|message| message.content.is_array()) {
        message.content = message.text().into();
    }
    template.render(&joined, options)
}

/// The message with its arguments in the wanted form.
fn with_arguments(spec: &TextSpec, mut message: Message) -> Message {
    for arguments in message.arguments_mut() {
        let other = match (spec.tool_arguments, &*arguments) {
            (ToolArguments::Object, Value::String(text)) => {
                serde_json::from_str(text).ok().filter(|value: &Value| value.is_object())
            }
            (ToolArguments::Text, Value::Object(_)) => Some(Value::from(arguments.to_string())),
            _ => None,
        };
        if let Some(other) = other {
            *arguments = other;
        }
    }
    message
}

fn conversation(spec: &TextSpec, system: Option<&str>, prompt: &PromptText) -> Option<Vec<Message>> {
    let mut messages: Vec<Message> = match prompt {
        PromptText::Text(text) => vec![Message::new("user", text)],
        PromptText::Messages(messages) => messages.iter().cloned().map(|turn| with_arguments(spec, turn)).collect(),
        PromptText::Ids(_) => return None,
    };
    let has_system = messages.iter().any(|message| message.role == "system");
    if let (Some(system), false) = (system, has_system) {
        messages.insert(0, Message::new("system", system));
    }
    Some(messages)
}

fn answer_turns(spec: &TextSpec, answer: &AnswerText) -> Option<Vec<Message>> {
    match answer {
        AnswerText::Text(text) => Some(vec![Message::new("assistant", text)]),
        AnswerText::Messages(messages) => {
            Some(messages.iter().cloned().map(|turn| with_arguments(spec, turn)).collect())
        }
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
