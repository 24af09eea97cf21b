//! Defaults under section under override: which value holds, and where it came from.

use serde_json::{Map, Value};

use super::Resolver;
use crate::config::document::{Content, Document, Entry, Node, Source, Table};
use crate::config::validate::join;
use crate::error::ConfigError;

/// Tables that may hold a key, the most specific first.
#[derive(Clone, Default)]
pub(super) struct Layers<'a> {
    layers: Vec<Layer<'a>>,
}

#[derive(Clone)]
struct Layer<'a> {
    table: &'a Table,
    key: String,
    without: &'static [&'static str],
}

/// A value that was found in a layer.
#[derive(Clone)]
pub(super) struct Found<'a> {
    pub node: &'a Node,
    /// Its dotted key in the run file.
    pub key: String,
}

impl<'a> Layers<'a> {
    /// Adds a table below the ones there are; `without` are keys that are not taken from it.
    pub fn under(mut self, key: &str, node: Option<&'a Node>, without: &'static [&'static str]) -> Self {
        if let Some(table) = node.and_then(Node::table) {
            let key = key.to_owned();
            self.layers.push(Layer { table, key, without });
        }
        self
    }

    pub fn find(&self, key: &str) -> Option<Found<'a>> {
        self.layers.iter().find_map(|layer| layer.get(key))
    }

    /// What [`find`](Self::find) finds of `key`, unless only layers less specific than the one with `other` have it.
    pub fn find_as_near(&self, key: &str, other: &str) -> Option<Found<'a>> {
        let layers = self.layers.iter();
        let last = layers.clone().position(|layer| layer.get(other).is_some()).unwrap_or(usize::MAX);
        layers.take(last.saturating_add(1)).find_map(|layer| layer.get(key))
    }

    /// The layers from the one on that [`find`](Self::find) finds a key in.
    pub fn from(&self, key: &str) -> Option<Self> {
        let first = self.layers.iter().position(|layer| layer.get(key).is_some())?;
        Some(Self { layers: self.layers[first..].to_vec() })
    }

    /// Every key of every layer.
    pub fn keys(&self) -> impl Iterator<Item = (&'a String, &'a Entry, String)> {
        self.layers.iter().flat_map(|layer| {
            let own = layer.table.iter();
            own.map(|(name, entry)| (name, entry, layer.key.clone()))
        })
    }

    /// Which of two keys that exclude each other holds: the more specific one; in one table, one from the command line.
    pub fn either(
        &self,
        document: &Document,
        first: &'static str,
        second: &'static str,
    ) -> Result<Option<(&'static str, Found<'a>)>, ConfigError> {
        for layer in &self.layers {
            match (layer.get(first), layer.get(second)) {
                (None, None) => {}
                (Some(found), None) => return Ok(Some((first, found))),
                (None, Some(found)) => return Ok(Some((second, found))),
                (Some(one), Some(two)) => {
                    return match (&one.node.source, &two.node.source) {
                        (Source::Set(_), Source::File(_)) => Ok(Some((first, one))),
                        (Source::File(_), Source::Set(_)) => Ok(Some((second, two))),
                        _ => Err(ConfigError::Exclusive {
                            at: document.place(&one.node.source),
                            key: one.key,
                            other: two.key,
                        }),
                    };
                }
            }
        }
        Ok(None)
    }
}

impl<'a> Layer<'a> {
    fn get(&self, key: &str) -> Option<Found<'a>> {
        let entry = self.table.get(key).filter(|_| !self.without.contains(&key))?;
        Some(Found { node: &entry.node, key: join(&self.key, key) })
    }
}

impl Resolver<'_> {
    /// The defaults of a section with the values found in `layers` over them; origins go under `prefix`.
    pub(super) fn settle(
        &mut self,
        prefix: &str,
        mut values: Map<String, Value>,
        keys: &[&str],
        layers: &Layers<'_>,
    ) -> Map<String, Value> {
        for key in keys {
            if let Some(found) = layers.find(key) {
                values.insert((*key).to_owned(), found.node.to_json());
                self.note(&join(prefix, key), found.node);
            }
        }
        values
    }

    /// Records the origin of a value, or of each value below a table.
    pub(super) fn note(&mut self, key: &str, node: &Node) {
        match &node.content {
            Content::Table(table) => {
                for (name, entry) in table {
                    self.note(&join(key, name), &entry.node);
                }
            }
            Content::Array(items) if items.iter().any(|item| item.table().is_some()) => {
                for (index, item) in items.iter().enumerate() {
                    self.note(&join(key, &index.to_string()), item);
                }
            }
            _ => {
                let origin = self.document.origin(&node.source);
                self.origins.insert(key.to_owned(), origin);
            }
        }
    }

    /// Records the origins of a top-level key and all below it.
    pub(super) fn note_written(&mut self, key: &str) {
        let document = self.document;
        if let Some(node) = document.root.get(key) {
            self.note(key, node);
        }
    }
}
