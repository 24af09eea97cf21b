//! Jinja as transformers sets it up: `ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)` with loop
//! controls, `generation` blocks, Python's `json.dumps` as `tojson`, `raise_exception` and `strftime_now`.
//!
//! A template either renders to the text that transformers renders, or is refused with the name of what is missing and
//! its line. Values are Python's, so that printing, operators and methods are too.

mod access;
mod arithmetic;
mod ast;
mod braces;
mod call;
mod compare;
mod error;
mod evaluate;
mod expression;
mod filter;
mod function;
mod json;
mod lexer;
mod limit;
mod looping;
mod method;
mod number;
mod parser;
mod percent;
mod print;
mod render;
mod resolve;
mod string;
mod test;
mod text;
mod value;

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value as Json;

pub(crate) use error::{Error, Result, fail};
pub(super) use render::Rendered;
use value::Value;

/// A template, read and checked.
#[derive(Debug)]
pub(super) struct Template(ast::Tree);

impl Template {
    pub(super) fn new(source: &str) -> Result<Self> {
        resolve::resolve(parser::parse(lexer::tokenize(source)?)?).map(Self)
    }

    /// The text with these variables.
    pub(super) fn render<'a>(&self, variables: impl IntoIterator<Item = (&'a str, &'a Json)>) -> Result<Rendered> {
        let mut values: HashMap<Rc<str>, Value> = HashMap::new();
        for (name, value) in variables {
            values.insert(name.into(), Value::from_json(value)?);
        }
        render::render(&self.0, values)
    }
}
