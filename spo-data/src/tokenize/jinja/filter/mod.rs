//! Filters: what follows a bar.

mod sequence;
mod text;

use super::call::{Args, flag, optional_int, required};
use super::error::{Error, Result, fail};
use super::json;
use super::render::Render;
use super::text::html;
use super::value::Value;
use super::{access, arithmetic, number};

/// Those of Jinja. What is not written out below is refused where it is used.
const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "items",
    "map",
    "min",
    "max",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
    "tojson",
];

pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Applies a filter.
pub(crate) fn call(render: &Render, name: &str, value: &Value, args: Args) -> Result<Value> {
    if matches!(value, Value::Markup(_)) && !safe_with_markup(name) {
        return Err(Error::unsupported(format!("the filter '{name}' on a text marked safe")));
    }
    if let Some(found) = text::call(name, value, &args) {
        return found;
    }
    if sequence::NAMES.contains(&name) {
        return sequence::call(render, name, value, args);
    }
    match name {
        "tojson" => json::filter(value, args),
        "default" | "d" => {
            let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
            let absent = value.is_undefined() || (flag(boolean, false)? && !value.truth()?);
            Ok(if absent { default.unwrap_or_else(|| "".into()) } else { value.clone() })
        }
        "length" | "count" => {
            let [] = args.positional(name)?;
            match value.len() {
                Some(length) => Ok(Value::Int(length as i128)),
                None => fail(format!("object of type '{}' has no len()", value.type_name())),
            }
        }
        "string" => {
            let [] = args.positional(name)?;
            Ok(if matches!(value, Value::Markup(_)) { value.clone() } else { Value::Str(value.print()?) })
        }
        "safe" => {
            let [] = args.positional(name)?;
            value.print().map(Value::Markup)
        }
        "escape" | "e" | "forceescape" => {
            let [] = args.positional(name)?;
            match value {
                Value::Markup(_) if name != "forceescape" => Ok(value.clone()),
                other => Ok(Value::Markup(html(&other.print()?).into())),
            }
        }
        "int" => to_int(value, args),
        "float" => to_float(value, args),
        "abs" => {
            let [] = args.positional(name)?;
            match value {
                Value::Float(number) => Ok(Value::Float(number.abs())),
                Value::Undefined(message) => fail(&**message),
                _ => match value.int() {
                    Some(number) => Ok(Value::Int(number.abs())),
                    None => fail(format!("bad operand type for abs(): '{}'", value.type_name())),
                },
            }
        }
        "round" => round(value, args),
        "attr" => {
            let [attribute] = args.bind(name, ["name"])?;
            let attribute = required(attribute, name, "name")?;
            match attribute.text() {
                Some(attribute) => access::own_attribute_or_undefined(value, attribute),
                None => fail("attribute name must be string"),
            }
        }
        _ if is_known(name) => Err(Error::unsupported(format!("the filter '{name}'"))),
        _ => fail(format!("no filter named '{name}'")),
    }
}

fn safe_with_markup(name: &str) -> bool {
    matches!(name, "tojson" | "default" | "d" | "length" | "count" | "string" | "safe" | "escape" | "e" | "forceescape")
}

fn to_int(value: &Value, args: Args) -> Result<Value> {
    let [default, base] = args.bind("int", ["default", "base"])?;
    let default = default.unwrap_or(Value::Int(0));
    let base = optional_int(base, "int")?.unwrap_or(10);
    match value {
        Value::Str(text) => {
            let base = u32::try_from(base).ok().filter(|base| *base == 0 || (2..=36).contains(base));
            if let Some(number) = base.map(|base| parse_int(text, base)).transpose()?.flatten() {
                return Ok(Value::Int(number));
            }
            // Jinja then reads a float and cuts it.
            match parse_float(text)? {
                Some(number) if number.is_finite() => whole(number),
                _ => Ok(default),
            }
        }
        Value::Float(number) if number.is_infinite() => fail("cannot convert float infinity to integer"),
        Value::Float(number) if number.is_nan() => Ok(default),
        Value::Float(number) => whole(*number),
        Value::Undefined(message) => fail(&**message),
        other => Ok(other.int().map_or(default, Value::Int)),
    }
}

fn whole(number: f64) -> Result<Value> {
    if number.abs() < 1e38 {
        Ok(Value::Int(number as i128))
    } else {
        Err(Error::unsupported("an integer of more than 127 bits"))
    }
}

/// `int(text, base)`; `None` where Python raises an error.
fn parse_int(text: &str, base: u32) -> Result<Option<i128>> {
    let text = text.trim_matches(super::text::is_space);
    if !text.is_ascii() {
        return Err(Error::unsupported("a number in digits beyond ASCII"));
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let low = digits.to_ascii_lowercase();
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find(|(prefix, _)| low.starts_with(prefix));
    let (digits, base) = match prefixed {
        Some((_, radix)) if base == radix || base == 0 => (low[2..].strip_prefix('_').unwrap_or(&low[2..]), radix),
        _ => (&low[..], if base == 0 { 10 } else { base }),
    };
    let underscores = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    let plain = digits.replace('_', "");
    if underscores || plain.is_empty() || !plain.chars().all(|c| c.is_digit(base)) {
        return Ok(None);
    }
    let number = i128::from_str_radix(&plain, base).map_err(|_| Error::unsupported(format!("the integer {text}")))?;
    Ok(Some(if negative { -number } else { number }))
}

/// `float(text)`; `None` where Python raises an error.
fn parse_float(text: &str) -> Result<Option<f64>> {
    let text = text.trim_matches(super::text::is_space);
    if !text.is_ascii() {
        return Err(Error::unsupported("a number in digits beyond ASCII"));
    }
    let underscores = text.as_bytes().windows(3).filter(|window| window[1] == b'_');
    let placed = underscores.filter(|window| window[0].is_ascii_digit() && window[2].is_ascii_digit()).count();
    if placed != text.matches('_').count() {
        return Ok(None);
    }
    Ok(text.replace('_', "").parse().ok())
}

fn to_float(value: &Value, args: Args) -> Result<Value> {
    let [default] = args.bind("float", ["default"])?;
    let default = default.unwrap_or(Value::Float(0.0));
    Ok(match value {
        Value::Str(text) => parse_float(text)?.map_or(default, Value::Float),
        Value::Undefined(message) => return fail(&**message),
        other => arithmetic::float(other).map_or(default, Value::Float),
    })
}

fn round(value: &Value, args: Args) -> Result<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"])?;
    let precision = optional_int(precision, "round")?.unwrap_or(0);
    let method = method.unwrap_or_else(|| "common".into());
    let Some(exact) = arithmetic::float(value) else {
        return match value {
            Value::Undefined(message) => fail(&**message),
            _ => fail(format!("type {} doesn't define __round__ method", value.type_name())),
        };
    };
    let (Ok(places), true) = (usize::try_from(precision), precision <= 300) else {
        return Err(Error::unsupported("rounding to this precision"));
    };
    match method.text() {
        Some("common") => match value {
            Value::Float(number) if number.is_finite() => {
                let digits = number::float(*number, 'f', number::Layout { precision: Some(places), alternate: false })?;
                let rounded: f64 = digits.parse().unwrap_or(0.0);
                Ok(Value::Float(rounded.copysign(*number)))
            }
            Value::Float(_) => Ok(value.clone()),
            other => Ok(Value::Int(other.int().unwrap_or(0))),
        },
        Some(method @ ("ceil" | "floor")) => {
            let scale = 10f64.powi(places as i32);
            let scaled = exact * scale;
            let whole = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
            if whole.abs() >= 9e15 || scale >= 9e15 {
                return Err(Error::unsupported("rounding of large numbers"));
            }
            Ok(Value::Float(whole / scale + 0.0))
        }
        _ => fail("method must be common, ceil or floor"),
    }
}
