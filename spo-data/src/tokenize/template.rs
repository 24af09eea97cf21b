//! Chat templates, rendered as transformers renders them.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::Map;

use super::{limit, time};
use crate::DataError;
use crate::record::Message;

/// Steps a template may take: real ones need a few per message; an endless loop stops here.
const FUEL: u64 = 5_000_000;
/// Marks of `{% generation %}` blocks in the rendered text: noncharacters that no text contains.
const GENERATION_START: char = '\u{FDD0}';
const GENERATION_END: char = '\u{FDD1}';

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    special: BTreeMap<String, String>,
    /// Whether there are generation blocks; only then are marks taken out of the text.
    marked: bool,
}

/// What a render takes besides the messages.
#[derive(Debug, Clone, Default)]
pub struct RenderOptions<'a> {
    /// Append the opening of an assistant turn.
    pub add_generation_prompt: bool,
    /// Tool descriptions, as a JSON array.
    pub tools: Option<&'a serde_json::Value>,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Option<&'a Map<String, serde_json::Value>>,
}

impl ChatTemplate {
    /// Compiles a template; `special` gives the template its `bos_token`, `eos_token` and so on.
    ///
    /// Blocks are trimmed as transformers does it (`trim_blocks`, `lstrip_blocks`).
    ///
    /// # Errors
    /// When the template does not parse.
    pub fn new(source: &str, special: BTreeMap<String, String>) -> Result<Self, DataError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(limit::method);
        environment.add_filter("indent", limit::indent);
        environment.add_filter("format", limit::format);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| time::now(format));
        environment.add_filter("tojson", to_json);
        let text = mark_generation(source);
        let marked = text.contains(GENERATION_START);
        environment.add_template_owned("chat", text).map_err(template_error)?;
        Ok(Self { environment: Arc::new(environment), source: source.into(), special, marked })
    }

    /// The template as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders messages to the text that is tokenised (without adding special tokens again).
    ///
    /// # Errors
    /// When the template raises an exception, misses a variable or runs too long.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, DataError> {
        let (text, _) = self.render_spans(messages, options)?;
        Ok(text)
    }

    /// Renders messages, with the byte ranges that `{% generation %}` blocks produced.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_spans(
        &self,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<(String, Vec<std::ops::Range<usize>>), DataError> {
        let mut variables: BTreeMap<&str, Value> =
            self.special.iter().map(|(name, text)| (name.as_str(), Value::from(text))).collect();
        for (name, value) in options.variables.into_iter().flatten() {
            variables.insert(name, Value::from_serialize(value));
        }
        variables.insert("messages", Value::from_serialize(messages));
        variables.insert("add_generation_prompt", options.add_generation_prompt.into());
        variables.insert("tools", Value::from_serialize(options.tools));
        let template = self.environment.get_template("chat").map_err(template_error)?;
        let mut output = limit::Bounded::default();
        template.render_captured_to(variables, &mut output).map_err(template_error)?;
        let text = String::from_utf8(output.0).map_err(|error| DataError::Template { message: error.to_string() })?;
        Ok(if self.marked { take_spans(&text) } else { (text, Vec::new()) })
    }
}

fn take_spans(marked: &str) -> (String, Vec<std::ops::Range<usize>>) {
    let mut text = String::with_capacity(marked.len());
    let mut spans = Vec::new();
    let mut start = None;
    for character in marked.chars() {
        match character {
            GENERATION_START => start = Some(text.len()),
            GENERATION_END => spans.extend(start.take().map(|start| start..text.len())),
            other => text.push(other),
        }
    }
    (text, spans)
}

/// Replaces the `{% generation %}` tags, which only transformers knows, by output of the marks.
fn mark_generation(source: &str) -> String {
    let mut rest = source;
    let mut marked = String::with_capacity(source.len());
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        marked += before;
        let Some(end) = tag[2..].find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 4);
        let inner = &tag[2..end + 2];
        let name = inner.trim_matches(['-', '+']).trim();
        let mark = match name {
            "generation" => Some(GENERATION_START),
            "endgeneration" => Some(GENERATION_END),
            _ => None,
        };
        match mark {
            // `set` keeps the trimming of a block tag, which an expression would lose.
            Some(mark) => {
                let open = if inner.starts_with('-') { "-" } else { "" };
                let close = if inner.ends_with('-') { "-" } else { "" };
                marked += &format!("{{%{open} if true %}}{{{{ '{mark}' }}}}{{% endif {close}%}}");
            }
            None => marked += tag,
        }
        rest = after;
    }
    marked += rest;
    marked
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
}

/// `tojson` as transformers overrides it: Python's separators, no HTML escaping, optional indent.
fn to_json(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    limit::check_width(indent.unwrap_or(0))?;
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<Value> = kwargs.get(ignored)?;
    }
    kwargs.assert_all_used()?;
    let value =
        serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let mut text = String::new();
    write_json(&value, indent.map(|width| (width, 0)), &mut text);
    Ok(Value::from_safe_string(text))
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=…)`; `indent` is (width, depth).
fn write_json(value: &serde_json::Value, indent: Option<(usize, usize)>, text: &mut String) {
    use serde_json::Value as Json;
    let inner = indent.map(|(width, depth)| (width, depth + 1));
    let new_line = |text: &mut String, indent: Option<(usize, usize)>| {
        if let Some((width, depth)) = indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    let separate = |text: &mut String, index: usize| {
        if index > 0 {
            text.push_str(if indent.is_some() { "," } else { ", " });
        }
        new_line(text, inner);
    };
    match value {
        Json::Array(items) if !items.is_empty() => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                separate(text, index);
                write_json(item, inner, text);
            }
            new_line(text, indent);
            text.push(']');
        }
        Json::Object(map) if !map.is_empty() => {
            text.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                separate(text, index);
                text.push_str(&Json::from(key.as_str()).to_string());
                text.push_str(": ");
                write_json(item, inner, text);
            }
            new_line(text, indent);
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

fn template_error(error: Error) -> DataError {
    let message = match error.line() {
        Some(line) => format!("{error} (line {line})"),
        None => error.to_string(),
    };
    DataError::Template { message }
}
