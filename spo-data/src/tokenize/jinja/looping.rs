//! The variable `loop`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast;
use super::call::Args;
use super::compare::equal;
use super::error::{Error, Result, fail};
use super::render::Env;
use super::value::Value;

pub(crate) struct Loop {
    pub(crate) items: Vec<Value>,
    pub(crate) index0: Cell<usize>,
    /// How many recursive loops are around this one.
    pub(crate) depth0: usize,
    last_changed: RefCell<Option<Vec<Value>>>,
    /// A recursive loop with the variables around it.
    pub(crate) recurse: Option<(Arc<ast::For>, Rc<Env>)>,
    pub(crate) depth: u16,
}

impl Loop {
    pub(crate) fn new(items: Vec<Value>, depth0: usize, recurse: Option<(Arc<ast::For>, Rc<Env>)>) -> Result<Self> {
        let depth = super::value::deeper(&items)?;
        Ok(Self { items, index0: Cell::new(0), depth0, last_changed: RefCell::new(None), recurse, depth })
    }

    pub(crate) fn length(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn attribute(&self, of: &Value, name: &str) -> Result<Option<Value>> {
        let int = |number: usize| Some(Value::Int(number as i128));
        let (at, length) = (self.index0.get(), self.items.len());
        Ok(match name {
            "index" => int(at + 1),
            "index0" => int(at),
            "revindex" => int(length - at),
            "revindex0" => int(length - at - 1),
            "length" => int(length),
            "depth" => int(self.depth0 + 1),
            "depth0" => int(self.depth0),
            "first" => Some(Value::Bool(at == 0)),
            "last" => Some(Value::Bool(at + 1 == length)),
            "previtem" if at == 0 => Some(Value::undefined("there is no previous item")),
            "previtem" => Some(self.items[at - 1].clone()),
            "nextitem" => {
                Some(self.items.get(at + 1).cloned().unwrap_or_else(|| Value::undefined("there is no next item")))
            }
            "cycle" => Some(Value::Method(Rc::new(of.clone()), "cycle")),
            "changed" => Some(Value::Method(Rc::new(of.clone()), "changed")),
            _ => None,
        })
    }

    pub(crate) fn call(&self, name: &str, args: Args) -> Result<Value> {
        if let Some((name, _)) = args.named.first() {
            return fail(format!("loop.{name} takes no keyword arguments"));
        }
        let values = args.positional;
        match name {
            "cycle" if values.is_empty() => fail("no items for cycling given"),
            "cycle" => Ok(values[self.index0.get() % values.len()].clone()),
            "changed" => {
                let mut last = self.last_changed.borrow_mut();
                let same = last.as_ref().is_some_and(|last| {
                    last.len() == values.len() && last.iter().zip(&values).all(|(left, right)| equal(left, right))
                });
                if !same {
                    *last = Some(values);
                }
                Ok(Value::Bool(!same))
            }
            _ => Err(Error::unsupported(format!("loop.{name}"))),
        }
    }
}
