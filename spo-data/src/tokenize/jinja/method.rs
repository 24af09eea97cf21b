//! Methods of Python's lists, dicts and tuples; those of strings are in `string.rs`.

use super::call::{Args, required};
use super::compare::equal;
use super::error::{Error, Result, fail};
use super::string;
use super::value::{Value, View};

/// A name that a Python object has.
pub(crate) enum Found {
    Safe(&'static str),
    /// A method that changes its object: the sandbox hides it.
    Unsafe,
}

const LIST: [&str; 3] = ["copy", "count", "index"];
const LIST_UNSAFE: [&str; 8] = ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
const DICT: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
const DICT_UNSAFE: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const TUPLE: [&str; 2] = ["count", "index"];
const VIEW: [&str; 2] = ["isdisjoint", "mapping"];

pub(crate) fn find(of: &Value, name: &str) -> Option<Found> {
    let (safe, hidden): (&[&'static str], &[&str]) = match of {
        Value::Str(_) | Value::Markup(_) => (&string::METHODS, &[]),
        Value::List(_) => (&LIST, &LIST_UNSAFE),
        Value::Dict(_) => (&DICT, &DICT_UNSAFE),
        Value::Tuple(_) => (&TUPLE, &[]),
        Value::View(..) => (&VIEW, &[]),
        _ => return None,
    };
    if hidden.contains(&name) {
        return Some(Found::Unsafe);
    }
    safe.iter().find(|known| **known == name).map(|known| Found::Safe(known))
}

/// `of.name(…)`
pub(crate) fn call(of: &Value, name: &'static str, args: Args) -> Result<Value> {
    match (of, name) {
        (Value::Str(text), _) => string::call(text, name, args),
        (Value::Markup(_), _) => Err(Error::unsupported(format!("'{name}' of a text marked safe"))),
        (Value::Dict(dict), "get") => {
            let [key, default] = args.positional("get")?;
            let found = dict.get(&required(key, "get", "key")?)?.cloned();
            Ok(found.or(default).unwrap_or(Value::None))
        }
        (Value::Dict(dict), "items" | "keys" | "values") => {
            let [] = args.positional(name)?;
            let view = match name {
                "items" => View::Items,
                "keys" => View::Keys,
                _ => View::Values,
            };
            Ok(Value::View(view, dict.clone()))
        }
        (Value::Dict(_) | Value::List(_), "copy") => {
            let [] = args.positional(name)?;
            Ok(of.clone())
        }
        (Value::List(seq) | Value::Tuple(seq), "count") => {
            let [item] = args.positional(name)?;
            let item = required(item, name, "value")?;
            Ok(Value::Int(seq.items.iter().filter(|found| equal(found, &item)).count() as i128))
        }
        (Value::List(seq) | Value::Tuple(seq), "index") => {
            let [item] = args.positional(name)?;
            let item = required(item, name, "value")?;
            match seq.items.iter().position(|found| equal(found, &item)) {
                Some(at) => Ok(Value::Int(at as i128)),
                None => fail(format!("the value is not in the {}", of.type_name())),
            }
        }
        _ => Err(Error::unsupported(format!("the method '{name}' of a {}", of.type_name()))),
    }
}
