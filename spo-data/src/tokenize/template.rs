//! Chat templates, rendered as transformers renders them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::jinja;
use crate::DataError;
use crate::record::Message;

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    template: Arc<jinja::Template>,
    source: Arc<str>,
    special: Map<String, Value>,
}

/// What a render takes besides the messages.
#[derive(Debug, Clone, Default)]
pub struct RenderOptions<'a> {
    /// Append the opening of an assistant turn.
    pub add_generation_prompt: bool,
    /// Tool descriptions, as a JSON array.
    pub tools: Option<&'a Value>,
    /// Further variables of the template, such as `enable_thinking` or `documents`.
    pub variables: Option<&'a Map<String, Value>>,
}

impl ChatTemplate {
    /// Compiles a template; `special` gives the template its `bos_token`, `eos_token` and so on.
    ///
    /// Blocks are trimmed as transformers does it (`trim_blocks`, `lstrip_blocks`).
    ///
    /// # Errors
    /// When the template does not parse, or needs what is not supported: other templates, say.
    pub fn new(source: &str, special: BTreeMap<String, String>) -> Result<Self, DataError> {
        let template = Arc::new(jinja::Template::new(source).map_err(template_error)?);
        let special = special.into_iter().map(|(name, text)| (name, text.into())).collect();
        Ok(Self { template, source: source.into(), special })
    }

    /// The template as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders messages to the text that is tokenised (without adding special tokens again).
    ///
    /// # Errors
    /// When the template raises an exception, uses what is not supported or runs too long.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, DataError> {
        self.run(messages, options).map(|(text, _)| text)
    }

    /// Renders messages, with the byte ranges that `{% generation %}` blocks produced.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and when such a block stands within a macro or another block that keeps its text.
    pub fn render_spans(
        &self,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<(String, Vec<Range<usize>>), DataError> {
        let (text, spans) = self.run(messages, options)?;
        let message =
            || "the place of a generation block within a macro, a set block or a filter is not known".to_string();
        let spans = spans.ok_or_else(|| DataError::Template { message: message() })?;
        Ok((text, spans))
    }

    fn run(&self, messages: &[Message], options: &RenderOptions) -> Result<jinja::Rendered, DataError> {
        let messages = Value::Array(messages.iter().map(message_fields).collect());
        let tools = options.tools.cloned().unwrap_or(Value::Null);
        let add = Value::Bool(options.add_generation_prompt);
        let mut variables: BTreeMap<&str, &Value> = BTreeMap::from([("documents", &Value::Null)]);
        let given = options.variables.into_iter().flatten();
        variables.extend(self.special.iter().chain(given).map(|(name, value)| (name.as_str(), value)));
        variables.extend([("messages", &messages), ("tools", &tools), ("add_generation_prompt", &add)]);
        self.template.render(variables).map_err(template_error)
    }
}

/// A message as a template sees it. transformers gives the reasoning of a turn all the names that templates read.
fn message_fields(message: &Message) -> Value {
    let fields = message.fields();
    let reasoning = ["reasoning_content", "thinking", "reasoning"].into_iter();
    let Some(reasoning) = reasoning.filter_map(|name| fields.get(name)).find(|value| !value.is_null()).cloned() else {
        return Value::Object(fields);
    };
    let mut named = Map::from_iter([("thinking".to_string(), reasoning.clone())]);
    named.extend(fields);
    named.insert("reasoning_content".into(), reasoning);
    Value::Object(named)
}

fn template_error(error: jinja::Error) -> DataError {
    let line: Cow<str> = error.line.map_or("".into(), |line| format!(" (line {line})").into());
    DataError::Template { message: format!("{}{line}", error.message) }
}
