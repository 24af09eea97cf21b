//! Attributes, items and slices, as Jinja's sandbox gives them.

use std::rc::Rc;

use super::error::{Error, Result, fail};
use super::function;
use super::method;
use super::print::quoted;
use super::value::{Value, range_length};

/// `of.name`: an attribute of Python's before an item.
pub(crate) fn attribute(of: &Value, name: &str) -> Result<Value> {
    if let Some(found) = own_attribute(of, name)? {
        return Ok(found);
    }
    if let Value::Dict(dict) = of
        && let Some(found) = dict.get_str(name)
    {
        return if name.starts_with("__") { hidden(of, name) } else { Ok(found.clone()) };
    }
    Ok(missing(of, &Value::from(name)))
}

/// An attribute of Python's alone.
pub(crate) fn own_attribute_or_undefined(of: &Value, name: &str) -> Result<Value> {
    Ok(own_attribute(of, name)?.unwrap_or_else(|| missing(of, &Value::from(name))))
}

/// `of[key]`: an item, else for names an attribute of Python's.
pub(crate) fn item(of: &Value, key: &Value) -> Result<Value> {
    let found = match (of, key) {
        (Value::Undefined(message), _) => return fail(&**message),
        // A key that cannot be hashed has no item.
        (Value::Dict(dict), _) => dict.get(key).ok().flatten().cloned(),
        (Value::List(seq) | Value::Tuple(seq), _) => {
            key.int().and_then(|at| place(at, seq.items.len())).map(|at| seq.items[at].clone())
        }
        (Value::Str(text), _) => character(text, key).map(Value::from),
        (Value::Markup(text), _) => character(text, key).map(|text| Value::Markup(text.into())),
        (Value::Range(start, stop, step), _) => {
            let at = key.int().and_then(|at| place(at, range_length(*start, *stop, *step)));
            at.map(|at| Value::Int(start + at as i128 * step))
        }
        _ => None,
    };
    match (found, key) {
        (Some(found), _) => Ok(found),
        (None, Value::Str(name)) => Ok(own_attribute(of, name)?.unwrap_or_else(|| missing(of, key))),
        (None, Value::Markup(_)) => Err(Error::unsupported("a key marked safe")),
        (None, _) => Ok(missing(of, key)),
    }
}

fn place(at: i128, length: usize) -> Option<usize> {
    let at = if at < 0 { at + length as i128 } else { at };
    usize::try_from(at).ok().filter(|at| *at < length)
}

fn character(text: &str, key: &Value) -> Option<String> {
    let at = place(key.int()?, text.chars().count())?;
    text.chars().nth(at).map(String::from)
}

/// What Python's objects have by themselves: methods, and fields of Jinja's objects.
fn own_attribute(of: &Value, name: &str) -> Result<Option<Value>> {
    Ok(match of {
        Value::Undefined(message) => return fail(&**message),
        Value::Namespace(space) if name.starts_with('_') => {
            return Err(Error::unsupported(format!("{name} of {space}")));
        }
        Value::Namespace(space) => space.get(name),
        Value::Loop(state) => state.attribute(of, name)?,
        Value::Macro(function) => function.attribute(name)?,
        Value::Cycler(cycler) => cycler.attribute(of, name),
        Value::Tuple(seq) if seq.group && name == "grouper" => Some(seq.items[0].clone()),
        Value::Tuple(seq) if seq.group && name == "list" => Some(seq.items[1].clone()),
        Value::Int(_) | Value::Bool(_) | Value::Float(_) | Value::Range(..) | Value::Joiner(_) | Value::Iterator(_)
            if function::NUMBER_ATTRIBUTES.contains(&name) =>
        {
            return Err(Error::unsupported(format!("'{name}' of a {}", of.type_name())));
        }
        _ => match method::find(of, name) {
            Some(method::Found::Safe(name)) => Some(Value::Method(Rc::new(of.clone()), name)),
            // What would change a list or dict is undefined in the sandbox, and an error to call.
            Some(method::Found::Unsafe) => {
                let of = of.type_name();
                Some(Value::undefined(format!("access to attribute '{name}' of '{of}' object is unsafe")))
            }
            None => None,
        },
    })
}

fn hidden(of: &Value, name: &str) -> Result<Value> {
    Err(Error::unsupported(format!("'{name}' of a {}", of.type_name())))
}

fn missing(of: &Value, key: &Value) -> Value {
    let kind = match of {
        Value::None => "None".to_string(),
        other => format!("'{} object'", other.type_name()),
    };
    match key {
        Value::Str(name) => Value::undefined(format!("{kind} has no attribute {}", quoted(name))),
        other => {
            let key = other.print().unwrap_or_else(|_| other.type_name().into());
            Value::undefined(format!("{kind} has no element {key}"))
        }
    }
}

/// `of[start:stop:step]`
pub(crate) fn slice(of: &Value, parts: [Option<Value>; 3]) -> Result<Value> {
    let mut bounds = [None; 3];
    for (bound, part) in bounds.iter_mut().zip(parts) {
        *bound = match part {
            None | Some(Value::None) => None,
            Some(part) => match part.int() {
                Some(int) => Some(int),
                None => return fail("slice indices must be integers or None"),
            },
        };
    }
    let length = match of {
        Value::Undefined(message) => return fail(&**message),
        Value::Str(_) | Value::Markup(_) | Value::List(_) | Value::Tuple(_) | Value::Range(..) => of.len().unwrap_or(0),
        other => return fail(format!("a '{}' object cannot be sliced", other.type_name())),
    };
    if bounds[2] == Some(0) {
        return fail("slice step cannot be zero");
    }
    let [start, stop, step] = places(bounds, length as i128);
    let count = range_length(start, stop, step) as i128;
    let picked = || (0..count).map(move |index| (start + index * step) as usize);
    match of {
        Value::List(seq) => Value::list(picked().map(|at| seq.items[at].clone()).collect()),
        Value::Tuple(seq) => Value::tuple(picked().map(|at| seq.items[at].clone()).collect()),
        Value::Range(first, _, by) => Ok(Value::Range(first + start * by, first + stop * by, by * step)),
        other => {
            let text = other.text().unwrap_or_default();
            let cut: String = if step == 1 {
                text.chars().skip(start as usize).take(count as usize).collect()
            } else {
                let characters: Vec<char> = text.chars().collect();
                picked().map(|at| characters[at]).collect()
            };
            Ok(if matches!(of, Value::Markup(_)) { Value::Markup(cut.into()) } else { cut.into() })
        }
    }
}

/// Where a slice starts, where it stops, and its step, clipped as in Python.
fn places([start, stop, step]: [Option<i128>; 3], length: i128) -> [i128; 3] {
    let step = step.unwrap_or(1);
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clip = |at: i128| if at < 0 { at.saturating_add(length).max(low) } else { at.min(high) };
    let start = start.map_or(if step > 0 { low } else { high }, clip);
    let stop = stop.map_or(if step > 0 { high } else { low }, clip);
    [start, stop, step]
}
