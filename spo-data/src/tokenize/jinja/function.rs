//! Global functions, and the objects that they make.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::ast;
use super::call::{Args, int, required, text};
use super::error::{Error, Result, fail};
use super::render::Env;
use super::string::named;
use super::value::{Dict, Seq, Value, deeper, range_length};
use crate::tokenize::time;

pub(crate) const NAMES: [&str; 8] =
    ["range", "dict", "lipsum", "cycler", "joiner", "namespace", "raise_exception", "strftime_now"];

/// What numbers and iterators have in Python beside what templates use; it is refused by name.
pub(crate) const NUMBER_ATTRIBUTES: [&str; 27] = [
    "real",
    "imag",
    "numerator",
    "denominator",
    "conjugate",
    "bit_length",
    "bit_count",
    "to_bytes",
    "from_bytes",
    "as_integer_ratio",
    "is_integer",
    "hex",
    "fromhex",
    "start",
    "stop",
    "step",
    "count",
    "index",
    "send",
    "throw",
    "close",
    "sep",
    "used",
    "gi_code",
    "gi_frame",
    "gi_running",
    "gi_yieldfrom",
];

/// Jinja's Sandbox makes no longer ranges.
const MAX_RANGE: usize = 100_000;

pub(crate) struct Namespace {
    values: RefCell<HashMap<Rc<str>, Value>>,
    pub(crate) depth: Cell<u16>,
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a namespace")
    }
}

impl Namespace {
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        self.values.borrow().get(name).cloned()
    }

    pub(crate) fn set(&self, name: Rc<str>, value: Value) -> Result<()> {
        if name.starts_with('_') {
            return fail(format!("a namespace cannot have the attribute '{name}': it begins with an underscore"));
        }
        self.depth.set(self.depth.get().max(deeper([&value])?));
        self.values.borrow_mut().insert(name, value);
        Ok(())
    }

    /// Lets go of everything: namespaces may hold each other.
    pub(crate) fn clear(&self) {
        self.values.take();
    }
}

pub(crate) struct Cycler {
    items: Vec<Value>,
    at: Cell<usize>,
    pub(crate) depth: u16,
}

impl Cycler {
    pub(crate) fn attribute(&self, of: &Value, name: &str) -> Option<Value> {
        match name {
            "current" => Some(self.items[self.at.get()].clone()),
            "next" => Some(Value::Method(Rc::new(of.clone()), "next")),
            "reset" => Some(Value::Method(Rc::new(of.clone()), "reset")),
            _ => None,
        }
    }

    pub(crate) fn call(&self, name: &str, args: Args) -> Result<Value> {
        let [] = args.positional(name)?;
        let at = self.at.get();
        if name == "reset" {
            self.at.set(0);
            return Ok(Value::None);
        }
        self.at.set((at + 1) % self.items.len());
        Ok(self.items[at].clone())
    }
}

pub(crate) struct Joiner {
    separator: Value,
    used: Cell<bool>,
}

impl Joiner {
    pub(crate) fn call(&self, args: Args) -> Result<Value> {
        let [] = args.positional("joiner")?;
        Ok(if self.used.replace(true) { self.separator.clone() } else { "".into() })
    }
}

/// A macro, with the variables around it.
pub(crate) struct Macro {
    /// None for the `caller` of a `call` block.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) function: Arc<ast::Function>,
    pub(crate) env: Rc<Env>,
}

impl Macro {
    pub(crate) fn attribute(&self, name: &str) -> Result<Option<Value>> {
        Ok(match name {
            "name" => Some(self.name.as_ref().map_or(Value::None, |name| Value::from(&**name))),
            "arguments" => {
                let names = self.function.parameters.iter().map(|parameter| Value::from(&*parameter.name.text));
                Some(Value::tuple(names.collect())?)
            }
            "caller" | "catch_kwargs" | "catch_varargs" | "explicit_caller" => {
                return Err(Error::unsupported(format!("'{name}' of a macro")));
            }
            _ => None,
        })
    }
}

/// Calls a global function.
pub(crate) fn call(name: &'static str, args: Args) -> Result<Value> {
    match name {
        "range" => range(args),
        "dict" => dict(args).map(|dict| Value::Dict(Rc::new(dict))),
        "namespace" => {
            let dict = dict(args)?;
            let space = Namespace { values: RefCell::default(), depth: Cell::new(dict.depth) };
            for (name, value) in named(&dict)? {
                space.set(name, value)?;
            }
            Ok(Value::Namespace(Rc::new(space)))
        }
        "cycler" => {
            if let Some((name, _)) = args.named.first() {
                return fail(format!("cycler got an unexpected keyword argument '{name}'"));
            }
            if args.positional.is_empty() {
                return fail("at least one item has to be provided");
            }
            let depth = deeper(&args.positional)?;
            Ok(Value::Cycler(Rc::new(Cycler { items: args.positional, at: Cell::new(0), depth })))
        }
        "joiner" => {
            let [separator] = args.bind(name, ["sep"])?;
            let separator = separator.unwrap_or_else(|| ", ".into());
            text(&separator, "joiner")?;
            Ok(Value::Joiner(Rc::new(Joiner { separator, used: Cell::new(false) })))
        }
        "raise_exception" => {
            let [message] = args.bind(name, ["message"])?;
            Err(Error::new(&*required(message, name, "message")?.print()?))
        }
        "strftime_now" => {
            let [format] = args.bind(name, ["format"])?;
            let format = required(format, name, "format")?;
            time::now(text(&format, name)?).map(Value::from)
        }
        _ => Err(Error::unsupported(format!("the function '{name}'"))),
    }
}

fn range(args: Args) -> Result<Value> {
    let [first, second, third] = args.positional("range")?;
    let first = int(&required(first, "range", "stop")?, "range")?;
    let second = second.map(|value| int(&value, "range")).transpose()?;
    let step = third.map_or(Ok(1), |value| int(&value, "range"))?;
    let (start, stop) = second.map_or((0, first), |stop| (first, stop));
    let bound = i128::from(i64::MAX);
    if step == 0 || [start, stop, step].iter().any(|value| value.abs() > bound) {
        return fail("range needs a step that is not zero, and integers of 64 bits");
    }
    if range_length(start, stop, step) > MAX_RANGE {
        return fail(format!("the range is longer than {MAX_RANGE}"));
    }
    Ok(Value::Range(start, stop, step))
}

/// `dict(…)`: a mapping or pairs, then keywords.
fn dict(args: Args) -> Result<Dict> {
    let mut dict = Dict::default();
    if args.positional.len() > 1 {
        return fail(format!("dict expected at most 1 argument, got {}", args.positional.len()));
    }
    for of in &args.positional {
        match of {
            Value::Dict(of) => {
                of.entries.values().try_for_each(|(key, value)| dict.insert(key.clone(), value.clone()))?
            }
            Value::Namespace(_) => return Err(Error::unsupported("a dict of a namespace")),
            pairs => {
                for pair in pairs.items()? {
                    match &pair.items()?[..] {
                        [key, value] => dict.insert(key.clone(), value.clone())?,
                        other => return fail(format!("a pair of a dict has length {}; 2 is required", other.len())),
                    }
                }
            }
        }
    }
    args.named.into_iter().try_for_each(|(name, value)| dict.insert(Value::Str(name), value))?;
    Ok(dict)
}

/// A pair of `groupby`.
pub(crate) fn group(grouper: Value, items: Vec<Value>) -> Result<Value> {
    let items = vec![grouper, Value::list(items)?];
    let depth = deeper(&items)?;
    Ok(Value::Tuple(Rc::new(Seq { items, depth, group: true })))
}
