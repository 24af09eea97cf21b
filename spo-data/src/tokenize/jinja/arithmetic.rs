//! Python's operators.

use super::ast::Operator;
use super::error::{Error, Result, fail};
use super::limit;
use super::percent;
use super::text::html;
use super::value::Value;

enum Numbers {
    Ints(i128, i128),
    Floats(f64, f64),
}

/// Integers above this are no longer exact as floats.
const EXACT: u128 = 1 << 53;

pub(crate) fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        other => other.int().map(|number| number as f64),
    }
}

fn numbers(left: &Value, right: &Value) -> Option<Numbers> {
    match (left.int(), right.int()) {
        (Some(left), Some(right)) => Some(Numbers::Ints(left, right)),
        _ => Some(Numbers::Floats(float(left)?, float(right)?)),
    }
}

fn int(result: Option<i128>) -> Result<Value> {
    result.map(Value::Int).ok_or_else(|| Error::unsupported("an integer of more than 127 bits"))
}

pub(crate) fn operate(operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    if let (Operator::Mod, Some(format)) = (operator, left.text()) {
        if matches!(left, Value::Markup(_)) {
            return Err(Error::unsupported("'%' on a text marked safe"));
        }
        return percent::format(format, right).map(Value::from);
    }
    if let Some(numbers) = numbers(left, right) {
        return calculate(operator, numbers);
    }
    let result = match operator {
        Operator::Add => add(left, right)?,
        Operator::Mul => match (left.int(), right.int()) {
            (_, Some(times)) => repeat(left, times)?,
            (Some(times), _) => repeat(right, times)?,
            _ => None,
        },
        _ => None,
    };
    result.map_or_else(|| mismatch(operator, left, right), Ok)
}

fn mismatch(operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    if let (Value::Undefined(message), _) | (_, Value::Undefined(message)) = (left, right) {
        return fail(&**message);
    }
    if matches!(operator, Operator::Sub) && [left, right].iter().any(|value| matches!(value, Value::View(..))) {
        return Err(Error::unsupported("the difference of views of dicts"));
    }
    let spelled = match operator {
        Operator::Add => "+",
        Operator::Sub => "-",
        Operator::Mul => "*",
        Operator::Div => "/",
        Operator::FloorDiv => "//",
        Operator::Mod => "%",
        Operator::Pow => "**",
    };
    let (left, right) = (left.type_name(), right.type_name());
    fail(format!("unsupported operand type(s) for {spelled}: '{left}' and '{right}'"))
}

fn add(left: &Value, right: &Value) -> Result<Option<Value>> {
    let items = |left: &super::value::Seq, right: &super::value::Seq| {
        limit::check_items(left.items.len() + right.items.len())?;
        Ok([&left.items[..], &right.items[..]].concat())
    };
    Ok(Some(match (left, right) {
        (Value::Str(left), Value::Str(right)) => joined(left, right)?.into(),
        (Value::Markup(left), Value::Markup(right)) => Value::Markup(joined(left, right)?.into()),
        (Value::Markup(left), Value::Str(right)) => Value::Markup(joined(left, &html(right))?.into()),
        (Value::Str(left), Value::Markup(right)) => Value::Markup(joined(&html(left), right)?.into()),
        (Value::List(left), Value::List(right)) => Value::list(items(left, right)?)?,
        (Value::Tuple(left), Value::Tuple(right)) => Value::tuple(items(left, right)?)?,
        _ => return Ok(None),
    }))
}

fn joined(left: &str, right: &str) -> Result<String> {
    limit::check_bytes(left.len() + right.len())?;
    Ok([left, right].concat())
}

fn repeat(of: &Value, times: i128) -> Result<Option<Value>> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    let items = |items: &Vec<Value>| {
        limit::check_items(items.len().saturating_mul(times))?;
        Ok(items.iter().cloned().cycle().take(items.len() * times).collect())
    };
    Ok(Some(match of {
        Value::Str(text) => limit::repeated(text, times)?.into(),
        Value::Markup(text) => Value::Markup(limit::repeated(text, times)?.into()),
        Value::List(seq) => Value::list(items(&seq.items)?)?,
        Value::Tuple(seq) => Value::tuple(items(&seq.items)?)?,
        _ => return Ok(None),
    }))
}

fn calculate(operator: Operator, numbers: Numbers) -> Result<Value> {
    match numbers {
        Numbers::Ints(left, right) => ints(operator, left, right),
        Numbers::Floats(left, right) => floats(operator, left, right).map(Value::Float),
    }
}

fn ints(operator: Operator, left: i128, right: i128) -> Result<Value> {
    match operator {
        Operator::Add => int(left.checked_add(right)),
        Operator::Sub => int(left.checked_sub(right)),
        Operator::Mul => int(left.checked_mul(right)),
        Operator::Div if left.unsigned_abs() > EXACT || right.unsigned_abs() > EXACT => {
            Err(Error::unsupported("'/' of integers of more than 53 bits"))
        }
        Operator::Div | Operator::FloorDiv | Operator::Mod if right == 0 => fail("division by zero"),
        Operator::Div => Ok(Value::Float(left as f64 / right as f64)),
        // Python rounds towards minus infinity, and the rest has the sign of the divisor.
        Operator::FloorDiv => {
            let quotient = left.checked_div(right);
            let down = left.checked_rem(right).is_some_and(|rest| rest != 0 && (rest < 0) != (right < 0));
            int(quotient.map(|quotient| quotient - i128::from(down)))
        }
        Operator::Mod => {
            let rest = left.checked_rem(right);
            int(rest.map(|rest| if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest }))
        }
        Operator::Pow if right < 0 => floats(operator, left as f64, right as f64).map(Value::Float),
        Operator::Pow => int(u32::try_from(right).ok().and_then(|power| left.checked_pow(power))),
    }
}

fn floats(operator: Operator, left: f64, right: f64) -> Result<f64> {
    Ok(match operator {
        Operator::Add => left + right,
        Operator::Sub => left - right,
        Operator::Mul => left * right,
        Operator::Div | Operator::FloorDiv | Operator::Mod if right == 0.0 => return fail("float division by zero"),
        Operator::Div => left / right,
        Operator::FloorDiv => {
            let quotient = (left - remainder(left, right)) / right;
            let floor = quotient.floor();
            if quotient - floor > 0.5 { floor + 1.0 } else { floor }
        }
        Operator::Mod => remainder(left, right),
        Operator::Pow if left == 0.0 && right < 0.0 => return fail("0.0 cannot be raised to a negative power"),
        Operator::Pow if left < 0.0 && right.fract() != 0.0 => return Err(Error::unsupported("a complex number")),
        Operator::Pow => {
            let power = left.powf(right);
            if power.is_infinite() && left.is_finite() && right.is_finite() {
                return fail("numerical result out of range");
            }
            power
        }
    })
}

fn remainder(left: f64, right: f64) -> f64 {
    let rest = left % right;
    if rest == 0.0 {
        return 0f64.copysign(right);
    }
    if (rest < 0.0) != (right < 0.0) { rest + right } else { rest }
}

pub(crate) fn negative(value: &Value) -> Result<Value> {
    match value {
        Value::Float(number) => Ok(Value::Float(-number)),
        Value::Undefined(message) => fail(&**message),
        other => match other.int() {
            Some(number) => int(number.checked_neg()),
            None => fail(format!("bad operand type for unary -: '{}'", other.type_name())),
        },
    }
}

pub(crate) fn positive(value: &Value) -> Result<Value> {
    match value {
        Value::Float(_) => Ok(value.clone()),
        Value::Undefined(message) => fail(&**message),
        other => match other.int() {
            Some(number) => Ok(Value::Int(number)),
            None => fail(format!("bad operand type for unary +: '{}'", other.type_name())),
        },
    }
}

/// Jinja's `~`: everything printed, one after the other. Without autoescape nothing is escaped.
pub(crate) fn concat(parts: &[Value]) -> Result<Value> {
    let mut text = String::new();
    for part in parts {
        text += &part.print()?;
        limit::check_bytes(text.len())?;
    }
    Ok(text.into())
}
