//! The values of a template: Python's, as far as templates can make them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use indexmap::IndexMap;
use indexmap::map::Entry;
use serde_json::Value as Json;

use super::ast::Literal;
use super::error::{Error, Result, fail};
use super::function::{Cycler, Joiner, Macro, Namespace};
use super::looping::Loop;
use super::print;

/// Deepest nesting of values: they are compared, printed and dropped by recursion.
const MAX_DEPTH: u16 = 250;

#[derive(Clone)]
pub(crate) enum Value {
    /// What is missing, with the message for those who use it.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Rc<str>),
    /// A text marked `safe`: it joins other texts only after they are escaped.
    Markup(Rc<str>),
    List(Rc<Seq>),
    Tuple(Rc<Seq>),
    Dict(Rc<Dict>),
    View(View, Rc<Dict>),
    Range(i128, i128, i128),
    Iterator(Rc<Iter>),
    Namespace(Rc<Namespace>),
    Loop(Rc<Loop>),
    Macro(Rc<Macro>),
    Method(Rc<Value>, &'static str),
    Function(&'static str),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
}

/// Items of a list or tuple.
pub(crate) struct Seq {
    pub(crate) items: Vec<Value>,
    pub(crate) depth: u16,
    /// A pair that `groupby` made, with the attributes `grouper` and `list`.
    pub(crate) group: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Keys,
    Values,
    Items,
}

/// What a generator gives, once. Jinja makes the items when they are asked for; here they are made at once.
pub(crate) struct Iter {
    pub(crate) items: RefCell<VecDeque<Value>>,
    /// Another iterator reads this one, in Jinja at some later time.
    pub(crate) lent: Cell<bool>,
    pub(crate) depth: u16,
}

/// A key as Python hashes it: equal numbers are one key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    None,
    Int(i128),
    Float(u64),
    Str(Rc<str>),
    Tuple(Vec<Key>),
    Undefined,
}

/// A dict in the order of insertion.
#[derive(Default)]
pub(crate) struct Dict {
    pub(crate) entries: IndexMap<Key, (Value, Value)>,
    pub(crate) depth: u16,
}

impl Dict {
    pub(crate) fn new(entries: impl IntoIterator<Item = (Value, Value)>) -> Result<Self> {
        let mut dict = Self::default();
        entries.into_iter().try_for_each(|(key, value)| dict.insert(key, value))?;
        Ok(dict)
    }

    pub(crate) fn insert(&mut self, key: Value, value: Value) -> Result<()> {
        self.depth = self.depth.max(deeper([&key, &value])?);
        match self.entries.entry(Key::of(&key)?) {
            Entry::Occupied(mut kept) => kept.get_mut().1 = value,
            Entry::Vacant(place) => {
                place.insert((key, value));
            }
        }
        Ok(())
    }

    pub(crate) fn get(&self, key: &Value) -> Result<Option<&Value>> {
        Ok(self.entries.get(&Key::of(key)?).map(|(_, value)| value))
    }

    pub(crate) fn get_str(&self, key: &str) -> Option<&Value> {
        self.entries.get(&Key::Str(key.into())).map(|(_, value)| value)
    }
}

impl Key {
    pub(crate) fn of(value: &Value) -> Result<Self> {
        Ok(match value {
            Value::None => Self::None,
            Value::Bool(flag) => Self::Int((*flag).into()),
            Value::Int(number) => Self::Int(*number),
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e38 => Self::Int(*number as i128),
            Value::Float(number) => Self::Float(number.to_bits()),
            Value::Str(text) | Value::Markup(text) => Self::Str(text.clone()),
            Value::Tuple(seq) => Self::Tuple(seq.items.iter().map(Self::of).collect::<Result<_>>()?),
            Value::Undefined(_) => Self::Undefined,
            Value::List(_) | Value::Dict(_) | Value::View(..) => {
                return fail(format!("unhashable type: '{}'", value.type_name()));
            }
            other => return Err(Error::unsupported(format!("a {} as a key", other.type_name()))),
        })
    }
}

/// One more than the depth of the deepest of these values.
pub(crate) fn deeper<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<u16> {
    let depth = values.into_iter().map(Value::depth).max().unwrap_or(0) + 1;
    if depth > MAX_DEPTH { fail(format!("values are nested deeper than {MAX_DEPTH}")) } else { Ok(depth) }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text.into())
    }
}

impl From<&Literal> for Value {
    fn from(literal: &Literal) -> Self {
        match literal {
            Literal::None => Self::None,
            Literal::Bool(flag) => Self::Bool(*flag),
            Literal::Int(number) => Self::Int(*number),
            Literal::Float(number) => Self::Float(*number),
            Literal::Str(text) => Self::from(&**text),
        }
    }
}

impl Value {
    pub(crate) fn undefined(message: impl Into<Rc<str>>) -> Self {
        Self::Undefined(message.into())
    }

    pub(crate) fn list(items: Vec<Value>) -> Result<Self> {
        let depth = deeper(&items)?;
        Ok(Self::List(Rc::new(Seq { items, depth, group: false })))
    }

    pub(crate) fn tuple(items: Vec<Value>) -> Result<Self> {
        let depth = deeper(&items)?;
        Ok(Self::Tuple(Rc::new(Seq { items, depth, group: false })))
    }

    pub(crate) fn dict(entries: impl IntoIterator<Item = (Value, Value)>) -> Result<Self> {
        Dict::new(entries).map(|dict| Self::Dict(Rc::new(dict)))
    }

    /// An iterator over these items.
    pub(crate) fn iterator(items: impl IntoIterator<Item = Value>) -> Result<Self> {
        let items: VecDeque<Value> = items.into_iter().collect();
        let depth = deeper(&items)?;
        Ok(Self::Iterator(Rc::new(Iter { items: items.into(), lent: false.into(), depth })))
    }

    /// What JSON says, with its numbers as Python reads them.
    pub(crate) fn from_json(json: &Json) -> Result<Self> {
        Ok(match json {
            Json::Null => Self::None,
            Json::Bool(flag) => Self::Bool(*flag),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => Self::Int(number.into()),
                (_, Some(number), _) => Self::Int(number.into()),
                (.., Some(number)) => Self::Float(number),
                _ => return Err(Error::unsupported(format!("the number {number}"))),
            },
            Json::String(text) => Self::from(text.as_str()),
            Json::Array(items) => Self::list(items.iter().map(Self::from_json).collect::<Result<_>>()?)?,
            Json::Object(map) => {
                let mut dict = Dict::default();
                for (key, value) in map {
                    dict.insert(Self::from(key.as_str()), Self::from_json(value)?)?;
                }
                Self::Dict(Rc::new(dict))
            }
        })
    }

    fn depth(&self) -> u16 {
        match self {
            Self::List(seq) | Self::Tuple(seq) => seq.depth,
            Self::Dict(dict) | Self::View(_, dict) => dict.depth,
            Self::Iterator(iter) => iter.depth,
            Self::Namespace(space) => space.depth.get(),
            Self::Loop(state) => state.depth,
            Self::Method(of, _) => of.depth(),
            Self::Cycler(cycler) => cycler.depth,
            _ => 0,
        }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Markup(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(View::Keys, _) => "dict_keys",
            Self::View(View::Values, _) => "dict_values",
            Self::View(View::Items, _) => "dict_items",
            Self::Range(..) => "range",
            Self::Iterator(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Loop(_) => "LoopContext",
            Self::Macro(_) => "Macro",
            Self::Method(..) | Self::Function(_) => "function",
            Self::Cycler(_) => "Cycler",
            Self::Joiner(_) => "Joiner",
        }
    }

    pub(crate) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// The text of a string, marked safe or not.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// An integer; booleans are integers.
    pub(crate) fn int(&self) -> Option<i128> {
        match self {
            Self::Bool(flag) => Some((*flag).into()),
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn truth(&self) -> Result<bool> {
        Ok(match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(flag) => *flag,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            _ => self.len().is_none_or(|length| length > 0),
        })
    }

    /// The length, for what Python gives one.
    pub(crate) fn len(&self) -> Option<usize> {
        Some(match self {
            Self::Undefined(_) => 0,
            Self::Str(text) | Self::Markup(text) => text.chars().count(),
            Self::List(seq) | Self::Tuple(seq) => seq.items.len(),
            Self::Dict(dict) | Self::View(_, dict) => dict.entries.len(),
            Self::Range(start, stop, step) => range_length(*start, *stop, *step),
            Self::Loop(state) => state.length(),
            _ => return None,
        })
    }

    /// The items in order; an iterator is empty afterwards.
    pub(crate) fn items(&self) -> Result<Vec<Value>> {
        Ok(match self {
            Self::Undefined(_) => Vec::new(),
            Self::Str(text) | Self::Markup(text) => text.chars().map(|c| Self::from(c.to_string())).collect(),
            Self::List(seq) | Self::Tuple(seq) => seq.items.clone(),
            Self::Dict(dict) => dict.entries.values().map(|(key, _)| key.clone()).collect(),
            Self::View(view, dict) => {
                let item = |(key, value): &(Value, Value)| match view {
                    View::Keys => Ok(key.clone()),
                    View::Values => Ok(value.clone()),
                    View::Items => Self::tuple(vec![key.clone(), value.clone()]),
                };
                dict.entries.values().map(item).collect::<Result<_>>()?
            }
            Self::Range(start, stop, step) => {
                (0..range_length(*start, *stop, *step) as i128).map(|index| Self::Int(start + index * step)).collect()
            }
            Self::Iterator(iter) => {
                iter.check()?;
                iter.items.take().into()
            }
            Self::Loop(_) => return Err(Error::unsupported("going through 'loop' itself")),
            other => return fail(format!("'{}' object is not iterable", other.type_name())),
        })
    }

    /// As [`Value::items`], for an iterator that Jinja reads only later.
    pub(crate) fn items_later(&self) -> Result<Vec<Value>> {
        let items = self.items()?;
        if let Self::Iterator(iter) = self {
            iter.lent.set(true);
        }
        Ok(items)
    }

    /// Whether Python's `iter` takes it.
    pub(crate) fn is_iterable(&self) -> bool {
        self.len().is_some() || matches!(self, Self::Iterator(_))
    }

    /// `str(…)`: what is printed.
    pub(crate) fn print(&self) -> Result<Rc<str>> {
        match self {
            Self::Str(text) | Self::Markup(text) => Ok(text.clone()),
            Self::Undefined(_) => Ok("".into()),
            other => print::repr(other).map(Into::into),
        }
    }
}

impl Iter {
    pub(crate) fn check(&self) -> Result<()> {
        if self.lent.get() {
            return Err(Error::unsupported("reading an iterator that another filter reads"));
        }
        Ok(())
    }
}

pub(crate) fn range_length(start: i128, stop: i128, step: i128) -> usize {
    let distance = if step > 0 { stop - start } else { start - stop };
    if distance <= 0 { 0 } else { usize::try_from((distance - 1) / step.abs() + 1).unwrap_or(usize::MAX) }
}
