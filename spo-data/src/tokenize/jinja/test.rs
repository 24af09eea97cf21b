//! Tests: what follows `is`.

use super::arithmetic::operate;
use super::ast::{Comparison, Operator};
use super::call::{Args, required};
use super::compare::{compare, contains, equal};
use super::error::{Error, Result, fail};
use super::filter;
use super::string::is_kind;
use super::value::{Key, Value};

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(crate) fn call(name: &str, value: &Value, args: Args) -> Result<bool> {
    let [other] = args.bind(name, [if name == "divisibleby" { "num" } else { "other" }])?;
    let takes = matches!(name, "divisibleby" | "sameas" | "in") || comparison(name).is_some();
    if !takes && other.is_some() {
        return fail(format!("the test '{name}' takes no argument"));
    }
    let other = || required(other.clone(), name, "other");
    if let Some(comparison) = comparison(name) {
        return compare(comparison, value, &other()?);
    }
    Ok(match name {
        "odd" => rest(value, Value::Int(2))? == Value::Int(1).int(),
        "even" => rest(value, Value::Int(2))? == Some(0),
        "divisibleby" => rest(value, other()?)? == Some(0),
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "filter" => is_name(value, filter::is_known)?,
        "test" => is_name(value, is_known)?,
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "lower" => is_kind(&value.print()?, "islower")?,
        "upper" => is_kind(&value.print()?, "isupper")?,
        "string" => value.text().is_some(),
        "mapping" => matches!(value, Value::Dict(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        "sequence" => {
            let items = matches!(value, Value::Dict(_) | Value::List(_) | Value::Tuple(_) | Value::Range(..));
            items || value.text().is_some() || value.is_undefined()
        }
        "iterable" => value.is_iterable(),
        "callable" => {
            matches!(
                value,
                Value::Function(_) | Value::Method(..) | Value::Macro(_) | Value::Joiner(_) | Value::Loop(_)
            ) || value.is_undefined()
        }
        "sameas" => same(value, &other()?)?,
        "escaped" => matches!(value, Value::Markup(_)),
        "in" => contains(&other()?, value)?,
        _ => return fail(format!("no test named '{name}'")),
    })
}

/// Whether a value is a known name. Python looks it up by its hash, which lists and dicts do not have.
fn is_name(value: &Value, known: fn(&str) -> bool) -> Result<bool> {
    match value {
        Value::List(_) | Value::Dict(_) | Value::Tuple(_) | Value::View(..) => Key::of(value).map(|_| false),
        _ => Ok(value.text().is_some_and(known)),
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "==" | "eq" | "equalto" => Comparison::Equal,
        "!=" | "ne" => Comparison::NotEqual,
        ">" | "gt" | "greaterthan" => Comparison::Greater,
        ">=" | "ge" => Comparison::GreaterEqual,
        "<" | "lt" | "lessthan" => Comparison::Less,
        "<=" | "le" => Comparison::LessEqual,
        _ => return None,
    })
}

/// `value % by`, if it is a whole number.
fn rest(value: &Value, by: Value) -> Result<Option<i128>> {
    match operate(Operator::Mod, value, &by)? {
        Value::Float(rest) if rest.fract() == 0.0 => Ok(Some(rest as i128)),
        other => Ok(other.int()),
    }
}

/// `is`: certain only for what Python has once.
fn same(left: &Value, right: &Value) -> Result<bool> {
    let single = |value: &Value| matches!(value, Value::None | Value::Bool(_));
    if single(left) || single(right) {
        return Ok(left.type_name() == right.type_name() && equal(left, right));
    }
    if left.type_name() != right.type_name() {
        return Ok(false);
    }
    Err(Error::unsupported("'sameas' of values other than none, true and false"))
}
