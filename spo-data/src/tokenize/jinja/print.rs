//! How Python prints values.

use super::error::{Error, Result};
use super::value::{Value, View};

/// Python's `repr`.
pub(crate) fn repr(value: &Value) -> Result<String> {
    Ok(match value {
        Value::Undefined(_) => "Undefined".into(),
        Value::None => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => float(*number),
        Value::Str(text) => quoted(text),
        Value::Markup(text) => format!("Markup({})", quoted(text)),
        Value::List(seq) => format!("[{}]", joined(seq.items.iter())?),
        Value::Tuple(seq) if seq.items.len() == 1 => format!("({},)", repr(&seq.items[0])?),
        Value::Tuple(seq) => format!("({})", joined(seq.items.iter())?),
        Value::Dict(dict) => {
            let pair = |(key, value): &(Value, Value)| Ok(format!("{}: {}", repr(key)?, repr(value)?));
            format!("{{{}}}", dict.entries.values().map(pair).collect::<Result<Vec<_>>>()?.join(", "))
        }
        Value::View(View::Items, dict) => {
            let pair = |(key, value): &(Value, Value)| Ok(format!("({}, {})", repr(key)?, repr(value)?));
            format!("dict_items([{}])", dict.entries.values().map(pair).collect::<Result<Vec<_>>>()?.join(", "))
        }
        Value::View(View::Keys, dict) => format!("dict_keys([{}])", joined(dict.entries.values().map(|(key, _)| key))?),
        Value::View(View::Values, dict) => {
            format!("dict_values([{}])", joined(dict.entries.values().map(|(_, value)| value))?)
        }
        Value::Range(start, stop, 1) => format!("range({start}, {stop})"),
        Value::Range(start, stop, step) => format!("range({start}, {stop}, {step})"),
        Value::Loop(state) => format!("<LoopContext {}/{}>", state.index0.get() + 1, state.length()),
        Value::Macro(function) => match &function.name {
            Some(name) => format!("<Macro {}>", quoted(name)),
            None => "<Macro anonymous>".into(),
        },
        other => return Err(Error::unsupported(format!("printing a {}", other.type_name()))),
    })
}

fn joined<'a>(items: impl Iterator<Item = &'a Value>) -> Result<String> {
    Ok(items.map(repr).collect::<Result<Vec<_>>>()?.join(", "))
}

/// A string in quotes, with escapes for what cannot be seen.
pub(crate) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote => out.extend(['\\', quote]),
            _ if is_printable(character) => out.push(character),
            _ => out.push_str(&escaped(character)),
        }
    }
    out.push(quote);
    out
}

/// `\xhh`, `\uhhhh` or `\Uhhhhhhhh`.
pub(crate) fn escaped(character: char) -> String {
    match character as u32 {
        code @ ..=0xff => format!("\\x{code:02x}"),
        code @ ..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return (' '..='~').contains(&character);
    }
    // After a letter, Rust escapes exactly what Unicode does not print; alone, combining marks as well.
    !format!("{:?}", format!("a{character}")).contains("\\u{")
}

/// Python's `repr` of a float: the shortest digits that give it back.
pub(crate) fn float(number: f64) -> String {
    if !number.is_finite() {
        return match number {
            _ if number.is_nan() => "nan",
            _ if number > 0.0 => "inf",
            _ => "-inf",
        }
        .into();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
