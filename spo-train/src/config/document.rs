//! The run file as a tree that remembers where each key and value stands.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Number, Value};
use spo_hub::Name;
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

use super::plan::Origin;
use crate::error::{ConfigError, Place};

/// Where a key or value was written.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(Range<usize>),
    Set(Arc<str>),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub source: Source,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

pub(crate) type Table = BTreeMap<String, Entry>;

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: Source,
    pub node: Node,
}

#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub name: String,
    pub text: Arc<str>,
    pub root: Node,
}

impl Document {
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let text: Arc<str> = text.into();
        let empty = Node { source: Source::File(0..0), content: Content::Table(Table::new()) };
        let mut document = Self { name: name.to_owned(), text: text.clone(), root: empty };
        let table = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
            at: document.place(&Source::File(error.span().unwrap_or(0..0))),
            message: error.message().to_owned(),
        })?;
        let source = |span: Range<usize>| Source::File(span);
        document.root.content = Content::Table(convert_table(table.get_ref(), &source));
        Ok(document)
    }

    /// Position of a source for messages.
    pub fn place(&self, source: &Source) -> Box<Place> {
        Box::new(match source {
            Source::File(span) => Place::in_text(&self.name, &self.text, span.clone()),
            Source::Set(argument) => Place::on_command_line(argument),
        })
    }

    /// Origin of a value for plans.
    pub fn origin(&self, source: &Source) -> Origin {
        match source {
            Source::File(_) => {
                let place = self.place(source);
                Origin::File { name: place.name, line: place.line.unwrap_or(1) }
            }
            Source::Set(argument) => Origin::Set { argument: argument.to_string() },
        }
    }

    /// Makes the file's relative paths relative to `base`, its directory; paths from the command line stay.
    pub fn anchor_paths(&mut self, base: &Path) {
        self.anchor(base, &["out", "token-cache"], |source| matches!(source, Source::File(_)));
    }

    /// Makes relative paths from the command line relative to `base`. The run directory stays as it was named.
    pub fn anchor_arguments(&mut self, base: &Path) {
        self.anchor(base, &["token-cache"], |source| matches!(source, Source::Set(_)));
    }

    fn anchor(&mut self, base: &Path, own: &[&str], of: fn(&Source) -> bool) {
        if let Content::Table(root) = &mut self.root.content {
            for key in own {
                let Some(entry) = root.get_mut(*key) else { continue };
                if let (true, Content::String(path)) = (of(&entry.node.source), &mut entry.node.content) {
                    anchored(path, base);
                }
            }
        }
        self.visit_sources(&mut |key, node| {
            let Content::String(path) = &mut node.content else { return };
            if of(&node.source) {
                match hub_name(key, path, base) {
                    Some(name) => *path = name,
                    None => anchored(path, base),
                }
            }
        });
    }

    /// Visits what a run reads from, models, adapters, rows and prompts: each value with its dotted key.
    pub fn visit_sources(&mut self, visit: &mut dyn FnMut(&str, &mut Node)) {
        let Content::Table(root) = &mut self.root.content else { return };
        for (section, key) in [("model", "path"), ("lora", "start")] {
            if let Some(path) = root.get_mut(section).and_then(|section| section.node.get_mut(key)) {
                visit(&format!("{section}.{key}"), path);
            }
        }
        if let Some(Content::Array(rounds)) = root.get_mut("rounds").map(|rounds| &mut rounds.node.content) {
            for (index, round) in rounds.iter_mut().enumerate() {
                if let Some(path) = round.get_mut("online").and_then(|online| online.get_mut("prompts")) {
                    visit(&format!("rounds.{index}.online.prompts"), path);
                }
            }
        }
        let Some(Content::Array(data)) = root.get_mut("data").map(|data| &mut data.node.content) else { return };
        for (index, entry) in data.iter_mut().enumerate() {
            let Some(path) = entry.get_mut("path") else { continue };
            let key = format!("data.{index}.path");
            match &mut path.content {
                Content::Array(paths) => {
                    paths.iter_mut().for_each(|path| visit(&key, path));
                    // One of them may have become several.
                    *paths = std::mem::take(paths).into_iter().flat_map(Node::flat).collect();
                }
                _ => visit(&key, path),
            }
        }
    }
}

/// Through its components, so that `out = "."` gives the directory itself.
fn anchored(path: &mut String, base: &Path) {
    *path = base.join(&*path).components().collect::<PathBuf>().to_string_lossy().into_owned();
}

/// The whole name, `hf://…`, of what is one. A bare `org/name` is only ever a model or adapter.
fn hub_name(key: &str, path: &str, base: &Path) -> Option<String> {
    if path.starts_with("hf://") {
        return Some(path.to_owned());
    }
    let of_model = matches!(key, "model.path" | "lora.start");
    Some(Name::parse(path, base).ok()?.filter(|_| of_model)?.to_string())
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Table(table) => table.get(key).map(|entry| &entry.node),
            Content::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.content {
            Content::Table(table) => table.get_mut(key).map(|entry| &mut entry.node),
            _ => None,
        }
    }

    /// Whether it is this string.
    pub fn is(&self, text: &str) -> bool {
        matches!(&self.content, Content::String(own) if own == text)
    }

    /// The items of an array, or nothing.
    pub fn items(&self) -> &[Node] {
        match &self.content {
            Content::Array(items) => items,
            _ => &[],
        }
    }

    /// The items of a list, or the node itself.
    fn flat(self) -> Vec<Self> {
        match self.content {
            Content::Array(items) => items,
            content => vec![Self { content, ..self }],
        }
    }

    pub fn table(&self) -> Option<&Table> {
        match &self.content {
            Content::Table(table) => Some(table),
            _ => None,
        }
    }

    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::String(text) | Content::Datetime(text) => Value::String(text.clone()),
            Content::Integer(integer) => Value::from(*integer),
            // Not finite numbers are refused before anything is converted.
            Content::Float(float) => Number::from_f64(*float).map_or(Value::Null, Value::Number),
            Content::Boolean(boolean) => Value::Bool(*boolean),
            Content::Array(items) => items.iter().map(Node::to_json).collect(),
            Content::Table(table) => table.iter().map(|(key, entry)| (key.clone(), entry.node.to_json())).collect(),
        }
    }

    /// The value in words, for "found …".
    pub fn describe(&self) -> String {
        match &self.content {
            Content::String(text) => format!("the string {text:?}"),
            Content::Integer(integer) => format!("the integer {integer}"),
            Content::Float(float) => format!("the number {float}"),
            Content::Boolean(boolean) => format!("the boolean {boolean}"),
            Content::Datetime(text) => format!("the date {text}"),
            Content::Array(items) => format!("a list of {}", items.len()),
            Content::Table(_) => "a table".to_owned(),
        }
    }
}

/// Converts a parsed table; `source` says where a byte range of the parsed text stands.
pub(crate) fn convert_table(table: &DeTable<'_>, source: &dyn Fn(Range<usize>) -> Source) -> Table {
    table
        .iter()
        .map(|(key, value)| {
            let entry = Entry {
                key: source(key.span()),
                node: Node { source: source(value.span()), content: convert(value.get_ref(), source) },
            };
            (key.get_ref().to_string(), entry)
        })
        .collect()
}

fn convert(value: &DeValue<'_>, source: &dyn Fn(Range<usize>) -> Source) -> Content {
    match value {
        DeValue::String(text) => Content::String(text.to_string()),
        DeValue::Integer(integer) => convert_integer(integer),
        DeValue::Float(float) => Content::Float(convert_float(float)),
        DeValue::Boolean(boolean) => Content::Boolean(*boolean),
        DeValue::Datetime(datetime) => Content::Datetime(datetime.to_string()),
        DeValue::Array(items) => Content::Array(
            items
                .iter()
                .map(|item| Node { source: source(item.span()), content: convert(item.get_ref(), source) })
                .collect(),
        ),
        DeValue::Table(table) => Content::Table(convert_table(table, source)),
    }
}

/// Integers beyond 64 bits become floats, which no integer key accepts.
fn convert_integer(integer: &DeInteger<'_>) -> Content {
    i64::from_str_radix(integer.as_str(), integer.radix()).map_or(Content::Float(f64::INFINITY), Content::Integer)
}

fn convert_float(float: &DeFloat<'_>) -> f64 {
    float.as_str().parse().unwrap_or(f64::NAN)
}
