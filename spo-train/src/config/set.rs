//! `--set PATH=VALUE`: changes to the document from the command line.

use toml::de::DeTable;

use super::document::{Content, Document, Entry, Node, Source, Table, convert_table};
use crate::error::ConfigError;

impl Document {
    /// Writes a value at a dotted path; numbers index into lists. The value is TOML, or a bare string.
    pub fn set(&mut self, argument: &str) -> Result<(), ConfigError> {
        let refuse = |message: String| ConfigError::Set { argument: argument.to_owned(), message };
        let (path, value) = argument
            .split_once('=')
            .ok_or_else(|| refuse("expected PATH=VALUE, e.g. rounds.1.lambda=0.5".to_owned()))?;
        let path = components(path.trim()).ok_or_else(|| refuse(format!("{path:?} is not a dotted path of keys")))?;
        let source = Source::Set(argument.into());
        let content = parse_value(value.trim(), &source);
        write(&mut self.root, &path, content, &source).map_err(refuse)
    }
}

/// The keys of a dotted TOML key, quoted parts included.
fn components(path: &str) -> Option<Vec<String>> {
    let text = format!("{path} = 0");
    let table = DeTable::parse(&text).ok()?;
    let mut keys = Vec::new();
    let mut table = table.get_ref();
    loop {
        let (key, value) = table.iter().next().filter(|_| table.len() == 1)?;
        keys.push(key.get_ref().to_string());
        match value.get_ref().as_table() {
            Some(inner) => table = inner,
            None => return Some(keys),
        }
    }
}

/// What is not a TOML value is a string: `--set model.device=cuda:0` needs no quotes in the shell.
fn parse_value(value: &str, source: &Source) -> Content {
    let text = format!("value = {value}");
    let parsed = DeTable::parse(&text).ok().and_then(|table| {
        let mut table = convert_table(table.get_ref(), &|_| source.clone());
        let entry = table.remove("value")?;
        table.is_empty().then_some(entry.node.content)
    });
    parsed.unwrap_or_else(|| Content::String(value.to_owned()))
}

fn write(node: &mut Node, path: &[String], content: Content, source: &Source) -> Result<(), String> {
    let Some((key, rest)) = path.split_first() else {
        *node = Node { source: source.clone(), content };
        return Ok(());
    };
    match &mut node.content {
        Content::Table(table) => {
            let entry = table.entry(key.clone()).or_insert_with(|| Entry {
                key: source.clone(),
                node: Node { source: source.clone(), content: Content::Table(Table::new()) },
            });
            write(&mut entry.node, rest, content, source)
        }
        Content::Array(items) => {
            let count = items.len();
            let item = key.parse::<usize>().ok().and_then(|index| items.get_mut(index));
            match item {
                Some(item) => write(item, rest, content, source),
                None => Err(format!("`{key}` is not an index into a list of {count} (the first is 0)")),
            }
        }
        _ => Err(format!("`{key}` stands under a plain value, not a table")),
    }
}
