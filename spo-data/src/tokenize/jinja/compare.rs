//! Equality, order and membership as in Python.

use std::cmp::Ordering;

use super::ast::Comparison;
use super::error::{Result, fail};
use super::value::{Dict, Value};

pub(crate) fn compare(comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
    Ok(match comparison {
        Comparison::Equal => equal(left, right),
        Comparison::NotEqual => !equal(left, right),
        Comparison::In => contains(right, left)?,
        Comparison::NotIn => !contains(right, left)?,
        Comparison::Less => order(left, right, "<")? == Some(Ordering::Less),
        Comparison::LessEqual => matches!(order(left, right, "<=")?, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order(left, right, ">")? == Some(Ordering::Greater),
        Comparison::GreaterEqual => matches!(order(left, right, ">=")?, Some(Ordering::Greater | Ordering::Equal)),
    })
}

pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            left.items.len() == right.items.len()
                && left.items.iter().zip(&right.items).all(|(left, right)| equal(left, right))
        }
        (Value::Dict(left), Value::Dict(right)) => dicts_equal(left, right),
        (Value::Range(..), Value::Range(..)) => match (left.items(), right.items()) {
            (Ok(left), Ok(right)) => left.iter().zip(&right).all(|(l, r)| equal(l, r)) && left.len() == right.len(),
            _ => false,
        },
        (Value::Function(left), Value::Function(right)) => left == right,
        (Value::Namespace(left), Value::Namespace(right)) => std::rc::Rc::ptr_eq(left, right),
        (Value::Macro(left), Value::Macro(right)) => std::rc::Rc::ptr_eq(left, right),
        (Value::Loop(left), Value::Loop(right)) => std::rc::Rc::ptr_eq(left, right),
        (Value::Iterator(left), Value::Iterator(right)) => std::rc::Rc::ptr_eq(left, right),
        _ => match (left.text(), right.text()) {
            (Some(left), Some(right)) => left == right,
            _ => numbers(left, right) == Some(Some(Ordering::Equal)),
        },
    }
}

fn dicts_equal(left: &Dict, right: &Dict) -> bool {
    left.entries.len() == right.entries.len()
        && left.entries.values().all(|(key, value)| matches!(right.get(key), Ok(Some(other)) if equal(value, other)))
}

/// The order of two numbers, if both are; `Some(None)` where one is not a number (NaN).
fn numbers(left: &Value, right: &Value) -> Option<Option<Ordering>> {
    let mixed = |int: i128, float: f64| {
        // A float beyond the integers decides alone; within, its fraction breaks a tie.
        if float.is_nan() {
            None
        } else if float.abs() >= 1e38 {
            Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater })
        } else {
            let whole = float.floor();
            let fraction = if float > whole { Ordering::Less } else { Ordering::Equal };
            Some(int.cmp(&(whole as i128)).then(fraction))
        }
    };
    match (left, right) {
        (Value::Float(left), Value::Float(right)) => Some(left.partial_cmp(right)),
        (Value::Float(float), _) => Some(mixed(right.int()?, *float).map(Ordering::reverse)),
        (_, Value::Float(float)) => Some(mixed(left.int()?, *float)),
        _ => Some(Some(left.int()?.cmp(&right.int()?))),
    }
}

/// The order of two values; an error where Python has none, `None` beside a NaN.
pub(crate) fn order(left: &Value, right: &Value, operator: &str) -> Result<Option<Ordering>> {
    if let Some(order) = numbers(left, right) {
        return Ok(order);
    }
    match (left, right) {
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            for (left, right) in left.items.iter().zip(&right.items) {
                if !equal(left, right) {
                    return order(left, right, operator);
                }
            }
            return Ok(Some(left.items.len().cmp(&right.items.len())));
        }
        (Value::Undefined(message), _) | (_, Value::Undefined(message)) => return fail(&**message),
        _ => {}
    }
    match (left.text(), right.text()) {
        (Some(left), Some(right)) => Ok(Some(left.cmp(right))),
        _ => fail(format!(
            "'{operator}' not supported between instances of '{}' and '{}'",
            left.type_name(),
            right.type_name()
        )),
    }
}

/// `item in container`
pub(crate) fn contains(container: &Value, item: &Value) -> Result<bool> {
    match container {
        Value::Str(text) | Value::Markup(text) => match item.text() {
            Some(part) => Ok(text.contains(part)),
            None => fail(format!("'in <string>' requires string as left operand, not {}", item.type_name())),
        },
        Value::Dict(dict) | Value::View(super::value::View::Keys, dict) => Ok(dict.get(item)?.is_some()),
        Value::Iterator(iter) => {
            iter.check()?;
            // What does not match is used up.
            while let Some(found) = iter.items.borrow_mut().pop_front() {
                if equal(&found, item) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Undefined(_) => Ok(false),
        other if other.is_iterable() => Ok(other.items()?.iter().any(|found| equal(found, item))),
        other => fail(format!("argument of type '{}' is not iterable", other.type_name())),
    }
}

/// A stable sort by an order that may fail.
pub(crate) fn sort<T: Clone>(items: &mut Vec<T>, less: &dyn Fn(&T, &T) -> Result<bool>) -> Result<()> {
    if items.len() < 2 {
        return Ok(());
    }
    let mut right = items.split_off(items.len() / 2);
    sort(items, less)?;
    sort(&mut right, less)?;
    let left = std::mem::take(items);
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(first), Some(second)) = (left.peek(), right.peek()) {
        let next = if less(second, first)? { right.next() } else { left.next() };
        items.extend(next);
    }
    items.extend(left);
    items.extend(right);
    Ok(())
}
