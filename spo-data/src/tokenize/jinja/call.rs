//! Arguments at run time.

use std::rc::Rc;

use super::error::{Result, fail};
use super::value::Value;

/// The arguments of a call.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) positional: Vec<Value>,
    pub(crate) named: Vec<(Rc<str>, Value)>,
}

impl Args {
    /// The arguments by the names of a signature; `what` is what an error calls the function.
    pub(crate) fn bind<const N: usize>(self, what: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        if self.positional.len() > N {
            return fail(format!("{what} takes at most {N} arguments, {} were given", self.positional.len()));
        }
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|known| **known == *name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                Some(_) => return fail(format!("{what} got multiple values for argument '{name}'")),
                None => return fail(format!("{what} got an unexpected keyword argument '{name}'")),
            }
        }
        Ok(bound)
    }

    /// As [`Args::bind`], for a method that takes no names.
    pub(crate) fn positional<const N: usize>(self, what: &str) -> Result<[Option<Value>; N]> {
        if let Some((name, _)) = self.named.first() {
            return fail(format!("{what} takes no keyword arguments, but got '{name}'"));
        }
        self.bind(what, [""; N])
    }
}

/// An argument that must be there.
pub(crate) fn required(value: Option<Value>, what: &str, name: &str) -> Result<Value> {
    value.map_or_else(|| fail(format!("{what} misses the argument '{name}'")), Ok)
}

/// An integer argument; `None` where it is absent or none.
pub(crate) fn optional_int(value: Option<Value>, what: &str) -> Result<Option<i128>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => int(&value, what).map(Some),
    }
}

pub(crate) fn int(value: &Value, what: &str) -> Result<i128> {
    value.int().map_or_else(|| fail(format!("{what} needs an integer, not '{}'", value.type_name())), Ok)
}

/// A text argument.
pub(crate) fn text<'a>(value: &'a Value, what: &str) -> Result<&'a str> {
    match value {
        Value::Str(text) => Ok(text),
        Value::Markup(_) => Err(super::error::Error::unsupported(format!("{what} with a text marked safe"))),
        other => fail(format!("{what} needs a string, not '{}'", other.type_name())),
    }
}

/// Whether an argument is true; absent is `default`.
pub(crate) fn flag(value: Option<Value>, default: bool) -> Result<bool> {
    value.map_or(Ok(default), |value| value.truth())
}
